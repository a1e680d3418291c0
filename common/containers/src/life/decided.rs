//! What is decided about a daemon's containers, and what follows from that alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tracing::warn;

use super::handover::Names;
use crate::docker::Containers;
use model::SharedMap;
use model::desired::{Candidate, ContainerId, Decider, Decision, Outcome, Settings, Skip};

/// What is decided about the containers, and what follows from that alone.
pub(super) struct Decided {
    pub decider: Decider,
    pub refused: SharedMap<ContainerId, Arc<str>>,
    pub names: Names,
    /// Those that name another one as the one that they replace.
    pub replacers: BTreeSet<ContainerId>,
    /// What was said of each container.
    warned: BTreeMap<ContainerId, BTreeSet<String>>,
}

impl Decided {
    pub fn new(settings: Settings) -> Self {
        Self {
            decider: Decider::new(settings),
            refused: SharedMap::new(),
            names: Names::default(),
            replacers: BTreeSet::new(),
            warned: BTreeMap::new(),
        }
    }

    /// Docker was read. Gives the containers that are not as they were.
    pub fn look(&mut self, containers: &Containers) -> BTreeSet<ContainerId> {
        let mut changed = self.decider.decide(&containers.running);
        changed.extend(self.refused.differences(&containers.refused).cloned());
        self.refused = containers.refused.clone();
        for id in &changed {
            let decisions = self.decider.of(id);
            self.names.set(id, decisions.first().map(|decision| &decision.name));
            match decisions.iter().any(|d| d.candidate().is_some_and(|c| c.replaces.is_some())) {
                true => self.replacers.insert(id.clone()),
                false => self.replacers.remove(id),
            };
            self.warn_once(id);
        }
        changed
    }

    /// Logs what the owner of a container should mend, once as long as it runs.
    fn warn_once(&mut self, id: &ContainerId) {
        let decisions = self.decider.of(id);
        if decisions.is_empty() {
            self.warned.remove(id);
        }
        for decision in decisions {
            let skip = match &decision.outcome {
                Outcome::Skip(Skip::Filtered(_)) => continue, // it is no concern of this agent's
                Outcome::Skip(skip) => skip.to_string(),
                Outcome::Register(_) => String::new(),
            };
            // Why it is left out is said with its standing.
            for warning in decision.warnings.iter().filter(|warning| **warning != skip) {
                if self.warned.entry(id.clone()).or_default().insert(warning.clone()) {
                    warn!(container = %decision.name, %id, "{warning}");
                }
            }
        }
    }

    /// Any decision about this container that is to be registered.
    pub fn candidate(&self, id: &ContainerId) -> Option<(&Arc<Decision>, &Candidate)> {
        self.decider.of(id).iter().find_map(|decision| Some((decision, decision.candidate()?)))
    }
}
