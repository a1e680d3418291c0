//! What can go wrong with the registry, and what each fault asks of the caller.

use std::fmt;
use std::time::Duration;

use super::{LeaseId, Position, Revision};

/// A call that failed: what was asked, of which subject, and by [`std::error::Error::source`] why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} {subject}")]
pub struct StoreError {
    /// What was asked.
    pub operation: Operation,
    /// The key, prefix or lease that it concerned.
    pub subject: String,
    /// Why it failed.
    #[source]
    pub fault: Fault,
}

/// What was asked of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reading all keys under a prefix.
    List,
    /// Reading one key.
    Get,
    /// Opening or reading a watch.
    Watch,
    /// A transaction.
    Txn,
    /// Granting a lease.
    Grant,
    /// Renewing a lease.
    KeepAlive,
    /// Ending a lease.
    Revoke,
    /// Asking what is left of a lease.
    TimeToLive,
    /// Asking for the newest position.
    Position,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "listing",
            Self::Get => "reading",
            Self::Watch => "watching",
            Self::Txn => "writing",
            Self::Grant => "granting a lease of",
            Self::KeepAlive => "renewing lease",
            Self::Revoke => "revoking lease",
            Self::TimeToLive => "asking for the rest of lease",
            Self::Position => "asking for the newest revision of",
        })
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection, no leader, a shutdown: the store did not take the call, or its answer was lost.
    #[error("{endpoint} is unavailable: {why}")]
    Unavailable {
        /// Which server.
        endpoint: String,
        /// In the words of the transport or the server.
        why: String,
    },
    /// No answer in time.
    #[error("{endpoint} did not answer within {after:?}")]
    Timeout {
        /// Which server.
        endpoint: String,
        /// How long was waited.
        after: Duration,
    },
    /// A stream that had nothing to say, not even when asked.
    #[error("the stream was silent for {0:?}")]
    Idle(Duration),
    /// A stream that the server ended.
    #[error("the stream ended: {0}")]
    Ended(String),
    /// The store has forgotten the revision asked for.
    #[error("revisions below {at} are compacted")]
    Compacted {
        /// The oldest revision that it still knows; 0 where it did not say.
        at: Revision,
    },
    /// The store's newest revision is below one already seen: it was restored from an older snapshot.
    #[error("the store went back from revision {seen} to {now}")]
    Rewound {
        /// The newest revision seen before.
        seen: Revision,
        /// What it says now.
        now: Revision,
    },
    /// The answer came from another cluster.
    #[error("the store is another cluster now: {now}, not {seen}")]
    ClusterChanged {
        /// What was known.
        seen: Position,
        /// What it says now.
        now: Position,
    },
    /// The lease is gone, and with it its keys.
    #[error("lease {0} is gone")]
    LeaseLost(LeaseId),
    /// User or password are wrong, missing, or not wanted.
    #[error("{endpoint} does not accept the credentials: {why}")]
    Unauthenticated {
        /// Which server.
        endpoint: String,
        /// In the server's words.
        why: String,
    },
    /// The user may not do this.
    #[error("permission denied by {endpoint}")]
    Denied {
        /// Which server.
        endpoint: String,
    },
    /// Something answers, but not etcd's v3 API.
    #[error("{endpoint} does not speak etcd's v3 API: {why}")]
    NotV3 {
        /// Which server.
        endpoint: String,
        /// What it is instead, as far as it can be told.
        why: String,
    },
    /// The settings for the connection cannot work.
    #[error("bad store settings: {0}")]
    BadConfig(String),
    /// The store's disk quota is used up: until an operator makes room it reads, renews leases and deletes, but takes no
    /// write and grants no lease.
    ///
    /// Source: etcd's `server/etcdserver/apply` (`applierV3Capped`) and `server/storage/quota.go`: what costs nothing
    /// passes, and a transaction costs what all of its puts cost, so that one put bars the deletions beside it.
    #[error("{endpoint} is out of space (NOSPACE): {why}")]
    NoSpace {
        /// Which server.
        endpoint: String,
        /// In the server's words.
        why: String,
    },
    /// What the store holds or sends is more than is taken in; what is known already stays.
    #[error("{endpoint} sends too much: {why}")]
    TooLarge {
        /// Which server.
        endpoint: String,
        /// What, and what the limit is.
        why: String,
    },
    /// The store understood the call and refuses it: the same call will always fail.
    #[error("{endpoint} refused: {why}")]
    Refused {
        /// Which server.
        endpoint: String,
        /// In the server's words.
        why: String,
    },
}

impl StoreError {
    /// An error of `operation` on `subject`.
    pub fn new(operation: Operation, subject: impl Into<String>, fault: Fault) -> Self {
        Self { operation, subject: subject.into(), fault }
    }

    /// Whether an operator must act before this can work: to be said aloud. A daemon that was working goes on trying.
    pub fn is_fatal(&self) -> bool {
        matches!(
            self.fault,
            Fault::Unauthenticated { .. } | Fault::Denied { .. } | Fault::NotV3 { .. } | Fault::BadConfig(_)
        )
    }

    /// Whether the same call may work later with nobody doing anything.
    pub fn is_retryable(&self) -> bool {
        !self.is_fatal() && !matches!(self.fault, Fault::Refused { .. } | Fault::LeaseLost(_))
    }

    /// Whether the store answers and a watch of it does not: some proxies of etcd pass no signs of life on. It is watched anew from
    /// where it was, and that is no news.
    pub fn is_silence(&self) -> bool {
        matches!(self.fault, Fault::Idle(_))
    }

    /// Whether what is known of the store is no base to watch from any more: list again.
    pub fn needs_list(&self) -> bool {
        matches!(self.fault, Fault::Compacted { .. } | Fault::Rewound { .. } | Fault::ClusterChanged { .. })
    }

    /// Whether the answer was above a limit of ours: of a watch that has much to tell at once, a listing may do better.
    pub fn is_too_large(&self) -> bool {
        matches!(self.fault, Fault::TooLarge { .. })
    }

    /// Whether the store has no room (etcd's alarm NOSPACE): it reads, renews leases and deletes, and takes no write.
    pub fn is_no_space(&self) -> bool {
        matches!(self.fault, Fault::NoSpace { .. })
    }

    /// Whether a transaction held more operations than the store takes: smaller ones may do.
    ///
    /// Source: etcd's `api/v3rpc/rpctypes/error.go`, `ErrGRPCTooManyOps`; the limit is its flag `--max-txn-ops`.
    pub fn is_too_many_ops(&self) -> bool {
        matches!(&self.fault, Fault::Refused { why, .. } if why.contains("too many operations in txn request"))
    }

    /// Whether the lease is gone: grant another and put everything again.
    pub fn is_lease_lost(&self) -> bool {
        matches!(self.fault, Fault::LeaseLost(_))
    }
}
