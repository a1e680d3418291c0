//! What a subscription learns of containers, from their inspections and from lists of them all.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::error::DockerError;
use super::list::Listed;
use super::session::Session;
use agent::telemetry::Chain;
use model::desired::{Container, ContainerId, State};

impl<W: FnMut() + Send> Session<'_, W> {
    pub(super) fn learn(&mut self, id: &ContainerId, found: Option<Container>) {
        if let Some(trouble) = self.inspections.described(id) {
            info!(container = %id, after_s = trouble.since.elapsed().as_secs(), "Docker describes a container again.");
        }
        match found {
            Some(container) if matches!(container.state, State::Running | State::Paused | State::Restarting) => {
                self.known.refused.remove(id);
                let same = self.known.running.get(id).is_some_and(|known| **known == container);
                if !same {
                    self.known.running.insert(id.clone(), Arc::new(container));
                }
            }
            _ => self.forget(id),
        }
    }

    /// One container cannot be described. What it was stays, as nothing new is known, and nobody else is concerned: whether the
    /// daemon lives, its other answers tell.
    pub(super) fn miss(&mut self, id: &ContainerId, error: &DockerError) {
        let name = self.name(id);
        let trouble = self.inspections.failed(id, Instant::now());
        let reason = match error {
            DockerError::Container(error) => error.to_string(),
            DockerError::Deadline { .. } => {
                format!("Docker has not described {name} for {} s", trouble.since.elapsed().as_secs())
            }
            error => Chain(error).to_string(),
        };
        // A daemon stumbles over what it is just removing.
        let known = self.known.running.contains_key(id);
        match (trouble.tries, error) {
            (1, DockerError::Refused { .. }) => {
                debug!(container = %name, %id, reason, "A container could not be inspected.")
            }
            (1, _) | (2, DockerError::Refused { .. }) => {
                warn!(container = %name, %id, reason, known, "A container cannot be described; what was known of it stays.");
            }
            _ => {}
        }
        self.keep(id, reason.into());
    }

    /// Nothing may be concluded about this one, but that it has ended, if that was heard.
    pub(super) fn keep(&mut self, id: &ContainerId, reason: Arc<str>) {
        if !self.inspections.has_ended(id) {
            self.known.refused.insert(id.clone(), reason);
        }
    }

    pub(super) fn name(&self, id: &ContainerId) -> String {
        let known = self.known.running.get(id).map(|container| container.name.clone());
        known.or_else(|| self.entries.get(id)?.name.clone()).unwrap_or_else(|| id.short().to_owned())
    }

    /// What the list says of a container differs from last time, or it is new: look. It is no longer listed: it is gone.
    pub(super) fn compare(&mut self, listed: Vec<Listed>) {
        let mut seen = BTreeSet::new();
        for entry in listed {
            let Ok(id) = entry.id.parse::<ContainerId>() else { continue };
            seen.insert(id.clone());
            if self.entries.get(&id) != Some(&entry) {
                self.entries.insert(id.clone(), entry);
                self.inspections.want(id);
            }
        }
        // One that was started while the list was made may not be in it: looking decides, not the list. The first list has no
        // entries to compare with, so all that was known from before this subscription is looked at.
        let known = self.known.running.keys().chain(self.known.refused.keys());
        let unlisted: Vec<ContainerId> = known.filter(|id| !seen.contains(*id)).cloned().collect();
        unlisted.into_iter().for_each(|id| self.inspections.want(id));
        self.listed.get_or_insert_with(Instant::now);
    }

    pub(super) fn look_at_health(&mut self) {
        let checked = self.known.running.values().filter(|container| container.health.is_some());
        checked.for_each(|container| self.inspections.want(container.id.clone()));
    }
}
