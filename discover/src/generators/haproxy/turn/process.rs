//! HAProxy's processes as the generator knows them: found, and started where that is discover's to do.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::errors::ConnectionError;
use crate::haproxy::process::launch::{self, Launch, ProcessError, Running};
use crate::haproxy::process::master::MasterCli;
use crate::haproxy::process::program::ProgramFile;

/// How long somebody else may take to start HAProxy once there is a file for it.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How long a master that lives may be silent: 2.6 answers nobody while it executes itself.
pub(super) const MASTER_PATIENCE: Duration = Duration::from_secs(5);
/// The same for a master of which only the socket's file is known: often it is one of the past.
const STRANGER_PATIENCE: Duration = Duration::from_secs(1);
pub(super) const POLL: Duration = Duration::from_millis(20);

/// What Synapse's config says about a HAProxy that somebody else runs.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// Judges the candidate; without it HAProxy's program does, where it is there.
    pub check: Option<String>,
    /// Reloads; without it nobody does.
    pub reload: Option<String>,
    /// The runtime sockets; with none, every change is a reload.
    pub sockets: Vec<PathBuf>,
}

/// HAProxy's processes.
pub struct Process {
    pub(super) launch: Launch,
    pub(super) master: MasterCli,
    /// discover starts it; else somebody else does, perhaps in another namespace.
    is_ours: bool,
    child: Option<Child>,
    seen: Seen,
    file: ProgramFile,
}

/// What is known of the master's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing.
    Never,
    /// It answered as this process, which was started then.
    As(i32, Option<u64>),
    /// There is none: what its socket's file says is of the past.
    Gone,
}

impl Process {
    /// What `launch` describes. Does no I/O.
    pub fn new(launch: Launch, is_ours: bool) -> Self {
        Self { master: launch.master(), launch, is_ours, child: None, seen: Seen::Never, file: ProgramFile::default() }
    }

    /// Whether the program's file is another one than at the last look.
    pub fn is_replaced(&mut self) -> bool {
        self.file.is_replaced(&self.launch.program)
    }

    /// The master's process, once seen.
    pub(super) fn pid(&self) -> Option<i32> {
        if let Seen::As(pid, _) = self.seen { Some(pid) } else { None }
    }

    /// Whether one runs, also one that hangs and answers nobody.
    pub async fn runs(&mut self) -> bool {
        let lives = matches!(self.seen, Seen::As(pid, started) if self.is_ours && launch::is_same(pid, started));
        lives || !matches!(self.find().await, Ok(None))
    }

    /// The master, if there is one. One that lives but is silent is waited for: while 2.6 reloads it answers nobody, and
    /// a second HAProxy beside it would share its ports and never be found again.
    ///
    /// # Errors
    /// [`ConnectionError`] when it lives and stays silent, or cannot be asked.
    pub async fn find(&mut self) -> Result<Option<Running>, ConnectionError> {
        let began = Instant::now();
        loop {
            if let Some(running) = launch::adopt(&self.master).await? {
                self.saw(running.master);
                return Ok(Some(running));
            }
            self.reap();
            let silent = began.elapsed();
            match self.seen {
                Seen::As(pid, started) if self.is_ours && launch::is_same(pid, started) => {
                    if silent > MASTER_PATIENCE {
                        let socket = self.master.path().to_owned();
                        let log = if socket.exists() {
                            format!("process {pid} lives but is silent")
                        } else {
                            format!(
                                "process {pid} lives, and its socket's file is gone: kill {pid}, and discover starts it anew"
                            )
                        };
                        return Err(ProcessError::Silent { socket, after: MASTER_PATIENCE, log }.into());
                    }
                }
                Seen::As(..) if !self.is_ours && self.may_answer(silent) => {}
                Seen::Never if self.may_answer(silent) => {}
                _ => {
                    if self.is_ours {
                        self.seen = Seen::Gone;
                    }
                    return Ok(None);
                }
            }
            sleep(POLL).await;
        }
    }

    fn saw(&mut self, master: i32) {
        if self.pid() != Some(master) {
            self.seen = Seen::As(master, launch::started(master).filter(|_| self.is_ours));
        }
    }

    fn may_answer(&self, silent: Duration) -> bool {
        silent < STRANGER_PATIENCE && self.master.path().exists()
    }

    /// Starts it, or waits until somebody else has.
    pub async fn start(&mut self) -> Result<(), ProcessError> {
        if !self.is_ours {
            // Its keeper starts it as soon as there is a file.
            launch::await_master(&self.master, START_PATIENCE).await?;
            return Ok(());
        }
        let running = self.launch.spawn().await?;
        info!(master = running.master, "HAProxy started.");
        self.saw(running.master);
        self.child = running.child;
        Ok(())
    }

    /// Takes note of a child that has ended.
    pub fn reap(&mut self) {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            warn!(%status, "HAProxy has ended.");
            self.child = None;
        }
    }
}
