//! Decisions kept from one look to the next: a change of one container costs one container.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::container::{Container, ContainerId};
use super::decide::{decide_one, in_order, settle_clashes};
use super::decision::Decision;
use super::{ContainerMap, Settings};

/// [`decide`](super::decide) that remembers: a container that is the same `Arc` as last time is not decided about again.
#[derive(Debug, Default)]
pub struct Decider {
    settings: Settings,
    known: BTreeMap<ContainerId, (Arc<Container>, Vec<Arc<Decision>>)>,
}

impl Decider {
    /// A decider that remembers nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, known: BTreeMap::new() }
    }

    /// By what it decides.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The same decisions as [`decide`](super::decide) makes, in the same order.
    pub fn decide(&mut self, containers: &ContainerMap) -> Vec<Arc<Decision>> {
        self.known.retain(|id, _| containers.contains_key(id));
        let mut decisions = Vec::with_capacity(containers.len());
        for container in in_order(containers) {
            // Another container's network may have changed while this one did not.
            let borrows = container.network_mode.starts_with("container:");
            let kept = self.known.get(&container.id).filter(|(known, _)| !borrows && Arc::ptr_eq(known, container));
            if let Some((_, kept)) = kept {
                decisions.extend(kept.iter().cloned());
                continue;
            }
            let new: Vec<_> = decide_one(container, containers, &self.settings).into_iter().map(Arc::new).collect();
            decisions.extend(new.iter().cloned());
            self.known.insert(container.id.clone(), (container.clone(), new));
        }
        // What is kept is from before the clashes were settled, so the holder's end frees the other.
        settle_clashes(&mut decisions);
        decisions
    }
}
