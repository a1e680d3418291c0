//! Starting, adopting and stopping HAProxy.
//!
//! HAProxy outlives the program that starts it: it gets a process group of its own, its output goes to a file or to the inherited standard streams
//! and never into a pipe of ours (a pipe whose reader is gone would stop it at the next log line), and dropping the handle ends nothing.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use agent::environment;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::log::{essence, log_since};
use super::master::{MasterCli, MasterError};
use super::procs::Procs;
use super::shortage::is_shortage;
use crate::haproxy::api::socket::Deadlines;

const POLL: Duration = Duration::from_millis(20);
/// How long HAProxy may take to read a config at its start.
pub const CONFIG_DEADLINE: Duration = Duration::from_secs(60);

/// Where HAProxy's output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To our own standard streams.
    Inherit,
    /// Appended to a file.
    File(PathBuf),
    /// What it says of itself is appended to a file; what it logs to its standard output goes to ours.
    Errors(PathBuf),
}

/// How to start HAProxy in master-worker mode.
#[derive(Debug, Clone)]
pub struct Launch {
    pub program: PathBuf,
    pub config: PathBuf,
    /// Where its master CLI will listen; the file gets mode 600.
    pub master_socket: PathBuf,
    /// Further arguments.
    pub args: Vec<OsString>,
    /// Where its output goes.
    pub output: Output,
}

/// Why a HAProxy does not run, or cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program cannot be run at all.
    #[error("running {program}")]
    Run { program: PathBuf, source: io::Error },
    /// It ended before it answered.
    #[error("HAProxy ended at its start ({status}): {log}")]
    Ended {
        status: ExitStatus,
        /// The end of its output, where that is known.
        log: String,
    },
    /// It runs, but its master CLI did not answer in time; it has been stopped again.
    #[error("HAProxy did not answer on {socket} within {after:?}: {log}")]
    Silent {
        socket: PathBuf,
        /// How long it was given.
        after: Duration,
        /// The end of its output, where that is known.
        log: String,
    },
    /// A signal could not be sent.
    #[error("sending {signal} to process {pid}")]
    Signal { signal: Signal, pid: i32, source: Errno },
    /// It has not ended, even after SIGKILL.
    #[error("process {pid} does not end")]
    Immortal { pid: i32 },
}

/// A running HAProxy.
#[derive(Debug)]
pub struct Running {
    /// The master's process id.
    pub master: i32,
    /// Its processes when it answered.
    pub procs: Procs,
    /// Our child; `None` when it was adopted. Dropping it ends nothing.
    pub child: Option<Child>,
}

impl Launch {
    /// The command line: `-W -S SOCKET,mode,600`, the further arguments, and `-f CONFIG`.
    ///
    /// # Errors
    /// When the file for the output cannot be opened.
    pub fn command(&self) -> io::Result<Command> {
        let mut socket = self.master_socket.clone().into_os_string();
        socket.push(",mode,600");
        let mut command = environment::made(&self.program);
        command.arg("-W").arg("-S").arg(socket).args(&self.args).arg("-f").arg(&self.config);
        detach(&mut command, &self.output)?;
        Ok(command)
    }

    /// The master's client, knowing where the output goes.
    pub fn master(&self) -> MasterCli {
        MasterCli::new(&self.master_socket).with_log(self.log().map(Path::to_owned))
    }

    /// The file that its output goes to.
    pub(crate) fn log(&self) -> Option<&Path> {
        match &self.output {
            Output::Inherit => None,
            Output::File(path) | Output::Errors(path) => Some(path),
        }
    }

    /// Starts HAProxy and waits until its master answers and shows a worker.
    ///
    /// # Errors
    /// [`ProcessError`]; nothing is left running then.
    pub async fn spawn(&self) -> Result<Running, ProcessError> {
        self.spawn_by(Command::spawn).await
    }

    /// As [`spawn`](Self::spawn), the process made by `spawner`: who reaps strangers' zombies must know its own children from the start.
    pub async fn spawn_by(
        &self,
        spawner: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> Result<Running, ProcessError> {
        let failed = |source| ProcessError::Run { program: self.program.clone(), source };
        let from = self.log().map_or(0, |log| std::fs::metadata(log).map_or(0, |m| m.len()));
        let log = || self.log().map_or_else(String::new, |l| essence(&log_since(l, from)));
        let mut child = self.command().and_then(|mut c| spawner(&mut c)).map_err(failed)?;
        let deadline = Instant::now() + CONFIG_DEADLINE;
        let master = self.master();
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                return Err(ProcessError::Ended { status, log: log() });
            }
            // An earlier HAProxy may still answer on the same path: only our child's pid counts. (In a container both see the same ids.)
            let own = child.id().and_then(|id| i32::try_from(id).ok());
            match master.show_proc().await {
                Ok(procs)
                    if Some(procs.master.pid) == own
                        && procs.current_worker().is_some()
                        && master.worker_answers(Deadlines::default()).await =>
                {
                    return Ok(Running { master: procs.master.pid, procs, child: Some(child) });
                }
                _ if Instant::now() >= deadline => break,
                _ => sleep(POLL).await,
            }
        }
        let said = log();
        child.kill().await.map_err(failed)?;
        Err(ProcessError::Silent { socket: self.master_socket.clone(), after: CONFIG_DEADLINE, log: said })
    }
}

/// Gives a long-lived program a process group of its own and an output that outlives us.
pub(crate) fn detach(command: &mut Command, output: &Output) -> io::Result<()> {
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(false);
    let open = |path: &Path| OpenOptions::new().create(true).append(true).mode(0o640).open(path);
    match output {
        Output::Inherit => {}
        Output::Errors(path) => {
            command.stderr(open(path)?);
        }
        Output::File(path) => {
            let file = open(path)?;
            command.stdout(file.try_clone()?).stderr(file);
        }
    }
    Ok(())
}

/// The HAProxy that answers on a master socket already, if any.
///
/// # Errors
/// [`MasterError`] when it cannot be asked for want of file descriptors or memory: there may well be one.
pub async fn adopt(master: &MasterCli) -> Result<Option<Running>, MasterError> {
    match master.show_proc().await {
        Ok(procs) => Ok(Some(Running { master: procs.master.pid, procs, child: None })),
        Err(error) if is_shortage(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Waits for a HAProxy that somebody else starts: until its master answers and shows a worker.
pub async fn await_master(master: &MasterCli, patience: Duration) -> Result<Running, ProcessError> {
    let deadline = Instant::now() + patience;
    loop {
        match adopt(master).await {
            Ok(Some(running)) if running.procs.current_worker().is_some() => return Ok(running),
            _ if Instant::now() >= deadline => {
                let (socket, log) = (master.path().to_owned(), String::new());
                return Err(ProcessError::Silent { socket, after: patience, log });
            }
            _ => sleep(POLL).await,
        }
    }
}

/// Whether a process of this id exists; a zombie counts.
pub fn alive(pid: i32) -> bool {
    pid > 0 && !matches!(kill(Pid::from_raw(pid), None), Err(Errno::ESRCH))
}

/// The parent of a process.
pub fn parent(pid: i32) -> Option<i32> {
    // "PID (NAME) STATE PPID …". Source: proc_pid_stat(5).
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// When a process was started, in ticks since the machine's start: with the id it names one process for good, whatever it executes.
pub fn started(pid: i32) -> Option<u64> {
    started_in(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// From a text "PID (NAME) STATE …"; `None` for a zombie (Z). Source: proc_pid_stat(5), field 22.
fn started_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19).filter(|_| !rest.starts_with('Z'))?.parse().ok()
}

/// Whether the process that had this id, and was [`started`] then, still lives: not another one that got the id later, and no zombie. Where no file can be opened to
/// tell, it is taken for the same.
pub fn is_same(pid: i32, since: Option<u64>) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(error) if is_shortage(&error) => alive(pid),
        stat => stat.is_ok_and(|stat| started_in(&stat).is_some_and(|now| since.is_none_or(|since| since == now))),
    }
}

/// Whether a HAProxy of this id is here, in our own network: what it can bind, we can try. Where `/proc` does not tell, it is not.
pub fn shares_our_network(pid: i32) -> bool {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.starts_with("haproxy") && network(&pid.to_string()).is_some_and(|its| network("self") == Some(its))
}

/// Stops the master: SIGUSR1 lets sessions finish for up to `grace`, then SIGTERM ends them, and SIGKILL a master that answers to neither.
///
/// A master that could not execute itself at a reload hears no SIGTERM any more (seen on 3.0.11 when its binary had been taken away).
/// `ended` says when it is gone: a child must be waited for, and the caller knows how.
///
/// # Errors
/// [`ProcessError::Signal`] or [`ProcessError::Immortal`].
pub async fn stop(pid: i32, grace: Duration, mut ended: impl FnMut() -> bool) -> Result<(), ProcessError> {
    for (signal, patience) in [(Signal::SIGUSR1, grace), (Signal::SIGTERM, KILL_AFTER), (Signal::SIGKILL, KILL_AFTER)] {
        if patience.is_zero() {
            continue;
        }
        if ended() {
            return Ok(());
        }
        send(pid, signal)?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if ended() {
                return Ok(());
            }
            sleep(POLL).await;
        }
    }
    Err(ProcessError::Immortal { pid })
}

/// What SIGTERM, and then SIGKILL, may take.
const KILL_AFTER: Duration = Duration::from_secs(5);

impl Running {
    /// Stops it, see [`stop`]; its child handle, where there is one, is waited for.
    pub async fn stop(mut self, grace: Duration) -> Result<(), ProcessError> {
        let mut child = self.child.take();
        let pid = self.master;
        stop(pid, grace, || match &mut child {
            Some(child) => child.try_wait().is_ok_and(|status| status.is_some()),
            None => !alive(pid),
        })
        .await
    }
}

/// Sends a signal to one process; one that is gone already is no error.
pub(crate) fn send(pid: i32, signal: Signal) -> Result<(), ProcessError> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(source) => Err(ProcessError::Signal { signal, pid, source }),
    }
}
