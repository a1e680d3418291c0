//! Each change in turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use tokio::time::sleep;

use super::view::{Ended, View};
use model::{Backend, Change, Pool, Prefix, ServiceMap, ServiceName, Status, diff};
use registry::store::{Fault, Store, StoreError};
use registry::{Followed, Follower, Retries};

/// What [`Changes`] tells. As JSON it is what `discover watch` prints, one object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Told {
    /// The whole state: at the start, and where what was known before is no base for changes.
    Whole {
        /// The registry's version; 0 for Docker, which has none.
        revision: i64,
        /// Why the whole state comes although changes were asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        reset: Option<Reset>,
        /// Every service with its backends.
        services: BTreeMap<ServiceName, Vec<Arc<Backend>>>,
    },
    /// One service's change.
    Changed(ServiceChange),
}

impl Told {
    /// The registry's version: to be resumed at.
    pub fn revision(&self) -> i64 {
        match self {
            Self::Whole { revision, .. } | Self::Changed(ServiceChange { revision, .. }) => *revision,
        }
    }
}

/// Why the changes since a revision cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reset {
    /// The registry has forgotten that revision.
    Compacted,
    /// The registry is older than that: it was set back, or it is another one.
    Rewound,
    /// It is another cluster now.
    ClusterChanged,
}

/// What became of one service at one revision: the backends before, without the removed, with the changed and the added,
/// are those after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceChange {
    /// The registry's version after it; 0 for Docker, which has none.
    pub revision: i64,
    /// The service.
    pub service: ServiceName,
    /// Backends that were not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<Arc<Backend>>,
    /// Backends that say something else now, such as `draining`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Arc<Backend>>,
    /// Backends that are gone, as they were last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<Arc<Backend>>,
    /// How many backends take new clients after it.
    pub live: usize,
}

/// Each change of the services, one after the other.
///
/// Of a registry each revision is told by itself, also of those that come together; only what was missed during an outage
/// that outlasted the registry's memory comes as one. Of Docker it is what changed since the last look.
pub struct Changes<S: Store> {
    origin: Origin<S>,
    only: BTreeSet<ServiceName>,
    known: ServiceMap,
    next: Next,
    told: VecDeque<Told>,
}

enum Origin<S: Store> {
    Registry { follower: Box<Follower<S>>, retries: Retries },
    View(View),
}

/// What the next listing is told as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// All of it.
    Whole(Option<Reset>),
    /// Not at all: the client resumes there and knows it.
    Base,
    /// What it changes.
    Difference,
}

impl<S: Store> Changes<S> {
    pub(super) fn of_registry(follower: Follower<S>, prefix: Prefix) -> Self {
        Self::of(Origin::Registry { follower: Box::new(follower), retries: Retries::new(prefix) })
    }

    pub(super) fn of_view(view: View) -> Self {
        Self::of(Origin::View(view))
    }

    fn of(origin: Origin<S>) -> Self {
        let (known, told) = (ServiceMap::new(), VecDeque::new());
        Self { origin, only: BTreeSet::new(), known, next: Next::Whole(None), told }
    }

    /// The first listing is what was known already.
    pub(super) fn resumed(mut self) -> Self {
        self.next = Next::Base;
        self
    }

    /// Only these services are told; none given: all.
    #[must_use]
    pub fn only(mut self, services: impl IntoIterator<Item = ServiceName>) -> Self {
        self.only.extend(services);
        self
    }

    /// The next one. While the source fails this waits, and goes on where it was. Cancel-safe.
    ///
    /// # Errors
    /// [`Ended`], of Docker only.
    pub async fn next(&mut self) -> Result<Told, Ended> {
        loop {
            if let Some(told) = self.told.pop_front() {
                return Ok(told);
            }
            let snapshot = match &mut self.origin {
                Origin::View(view) => {
                    match self.next {
                        Next::Whole(_) => view.synced().await?,
                        Next::Base | Next::Difference => view.changed().await?,
                    }
                    view.snapshot().as_ref().clone()
                }
                Origin::Registry { follower, retries } => match follower.step().await {
                    Ok(Followed::None { heard }) => {
                        if heard {
                            retries.works();
                        }
                        continue;
                    }
                    Ok(Followed::Listed { .. } | Followed::Changed) => {
                        retries.works();
                        follower.snapshot()
                    }
                    Err(error) => {
                        self.next = after(self.next, &error);
                        follower.failed(&error);
                        sleep(retries.failed(&error)).await;
                        continue;
                    }
                },
            };
            self.take(snapshot.services, snapshot.revision);
        }
    }

    fn take(&mut self, services: ServiceMap, revision: i64) {
        let (only, known) = (&self.only, &self.known);
        match std::mem::replace(&mut self.next, Next::Difference) {
            Next::Base => {}
            Next::Difference => {
                self.told.extend(difference(known, &services, only, revision).into_iter().map(Told::Changed));
            }
            Next::Whole(reset) => {
                let wanted = services.iter().filter(|(name, _)| is_wanted(only, name));
                let services = wanted.map(|(name, pool)| (name.clone(), pool.backends().to_vec())).collect();
                self.told.push_back(Told::Whole { revision, reset, services });
            }
        }
        self.known = services;
    }
}

/// What the next listing is told as, after a failure.
fn after(next: Next, error: &StoreError) -> Next {
    let reset = match (&error.fault, next) {
        // What is known still counts: the listing after it differs by what was missed.
        (Fault::Compacted { .. }, Next::Difference) => return next,
        (Fault::Compacted { .. }, _) => Reset::Compacted,
        (Fault::Rewound { .. }, _) => Reset::Rewound,
        (Fault::ClusterChanged { .. }, _) => Reset::ClusterChanged,
        _ => return next,
    };
    match next {
        Next::Whole(None) => next, // nothing has been told yet
        _ => Next::Whole(Some(reset)),
    }
}

fn is_wanted(only: &BTreeSet<ServiceName>, service: &ServiceName) -> bool {
    only.is_empty() || only.contains(service)
}

/// What leads from one state to the next, in order of service name.
pub(super) fn difference(
    old: &ServiceMap,
    new: &ServiceMap,
    only: &BTreeSet<ServiceName>,
    revision: i64,
) -> Vec<ServiceChange> {
    let none = Arc::new(Pool::default());
    let changes = diff(old, new).into_iter().map(|change| match change {
        Change::Set(service, pool) => (service, pool),
        Change::Remove(service) => (service, none.clone()),
    });
    let mut all = Vec::new();
    for (service, pool) in changes.filter(|(service, _)| is_wanted(only, service)) {
        let before = old.get(&service).unwrap_or(&none);
        let was: BTreeMap<_, _> = before.backends().iter().map(|b| (&b.id, b)).collect();
        let is: BTreeSet<_> = pool.backends().iter().map(|b| &b.id).collect();
        let (known, added): (Vec<_>, Vec<_>) = pool.backends().iter().cloned().partition(|b| was.contains_key(&b.id));
        let changed: Vec<_> = known.into_iter().filter(|b| was.get(&b.id).is_some_and(|was| *was != b)).collect();
        let removed: Vec<_> = before.backends().iter().filter(|b| !is.contains(&b.id)).cloned().collect();
        if added.is_empty() && changed.is_empty() && removed.is_empty() {
            continue; // an empty pool came or went
        }
        let live = pool.backends().iter().filter(|b| b.status == Status::Up).count();
        all.push(ServiceChange { revision, service, added, changed, removed, live });
    }
    all.sort_by(|a, b| a.service.cmp(&b.service));
    all
}
