//! Why a try did not pass.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::docker::DockerError;

/// Why a try did not pass. No text holds more than a line of what the other side said.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The system refused.
    #[error("connecting to {address}")]
    Connect { address: SocketAddr, source: io::Error },
    /// Neither yes nor no.
    #[error("{address} did not answer within {after:?}")]
    Silent { address: SocketAddr, after: Duration },
    /// Another program listens on the container's port.
    #[error(
        "port {port} of this host belongs to {}, not to the container; end that program, or move one of the two to \
         another port",
        program.as_deref().unwrap_or("another program")
    )]
    Foreign {
        port: u16,
        /// The program, where it can be seen.
        program: Option<String>,
    },
    /// The try took too long.
    #[error("no answer within {after:?}")]
    Deadline { after: Duration },
    /// The TLS handshake failed.
    #[error("TLS with {address}")]
    Tls { address: SocketAddr, source: io::Error },
    /// The authority that the check is to trust cannot be used.
    #[error("authority {}: {why}", path.display())]
    Authority { path: PathBuf, why: String },
    /// The talk ended before its time.
    #[error("talking to {address}")]
    Talk { address: SocketAddr, source: Box<dyn std::error::Error + Send + Sync> },
    /// An answer, but not the right one.
    #[error("{0}")]
    Unexpected(String),
    /// The command could not be run.
    #[error("running the command")]
    Exec(#[source] DockerError),
    /// The check cannot be run here.
    #[error("{0}")]
    Impossible(String),
}

impl CheckError {
    /// Whether there is no way to the address, rather than nobody there.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::Connect { source, .. } => matches!(
                source.kind(),
                ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::NetworkDown
                    | ErrorKind::AddrNotAvailable
                    | ErrorKind::PermissionDenied
                    | ErrorKind::TimedOut
                    | ErrorKind::Unsupported
            ),
            _ => false,
        }
    }

    /// The talk with `address` ended early.
    pub(super) fn talk(address: SocketAddr) -> impl Fn(io::Error) -> Self {
        move |source| Self::Talk { address, source: source.into() }
    }
}

/// A stranger's words, cut to what may stand in a log line.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    const MOST: usize = 120;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST * 4)]);
    text.trim().chars().filter(|c| !c.is_control()).take(MOST).collect()
}
