//! Our own children, and the zombies of others that PID 1 inherits.
//!
//! Tokio waits for each of its children by id. Waiting for "any child" would steal their exit status, so each zombie is looked at first and
//! taken only when it is none of ours; the lock makes starting a child and knowing it one step.

use std::collections::HashSet;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use agent::sync::lock;
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;
use tracing::{debug, warn};

/// Signals are merged and may be missed; a look each second finds what they did not say.
const PERIOD: Duration = Duration::from_secs(1);

/// Who our children are.
#[derive(Debug, Default)]
pub struct Children {
    own: Mutex<HashSet<i32>>,
}

/// Until it is dropped, this child is ours and nobody else waits for it.
#[derive(Debug)]
pub struct Claim<'a> {
    children: &'a Children,
    pid: Option<i32>,
}

impl Children {
    /// Nobody yet. Orphans among our descendants come to us even where we are not PID 1.
    pub fn new() -> Self {
        if let Err(e) = nix::sys::prctl::set_child_subreaper(true) {
            warn!(error = %e, "Orphans will go to PID 1 and not to us.");
        }
        Self::default()
    }

    /// A claim that [`Claim::spawn`] fills.
    pub fn claim(&self) -> Claim<'_> {
        Claim { children: self, pid: None }
    }

    fn own(&self) -> MutexGuard<'_, HashSet<i32>> {
        lock(&self.own)
    }

    /// Reaps orphans whenever a child has ended.
    pub async fn reap_for_ever(&self) -> io::Error {
        let mut ended = match signal(SignalKind::child()) {
            Ok(signals) => signals,
            Err(e) => return e,
        };
        let mut period = interval(PERIOD);
        loop {
            tokio::select! {
                _ = ended.recv() => {}
                _ = period.tick() => {}
            }
            let reaped = self.reap();
            if reaped > 0 {
                debug!(reaped, "Reaped orphans.");
            }
        }
    }

    /// Reaps the orphans that have ended; how many.
    pub fn reap(&self) -> usize {
        let own = self.own();
        let mut reaped = 0;
        loop {
            let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            let pid = match waitid(Id::All, look) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => pid,
                Err(Errno::EINTR) => continue,
                _ => return reaped, // nobody has ended, or there is nobody
            };
            // One of ours hides those behind it, but not for long: Tokio takes it in a moment, and the next look goes on.
            if own.contains(&pid.as_raw()) {
                return reaped;
            }
            if waitpid(Pid::from_raw(pid.as_raw()), Some(WaitPidFlag::WNOHANG)).is_ok() {
                reaped += 1;
            }
        }
    }
}

impl Claim<'_> {
    /// Starts a child and claims it in one step.
    pub fn spawn(&mut self, command: &mut Command) -> io::Result<Child> {
        let mut own = self.children.own();
        let child = command.spawn()?;
        self.pid = child.id().and_then(|id| i32::try_from(id).ok());
        own.extend(self.pid);
        Ok(child)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            self.children.own().remove(&pid);
        }
    }
}
