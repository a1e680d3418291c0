//! Decisions kept from one look to the next: a change of one container costs one container.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::container::{Container, ContainerId, Network};
use super::decide::{decide_among, in_order, settle_clashes};
use super::decision::Decision;
use super::neighbours::Neighbours;
use super::{ContainerMap, Settings};

/// [`decide`](super::decide) that remembers: a container that is the same `Arc` as last time is not decided about again.
#[derive(Debug, Default)]
pub struct Decider {
    settings: Settings,
    known: BTreeMap<ContainerId, (Arc<Container>, Vec<Arc<Decision>>)>,
    /// The networks that the reader was on.
    reader: Option<BTreeMap<String, Network>>,
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

    /// The same decisions as [`decide`](super::decide) makes, in the same order.
    pub fn decide(&mut self, containers: &ContainerMap) -> Vec<Arc<Decision>> {
        let neighbours = Neighbours::new(containers, &self.settings);
        let reader = neighbours.reader.map(|reader| reader.networks.clone());
        if self.reader != reader {
            self.known.clear();
            self.reader = reader;
        }
        self.known.retain(|id, container| containers.contains_key(id) && !neighbours.concern(&container.0));
        let mut decisions = Vec::with_capacity(containers.len());
        for container in in_order(containers) {
            let kept = self.known.get(&container.id).filter(|(known, _)| Arc::ptr_eq(known, container));
            if let Some((_, kept)) = kept {
                decisions.extend(kept.iter().cloned());
                continue;
            }
            let new = decide_among(container, &neighbours, &self.settings);
            let new: Vec<_> = new.into_iter().map(Arc::new).collect();
            decisions.extend(new.iter().cloned());
            // Another container on the same network may change while this one does not.
            if !neighbours.concern(container) {
                self.known.insert(container.id.clone(), (container.clone(), new));
            }
        }
        // What is kept is from before the clashes were settled, so the holder's end frees the other.
        settle_clashes(&mut decisions);
        decisions
    }
}
