//! Decisions kept from one look to the next: a look costs what has changed since the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::clashes::Clashes;
use super::container::{Container, ContainerId, Network};
use super::decide::decide_among;
use super::decision::Decision;
use super::neighbours::{Joined, Neighbours, reader};
use super::{ContainerMap, Settings};

/// [`decide`](super::decide) that remembers: only containers that are not as they were, and those that share a network, a name or an
/// address with them, are decided about again.
#[derive(Debug, Default)]
pub struct Decider {
    settings: Settings,
    /// The containers of the last look.
    seen: ContainerMap,
    known: BTreeMap<ContainerId, Known>,
    joined: Joined,
    clashes: Clashes,
    /// All is to be decided again.
    afresh: bool,
    /// The networks that the reader was on.
    reader: Option<BTreeMap<String, Network>>,
}

/// One container.
#[derive(Debug)]
pub(super) struct Known {
    pub container: Arc<Container>,
    /// What was decided about it alone.
    pub alone: Vec<Arc<Decision>>,
    /// The same among the others: one that claims what an older one has is left out.
    pub settled: Vec<Arc<Decision>>,
}

impl Decider {
    /// A decider that remembers nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// By what it decides.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// From the next look on it decides by these.
    pub fn change(&mut self, settings: Settings) {
        (self.settings, self.afresh) = (settings, true);
    }

    /// What is decided about this container; nothing where it is not known.
    pub fn of(&self, container: &ContainerId) -> &[Arc<Decision>] {
        self.known.get(container).map_or(&[], |known| &known.settled)
    }

    /// When Docker says that this container was started.
    pub fn started_at(&self, container: &ContainerId) -> Option<&str> {
        self.known.get(container).map(|known| known.container.started_at.as_str())
    }

    /// All decisions, the containers by id.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Decision>> {
        self.known.values().flat_map(|known| &known.settled)
    }

    /// Decides as [`decide`](super::decide) does. Returns the containers that came, went or are not as they were, and those about
    /// which something else is decided now.
    pub fn decide(&mut self, containers: &ContainerMap) -> BTreeSet<ContainerId> {
        let mut dirty: BTreeSet<ContainerId> = self.seen.differences(containers).cloned().collect();
        let mut again = self.joined.groups(&dirty, &self.seen);
        self.joined.update(dirty.iter().map(|id| (id, containers.get(id))));
        again.extend(self.joined.groups(&dirty, containers));
        let networks = reader(containers, &self.settings).map(|reader| reader.networks.clone());
        if std::mem::take(&mut self.afresh) || self.reader != networks {
            again.extend(self.known.keys().chain(containers.keys()).cloned());
            self.reader = networks;
        }
        let neighbours = Neighbours::among(containers, &self.settings, self.joined.of(&again, containers));
        let mut claims = BTreeSet::new();
        for id in &again {
            let Some(container) = containers.get(id) else {
                if let Some(gone) = self.known.remove(id) {
                    self.clashes.withdraw(&gone, &mut claims);
                }
                continue;
            };
            let fresh = decide_among(container, &neighbours, &self.settings);
            let old = self.known.get(id);
            let is_same = |old: &&Known| {
                old.container.started_at == container.started_at && old.alone.iter().map(|d| &**d).eq(&fresh)
            };
            if old.filter(is_same).is_none() {
                let alone: Vec<_> = fresh.into_iter().map(Arc::new).collect();
                let known = Known { container: Arc::clone(container), settled: alone.clone(), alone };
                self.clashes.claim(&known, &mut claims);
                if let Some(old) = self.known.insert(id.clone(), known) {
                    self.clashes.withdraw_but(&old, self.known.get(id), &mut claims);
                }
                dirty.insert(id.clone());
            } else if let Some(known) = self.known.get_mut(id) {
                known.container = Arc::clone(container);
            }
        }
        dirty.extend(self.clashes.settle(claims, &mut self.known));
        self.seen = containers.clone();
        dirty
    }
}
