//! The right to write for a host: what it brings, why there is none, and what ends it. No I/O.

use std::time::Duration;

use registry::store::{Entry, Key, LeaseId, Position, StoreError};

/// Why an agent may not answer for its host.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another machine bears this name.
    #[error(
        "node name {node:?} belongs to another machine ({machine}, agent started {started}): \
         {key} in the registry; give each host a name of its own by --node-name (NODE_NAME)"
    )]
    Taken {
        node: String,
        /// The key that says so.
        key: String,
        /// The other's machine id.
        machine: String,
        /// Since when the other agent runs.
        started: String,
    },
    /// A newer agent of this machine took over.
    #[error(
        "another agent of this machine took over {key} (started {started}); standing down without revoking: if both are to \
         run, give one another name by --node-name (NODE_NAME)"
    )]
    Replaced {
        key: String,
        /// When the other agent started.
        started: String,
    },
    /// Another agent of this machine is there, after two of them met.
    #[error(
        "another agent of this machine answers under {key} (started {started}); waiting until it renews its lease no more: \
         stop one of the two, or give one another name by --node-name (NODE_NAME)"
    )]
    Contested {
        key: String,
        /// When the other agent started.
        started: String,
    },
    /// The store did not answer.
    #[error("claiming {key}")]
    Store { key: String, source: StoreError },
}

/// The right to write, and what goes with it.
#[derive(Debug)]
pub struct Claim {
    pub key: Key,
    /// The lease under which everything is written.
    pub lease: LeaseId,
    /// How long it lives after each beat.
    pub ttl: Duration,
    /// What already hangs on that lease: the former self's keys.
    pub entries: Vec<Entry>,
    /// Where a watch on the registrar's key begins.
    pub at: Position,
}

/// What ends a claim.
#[derive(Debug)]
pub enum End {
    /// The lease is gone, or nothing is certain any more: claim again.
    Lost(&'static str),
    /// A hand was at the registrar's key: claim again, under the same lease if that lives.
    Touched(&'static str),
    /// Another agent has it now.
    Replaced(ClaimError),
}
