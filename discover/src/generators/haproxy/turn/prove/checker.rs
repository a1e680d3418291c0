//! Who judges a file: HAProxy's program, or the operator's command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::generators::haproxy::turn::errors::ConnectionError;
use crate::generators::output::shell_within;
use crate::haproxy::process::check::{self, CheckError};

/// Judges files.
#[derive(Debug, Clone)]
pub struct Checker {
    /// HAProxy's program.
    pub program: PathBuf,
    /// A command that judges the candidate, which it names: another file takes its place there.
    pub command: Option<String>,
    pub candidate: PathBuf,
    /// How long a check of a small file may take.
    pub timeout: Duration,
    /// Without a program the reload judges.
    pub may_lack_program: bool,
}

impl Checker {
    /// Judges a file.
    ///
    /// # Errors
    /// [`ConnectionError::Check`] or [`ConnectionError::Command`].
    pub async fn check(&self, file: &Path, deadline: Duration) -> Result<(), ConnectionError> {
        let candidate = self.candidate.display().to_string();
        match &self.command {
            Some(command) if file == self.candidate => Ok(shell_within("check_command", command, deadline).await?),
            Some(command) if command.contains(&candidate) => {
                let command = command.replace(&candidate, &file.display().to_string());
                Ok(shell_within("check_command", &command, deadline).await?)
            }
            _ => Ok(check::check(&self.program, file, deadline).await?),
        }
    }

    /// As [`check`](Self::check), for a file that is to be loaded. Where nobody can judge it, the reload does.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub async fn admit(&self, file: &Path, deadline: Duration) -> Result<(), ConnectionError> {
        match self.check(file, deadline).await {
            Err(ConnectionError::Check(CheckError::Run { .. })) if self.may_lack_program => Ok(()),
            judged => judged,
        }
    }
}
