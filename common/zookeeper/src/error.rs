//! What can go wrong with ZooKeeper, and what each fault asks of the caller.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A call that failed: what was asked, of which node, and by [`std::error::Error::source`] why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} {path}")]
pub struct ZkError {
    pub operation: Operation,
    /// The node, as the servers know it (with the chroot).
    pub path: String,
    /// Why it failed.
    #[source]
    pub fault: ZkFault,
}

/// What was asked of ZooKeeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading a node's data, or what stands about it.
    Read,
    /// Reading the names of its children.
    List,
    /// Making it.
    Create,
    /// Replacing its data.
    Write,
    /// Removing it.
    Delete,
    /// Ending the session.
    Close,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading node",
            Self::List => "listing node",
            Self::Create => "creating node",
            Self::Write => "writing node",
            Self::Delete => "deleting node",
            Self::Close => "closing the session at",
        })
    }
}

/// Why a call, or a connection, failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZkFault {
    /// There is no connection now.
    #[error("not connected to ZooKeeper: {0}")]
    NotConnected(Arc<str>),
    /// The connection was cut, or could not be made; whether the call was carried out is not known.
    #[error("{server} is unavailable: {why}")]
    Unavailable {
        server: Arc<str>,
        /// In the words of the transport.
        why: String,
    },
    /// Nothing was heard for too long.
    #[error("{server} was silent for {after:?}")]
    Silent { server: Arc<str>, after: Duration },
    /// The session ran out: its ephemeral nodes are gone. A new one is begun by itself.
    #[error("the session has expired")]
    Expired,
    /// Nobody knows this user, or the ensemble refuses its scheme.
    #[error("authentication refused")]
    Unauthenticated,
    /// The node's access list does not let us.
    #[error("permission denied")]
    Denied,
    #[error("no such node")]
    NoNode,
    /// There is such a node.
    #[error("the node exists already")]
    NodeExists,
    #[error("the node has children")]
    NotEmpty,
    /// An ephemeral node can have no children.
    #[error("its parent is ephemeral and can have no children")]
    ParentEphemeral,
    /// The server takes no such request (a path that it refuses, an access list that is none).
    #[error("refused with ZooKeeper's code {0}")]
    Refused(i32),
    /// The answer is none that ZooKeeper gives.
    #[error("{0}")]
    Garbled(&'static str),
}

impl ZkFault {
    /// What a server's code means. Source: `KeeperException.Code`.
    pub(super) fn of_code(code: i32, server: &Arc<str>) -> Option<Self> {
        let unavailable = |why: &str| Self::Unavailable { server: server.clone(), why: why.to_owned() };
        Some(match code {
            0 => return None,
            -4 => unavailable("it lost the connection to its ensemble"),
            -7 => unavailable("its ensemble did not answer in time"),
            -101 => Self::NoNode,
            -102 => Self::Denied,
            -108 => Self::ParentEphemeral,
            -110 => Self::NodeExists,
            -111 => Self::NotEmpty,
            -112 => Self::Expired,
            -115 => Self::Unauthenticated,
            -118 => unavailable("the session has moved to another server"),
            other => Self::Refused(other),
        })
    }

    /// Whether the call may have been carried out all the same.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Silent { .. } | Self::Garbled(_))
    }
}
