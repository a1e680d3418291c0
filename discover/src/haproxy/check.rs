//! Questions to the HAProxy program itself: is this config good (`-c`), and which version is it (`-v`)?

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::environment;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::process::{CONFIG_DEADLINE, LOG_TAIL};
use super::version::{Version, VersionError};

/// `haproxy -c` has something against a config, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The config is wrong.
    #[error("haproxy -c refuses {config}: {output}")]
    Refused {
        /// The file.
        config: PathBuf,
        /// HAProxy's own words.
        output: String,
    },
    /// No answer in time.
    #[error("haproxy -c on {config} took longer than {CONFIG_DEADLINE:?}")]
    TimedOut {
        /// The file.
        config: PathBuf,
    },
    /// The program cannot be run.
    #[error("running {program} -c")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
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
///
/// # Errors
/// [`AskError`].
pub async fn version(program: &Path) -> Result<Version, AskError> {
    let run = environment::made(program).arg("-v").stdin(Stdio::null()).kill_on_drop(true).output();
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let output = timeout(Duration::from_secs(10), run).await.map_err(|_| late()).and_then(|r| r);
    let output = output.map_err(|source| AskError::Run { program: program.to_owned(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Version::parse(&text).map_err(|source| AskError::Version { program: program.to_owned(), source })
}

/// Validates a config with `haproxy -c`. It does not see a port that somebody else has: see [`super::ports`].
///
/// # Errors
/// [`CheckError`].
pub async fn check(program: &Path, config: &Path) -> Result<(), CheckError> {
    check_by(program, &[], config, Command::spawn).await
}

/// As [`check`], with further arguments, the process made by `spawner`.
///
/// # Errors
/// [`CheckError`].
pub async fn check_by(
    program: &Path,
    args: &[OsString],
    config: &Path,
    spawner: impl FnOnce(&mut Command) -> io::Result<Child>,
) -> Result<(), CheckError> {
    let mut command = environment::made(program);
    // Relative names in a config count from its reader's directory, which is ours for the real start too.
    command.arg("-c").args(args).arg("-f").arg(config).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |source| CheckError::Run { program: program.to_owned(), source };
    let child = spawner(&mut command).map_err(failed)?;
    let output = timeout(CONFIG_DEADLINE, child.wait_with_output()).await;
    let output = output.map_err(|_| CheckError::TimedOut { config: config.to_owned() })?.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let both = [output.stdout, output.stderr].concat();
    Err(CheckError::Refused { config: config.to_owned(), output: tail(&String::from_utf8_lossy(&both)) })
}

fn tail(text: &str) -> String {
    let text = text.trim();
    let skip = text.len().saturating_sub(usize::try_from(LOG_TAIL).unwrap_or(usize::MAX));
    text.char_indices().find(|(at, _)| *at >= skip).map_or_else(String::new, |(at, _)| text[at..].to_owned())
}
