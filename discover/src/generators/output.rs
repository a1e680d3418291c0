//! A file that another program reads: tried before it counts, replaced in one step, and announced.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use agent::environment;
use agent::files::{FileError, Replace, beside, replace, write_if_changed};
use model::ServiceMap;
use tokio::time::timeout;

use crate::haproxy::process::check::Group;
use crate::reconcile::Desired;
use crate::synapse::types::Service;

/// How long a check or a reload may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// What went wrong with such a file.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It could not be written; the old one stays.
    #[error(transparent)]
    Write(#[from] FileError),
    /// A command failed or said no.
    #[error("{what} `{command}`: {why}")]
    Command {
        /// `check_command`, `reload_command`, `start_command`.
        what: &'static str,
        command: String,
        /// Its exit and its own words.
        why: String,
    },
}

/// Runs a shell command to its end.
///
/// # Errors
/// [`OutputError::Command`] unless it exits with 0 in time.
pub async fn shell(what: &'static str, command: &str) -> Result<(), OutputError> {
    shell_within(what, command, COMMAND_DEADLINE).await
}

/// As [`shell`], with another deadline. A command that runs out of time is killed, and with it whatever it started.
pub async fn shell_within(what: &'static str, command: &str, deadline: Duration) -> Result<(), OutputError> {
    let failed = |why: String| OutputError::Command { what, command: command.to_owned(), why };
    let mut sh = environment::made("sh");
    sh.args(["-c", command]).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    let child = sh.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| failed(e.to_string()))?;
    let group = Group::of(&child);
    let output = timeout(deadline, child.wait_with_output()).await;
    let output = output.map_err(|_| failed(format!("took longer than {deadline:?}")))?;
    let output = output.map_err(|e| failed(e.to_string()))?;
    group.ended();
    if output.status.success() {
        return Ok(());
    }
    let both = [output.stdout, output.stderr].concat();
    let words: String = String::from_utf8_lossy(&both).trim().chars().take(2000).collect();
    Err(failed(format!("{}: {words}", output.status)))
}

/// A file and how it is tried.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    pub path: PathBuf,
    /// Its mode and owner.
    pub how: Replace,
    /// Judges the candidate: `{candidate}`, or the file's own path, stands for it.
    pub check_command: Option<String>,
}

impl Output {
    /// Where a new text is tried: beside the file, so that relative names in it mean the same.
    pub fn candidate(&self) -> PathBuf {
        beside(&self.path, ".candidate")
    }

    /// Puts `text` into the file if it passes the check; tells whether anything changed.
    ///
    /// # Errors
    /// [`OutputError`]; the old file is as it was.
    pub async fn put(&self, text: &str) -> Result<bool, OutputError> {
        if std::fs::read(&self.path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(write_if_changed(&self.path, text.as_bytes(), self.how)?);
        }
        if let Some(check) = &self.check_command {
            let candidate = self.candidate();
            replace(&candidate, text.as_bytes(), self.how)?;
            let checked = shell("check_command", &self.command_for(check, &candidate)).await;
            let _ = std::fs::remove_file(&candidate); // it has served
            checked?;
        }
        replace(&self.path, text.as_bytes(), self.how)?;
        Ok(true)
    }

    fn command_for(&self, command: &str, candidate: &Path) -> String {
        let quoted = format!("'{}'", candidate.display().to_string().replace('\'', "'\\''"));
        match command.contains("{candidate}") {
            true => command.replace("{candidate}", &quoted),
            false => command.replace(&self.path.display().to_string(), &quoted),
        }
    }
}

/// What something was made from. As long as that is the same and what was made of it is applied, there is nothing to do, and
/// nothing is rendered to find that out.
#[derive(Debug, Clone)]
pub struct MadeFrom {
    services: ServiceMap,
    configured: Arc<[Arc<Service>]>,
}

/// Something made anew, and from what.
#[derive(Debug)]
pub struct Made<T> {
    pub what: T,
    /// What to remember once it is applied.
    pub from: MadeFrom,
}

impl<T> Made<T> {
    /// What `make` makes of `desired`, unless that is applied.
    pub fn unless(applied: Option<&MadeFrom>, desired: &Desired, make: impl FnOnce() -> T) -> Option<Self> {
        if applied.is_some_and(|from| from.is(desired)) {
            return None;
        }
        let from = MadeFrom { services: desired.services.clone(), configured: desired.configured.clone() };
        Some(Self { what: make(), from })
    }
}

impl MadeFrom {
    fn is(&self, desired: &Desired) -> bool {
        let same_pools = || self.services.values().zip(desired.services.values()).all(|(a, b)| Arc::ptr_eq(a, b));
        Arc::ptr_eq(&self.configured, &desired.configured)
            && self.services.len() == desired.services.len()
            && same_pools()
            && self.services.keys().eq(desired.services.keys())
    }
}
