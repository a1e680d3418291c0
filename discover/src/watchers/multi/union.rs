//! `union`: what any of the watchers knows. `base`: nothing.

use std::sync::Arc;

use model::ServiceName;
use registry::Snapshot;
use tokio::time::Instant;

use super::Ask;
use crate::watchers::Fault;
use crate::watchers::group::{FIRST_WITHIN, Resolution, Resolve, Seen, first_error, join};
use crate::watchers::teller::Standing;

/// All backends of all watchers; of two at one address the earlier watcher's.
struct Union;

pub(super) fn union(_: &Ask<'_>) -> Result<Box<dyn Resolve>, Fault> {
    Ok(any())
}

/// What any of the members knows.
pub(in super::super) fn any() -> Box<dyn Resolve> {
    Box::new(Union)
}

impl Resolve for Union {
    /// Healthy if any is: each one's own standing is shown beside it.
    fn resolve(&mut self, seen: &[Seen], started: Instant, now: Instant) -> Resolution {
        let known: Vec<(&str, &Arc<Snapshot>)> =
            seen.iter().filter_map(|s| s.observation.snapshot().map(|snapshot| (&*s.name, snapshot))).collect();
        let waits = known.len() < seen.len() && now < started + FIRST_WITHIN;
        if known.is_empty() || waits {
            return Resolution::Wait { error: first_error(seen) };
        }
        let synced = seen.iter().any(|s| s.observation.standing() == "synced");
        let since = seen.iter().filter_map(|s| s.observation.stale_since()).min();
        let standing = match (synced, since, first_error(seen)) {
            (false, Some(since), Some(error)) => Standing::Stale { since, error },
            _ => Standing::Synced,
        };
        let snapshot = join(known.into_iter().map(|(name, snapshot)| (name, &**snapshot)));
        Resolution::Tell { snapshot, standing }
    }
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
