//! What can go wrong in a turn.

use std::path::PathBuf;

use agent::files::FileError;

use crate::generators::output::OutputError;
use crate::haproxy::api::runtime::RuntimeError;
use crate::haproxy::process::check::CheckError;
use crate::haproxy::process::launch::ProcessError;
use crate::haproxy::process::master::MasterError;
use crate::haproxy::process::ports::BindRefusal;

/// Why a turn could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HaproxyError {
    /// The file could not be written; the old one stays.
    #[error("writing haproxy.cfg")]
    Write(#[from] FileError),
    /// The last good file could not be put back.
    #[error("moving {path:?}")]
    Move { path: PathBuf, source: std::io::Error },
    /// The config wants an address that HAProxy could not bind.
    #[error("trying the addresses of the new config")]
    Bind(#[from] BindRefusal),
    /// HAProxy cannot have as many file descriptors as the file needs.
    #[error(
        "loading a file that needs {needed} file descriptors, and HAProxy may have {limit}: raise LimitNOFILE of its unit (nofile of its container), or lower --maxconn"
    )]
    Descriptors { needed: u64, limit: u64, source: ConnectionError },
    /// HAProxy refuses the file, does not run, or cannot be asked.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// What went wrong between discover and HAProxy.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// `haproxy -c` has something against the file.
    #[error("checking the new config")]
    Check(#[from] CheckError),
    /// It could not be started.
    #[error("starting HAProxy")]
    Process(#[from] ProcessError),
    /// Its master gave no usable answer.
    #[error("reloading HAProxy")]
    Master(#[from] MasterError),
    /// It refused the file; the old worker goes on with the old one.
    #[error("HAProxy could not load the config: {0}")]
    Refused(String),
    /// The file that it has loaded cannot be read now.
    #[error("asking HAProxy what runs")]
    File(#[from] FileError),
    /// Its runtime socket gave no usable answer.
    #[error("asking HAProxy what runs")]
    Runtime(#[from] RuntimeError),
    /// The operator's command failed.
    #[error(transparent)]
    Command(#[from] OutputError),
}

impl ConnectionError {
    /// What a check says against a file, in HAProxy's words or ours, if that is what went wrong.
    pub fn verdict(&self) -> Option<String> {
        match self {
            Self::Check(error) => error.verdict(),
            Self::Command(OutputError::Command { what: "check_command", why, .. }) => Some(why.clone()),
            _ => None,
        }
    }
}
