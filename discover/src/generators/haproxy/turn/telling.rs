//! What a turn tells an operator: of what is left out, of the edge, and of what waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use tokio::time::Instant;
use tracing::warn;

use super::generator::Haproxy;
use super::slices::Behind;
use super::status::{PausedStatus, SniStatus};
use crate::edge::{Lost, Routing, Way};
use crate::generators::haproxy::file::synapse::Quarantined;

/// What was told last.
#[derive(Debug, Default)]
pub struct Told {
    /// The registrations that the composers left out.
    quarantined: BTreeSet<Quarantined>,
    /// What the edge had decided.
    routing: Arc<Routing>,
}

impl Haproxy {
    /// Tells which registrations are left out of the file, each once.
    pub(super) fn tell_quarantined(&mut self) {
        let quarantined = self.desk.quarantined();
        for q in quarantined.difference(&self.told.quarantined) {
            warn!(service = %q.service, server = %q.server, reason = %q.reason, "Registration is left out of haproxy.cfg.");
        }
        let words = &self.refusals.words.proofs;
        let composers = quarantined.iter().map(|q| (format!("{}/{}", q.service, q.server), q.reason.clone()));
        let shown: BTreeMap<_, _> = composers.chain(words.reasons()).chain(self.desk.loops()).collect();
        let unproved = words.waiting();
        self.told.quarantined = quarantined;
        let mut note = self.note();
        (note.quarantined, note.unproved) = (shown, unproved);
    }

    /// Tells what the edge has decided, where it is something else than before. `reloads`: with the spare sections of a reload.
    pub(super) fn tell_edge(&mut self, reloads: bool) {
        let Some(edge) = self.desk.edge() else { return };
        let taken = self.desk.ports().edge_taken;
        let (sections, [spare, made]) = edge.sections(Way::Http, reloads).unwrap_or_default();
        let passed = edge.sections(Way::Sni, reloads);
        let routing = edge.routing().clone();
        let mut note = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let status = note.edge.get_or_insert_default();
        if !Arc::ptr_eq(&routing, &self.told.routing) {
            for lost in routing.lost.difference(&self.told.routing.lost) {
                warn!(service = %lost.service, place = %lost.place, why = %lost.why, "A place at the edge is not this service's.");
            }
            let line = |lost: &Lost| (format!("{} ({})", lost.place, lost.service), lost.why.to_string());
            status.lost = routing.lost.iter().map(line).collect();
            status.rules = routing.rules.len();
            let names = routing.rules.iter().filter(|(place, _)| place.way == Way::Sni);
            let names: BTreeMap<_, _> = names.map(|(at, rule)| (at.host.to_string(), rule.service.clone())).collect();
            status.sni = passed.is_some().then(|| SniStatus { names, ..SniStatus::default() });
            self.told.routing = routing;
        }
        match passed {
            Some((sections, [spare, _])) => {
                let sni = status.sni.get_or_insert_default();
                (sni.sections, sni.spare) = (sections, spare);
            }
            None => status.sni = None,
        }
        (status.taken, status.sections, status.spare, status.made) = (taken, sections, spare, made);
    }

    /// Shows what waits: changes that are left to the next turns, and services whose structure may not change yet.
    pub(super) fn tell_waiting(&mut self, behind: &Behind) {
        let now = Instant::now();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let paused = self.due.churn.waiting(now);
        self.metrics.changes_waiting.set(count(behind.values().sum()));
        self.metrics.structures_waiting.set(count(paused.len()));
        let mut note = self.note();
        note.paused =
            paused.into_iter().map(|(name, (changes, wait))| (name, PausedStatus::new(changes, wait))).collect();
        note.behind = behind.iter().map(|(name, changes)| (name.to_string(), *changes)).collect();
    }
}
