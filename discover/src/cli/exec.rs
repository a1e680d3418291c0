//! `discover exec`: starts a program that is told by its environment where services are, and told again when they move.

use std::ffi::OsString;
use std::process::ExitStatus;
use std::str::FromStr;
use std::time::Duration;

use crate::client::{Services, View};
use crate::debounce::{Debounce, Trigger};
use agent::environment;
use agent::program::{Signals, exit_code, is_end, pass};
use clap::Args;
use model::ServiceName;
use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::Failure;
use super::source::SourceArgs;
use super::variables::{Places, Variables};
use super::wait::for_services;

/// Flags of `discover exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The services that the program needs: it starts once each of them is there [default: all that are there]
    #[arg(long, env = "DISCOVER_SERVICES", value_name = "LIST", value_delimiter = ',')]
    services: Vec<ServiceName>,
    /// How long to wait for them
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// What to do when a service that the program was told of is elsewhere: ignore, restart, or a signal such as SIGHUP
    #[arg(long, env = "DISCOVER_ON_CHANGE", value_name = "WHAT", default_value = "ignore")]
    on_change: OnChange,
    /// Changes that follow each other are gathered until it has been quiet this long, and at most ten times as long
    #[arg(long, env = "DISCOVER_SETTLE", value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// How long the program may take to end for a restart before it is killed
    #[arg(long, env = "DISCOVER_GRACE", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// `--on-change`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnChange {
    Ignore,
    Restart,
    Send(Signal),
}

impl FromStr for OnChange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ignore" => Ok(Self::Ignore),
            "restart" => Ok(Self::Restart),
            name => match Signal::from_str(&format!("SIG{}", name.trim_start_matches("SIG"))) {
                Ok(signal) => Ok(Self::Send(signal)),
                Err(_) => Err("not ignore, restart, or a signal such as SIGHUP".to_owned()),
            },
        }
    }
}

/// Runs the program to its end; gives the status with which to end: its own, or 128 and the signal that ended it.
///
/// # Errors
/// [`Failure`]: wrong flags, services that are not there in time, a program that cannot be started.
pub async fn exec(args: ExecArgs) -> Result<u8, Failure> {
    let mut view = args.source.client()?.view();
    for_services(&mut view, &args.services, 1, args.timeout).await?;
    let named = !args.services.is_empty();
    let services = if named { args.services.clone() } else { live(view.services()) };
    let (places, passed_over) = Places::of(services);
    for service in passed_over {
        warn!(%service, "Left out: the variables of another service have the same names.");
    }
    let signals = Signals::listen().map_err(Failure::runtime)?;
    let debounce = Debounce::new(args.settle, args.settle.saturating_mul(10));
    let mut run = Run { args, named, places, view: Some(view), debounce, signals };
    Ok(exit_code(run.until_the_end().await?))
}

/// All services that have a backend which takes clients.
fn live(now: Services<'_>) -> Vec<ServiceName> {
    now.0.keys().filter(|service| now.live(service).next().is_some()).cloned().collect()
}

struct Run {
    args: ExecArgs,
    /// The services were named, so their variables count more than those that are set.
    named: bool,
    places: Places,
    /// `None` once the source has given up: nothing changes any more.
    view: Option<View>,
    debounce: Debounce,
    signals: Signals,
}

/// How the program's run came to an end.
enum End {
    Itself(ExitStatus),
    ForRestart,
}

impl Run {
    async fn until_the_end(&mut self) -> Result<ExitStatus, Failure> {
        loop {
            self.look();
            let told = self.variables();
            match self.once(&told).await? {
                End::Itself(status) => return Ok(status),
                End::ForRestart => info!("Services have moved; starting the program again."),
            }
        }
    }

    fn look(&mut self) {
        if let Some(view) = &mut self.view {
            view.refresh();
            self.places.look(view.services());
        }
    }

    /// The variables that the program gets; what is set in the environment stays, unless the service was asked for by name.
    fn variables(&self) -> Variables {
        let mut all = self.places.variables();
        all.retain(|name, _| self.named || std::env::var_os(name).is_none());
        all
    }

    async fn once(&mut self, told: &Variables) -> Result<End, Failure> {
        let mut child = self.start(told)?;
        let mut told = told.clone();
        let mut listens = self.args.on_change != OnChange::Ignore;
        loop {
            tokio::select! {
                biased;
                status = child.wait() => return Ok(End::Itself(status.map_err(Failure::runtime)?)),
                signal = self.signals.next() => {
                    pass(&child, signal);
                    listens &= !is_end(signal); // it ends now; nothing is to be told to it, nor begun again
                }
                () = settled(&mut self.debounce, &mut self.view), if listens => {}
            }
            self.look();
            let now = self.variables();
            if !listens || now == told {
                continue;
            }
            match self.args.on_change {
                OnChange::Ignore => {}
                OnChange::Send(signal) => {
                    info!(%signal, "Services have moved; telling the program.");
                    pass(&child, signal);
                    told = now;
                }
                OnChange::Restart => return self.stop(child).await,
            }
        }
    }

    fn start(&self, told: &Variables) -> Result<Child, Failure> {
        let [program, arguments @ ..] = self.args.command.as_slice() else {
            return Err(Failure::Usage("name the program after --".to_owned()));
        };
        let mut command = environment::inherited(program);
        command.args(arguments).envs(told).kill_on_drop(true);
        command.spawn().map_err(|e| Failure::Runtime(format!("starting {}: {e}", program.to_string_lossy()).into()))
    }

    /// Ends the program for a restart; a signal to end that comes meanwhile is meant for good.
    async fn stop(&mut self, mut child: Child) -> Result<End, Failure> {
        pass(&child, Signal::SIGTERM);
        let deadline = Instant::now() + self.args.grace;
        let (mut killed, mut asked) = (false, false);
        loop {
            tokio::select! {
                biased;
                status = child.wait() => {
                    let status = status.map_err(Failure::runtime)?;
                    return Ok(if asked { End::Itself(status) } else { End::ForRestart });
                }
                signal = self.signals.next() => {
                    asked |= is_end(signal);
                    pass(&child, signal);
                }
                () = sleep_until(deadline), if !killed => {
                    warn!(grace_ms = self.args.grace.as_millis(), "The program does not end; killing it.");
                    pass(&child, Signal::SIGKILL);
                    killed = true;
                }
            }
        }
    }
}

/// Waits for news of the view until they have settled; for ever once the source has given up.
async fn settled(debounce: &mut Debounce, view: &mut Option<View>) {
    if let Some(watched) = view.as_mut()
        && debounce.settle(&mut ViewChanges(watched)).await
    {
        return;
    }
    if view.take().is_some() {
        warn!("The source of services has given up; the program runs on.");
    }
    std::future::pending().await
}

/// A view as a trigger.
struct ViewChanges<'a>(&'a mut View);

impl Trigger for ViewChanges<'_> {
    async fn triggered(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_on_a_change_is_a_word_or_a_signal() {
        assert_eq!("restart".parse(), Ok(OnChange::Restart));
        assert_eq!("SIGHUP".parse(), Ok(OnChange::Send(Signal::SIGHUP)));
        assert_eq!("USR1".parse(), Ok(OnChange::Send(Signal::SIGUSR1)));
        assert!("".parse::<OnChange>().is_err() && "SIGNAL".parse::<OnChange>().is_err());
    }
}
