//! `union`: what any of the watchers knows. `base`: nothing.

use std::sync::Arc;

use model::ServiceName;
use registry::Snapshot;
use tokio::time::Instant;

use super::ask::Ask;
use crate::watchers::Fault;
use crate::watchers::group::{Resolution, Resolve, Seen, any};
use crate::watchers::teller::Standing;

pub(super) fn union(_: &Ask<'_>) -> Result<Box<dyn Resolve>, Fault> {
    Ok(any())
}

/// Answers that there is none, whatever the watchers say.
struct Nothing(ServiceName);

pub(super) fn nothing(ask: &Ask<'_>) -> Result<Box<dyn Resolve>, Fault> {
    Ok(Box::new(Nothing(ask.about.service.clone())))
}

impl Resolve for Nothing {
    fn resolve(&mut self, _: &[Seen], _: Instant, _: Instant) -> Resolution {
        let services = [(self.0.clone(), Arc::default())].into();
        Resolution::Tell { snapshot: Snapshot { services, ..Snapshot::default() }, standing: Standing::Synced }
    }
}
