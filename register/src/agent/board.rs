//! What everything came to: what to publish, and a row for each port that says why. No I/O, no clock.
//!
//! A change is put in container by container; copies of what is kept share what did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use containers::life::reason::Reason;
use containers::life::row::Row;
use containers::life::verdict::{Judged, RowState};
use containers::readiness::CheckState;
use model::desired::{ContainerId, Decision};
use model::{Backend, BackendId, ServiceName, SharedMap};
use registry::store::Key;

use crate::metrics::Metrics;
use crate::publish::{Refusal, Registrations};

/// A registration's place in the registry.
pub type Place = (ServiceName, BackendId);

/// Everything that is looked at, but for containers that do not run, in the order in which the containers were started.
pub type Rows = SharedMap<(Arc<str>, ContainerId, usize), Arc<Row>>;

/// One port of a container: what was decided, what became of it, and its checks.
pub type PortResult = (Arc<Decision>, Judged, Vec<CheckState>);

/// One container.
#[derive(Debug, Default)]
struct Held {
    started_at: Arc<str>,
    rows: Vec<Arc<Row>>,
    /// What is published of it.
    places: Vec<Place>,
}

/// What all containers came to.
#[derive(Debug, Default)]
pub struct Board {
    held: BTreeMap<ContainerId, Held>,
    rows: Rows,
    registrations: Registrations,
    /// Whose each place is, or was while the registry still has it.
    owners: BTreeMap<Place, ContainerId>,
    /// What the registry holds for somebody else, and why.
    refused: BTreeMap<Place, (Key, Arc<str>)>,
}

impl Board {
    /// What to publish.
    pub fn registrations(&self) -> &Registrations {
        &self.registrations
    }

    /// What is shown.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    pub fn rows_of(&self, container: &ContainerId) -> &[Arc<Row>] {
        self.held.get(container).map_or(&[], |held| &held.rows)
    }

    pub fn published_of(&self, container: &ContainerId) -> impl Iterator<Item = (&Place, &Backend)> {
        let places = self.held.get(container).map_or(&[][..], |held| &held.places);
        places.iter().filter_map(|place| Some((place, self.registrations.get(place)?)))
    }

    /// Whose this place is, or was last.
    pub fn owner(&self, place: &Place) -> Option<&ContainerId> {
        self.owners.get(place)
    }

    /// The registry has nothing in this place any more.
    pub fn forget(&mut self, place: &Place) {
        if !self.registrations.contains_key(place) {
            self.owners.remove(place);
        }
    }

    /// Puts in what became of the ports of `container`; the registry has `published`. Returns the containers whose places it took over.
    pub fn put(
        &mut self,
        container: &ContainerId,
        started_at: &str,
        ports: Vec<PortResult>,
        published: Option<&Registrations>,
        metrics: &Metrics,
    ) -> BTreeSet<ContainerId> {
        let mut former = self.held.remove(container).unwrap_or_default();
        let (mut rows, mut places, mut ousted) = (Vec::with_capacity(ports.len()), Vec::new(), BTreeSet::new());
        for (decision, judged, checks) in ports {
            let mut row = Row::of(&decision, &judged, checks);
            if let (Some(candidate), Some(backend)) = (decision.candidate(), judged.backend) {
                let place = (candidate.service.clone(), backend.id.clone());
                if let Some((key, holder)) = self.refused.get(&place) {
                    (row.state, row.cause) = (RowState::Refused, Reason::KeyTaken);
                    row.reason = format!("not published: {key} {holder}");
                }
                if self.registrations.get(&place) != Some(&backend) {
                    self.registrations.insert(place.clone(), backend);
                }
                if self.owners.get(&place) != Some(container) {
                    ousted.extend(self.owners.insert(place.clone(), container.clone()));
                }
                former.places.retain(|old| *old != place);
                places.push(place);
            }
            rows.push(Arc::new(row));
        }
        for place in std::mem::take(&mut former.places) {
            if self.owners.get(&place) == Some(container) {
                self.registrations.remove(&place);
                if published.is_none_or(|published| !published.contains_key(&place)) {
                    self.owners.remove(&place);
                }
            }
        }
        self.put_rows(container, &former, &mut rows, started_at, metrics);
        if !rows.is_empty() {
            let started_at = if *former.started_at == *started_at { former.started_at } else { started_at.into() };
            places.shrink_to_fit();
            self.held.insert(container.clone(), Held { started_at, rows, places });
        }
        ousted
    }

    fn put_rows(
        &mut self,
        container: &ContainerId,
        former: &Held,
        rows: &mut [Arc<Row>],
        started_at: &str,
        metrics: &Metrics,
    ) {
        let moved = *former.started_at != *started_at;
        let key = |started_at: &Arc<str>, number| (Arc::clone(started_at), container.clone(), number);
        let started_at: Arc<str> = if moved { started_at.into() } else { Arc::clone(&former.started_at) };
        for (number, old) in former.rows.iter().enumerate() {
            match rows.get_mut(number).filter(|row| **row == *old) {
                Some(row) if !moved => *row = Arc::clone(old),
                _ => {
                    metrics.gone(old);
                    self.rows.remove(&key(&former.started_at, number));
                }
            }
        }
        for (number, row) in rows.iter().enumerate() {
            let is_old = former.rows.get(number).is_some_and(|old| Arc::ptr_eq(old, row));
            if !is_old {
                metrics.came(row);
                self.rows.insert(key(&started_at, number), Arc::clone(row));
            }
        }
    }

    /// What the former self published of a container about which nothing is known: it stays.
    pub fn keep(&mut self, container: &ContainerId, left: impl IntoIterator<Item = (Place, Backend)>) {
        let held = self.held.entry(container.clone()).or_default();
        for (place, backend) in left {
            self.owners.insert(place.clone(), container.clone());
            self.registrations.insert(place.clone(), backend);
            held.places.push(place);
        }
    }

    /// What the registry holds for somebody else. Returns the containers of which that is another thing now.
    pub fn refuse(&mut self, refused: &BTreeMap<Key, Refusal>) -> BTreeSet<ContainerId> {
        let of = |(key, refusal): (&Key, &Refusal)| {
            Some((refusal.registration.clone()?, (key.clone(), Arc::from(refusal.holder.as_str()))))
        };
        let newer: BTreeMap<Place, (Key, Arc<str>)> = refused.iter().filter_map(of).collect();
        let older = std::mem::replace(&mut self.refused, newer);
        let places = older.keys().chain(self.refused.keys());
        let changed = places.filter(|place| older.get(*place) != self.refused.get(*place));
        changed.filter_map(|place| self.owners.get(place)).cloned().collect()
    }
}
