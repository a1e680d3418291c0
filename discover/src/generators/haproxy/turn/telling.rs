//! What a turn tells an operator: of what is left out, of the edge, and of what waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::ServiceMap;
use tokio::time::Instant;
use tracing::{info, warn};

use super::churn::Churn;
use super::metrics::HaproxyMetrics;
use super::prove::proofs::Proofs;
use super::slices::Behind;
use super::status::{EdgeStatus, HaproxyStatus, PausedStatus, SniStatus};
use crate::edge::{Lost, Routing, Way};
use crate::generators::haproxy::file::desk::Desk;
use crate::generators::haproxy::file::places::Places;
use crate::generators::haproxy::file::synapse::Quarantined;
use crate::generators::haproxy::traffic::pools::{PoolChanges, Pools};
use crate::haproxy::api::stats::StatRow;

/// What an operator is shown, and what was logged last.
#[derive(Debug)]
pub struct Telling {
    status: Arc<Mutex<HaproxyStatus>>,
    /// The registrations that the composers left out.
    quarantined: BTreeSet<Quarantined>,
    /// What the edge had decided.
    routing: Arc<Routing>,
    /// Which pools worked.
    pools: Pools,
}

impl Telling {
    /// Nothing was logged yet.
    pub fn new(status: HaproxyStatus) -> Self {
        let (status, quarantined) = (Arc::new(Mutex::new(status)), BTreeSet::new());
        Self { status, quarantined, routing: Arc::default(), pools: Pools::default() }
    }

    /// What is shown.
    pub fn status(&self) -> Arc<Mutex<HaproxyStatus>> {
        self.status.clone()
    }

    /// The same, to be changed.
    pub fn note(&self) -> MutexGuard<'_, HaproxyStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs which registrations are left out of the file, each once.
    pub fn quarantined(&mut self, desk: &Desk, words: &Proofs) {
        let quarantined = desk.quarantined();
        for q in quarantined.difference(&self.quarantined) {
            warn!(service = %q.service, server = %q.server, reason = %q.reason, "Registration is left out of haproxy.cfg.");
        }
        self.quarantined = quarantined;
        let composers = self.quarantined.iter().map(|q| (format!("{}/{}", q.service, q.server), q.reason.clone()));
        let shown: BTreeMap<_, _> = composers.chain(words.reasons()).chain(desk.loops()).collect();
        let mut note = self.note();
        (note.quarantined, note.unproved) = (shown, words.waiting());
    }

    /// Logs what the edge has decided, where it is something else than before. `reloads`: with the spare sections of a reload.
    pub fn edge(&mut self, desk: &Desk, reloads: bool) {
        let Some(edge) = desk.edge() else { return };
        let taken = desk.ports().edge_taken;
        let (sections, [spare, made]) = edge.sections(Way::Http, reloads).unwrap_or_default();
        let passed = edge.sections(Way::Sni, reloads);
        let routing = edge.routing().clone();
        let mut note = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let status = note.edge.get_or_insert_default();
        if !Arc::ptr_eq(&routing, &self.routing) {
            for lost in routing.lost.difference(&self.routing.lost) {
                warn!(service = %lost.service, place = %lost.place, why = %lost.why, "A place at the edge is not this service's.");
            }
            let line = |lost: &Lost| (format!("{} ({})", lost.place, lost.service), lost.why.to_string());
            status.lost = routing.lost.iter().map(line).collect();
            status.rules = routing.rules.len();
            let names = routing.rules.iter().filter(|(place, _)| place.way == Way::Sni);
            let names: BTreeMap<_, _> = names.map(|(at, rule)| (at.host.to_string(), rule.service.clone())).collect();
            status.sni = passed.is_some().then(|| SniStatus { names, ..SniStatus::default() });
            status.routing = routing.clone();
            self.routing = routing;
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

    /// Logs which services have lost their last backend that works, and which have one again, as HAProxy says of its sections.
    pub fn pools(&mut self, rows: &[StatRow], services: &ServiceMap, places: &Places) {
        let mut note = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let edge = note.edge.as_ref().map(EdgeStatus::places).unwrap_or_default();
        let changes = self.pools.look(rows, services, places, &edge);
        if changes != PoolChanges::default() {
            note.out_of_service.clone_from(self.pools.lost());
        }
        for service in &changes.lost {
            let backends = services.get(service).map_or(0, |pool| pool.len());
            warn!(%service, backends, "The service has no backend any more that can take a request.");
        }
        for service in &changes.back {
            info!(%service, "The service has a backend again that can take a request.");
        }
    }

    /// Shows what waits: changes that are left to the next turns, and services whose structure may not change yet.
    pub fn waiting(&self, churn: &Churn, behind: &Behind, metrics: &HaproxyMetrics) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let paused = churn.waiting(Instant::now());
        metrics.changes_waiting.set(count(behind.values().sum()));
        metrics.structures_waiting.set(count(paused.len()));
        let mut note = self.note();
        let shown = |(name, (changes, wait))| (name, PausedStatus::new(changes, wait));
        note.paused = paused.into_iter().map(shown).collect();
        note.behind = behind.iter().map(|(name, changes)| (name.to_string(), *changes)).collect();
    }
}
