//! Owned tasks, one cancellation root, signals, and how a run ends.
//!
//! SIGTERM and SIGINT cancel, a second one ends the process at once with 1, SIGHUP asks for the config to be read again.

use std::{collections::HashMap, error::Error, future::Future, io, process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::telemetry::Chain;

/// How long tasks may take to end. Below the 10 s after which `docker stop` kills.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(8);

/// Exit codes of both programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Ok,
    /// 1: something failed while running.
    Runtime,
    /// 64: the command line or the config is wrong; source: `EX_USAGE` of `sysexits.h`.
    Usage,
}

impl Exit {
    /// The number itself, for `std::process::exit`.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Runtime => 1,
            Self::Usage => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a run ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("running {task}")]
    Failed {
        /// The name given to [`Lifecycle::spawn`].
        task: &'static str,
        source: Box<dyn Error + Send + Sync>,
    },
    /// A task that should run until the end did not.
    #[error("{task} ended early")]
    EndedEarly {
        /// The name given to [`Lifecycle::spawn`].
        task: &'static str,
    },
    /// A task panicked: a fault in the program.
    #[error("{task} panicked")]
    Panicked {
        /// The name given to [`Lifecycle::spawn`].
        task: &'static str,
        /// Holds the panic's message.
        source: JoinError,
    },
    /// A signal's handler cannot be installed.
    #[error("listening for {signal}")]
    Signals {
        /// Such as `SIGTERM`.
        signal: &'static str,
        source: io::Error,
    },
}

/// The tasks of one run and the token that ends them.
#[derive(Debug)]
pub struct Lifecycle {
    cancel: CancellationToken,
    tasks: JoinSet<Result<(), RunError>>,
    names: HashMap<Id, &'static str>,
    reload: watch::Sender<u64>,
    drain_deadline: Duration,
    signals: Option<AbortOnDropHandle<()>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// Without tasks; signals do what they do by default until [`listen`](Self::listen).
    pub fn new() -> Self {
        Self {
            cancel: CancellationToken::new(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
            reload: watch::Sender::new(0),
            drain_deadline: DRAIN_DEADLINE,
            signals: None,
        }
    }

    /// Gives tasks `deadline` to end instead of [`DRAIN_DEADLINE`].
    #[must_use]
    pub fn with_drain_deadline(mut self, deadline: Duration) -> Self {
        self.drain_deadline = deadline;
        self
    }

    /// The root token, or rather a handle on it: cancelling it ends the run.
    pub fn token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Changes with each SIGHUP; its value is their number.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.reload.subscribe()
    }

    /// Owns `task`, which must run until the token is cancelled and then end with `Ok`.
    pub fn spawn<E>(&mut self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let handle = self
            .tasks
            .spawn(async move { task.await.map_err(|source| RunError::Failed { task: name, source: source.into() }) });
        self.names.insert(handle.id(), name);
    }

    /// Takes over SIGTERM, SIGINT and SIGHUP.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn listen(&mut self) -> Result<(), RunError> {
        let on = |kind, name| signal(kind).map_err(|source| RunError::Signals { signal: name, source });
        let signals = Signals {
            term: on(SignalKind::terminate(), "SIGTERM")?,
            int: on(SignalKind::interrupt(), "SIGINT")?,
            hup: on(SignalKind::hangup(), "SIGHUP")?,
        };
        let task = tokio::spawn(signals.run(self.cancel.clone(), self.reload.clone()));
        self.signals = Some(AbortOnDropHandle::new(task));
        Ok(())
    }

    /// Runs until cancelled or until a task ends, then gives the others the drain deadline and aborts what is left.
    ///
    /// # Errors
    /// The end of the first task, if that was what ended the run. What tasks say while draining is logged.
    pub async fn supervise(mut self) -> Result<(), RunError> {
        let first = tokio::select! {
            biased; // else a clean stop can race into EndedEarly
            () = self.cancel.cancelled() => Ok(()),
            Some(end) = self.tasks.join_next_with_id() => self.outcome(end)
                .and_then(|task| if self.cancel.is_cancelled() { Ok(()) } else { Err(RunError::EndedEarly { task }) }),
        };
        self.cancel.cancel();
        let deadline = self.drain_deadline;
        let drain = async {
            while let Some(end) = self.tasks.join_next_with_id().await {
                if let Err(e) = self.outcome(end) {
                    warn!(error = %Chain(&e), "A task failed while the run was ending.");
                }
            }
        };
        if timeout(deadline, drain).await.is_err() {
            let left: Vec<_> = self.names.values().copied().collect();
            warn!(left = %left.join(", "), "Drain deadline passed; aborting tasks.");
        }
        first // dropping the JoinSet aborts what is left
    }

    fn outcome(&mut self, end: Result<(Id, Result<(), RunError>), JoinError>) -> Result<&'static str, RunError> {
        let id = end.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let task = self.names.remove(&id).unwrap_or("a task");
        match end {
            Ok((_, result)) => result.map(|()| task),
            Err(source) => Err(RunError::Panicked { task, source }),
        }
    }
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Ends only with the process or when aborted: a second signal must work while tasks drain.
    async fn run(mut self, cancel: CancellationToken, reload: watch::Sender<u64>) {
        loop {
            let name = tokio::select! {
                _ = self.term.recv() => "SIGTERM",
                _ = self.int.recv() => "SIGINT",
                _ = self.hup.recv() => {
                    info!(signal = "SIGHUP", "Reading the config again.");
                    reload.send_modify(|n| *n += 1);
                    continue;
                }
            };
            if cancel.is_cancelled() {
                warn!(signal = name, "Second signal; stopping at once.");
                std::process::exit(i32::from(Exit::Runtime.code()));
            }
            info!(signal = name, "Stopping.");
            cancel.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use nix::{
        sys::signal::{Signal as Sig, kill},
        unistd::Pid,
    };
    use tokio::time::{Instant, sleep};

    use super::*;

    async fn until(cancel: CancellationToken) -> Result<(), RunError> {
        cancel.cancelled().await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_ends_every_task_without_an_error() {
        let mut life = Lifecycle::new();
        life.spawn("one", until(life.token()));
        life.spawn("two", until(life.token()));
        life.token().cancel();
        life.supervise().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_early_ends_the_run() {
        let mut life = Lifecycle::new();
        let token = life.token();
        life.spawn("steady", until(life.token()));
        life.spawn("hasty", async { Ok::<_, RunError>(()) });
        assert_eq!(life.supervise().await.unwrap_err().to_string(), "hasty ended early");
        assert!(token.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_and_a_panic_name_their_task() {
        let mut life = Lifecycle::new();
        life.spawn("reader", async { Err::<(), _>("disk gone") });
        let err = life.supervise().await.unwrap_err();
        assert_eq!(Chain(&err).to_string(), "running reader: disk gone");

        let mut life = Lifecycle::new();
        life.spawn("thrower", async { if true { panic!("oh") } else { Ok::<_, RunError>(()) } });
        let err = life.supervise().await.unwrap_err();
        assert!(matches!(err, RunError::Panicked { task: "thrower", .. }), "{err}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_task_is_aborted_at_the_deadline() {
        let (mut life, start) = (Lifecycle::new().with_drain_deadline(Duration::from_secs(3)), Instant::now());
        let alive = std::sync::Arc::new(());
        let held = alive.clone();
        life.spawn("stuck", async move {
            sleep(Duration::from_secs(1000)).await;
            drop(held);
            Ok::<_, RunError>(())
        });
        life.token().cancel();
        life.supervise().await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        tokio::task::yield_now().await; // the aborted task is dropped by the runtime
        assert_eq!(std::sync::Arc::strong_count(&alive), 1);
    }

    #[test]
    fn exit_codes_are_0_1_64() {
        assert_eq!([Exit::Ok, Exit::Runtime, Exit::Usage].map(Exit::code), [0, 1, 64]);
    }

    /// The part of the next test that is a process of its own: says each step on stdout.
    fn child() {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        rt.block_on(async {
            let mut life = Lifecycle::new();
            life.listen().unwrap();
            let (token, mut reloads) = (life.token(), life.reloads());
            life.spawn("talker", async move {
                println!("step ready");
                reloads.changed().await?;
                println!("step reload {}", *reloads.borrow());
                token.cancelled().await;
                println!("step cancelled");
                sleep(Duration::from_secs(60)).await; // never drains in time
                Ok::<_, watch::error::RecvError>(())
            });
            life.supervise().await.unwrap();
        });
    }

    #[test]
    fn signals_reload_cancel_and_then_abort() {
        const KEY: &str = "LIFECYCLE_TEST_CHILD";
        if std::env::var_os(KEY).is_some() {
            return child();
        }
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lifecycle::tests::signals_reload_cancel_and_then_abort", "--nocapture"])
            .env(KEY, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(process.id()).unwrap());
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        // Ends at the child's end at the latest, and that is bounded by its drain deadline once it is cancelled.
        let mut step = |text: &str| assert!(lines.any(|l| l.contains(text)), "the child never said {text:?}");
        step("step ready");
        kill(pid, Sig::SIGHUP).unwrap();
        step("step reload 1");
        kill(pid, Sig::SIGTERM).unwrap();
        step("step cancelled");
        kill(pid, Sig::SIGINT).unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(1));
    }
}
