//! Answers → snapshots: what did not change stays the same allocation, and no news is none.

use std::error::Error;
use std::sync::Arc;

use agent::watch::{Observation, Outlet};
use model::{diff, replay};
use registry::store::Revision;
use registry::{Quarantined, Snapshot};
use tokio::time::Instant;
use tracing::warn;

use super::findings::Answer;

/// How well the answers are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Synced,
    /// It was so: some source below fails.
    Stale {
        since: Instant,
        error: Arc<str>,
    },
}

impl Standing {
    pub fn of(observation: &Observation<Snapshot>) -> Self {
        match observation {
            Observation::Stale { since, error, .. } => Self::Stale { since: *since, error: error.clone() },
            Observation::Synced { .. } | Observation::Pending { .. } => Self::Synced,
        }
    }
}

/// Passes a watcher's answers to its listeners.
#[derive(Debug)]
pub struct Teller(Outlet<Snapshot>);

impl Teller {
    /// Nothing was told yet.
    pub fn new(out: Outlet<Snapshot>) -> Self {
        Self(out)
    }

    /// The source's whole answer. What is newly left out is logged once.
    pub fn tell(&self, answer: Answer) {
        let known = self.0.current();
        let known = known.snapshot().map(|known| known.quarantined.clone()).unwrap_or_default();
        for (key, reason) in &answer.left_out {
            if known.get(key).is_none_or(|was| was.reason != *reason) {
                warn!(%key, %reason, "Registration left out.");
            }
        }
        let because = |reason| Quarantined { reason, revision: Revision::default() };
        let quarantined = answer.left_out.into_iter().map(|(key, reason)| (key, because(reason))).collect();
        let Answer { services, revision, departed, generator_configs, .. } = answer;
        let snapshot = Snapshot { services, revision, quarantined: Arc::new(quarantined), departed, generator_configs };
        self.relay(snapshot, Standing::Synced);
    }

    /// What a watcher that stands on others makes of what they say, with the standing that follows from theirs.
    pub fn relay(&self, mut snapshot: Snapshot, standing: Standing) {
        let before = self.0.current();
        if let Some(known) = before.snapshot() {
            let changes = diff(&known.services, &snapshot.services);
            let same = changes.is_empty()
                && known.revision == snapshot.revision
                && known.quarantined == snapshot.quarantined
                && known.departed == snapshot.departed
                && known.generator_configs == snapshot.generator_configs;
            if same && Standing::of(&before) == standing {
                return;
            }
            snapshot.services = replay(known.services.clone(), changes);
        }
        let snapshot = Arc::new(snapshot);
        self.0.relay(match standing {
            Standing::Synced => Observation::Synced { snapshot },
            Standing::Stale { since, error } => Observation::Stale { snapshot, since, error },
        });
    }

    /// The source fails; what it told stays. Gives whether it did not fail before.
    pub fn fail(&self, error: &(dyn Error + 'static)) -> bool {
        let news = self.0.current().error().is_none();
        self.0.mark_stale(error);
        news
    }

    /// The same, in the words of a watcher below.
    pub fn fail_by(&self, error: Arc<str>) {
        self.0.mark_stale_by(error);
    }
}
