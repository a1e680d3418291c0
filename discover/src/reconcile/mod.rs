//! What the sources say, as one desired state: merged, and guarded against mass expiry. Pure, with injected time.

mod admission;
mod empty;
mod guard;
mod limits;
mod memory;
mod merge;
mod near;
mod policy;
mod reconciler;
mod sections;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Backend, BackendId, ServiceMap, ServiceName};
use tokio::time::Instant;

use crate::synapse::types::Service;

pub use admission::{Admission, Barred};
pub use empty::{DefaultServer, Emptied, OnEmpty};
pub use guard::{Guard, GuardSettings};
pub use limits::{LeftOut, Limits};
pub use memory::{Memory, MemoryError, Stamp};
pub use merge::{Merged, Source, merge};
pub use near::{FoundDown, Near, NearSettings, Nearness, Preference};
pub use policy::{Policies, passes};
pub use reconciler::Reconciler;
pub use sections::Sections;

/// What ought to run.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// Every service with its pool, held backends among them.
    pub services: ServiceMap,
    /// Backends that the guard keeps although their registration is gone.
    pub held: BTreeMap<ServiceName, BTreeMap<BackendId, Held>>,
    /// Services that are empty, with their last backends in place of none.
    pub kept: BTreeSet<ServiceName>,
    /// The configured services in their order, sections from the registry in place of their own; without a config none.
    pub configured: Arc<[Arc<Service>]>,
    /// Services that discovery says have no backend, with the previous ones in place of none, and since when.
    pub previous: BTreeMap<ServiceName, Instant>,
    /// Services whose sections from the registry are refused, or of which something is left out, and why.
    pub refused: Arc<BTreeMap<ServiceName, String>>,
    /// Services whose near backends come first (`--prefer`).
    pub near: BTreeMap<ServiceName, Nearness>,
    /// Registrations that are left out for their addresses.
    pub barred: Arc<Barred>,
}

impl Desired {
    /// Whether none of these backends of a service is registered any more: they are held, or stand in for none.
    pub fn is_unregistered(&self, service: &ServiceName, backends: &[Arc<Backend>]) -> bool {
        let all_held = |held: &BTreeMap<BackendId, Held>| backends.iter().all(|b| held.contains_key(&b.id));
        self.kept.contains(service)
            || self.previous.contains_key(service)
            || self.held.get(service).is_some_and(all_held)
    }
}

/// Why a backend is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// When its registration was missed first.
    pub since: Instant,
    /// When it goes at the latest.
    pub until: Instant,
}
