//! The status' tables: what stands in a row of each.

use std::sync::Arc;

use agent::clock::millis;
use agent::watch::Observation;
use model::{Pool, ServiceName};
use registry::Snapshot;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::certificates::LoadedCertificates;
use crate::generators::haproxy::traffic::seen::{BackendState, ServiceTraffic};
use crate::reconcile::{Desired, Nearness, Source};

/// What is known of one service.
pub(super) struct ServiceRow<'a> {
    pub(super) name: &'a ServiceName,
    pub(super) pool: &'a Arc<Pool>,
    pub(super) seen: ServiceTraffic,
    /// How many backends the guard holds.
    pub(super) held: usize,
    /// Others stand in for none.
    pub(super) is_kept: bool,
    /// Since when its previous backends stand in for none.
    pub(super) previous: Option<&'a Instant>,
    /// Why it has no section.
    pub(super) unlisted: Option<String>,
    /// What of its registrations does not count.
    pub(super) disputed: Option<String>,
    /// Which of its backends come first.
    pub(super) near: Option<&'a Nearness>,
}

pub(super) fn service(of: ServiceRow<'_>) -> Value {
    let stands_in = match (of.is_kept, of.previous) {
        (true, _) => Some("no backend is registered; others stand in (--on-empty)"),
        (false, Some(_)) => Some("discovery answers that there is none; its previous backends stay"),
        (false, None) => None,
    };
    let mut row = Map::new();
    let mut put = |key: &str, value: Value| _ = row.insert(key.to_owned(), value);
    put("service", json!(of.name));
    put("port", json!(of.pool.backends().iter().find_map(|b| b.service_port)));
    BackendState::ALL.iter().for_each(|state| put(state.as_str(), of.seen.count(*state).into()));
    put("held", of.held.into());
    let counts = of.seen.counts.map(|c| [c.sessions, c.queued, c.requests, c.errors, c.responses_5xx]);
    for (n, key) in ["sessions", "queued", "requests", "errors", "responses_5xx"].into_iter().enumerate() {
        put(key, json!(counts.map(|counts| counts[n])));
    }
    put("backends", of.pool.backends().iter().map(|b| b.address()).collect());
    put("previous_for_ms", json!(of.previous.map(|at| millis(at.elapsed()))));
    let (near, spills) = match of.near {
        Some(Nearness::Near(place)) => (Some(place.clone()), None),
        Some(Nearness::Spills(why)) => (None, Some(why.clone())),
        None => (None, None),
    };
    put("near", json!(near));
    put("note", json!(of.unlisted.or_else(|| stands_in.map(str::to_owned)).or(of.disputed).or(spills)));
    Value::Object(row)
}

/// How many backends it has.
pub(super) fn backends(snapshot: &Snapshot) -> usize {
    snapshot.services.values().map(|p| p.len()).sum()
}

/// A source, with what it knew at the last turn.
pub(super) fn source(source: &Source, observation: &Observation<Snapshot>) -> Value {
    let snapshot = observation.snapshot();
    json!({
        "source": &*source.name,
        "standing": observation.standing(),
        "stale_for_ms": observation.stale_since().map(|at| millis(at.elapsed())),
        "error": observation.error(),
        "revision": snapshot.map(|s| s.revision),
        "services": snapshot.map_or(0, |s| s.services.len()),
        "backends": snapshot.map_or(0, |s| backends(s)),
    })
}

/// Registrations that could not be read, and sections from the registry that are refused.
pub(super) fn quarantined(observations: &[Observation<Snapshot>], desired: &Desired) -> Vec<Value> {
    let keys = observations.iter().filter_map(Observation::snapshot).flat_map(|s| s.quarantined.iter());
    let keys = keys.map(|(key, q)| json!({"key": &**key, "reason": q.reason}));
    let keys = keys.chain(desired.refused.iter().map(|(service, why)| json!({"key": service, "reason": why})));
    keys.chain(desired.barred.iter().map(|(key, why)| json!({"key": key, "reason": why}))).collect()
}

/// The edge's certificates.
pub(super) fn certificates(loaded: &LoadedCertificates) -> Value {
    let served = loaded.certificates.iter().map(|certificate| {
        let ends = humantime::format_rfc3339_seconds(certificate.facts.not_after).to_string();
        json!({"file": certificate.source, "names": certificate.facts.names, "ends": ends})
    });
    let left_out = loaded.refused.iter().map(|refused| json!({"file": refused.source, "reason": refused.why}));
    json!({"served": served.collect::<Vec<_>>(), "left_out": left_out.collect::<Vec<_>>()})
}
