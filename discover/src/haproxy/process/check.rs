//! Questions to the HAProxy program itself: is this config good (`-c`), and which version is it (`-v`)?

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use agent::environment;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::log::{LOG_TAIL, essence};
use crate::haproxy::api::version::{Version, VersionError};

/// How long a check of a small config may take, unless the operator says otherwise.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// A check may take another second for each this many servers: HAProxy 3.0 needs 2.1 s for 9,990 in one section (measured), a busy machine much more.
const SERVERS_A_SECOND: usize = 1_000;

/// The deadline for a config with this many servers.
pub fn deadline(timeout: Duration, servers: usize) -> Duration {
    timeout + Duration::from_secs((servers / SERVERS_A_SECOND) as u64)
}

/// `haproxy -c` has something against a config, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The config is wrong.
    #[error("haproxy -c refuses {config}: {}", essence(output))]
    Refused {
        /// The file.
        config: PathBuf,
        /// HAProxy's own words.
        output: String,
    },
    /// No answer in time. The process has been ended.
    #[error("haproxy -c on {config} took longer than {after:?}")]
    TimedOut {
        /// The file.
        config: PathBuf,
        /// The deadline.
        after: Duration,
    },
    /// A signal ended it.
    #[error("haproxy -c on {config} ended with {status}: {}", essence(output))]
    Crashed {
        /// The file.
        config: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// HAProxy's own words.
        output: String,
    },
    /// The program cannot be run.
    #[error("running {program} -c (--haproxy-bin names HAProxy's program)")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl CheckError {
    /// What it says against the config; `None` when the program could not be run, which says nothing of the config.
    pub fn verdict(&self) -> Option<String> {
        match self {
            Self::Refused { output, .. } => Some(output.clone()),
            Self::TimedOut { after, .. } => Some(format!("haproxy -c takes longer than {after:?} with it")),
            Self::Crashed { status, output, .. } => Some(format!("haproxy -c ends with {status}: {output}")),
            Self::Run { .. } => None,
        }
    }
}

/// Why a program's version is not known.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The program cannot be run, or did not end in time.
    #[error("running {program} -v")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `haproxy -v` did not tell a version.
    #[error("reading the version of {program}")]
    Version {
        /// The program.
        program: PathBuf,
        /// What it said instead.
        source: VersionError,
    },
}

/// Asks `haproxy -v`.
pub async fn version(program: &Path) -> Result<Version, AskError> {
    let run = environment::made(program).arg("-v").stdin(Stdio::null()).kill_on_drop(true).output();
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let output = timeout(Duration::from_secs(10), run).await.map_err(|_| late()).and_then(|r| r);
    let output = output.map_err(|source| AskError::Run { program: program.to_owned(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Version::parse(&text).map_err(|source| AskError::Version { program: program.to_owned(), source })
}

/// Validates a config with `haproxy -c`. It does not see a port that somebody else has: see [`super::ports`].
pub async fn check(program: &Path, config: &Path, deadline: Duration) -> Result<(), CheckError> {
    check_by(program, &[], config, deadline, Command::spawn).await
}

/// As [`check`], with further arguments, the process made by `spawner`.
pub async fn check_by(
    program: &Path,
    args: &[OsString],
    config: &Path,
    deadline: Duration,
    spawner: impl FnOnce(&mut Command) -> io::Result<Child>,
) -> Result<(), CheckError> {
    let mut command = environment::made(program);
    // Relative names in a config count from its reader's directory, which is ours for the real start too.
    command.arg("-c").args(args).arg("-f").arg(config).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |source| CheckError::Run { program: program.to_owned(), source };
    let child = spawner(&mut command).map_err(failed)?;
    let group = Group::of(&child);
    let output = timeout(deadline, child.wait_with_output()).await;
    let config = config.to_owned();
    let output = output.map_err(|_| CheckError::TimedOut { config: config.clone(), after: deadline })?;
    let output = output.map_err(failed)?;
    group.ended();
    if output.status.success() {
        return Ok(());
    }
    let both = [output.stdout, output.stderr].concat();
    let status = output.status;
    let output = match tail(&String::from_utf8_lossy(&both)) {
        nothing if nothing.is_empty() => format!("it said nothing ({status})"),
        output => output,
    };
    Err(match status.signal() {
        Some(_) => CheckError::Crashed { config, status, output },
        None => CheckError::Refused { config, output },
    })
}

/// A process group that is killed when this is dropped, unless it ended by itself: also what a wrapper around HAProxy started.
pub(crate) struct Group(Option<Pid>);

impl Group {
    /// The group that a child leads.
    pub(crate) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// It needs no killing any more; its id may belong to somebody else soon.
    pub(crate) fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = killpg(pid, Signal::SIGKILL); // gone already is as good
        }
    }
}

fn tail(text: &str) -> String {
    let text = text.trim();
    let skip = text.len().saturating_sub(usize::try_from(LOG_TAIL).unwrap_or(usize::MAX));
    text.char_indices().find(|(at, _)| *at >= skip).map_or_else(String::new, |(at, _)| text[at..].to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::haproxy::process::launch::{is_same, started};

    /// A program that starts another one and waits for it.
    fn hanging(dir: &Path) -> (PathBuf, PathBuf) {
        let (program, pid) = (dir.join("haproxy"), dir.join("pid"));
        let script = format!("#!/bin/sh\nsleep 600 &\necho $! > {}.tmp\nmv {0}.tmp {0}\nwait\n", pid.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        (program, pid)
    }

    #[tokio::test]
    async fn a_check_that_runs_out_of_time_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let (program, pid) = hanging(dir.path());
        let outcome = check(&program, &dir.path().join("haproxy.cfg"), Duration::from_secs(2)).await;
        assert!(matches!(&outcome, Err(CheckError::TimedOut { .. })), "{outcome:?}");
        let why = outcome.unwrap_err().verdict().unwrap();
        assert!(why.contains("longer than 2s"), "{why}");
        let pid: i32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let since = started(pid);
        while since.is_some() && is_same(pid, since) {
            assert!(tokio::time::Instant::now() < deadline, "process {pid} lives on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_refusal_without_a_word_says_so_and_how_it_ended() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("haproxy");
        for (script, words) in [
            ("exit 127", "it said nothing (exit status: 127)"),
            ("echo '[NOTICE] (1) : version'; echo '[ALERT] (1) : no' >&2; exit 1", "[ALERT] (1) : no"),
        ] {
            std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let error = check(&program, Path::new("h.cfg"), Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(error.to_string(), format!("haproxy -c refuses h.cfg: {words}"));
        }
    }

    #[test]
    fn a_large_file_may_take_longer() {
        assert_eq!(deadline(CHECK_TIMEOUT, 999), CHECK_TIMEOUT);
        assert_eq!(deadline(CHECK_TIMEOUT, 20_000), Duration::from_secs(25));
    }
}
