//! The master CLI (`haproxy -W -S SOCKET`): which processes there are, and a reload whose outcome is known.
//!
//! Every command has a connection of its own: the master executes itself anew with each reload, and no session survives that.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::log::{log_since, with_hint};
use super::procs::{Procs, ProcsError};
use crate::haproxy::api::command::{Command, CommandError};
use crate::haproxy::api::socket::{Deadlines, Endpoint, Prefix, SocketError, one_shot};
use crate::haproxy::api::version::Capabilities;

/// Between two looks at `show proc` while a reload of an old HAProxy is under way.
const POLL: Duration = Duration::from_millis(20);
/// A single look may hang while the master executes itself (measured on 2.6: the connection is taken, then reset seconds later).
const LOOK: Duration = Duration::from_secs(1);

/// How a reload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// A new worker serves the new config.
    Loaded {
        /// Its process id.
        worker: i32,
        /// What HAProxy said at start; warnings may be among it.
        log: String,
    },
    /// HAProxy refused the config; the old worker goes on with the old one.
    Failed {
        /// HAProxy's own words; below 2.7 only when its log file is known, see [`MasterCli::with_log`].
        log: String,
    },
}

/// Why the master gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// The socket failed, or nobody listens: HAProxy may not be running.
    #[error("asking HAProxy's master")]
    Socket(#[from] SocketError),
    /// A command that cannot be sent.
    #[error("making a command for HAProxy's master")]
    Command(#[from] CommandError),
    /// The answer is no `show proc`.
    #[error("reading HAProxy's processes")]
    Procs(#[from] ProcsError),
    /// It answered `reload` with something else than an outcome.
    #[error("HAProxy's master refused to reload: {0:?}")]
    Refused(String),
    /// Neither a new worker nor a failure showed up in time.
    #[error("no outcome of HAProxy's reload within {0:?}")]
    NoOutcome(Duration),
}

/// A client of one master CLI.
#[derive(Debug, Clone)]
pub struct MasterCli {
    path: PathBuf,
    deadlines: Deadlines,
    reload_deadline: Duration,
    log: Option<PathBuf>,
}

impl MasterCli {
    /// The master that listens on this Unix socket; does no I/O. A reload may take 60 s: configs of 40,000 servers take below 2 s.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), deadlines: Deadlines::default(), reload_deadline: Duration::from_secs(60), log: None }
    }

    /// HAProxy's output goes to this file: what it says during a reload is then part of the outcome below 2.7 too.
    #[must_use]
    pub fn with_log(mut self, log: Option<PathBuf>) -> Self {
        self.log = log;
        self
    }

    #[cfg(test)]
    fn with_reload_deadline(mut self, limit: Duration) -> Self {
        self.reload_deadline = limit;
        self
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.path.clone())
    }

    /// The processes.
    pub async fn show_proc(&self) -> Result<Procs, MasterError> {
        self.show_proc_within(self.deadlines).await
    }

    /// The same, but hastily: for what can be done without.
    pub async fn glance(&self) -> Result<Procs, MasterError> {
        self.show_proc_within(Deadlines { connect: LOOK, reply: LOOK }).await
    }

    async fn show_proc_within(&self, deadlines: Deadlines) -> Result<Procs, MasterError> {
        let command = Command::new(["show", "proc"])?;
        let reply = one_shot(&self.endpoint(), Prefix::None, &command, deadlines).await?;
        Ok(Procs::parse(reply.text())?)
    }

    /// Whether the current worker answers through the master: right after a start `show proc` lists it before it does (3.4).
    pub(super) async fn worker_answers(&self, deadlines: Deadlines) -> bool {
        self.answers(Prefix::CurrentWorker, deadlines).await
    }

    /// Whether the worker with this process id answers, also one that is being replaced.
    pub async fn process_answers(&self, pid: i32, deadlines: Deadlines) -> bool {
        self.answers(Prefix::Worker(pid), deadlines).await
    }

    async fn answers(&self, who: Prefix, deadlines: Deadlines) -> bool {
        let Ok(command) = Command::new(["show", "info"]) else { return false };
        let reply = one_shot(&self.endpoint(), who, &command, deadlines).await;
        reply.is_ok_and(|r| r.text().starts_with("Name: "))
    }

    /// Waits until the master is of a version that does not answer `reload`: it executed an older program, which was put in the place of its own.
    async fn is_one_that_does_not_answer(&self) {
        loop {
            sleep(LOOK).await;
            let version = self.glance().await.ok().and_then(|procs| procs.master.version);
            if version.is_some_and(|version| !Capabilities::of(&version).sync_reload) {
                return;
            }
        }
    }

    /// Reloads, and waits for the outcome. The caller then reopens its runtime sockets.
    ///
    /// Below 2.7 the master only closes the connection and executes itself: `show proc` is then asked until it shows a new worker or one more
    /// failure, and refused connections are part of it.
    ///
    /// # Errors
    /// [`MasterError`]; after [`MasterError::NoOutcome`] and a broken socket the outcome is unknown.
    pub async fn reload(&self) -> Result<ReloadOutcome, MasterError> {
        let deadline = Instant::now() + self.reload_deadline;
        let before = self.show_proc().await?;
        let log_from = self.log.as_deref().map_or(0, |log| std::fs::metadata(log).map_or(0, |m| m.len()));
        let patient = Deadlines { reply: self.reload_deadline, ..self.deadlines };
        let (endpoint, reload) = (self.endpoint(), Command::new(["reload"])?);
        let said = tokio::select! {
            said = one_shot(&endpoint, Prefix::None, &reload, patient) => match said {
                Ok(reply) => reply.text().to_owned(),
                // The re-execution may cut the connection; `show proc` knows what came of it.
                Err(SocketError::Broken { .. }) => String::new(),
                Err(other) => return Err(other.into()),
            },
            () = self.is_one_that_does_not_answer() => String::new(),
        };
        let (success, log) = match said.split_once('\n').unwrap_or((said.as_str(), "")) {
            ("Success=0", log) => return Ok(ReloadOutcome::Failed { log: with_hint(startup_log(log)) }),
            ("Success=1", log) => (true, Some(startup_log(log))),
            ("", _) => (false, None),
            _ => return Err(MasterError::Refused(said)),
        };
        let log =
            || log.clone().unwrap_or_else(|| self.log.as_deref().map_or_else(String::new, |l| log_since(l, log_from)));
        while Instant::now() < deadline {
            if let Ok(now) = self.glance().await {
                if let Some(fresh) = now.workers.iter().find(|w| !before.has_worker(w.pid)) {
                    return Ok(ReloadOutcome::Loaded { worker: fresh.pid, log: log() });
                }
                if !success && now.failed_reloads > before.failed_reloads {
                    return Ok(ReloadOutcome::Failed { log: with_hint(log()) });
                }
            }
            sleep(POLL).await;
        }
        Err(MasterError::NoOutcome(self.reload_deadline))
    }
}

/// The log stands behind a line `--`.
fn startup_log(text: &str) -> String {
    text.strip_prefix("--").unwrap_or(text).trim().to_owned()
}

#[cfg(test)]
#[path = "master_tests.rs"]
mod tests;
