//! What a turn tells an operator: of the edge, and of what waits.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use tokio::time::Instant;
use tracing::warn;

use super::generator::Haproxy;
use super::status::{PausedStatus, SniStatus};
use crate::edge::{Lost, Way};

impl Haproxy {
    /// Tells what the edge has decided, where it is something else than before.
    pub(super) fn tell_edge(&mut self) {
        let Some(edge) = &self.edge else { return };
        let taken = self.binds.chosen().edge_taken;
        let (sections, [spare, made]) = edge.sections(Way::Http).unwrap_or_default();
        let passed = edge.sections(Way::Sni);
        let routing = edge.routing().clone();
        let mut note = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let told = note.edge.get_or_insert_default();
        if !Arc::ptr_eq(&routing, &self.routing) {
            for lost in routing.lost.difference(&self.routing.lost) {
                warn!(service = %lost.service, place = %lost.place, why = %lost.why, "A place at the edge is not this service's.");
            }
            let line = |lost: &Lost| (format!("{} ({})", lost.place, lost.service), lost.why.to_string());
            told.lost = routing.lost.iter().map(line).collect();
            told.rules = routing.rules.len();
            let names = routing.rules.iter().filter(|(place, _)| place.way == Way::Sni);
            let names: BTreeMap<_, _> = names.map(|(at, rule)| (at.host.to_string(), rule.service.clone())).collect();
            told.sni = passed.is_some().then(|| SniStatus { names, ..SniStatus::default() });
            self.routing = routing;
        }
        match passed {
            Some((sections, [spare, _])) => {
                let sni = told.sni.get_or_insert_default();
                (sni.sections, sni.spare) = (sections, spare);
            }
            None => told.sni = None,
        }
        (told.taken, told.sections, told.spare, told.made) = (taken, sections, spare, made);
    }

    /// Shows what waits: changes that are left to the next turns, and services whose structure may not change yet.
    pub(super) fn tell_waiting(&mut self) {
        let now = Instant::now();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let paused = self.churn.waiting(now);
        self.metrics.changes_waiting.set(count(self.behind.values().sum()));
        self.metrics.structures_waiting.set(count(paused.len()));
        let mut note = self.note();
        note.paused =
            paused.into_iter().map(|(name, (changes, wait))| (name, PausedStatus::new(changes, wait))).collect();
        note.behind = self.behind.iter().map(|(name, changes)| (name.to_string(), *changes)).collect();
    }
}
