//! Why supervising ended badly.

use std::io;

use crate::haproxy::process::launch::ProcessError;

/// Why supervising ended badly.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// The command line makes no sense.
    #[error("supervise: {0}")]
    Usage(String),
    /// Signals of children cannot be received.
    #[error("listening for the end of child processes")]
    Signals(#[source] io::Error),
    /// The directory for the master socket cannot be made.
    #[error("making the directory {}", path.display())]
    Directory { path: std::path::PathBuf, source: io::Error },
    /// HAProxy could not be stopped.
    #[error("stopping HAProxy")]
    Stop(#[source] ProcessError),
}
