//! What discover tells about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::admin::StatusSource;
use common::model::{ServiceMap, ServiceName, Status};
use common::registry::Snapshot;
use common::watch::Observation;
use serde_json::{Value, json};

use crate::generators::haproxy::status::HaproxyStatus;
use crate::metrics::{Metrics, SourceLabel};
use crate::reconcile::{Desired, Source};

/// What the admin server shows, kept by the agent; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    sources: Vec<Value>,
    quarantined: Vec<Value>,
    services: ServiceMap,
    held: BTreeMap<ServiceName, usize>,
    kept: BTreeSet<ServiceName>,
    turn: Option<TurnRecord>,
    haproxy: Option<Arc<Mutex<HaproxyStatus>>>,
    pending: bool,
    /// Watchers below others: shown, never merged.
    inner: Vec<Source>,
}

/// The last turn.
#[derive(Debug, Clone)]
pub struct TurnRecord {
    ended_unix_ms: u64,
    took: Duration,
    error: Option<String>,
}

impl TurnRecord {
    /// A turn that ended now.
    pub fn new(took: Duration, error: Option<String>) -> Self {
        Self { ended_unix_ms: unix_ms(), took, error }
    }
}

fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

impl Shared {
    /// An empty status; HAProxy's part is kept by its generator.
    pub fn new(haproxy: Option<Arc<Mutex<HaproxyStatus>>>) -> Self {
        Self(Arc::new(Mutex::new(State { haproxy, pending: true, ..State::default() })))
    }

    /// Takes another HAProxy's part, as when a new config makes a new generator.
    pub fn set_haproxy(&self, haproxy: Option<Arc<Mutex<HaproxyStatus>>>) {
        self.lock().haproxy = haproxy;
    }

    /// Shows these watchers too, which stand below others.
    pub fn set_inner(&self, inner: Vec<Source>) {
        self.lock().inner = inner;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the sources know.
    pub fn observed(&self, sources: &[Source], observations: &[Observation<Snapshot>]) {
        let mut state = self.lock();
        let inner: Vec<Value> = state.inner.iter().map(|s| source(s, &s.inlet.borrow())).collect();
        state.sources = sources.iter().zip(observations).map(|(s, o)| source(s, o)).chain(inner).collect();
    }

    /// Notes a turn; tells whether anything that people watch has changed.
    pub fn turned(
        &self,
        desired: &Desired,
        observations: &[Observation<Snapshot>],
        turn: TurnRecord,
        metrics: &Metrics,
    ) -> bool {
        let mut state = self.lock();
        let quarantined = quarantined(observations, desired);
        let held: BTreeMap<_, _> = desired.held.iter().map(|(s, held)| (s.clone(), held.len())).collect();
        let was_failing = state.turn.as_ref().is_some_and(|t| t.error.is_some());
        let changed = state.pending
            || state.services != desired.services
            || state.held != held
            || state.kept != desired.kept
            || state.quarantined != quarantined
            || was_failing != turn.error.is_some();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.services.set(count(desired.services.len()));
        metrics.backends.set(count(desired.services.values().map(|p| p.len()).sum()));
        metrics.held.set(count(held.values().sum()));
        let haproxy =
            state.haproxy.as_ref().map(|h| h.lock().unwrap_or_else(PoisonError::into_inner).quarantined.len());
        metrics.quarantined.set(count(quarantined.len() + haproxy.unwrap_or(0)));
        for source in &state.sources {
            let name = source["source"].as_str().unwrap_or_default().to_owned();
            let label = SourceLabel { source: name };
            let number = |key: &str| source[key].as_i64().unwrap_or(0);
            metrics.synced.get_or_create(&label).set(i64::from(source["standing"] == "synced"));
            metrics.stale.get_or_create(&label).set(number("stale_for_ms") / 1000);
            metrics.source_backends.get_or_create(&label).set(number("backends"));
        }
        state.services = desired.services.clone();
        state.held = held;
        state.kept = desired.kept.clone();
        state.quarantined = quarantined;
        state.turn = Some(turn);
        state.pending = false;
        changed
    }
}

fn source(source: &Source, observation: &Observation<Snapshot>) -> Value {
    let snapshot = observation.snapshot();
    json!({
        "source": &*source.name,
        "standing": observation.standing(),
        "stale_for_ms": observation.stale_since().map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        "error": observation.error(),
        "revision": snapshot.map(|s| s.revision),
        "services": snapshot.map_or(0, |s| s.services.len()),
        "backends": snapshot.map_or(0, |s| s.services.values().map(|p| p.len()).sum::<usize>()),
    })
}

/// Registrations that could not be read, and sections from the registry that are refused.
fn quarantined(observations: &[Observation<Snapshot>], desired: &Desired) -> Vec<Value> {
    let keys = observations.iter().filter_map(Observation::snapshot).flat_map(|s| s.quarantined.iter());
    let keys = keys.map(|(key, q)| json!({"key": &**key, "reason": q.reason}));
    keys.chain(desired.refused.iter().map(|(service, why)| json!({"key": service, "reason": why}))).collect()
}

impl StatusSource for Shared {
    fn status(&self) -> Value {
        let state = self.lock();
        let haproxy = state.haproxy.as_ref().map(|h| h.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let services: Vec<Value> = state
            .services
            .iter()
            .map(|(name, pool)| {
                let in_status = |status| pool.backends().iter().filter(|b| b.status == status).count();
                let unlisted = haproxy.as_ref().and_then(|h| h.unlisted.get(name).map(String::as_str));
                let kept =
                    state.kept.contains(name).then_some("no backend is registered; others stand in (--on-empty)");
                json!({
                    "service": name,
                    "port": pool.backends().iter().find_map(|b| b.service_port),
                    "up": in_status(Status::Up),
                    "draining": in_status(Status::Draining),
                    "down": in_status(Status::Down),
                    "held": state.held.get(name).copied().unwrap_or(0),
                    "backends": pool.backends().iter().map(|b| b.address()).collect::<Vec<_>>(),
                    "note": unlisted.or(kept),
                })
            })
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ready": self_ready(&state).err().unwrap_or_else(|| "yes".into()),
            "last_turn": state.turn.as_ref().map(|t| json!({
                "ended_unix_ms": t.ended_unix_ms, "took_ms": t.took.as_secs_f64() * 1000.0, "error": t.error,
            })),
            "sources": state.sources,
            "services": services,
            "haproxy": haproxy,
            "quarantined": state.quarantined,
        })
    }

    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> Result<(), String> {
        self_ready(&self.lock())
    }
}

fn self_ready(state: &State) -> Result<(), String> {
    match &state.turn {
        _ if state.pending => Err("no source has answered yet".into()),
        Some(TurnRecord { error: Some(error), .. }) => Err(format!("the last turn failed: {error}")),
        _ => Ok(()),
    }
}
