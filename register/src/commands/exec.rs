//! `register exec`: starts a program, registers it while it is healthy, passes signals on, and ends with its status.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use agent::backoff::Backoff;
use agent::environment;
use agent::hostip;
use agent::program::{Signals, exit_code, is_end, pass};
use agent::telemetry::Chain;
use model::{Host, Port, Status};
use nix::sys::signal::Signal;
use registry::store::etcd::EtcdStore;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::Failure;
use crate::cli::{ExecArgs, Restart};
use crate::nerve::services::alone::Health;
use crate::own::health::Checks;
use crate::own::{Registration, hold, leave};

/// How long taking the registration back may take at the end; it goes with its lease otherwise.
const FAREWELL: Duration = Duration::from_secs(3);

/// Runs the program; gives the status with which to end: its own, or 128 and the signal that ended it, as shells have it.
///
/// # Errors
/// Wrong arguments; a program that cannot be started.
pub async fn exec(args: &ExecArgs) -> Result<u8, Failure> {
    let (host, port) = place(args)?;
    let own = Registration::new(&args.service, host, port, &args.own).map_err(Failure::usage)?;
    let config = args.own.etcd.config_for_lease(args.own.form.ttl).map_err(Failure::usage)?;
    let store = EtcdStore::new(config);
    let ((held, lease), (want, wanted)) = (watch::channel(None), watch::channel(None));
    let holding = tokio::spawn({
        let (store, own) = (store.clone(), own.clone());
        async move {
            // The program's work does not depend on the registry: a fault is logged, and registering is tried again.
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
            loop {
                let Err(e) = Box::pin(hold(&store, &own, wanted.clone(), &held, |_| {})).await;
                warn!(error = %Chain(&e), "The registry cannot serve; the program runs unregistered.");
                sleep(backoff.next_delay()).await;
            }
        }
    });
    let holding = AbortOnDropHandle::new(holding);
    let local = args.port.unwrap_or(port);
    let mut run = Run { args, own, local, want, signals: Signals::listen().map_err(Failure::runtime)?, asked: false };
    let status = run.until_the_end().await?;
    drop(holding);
    let lease = *lease.borrow();
    if let Some(lease) = lease {
        match timeout(FAREWELL, leave(&store, &run.own, lease)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => warn!(error = %Chain(&e), "The registration goes with its lease."),
            Err(_) => warn!("The registration goes with its lease: the registry does not answer."),
        }
    }
    Ok(exit_code(status))
}

/// Where others reach the program: the URL, or host and port; without a host the default interface's address.
fn place(args: &ExecArgs) -> Result<(Host, Port), Failure> {
    if let Some(url) = args.url.as_deref().filter(|url| !url.is_empty()) {
        return args.place_of_url(url).map_err(Failure::usage);
    }
    let port = args
        .port
        .ok_or_else(|| Failure::usage("--port (PORT, LISTENING_ON_PORT) or --url (DISCOVERABLE_URL) is required"))?;
    match &args.host {
        Some(host) => Ok((host.clone(), port)),
        None => {
            // No packet is sent: the system only says from where it would. These addresses are nobody's (RFC 5737, 3849).
            let nobody = ["192.0.2.1:9", "[2001:db8::1]:9"].into_iter().filter_map(|text| text.parse().ok());
            let found = nobody.map(hostip::source_address).find_map(Result::ok);
            let own =
                found.ok_or_else(|| Failure::usage("there is no default route, so no address: set --host (HOST)"))?;
            Ok((own.into(), port))
        }
    }
}

struct Run<'a> {
    args: &'a ExecArgs,
    own: Registration,
    /// The port on which the program listens.
    local: Port,
    want: watch::Sender<Option<String>>,
    signals: Signals,
    /// The end was asked for.
    asked: bool,
}

impl Run<'_> {
    /// The program, and the program again, as long as that is asked for.
    async fn until_the_end(&mut self) -> Result<ExitStatus, Failure> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            let status = self.once().await?;
            let again = match self.args.restart {
                Restart::No => false,
                Restart::OnFailure => !status.success(),
                Restart::Always => true,
            };
            if self.asked || !again {
                return Ok(status);
            }
            let pause = backoff.next_delay();
            warn!(%status, pause_ms = pause.as_millis(), "The program ended; starting it again.");
            tokio::select! {
                () = sleep(pause) => {}
                signal = self.signals.next() => if is_end(signal) { return Ok(status) },
            }
        }
    }

    async fn once(&mut self) -> Result<ExitStatus, Failure> {
        let [program, arguments @ ..] = self.args.command.as_slice() else {
            return Err(Failure::usage("name the program after --"));
        };
        let shown = program.to_string_lossy();
        let cannot = |e: io::Error| Failure::runtime(format!("starting {shown}: {e}"));
        let mut child = environment::inherited(program).args(arguments).kill_on_drop(true).spawn().map_err(cannot)?;
        info!(program = %shown, pid = child.id(), service = %self.args.service, address = %self.own.backend.address(), "Started.");
        let place = (self.args.check_host.clone(), self.local);
        let mut checks = Checks::start(&self.args.check, place, &self.args.checks);
        let mut drain: Option<(Instant, Signal)> = None;
        loop {
            let deadline = drain.map_or_else(Instant::now, |(at, _)| at);
            tokio::select! {
                biased;
                status = child.wait() => {
                    self.want.send_replace(None);
                    return status.map_err(Failure::runtime);
                }
                signal = self.signals.next() => match drain {
                    None if is_end(signal) => {
                        self.asked = true;
                        let registered = self.want.borrow().is_some();
                        self.want.send_replace(self.own.value(Status::Draining).filter(|_| registered));
                        let wait = if registered { self.args.drain_wait } else { Duration::ZERO };
                        info!(%signal, wait_ms = wait.as_millis(), "Draining.");
                        drain = Some((Instant::now() + wait, signal));
                    }
                    // A second one is meant.
                    _ => pass(&child, signal),
                },
                () = sleep_until(deadline), if drain.is_some() => {
                    if let Some((at, signal)) = drain.as_mut() {
                        pass(&child, *signal);
                        *at = Instant::now() + Duration::from_secs(86_400); // told once
                    }
                }
                health = checks.changed() => match health {
                    _ if drain.is_some() => {}
                    Health::Up => drop(self.want.send_replace(self.own.value(Status::Up))),
                    Health::Down(why) => {
                        if self.want.send_replace(None).is_some() {
                            warn!(why, "Not healthy.");
                        }
                    }
                    Health::Undecided => {}
                },
            }
        }
    }
}
