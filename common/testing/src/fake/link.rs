//! One caller's way to the fake: the faults that a test scripts on it, and what went over it.

use std::collections::VecDeque;
use std::time::Duration;

use registry::store::{Fault, Op, Operation};

/// How a cut way behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every call and stream fails at once, as when the server's host refuses connections.
    Refused,
    /// Every call times out and every stream is silent, as when the server is frozen.
    Silent,
}

/// What was asked over one way, failed calls included; writes count when they happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Listings, at the newest or a given revision.
    pub lists: u64,
    /// Reads of one key.
    pub gets: u64,
    /// Watches opened.
    pub watches: u64,
    /// Transactions.
    pub txns: u64,
    /// Keys written.
    pub puts: u64,
    /// Keys deleted by operation, whether they existed or not.
    pub deletes: u64,
    /// Leases granted.
    pub grants: u64,
    /// Beats of leases.
    pub beats: u64,
    /// Leases revoked.
    pub revokes: u64,
}

impl Counts {
    /// Keys written or deleted.
    pub fn writes(&self) -> u64 {
        self.puts + self.deletes
    }

    pub(super) fn call(&mut self, operation: Operation) {
        match operation {
            Operation::List => self.lists += 1,
            Operation::Get => self.gets += 1,
            Operation::Watch => self.watches += 1,
            Operation::Txn => self.txns += 1,
            Operation::Grant => self.grants += 1,
            Operation::KeepAlive => self.beats += 1,
            Operation::Revoke => self.revokes += 1,
            Operation::TimeToLive | Operation::Position => {}
        }
    }

    pub(super) fn written(&mut self, ops: &[Op]) {
        let puts = ops.iter().filter(|op| matches!(op, Op::Put { .. })).count() as u64;
        self.puts += puts;
        self.deletes += ops.len() as u64 - puts;
    }
}

#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) cut: Option<Cut>,
    pub(super) counts: Counts,
    scripted: VecDeque<(Operation, Fault)>,
    /// Calls that will happen, and whose answers will not arrive.
    lost: VecDeque<Operation>,
    /// How often streams were canceled, and how the last time looked.
    pub(super) canceled: (u64, Option<Fault>),
}

impl Link {
    pub(super) fn script(&mut self, operation: Operation, fault: Fault) {
        self.scripted.push_back((operation, fault));
    }

    pub(super) fn lose(&mut self, operation: Operation) {
        self.lost.push_back(operation);
    }

    pub(super) fn take_lost(&mut self, operation: Operation) -> bool {
        let at = self.lost.iter().position(|of| *of == operation);
        at.is_some_and(|at| self.lost.remove(at).is_some())
    }

    pub(super) fn take_fault(&mut self, operation: Operation) -> Option<Fault> {
        let at = self.scripted.iter().position(|(of, _)| *of == operation)?;
        self.scripted.remove(at).map(|(_, fault)| fault)
    }
}

pub(super) fn refused() -> Fault {
    Fault::Unavailable { endpoint: "fake".into(), why: "connection refused".into() }
}

pub(super) fn timed_out(after: Duration) -> Fault {
    Fault::Timeout { endpoint: "fake".into(), after }
}
