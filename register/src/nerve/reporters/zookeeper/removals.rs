//! What is known of nodes that go. [`super::removal`] removes them.

use std::collections::BTreeSet;

use zookeeper::ZkPath;

use crate::nerve::reporters::{Placement, Want, Wanted};

/// What is known of what goes.
#[derive(Default)]
pub(super) struct Removals {
    /// Nodes to be removed: the former names of registrations whose names have changed.
    pub former: BTreeSet<ZkPath>,
    /// Of these ZooKeeper has confirmed that nothing is there.
    pub absent: BTreeSet<Placement>,
    /// Nodes that ZooKeeper does not let go.
    pub stuck: BTreeSet<ZkPath>,
}

impl Removals {
    /// What is not to be absent any more is looked for again the next time.
    pub fn begin(&mut self, wanted: &Wanted) {
        self.absent.retain(|placement| matches!(wanted.get(placement), Some(Want::Absent(_))));
    }

    /// Whether a removal is to be tried again.
    pub fn is_stuck(&self) -> bool {
        !self.stuck.is_empty()
    }
}
