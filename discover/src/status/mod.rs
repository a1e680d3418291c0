//! What discover tells about itself.
//!
//! | module | what it holds |
//! |---|---|
//! | `rows` | its tables, a row of each |
//! | [`services`] | each service with the states of its backends, as HAProxy sees them where it is asked |
//! | [`series`] | the same as metrics |
//! | `page` | what the page shows of it |
//! | [`feeds`] | what the page asks for beside that |
//! | `chronicle`, `noting` | what has changed, for the history |

mod chronicle;
pub mod feeds;
mod noting;
mod page;
mod rows;
pub mod series;
pub mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::admin::{StatusSource, Unready};
use agent::clock::{self, millis};
use agent::sync::lock;
use agent::watch::Observation;
use futures_util::future::BoxFuture;
use model::{Pool, ServiceMap, ServiceName};
use registry::Snapshot;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use self::chronicle::Chronicle;
use self::rows::{backends, certificates, quarantined, source};
use self::services::{HaproxyPart, View};
use crate::certificates::LoadedCertificates;
use crate::generators::haproxy::turn::status::HaproxyStatus;
use crate::metrics::{Metrics, SourceLabel};
use crate::reconcile::{Desired, Nearness, Source};

/// How often who watches the page is shown what HAProxy sees, at the least.
const PERIOD: Duration = Duration::from_secs(2);

/// What the admin server shows, empty at first and kept by the agent; clones share it.
#[derive(Debug, Clone, Default)]
pub struct StatusBoard(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    /// The sources, with what they knew at the last turn.
    sources: Vec<(Source, Observation<Snapshot>)>,
    quarantined: Vec<Value>,
    services: ServiceMap,
    held: BTreeMap<ServiceName, usize>,
    kept: BTreeSet<ServiceName>,
    previous: BTreeMap<ServiceName, Instant>,
    near: BTreeMap<ServiceName, Nearness>,
    turn: Option<TurnRecord>,
    haproxy: Option<HaproxyPart>,
    /// Watchers below others: shown, never merged.
    inner: Vec<Source>,
    /// The edge's certificates.
    certificates: Option<watch::Receiver<Arc<LoadedCertificates>>>,
    chronicle: Chronicle,
    /// The port of HAProxy's stats page.
    stats_port: Option<u16>,
}

/// What is routed at one moment.
#[derive(Debug, Clone)]
pub struct Routed {
    /// The highest revision of the sources; 0 where none has any.
    pub revision: i64,
    /// Every service with its pool, as it was merged and guarded.
    pub services: ServiceMap,
    /// How many backends of a service are there only because the guard holds them.
    pub held: BTreeMap<ServiceName, usize>,
    /// The states of their backends.
    pub view: View,
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
        Self { ended_unix_ms: millis(clock::now()), took, error }
    }
}

impl StatusBoard {
    /// What was desired last; empty before the first turn.
    pub fn services(&self) -> ServiceMap {
        self.lock().services.clone()
    }

    /// What is routed, for programs; `None` before the first turn, when nothing may be concluded.
    pub fn routed(&self) -> Option<Routed> {
        let state = self.lock();
        let revisions = state.sources.iter().filter_map(|(_, o)| o.snapshot()).map(|s| s.revision);
        let revision = revisions.max().unwrap_or_default();
        let routed = || Routed {
            revision,
            services: state.services.clone(),
            held: state.held.clone(),
            view: View::of(state.haproxy.as_ref()),
        };
        state.turn.is_some().then(routed)
    }

    /// Asks HAProxy what it sees, unless it was asked within the last second.
    pub async fn look(&self) {
        let traffic = self.lock().haproxy.as_ref().map(|haproxy| haproxy.traffic.clone());
        if let Some(traffic) = traffic {
            traffic.look().await;
        }
    }

    /// Shows HAProxy's part.
    pub fn set_haproxy(&self, haproxy: Option<HaproxyPart>) {
        self.lock().haproxy = haproxy;
    }

    /// Shows the edge's certificates.
    pub fn set_certificates(&self, certificates: Option<watch::Receiver<Arc<LoadedCertificates>>>) {
        self.lock().certificates = certificates;
    }

    /// Shows these watchers too, which stand below others.
    pub fn set_inner(&self, inner: Vec<Source>) {
        self.lock().inner = inner;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shown> {
        lock(&self.0)
    }

    /// Notes what the sources know, and what of it is measured. Costs little where it is what it was.
    pub fn observed(&self, sources: &[Source], observations: &[Observation<Snapshot>], metrics: &Metrics) {
        let mut state = self.lock();
        let known = state.sources.len() == sources.len();
        for (n, (source, observation)) in sources.iter().zip(observations).enumerate() {
            let before = state.sources.get(n).filter(|(was, _)| known && was.name == source.name).map(|(_, was)| was);
            if !before.is_some_and(|was| is_same(was, observation)) {
                measure(source, observation, metrics);
            }
        }
        for inner in &state.inner {
            measure(inner, &inner.inlet.borrow(), metrics);
        }
        state.sources = sources.iter().cloned().zip(observations.iter().cloned()).collect();
    }

    /// Whether a HAProxy is to run what is desired, and does not.
    pub fn lacks_haproxy(&self) -> bool {
        self.lock().haproxy.as_ref().is_some_and(|haproxy| lock(&haproxy.status).error.is_some())
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
        let changed = state.turn.is_none()
            || state.services != desired.services
            || state.held != held
            || state.kept != desired.kept
            || state.previous != desired.previous
            || state.near != desired.near
            || state.quarantined != quarantined
            || was_failing != turn.error.is_some();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics.services.set(count(desired.services.len()));
        metrics.backends.set(count(desired.services.values().map(|p| p.len()).sum()));
        metrics.held.set(count(held.values().sum()));
        let haproxy = state.haproxy.as_ref().map(|h| lock(&h.status).quarantined.len());
        metrics.quarantined.set(count(quarantined.len() + haproxy.unwrap_or(0)));
        let longest = desired.previous.values().map(Instant::elapsed).max().unwrap_or_default();
        metrics.previous_age.set(i64::try_from(longest.as_secs()).unwrap_or(i64::MAX));
        state.services = desired.services.clone();
        state.held = held;
        state.kept = desired.kept.clone();
        state.previous = desired.previous.clone();
        state.near = desired.near.clone();
        state.quarantined = quarantined;
        state.turn = Some(turn);
        changed
    }
}

/// Whether both say the same, as can be seen at a glance. What fails grows older and is never the same.
fn is_same(a: &Observation<Snapshot>, b: &Observation<Snapshot>) -> bool {
    match (a, b) {
        (Observation::Synced { snapshot: a }, Observation::Synced { snapshot: b }) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

fn measure(source: &Source, observation: &Observation<Snapshot>, metrics: &Metrics) {
    let label = SourceLabel { source: source.name.to_string() };
    let stale = observation.stale_since().map_or(0, |since| since.elapsed().as_secs());
    metrics.sources.synced.get_or_create(&label).set(i64::from(observation.standing() == "synced"));
    metrics.sources.stale.get_or_create(&label).set(i64::try_from(stale).unwrap_or(i64::MAX));
    let backends = observation.snapshot().map_or(0, |s| backends(s));
    metrics.sources.backends.get_or_create(&label).set(i64::try_from(backends).unwrap_or(i64::MAX));
}

impl StatusSource for StatusBoard {
    fn version(&self) -> &'static str {
        crate::VERSION
    }

    fn status(&self) -> Value {
        let state = self.lock();
        let haproxy = state.haproxy.as_ref().map(|h| lock(&h.status).clone());
        let view = View::of(state.haproxy.as_ref());
        let service = |(name, pool): (&ServiceName, &Arc<Pool>)| {
            let note =
                |of: fn(&HaproxyStatus) -> &BTreeMap<ServiceName, String>| of(haproxy.as_ref()?).get(name).cloned();
            rows::service(rows::ServiceRow {
                name,
                pool,
                seen: view.service(name, pool),
                held: state.held.get(name).copied().unwrap_or(0),
                is_kept: state.kept.contains(name),
                previous: state.previous.get(name),
                unlisted: note(|haproxy| &haproxy.unlisted),
                disputed: note(|haproxy| &haproxy.disputed),
                near: state.near.get(name),
            })
        };
        let services: Vec<Value> = state.services.iter().map(service).collect();
        let sources = state.sources.iter().map(|(s, o)| source(s, o));
        let sources = sources.chain(state.inner.iter().map(|s| source(s, &s.inlet.borrow())));
        json!({
            "version": crate::VERSION,
            "ready": self_ready(&state).err().map_or_else(|| "yes".into(), |unready| unready.detail),
            "last_turn": state.turn.as_ref().map(|t| json!({
                "ended_unix_ms": t.ended_unix_ms, "took_ms": t.took.as_secs_f64() * 1000.0, "error": t.error,
            })),
            "sources": sources.collect::<Vec<_>>(),
            "backends_seen_by": view.seen_by(),
            "services": services,
            "haproxy": haproxy,
            "quarantined": state.quarantined,
            "certificates": state.certificates.as_ref().map(|loaded| certificates(&loaded.borrow())),
        })
    }

    fn page(&self) -> Value {
        let status = self.status();
        let state = self.lock();
        let about = page::About {
            services: &state.services,
            held: &state.held,
            view: View::of(state.haproxy.as_ref()),
            stats_port: state.stats_port,
            noted: state.chronicle.history.count(),
        };
        page::of(status, &about)
    }

    fn script(&self) -> &'static str {
        include_str!("page.js")
    }

    fn refresh(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.look())
    }

    fn period(&self) -> Option<Duration> {
        self.lock().haproxy.as_ref().map(|haproxy| haproxy.traffic.pause().max(PERIOD))
    }

    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> Result<(), Unready> {
        self_ready(&self.lock())
    }

    fn reasons(&self) -> &'static [&'static str] {
        &["first_sync", "turn", "haproxy"]
    }
}

/// Ready is: every generator has brought about what is desired, and HAProxy runs it.
fn self_ready(state: &Shown) -> Result<(), Unready> {
    match &state.turn {
        None => {
            let why =
                state.sources.iter().filter_map(|(source, told)| Some(format!("; {}: {}", source.name, told.error()?)));
            return Err(Unready::new("first_sync", format!("no source has answered yet{}", why.collect::<String>())));
        }
        Some(TurnRecord { error: Some(error), .. }) => {
            return Err(Unready::new("turn", format!("the last turn failed: {error}")));
        }
        Some(_) => {}
    }
    match state.haproxy.as_ref().and_then(|haproxy| lock(&haproxy.status).error.clone()) {
        Some(error) => Err(Unready::new("haproxy", format!("HAProxy does not run what is desired: {error}"))),
        None => Ok(()),
    }
}
