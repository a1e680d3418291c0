//! What the sources say, as one desired state: merged, and guarded against mass expiry. Pure, with injected time.

mod empty;
mod guard;
mod memory;
mod merge;
mod policy;

use std::collections::{BTreeMap, BTreeSet};

use common::model::{BackendId, ServiceMap, ServiceName};
use tokio::time::Instant;

pub use empty::{Emptied, OnEmpty};
pub use guard::{Guard, GuardSettings};
pub use memory::{Memory, MemoryError};
pub use merge::{Merged, Source, merge};
pub use policy::Policies;

/// What ought to run.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// Every service with its pool, held backends among them.
    pub services: ServiceMap,
    /// Backends that the guard keeps although their registration is gone.
    pub held: BTreeMap<ServiceName, BTreeMap<BackendId, Held>>,
    /// Services that are empty, with their last backends in place of none.
    pub kept: BTreeSet<ServiceName>,
}

/// Why a backend is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// When its registration was missed first.
    pub since: Instant,
    /// When it goes at the latest.
    pub until: Instant,
}
