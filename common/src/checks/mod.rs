//! Whether a backend works, as seen from here: one try at a time. When to try again is [`crate::readiness`]'s part.
//!
//! A new kind of check is a file of its own and a variant of [`AnyCheck`].

mod tcp;

use std::io;
use std::time::Duration;

pub use tcp::TcpCheck;

/// What one try came to.
#[derive(Debug)]
pub enum Outcome {
    /// It works.
    Pass,
    /// It does not work (yet).
    Fail(CheckError),
    /// It cannot be told from here: there is no way to its address.
    Unreachable(CheckError),
}

/// Why a try did not pass.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The system refused.
    #[error("connecting to {address}")]
    Connect {
        /// Where to.
        address: std::net::SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// Neither yes nor no.
    #[error("{address} did not answer within {after:?}")]
    Silent {
        /// Where to.
        address: std::net::SocketAddr,
        /// How long was waited.
        after: Duration,
    },
}

/// One way to find out whether a backend works.
pub trait Check: Send {
    /// Tries once; takes at most `timeout`. Cancel-safe.
    fn attempt(&self, timeout: Duration) -> impl Future<Output = Outcome> + Send;
}

/// The checks there are.
#[derive(Debug, Clone)]
pub enum AnyCheck {
    /// A connection is accepted.
    Tcp(TcpCheck),
}

impl Check for AnyCheck {
    async fn attempt(&self, timeout: Duration) -> Outcome {
        match self {
            Self::Tcp(check) => check.attempt(timeout).await,
        }
    }
}
