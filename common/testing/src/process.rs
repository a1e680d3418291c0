//! A daemon as a child process, to be frozen and killed.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The most memory that this process ever had, in bytes; 0 where the system does not say.
pub fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).map_or(0, |kb: usize| kb * 1024)
}

/// A running child. Dropping it kills the process.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Starts it; all that it says is added to the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot start {}: {error}", command.get_program().display())))
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// Stops the process without ending it: connections stay open and nothing answers.
    ///
    /// Returns when every thread has stopped: the signal reaches them one by one, and on a busy machine one that still
    /// runs may answer a call.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.is_stopped() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1)); // until the deadline
        }
    }

    fn is_stopped(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) else { return true };
        // The state stands behind the name, which is in parentheses.
        let state = |stat: &str| stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        threads.flatten().all(|t| match std::fs::read_to_string(t.path().join("stat")) {
            Ok(stat) => matches!(state(&stat), Some('T' | 't')),
            Err(_) => true,
        })
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
