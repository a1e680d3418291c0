//! Any watcher whose backends carry host names, with their addresses in place of the names.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::backoff::{Backoff, Jitter};
use agent::telemetry::Chain;
use agent::watch::{Inlet, Observation, Outlet, Watcher, channel};
use model::{Backend, BackendId, Host, Pool, ServiceMap, ServiceName};
use registry::store::{Key, Revision};
use registry::{Quarantined, Snapshot};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::names::{DnsNames, Round};
use super::resolver::Resolver;
use crate::watchers::teller::{Standing, Teller};

/// The first delay after a failure.
const RETRY: Duration = Duration::from_millis(200);
/// No name is asked for more often without news.
const LEAST: Duration = Duration::from_secs(1);

/// Stands on another watcher: what that one says, with one backend for each address of its host.
#[derive(Debug)]
pub struct Resolving<W> {
    inner: W,
    resolver: Resolver,
    every: Duration,
    name: Arc<str>,
}

impl<W: Watcher<Snapshot>> Resolving<W> {
    /// The backends of `inner`, resolved anew when it has news, when a TTL has run out, and at least `every` so often.
    pub fn new(inner: W, resolver: Resolver, every: Duration, name: Arc<str>) -> Self {
        Self { inner, resolver, every, name }
    }
}

impl<W: Watcher<Snapshot>> Watcher<Snapshot> for Resolving<W> {
    type Error = W::Error;

    async fn run(self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), W::Error> {
        let (below, inlet) = channel();
        let resolved = Resolved {
            inlet,
            names: DnsNames::new(self.resolver),
            every: self.every,
            name: self.name,
            origins: HashMap::new(),
            teller: Teller::new(out),
        };
        tokio::select! {
            ended = self.inner.run(below, cancel) => ended,
            () = resolved.run() => Ok(()),
        }
    }
}

type Place = (ServiceName, BackendId);

struct Resolved {
    inlet: Inlet<Snapshot>,
    names: DnsNames,
    every: Duration,
    name: Arc<str>,
    /// From which backend of the watcher below each of ours came: how that one went tells how ours did.
    origins: HashMap<Place, BackendId>,
    teller: Teller,
}

impl Resolved {
    /// Ends when the watcher below does.
    async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY, self.every.max(RETRY)).with_jitter(Jitter::Equal);
        let mut due: Option<Instant> = None;
        loop {
            tokio::select! {
                changed = self.inlet.changed() => if changed.is_err() { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            let observation = self.inlet.borrow_and_update().clone();
            let Some(snapshot) = observation.snapshot().cloned() else {
                if let Some(error) = observation.error() {
                    self.teller.fail_by(error.into());
                }
                continue;
            };
            due = Some(match self.look(&snapshot, &observation).await {
                Ok(good_for) => {
                    backoff.succeeded();
                    Instant::now() + good_for.map_or(self.every, |time| time.clamp(LEAST.min(self.every), self.every))
                }
                Err(error) => {
                    if self.teller.fail(&error) {
                        warn!(watcher = %self.name, error = %Chain(&error), "Names are not resolved; keeping the last snapshot.");
                    }
                    Instant::now() + backoff.next_delay()
                }
            });
        }
    }

    async fn look(
        &mut self,
        snapshot: &Snapshot,
        below: &Observation<Snapshot>,
    ) -> Result<Option<Duration>, super::NamesError> {
        self.names.begin();
        let backends = snapshot.services.values().flat_map(|pool| pool.backends());
        let names =
            backends.filter_map(|b| if let Host::Name(name) = &b.host { Some(DnsNames::of_host(name)) } else { None });
        self.names.ask(names.flatten().collect::<Vec<_>>()).await;
        let Round { failed, good_for } = self.names.end()?;
        self.publish(snapshot, failed, below);
        Ok(good_for)
    }

    fn publish(&mut self, snapshot: &Snapshot, failed: BTreeMap<String, String>, below: &Observation<Snapshot>) {
        let mut quarantined = (*snapshot.quarantined).clone();
        let because = |reason| Quarantined { reason, revision: Revision::default() };
        quarantined
            .extend(failed.into_iter().map(|(what, why)| (Key::from(format!("{}: {what}", self.name)), because(why))));
        let mut services = ServiceMap::new();
        let mut departed = (*snapshot.departed).clone();
        let mut origins = HashMap::new();
        for (service, pool) in &snapshot.services {
            let mut backends = Vec::with_capacity(pool.len());
            for backend in pool.backends() {
                let Host::Name(host) = &backend.host else {
                    backends.push(backend.clone());
                    continue;
                };
                for address in self.names.addresses(host) {
                    match at(backend, address) {
                        Ok(resolved) => {
                            origins.insert((service.clone(), resolved.id.clone()), backend.id.clone());
                            backends.push(Arc::new(resolved));
                        }
                        Err(why) => {
                            drop(quarantined.insert(Key::from(format!("{}: {}", self.name, backend.id)), because(why)))
                        }
                    }
                }
            }
            services.insert(service.clone(), Arc::new(Pool::new(backends)));
        }
        for (place, origin) in std::mem::take(&mut self.origins) {
            if origins.contains_key(&place) {
                continue;
            }
            if let Some(departure) = snapshot.departed.get(&(place.0.clone(), origin.clone())) {
                departed.insert(place.clone(), *departure);
                origins.insert(place, origin); // for as long as the watcher below remembers it
            }
        }
        self.origins = origins;
        let told =
            Snapshot { services, quarantined: Arc::new(quarantined), departed: Arc::new(departed), ..snapshot.clone() };
        self.teller.relay(told, Standing::of(below));
    }
}

/// The backend at one of its host's addresses.
fn at(backend: &Backend, address: IpAddr) -> Result<Backend, String> {
    let id = format!("{}@{address}", backend.id).parse().map_err(|e: model::NameError| e.to_string())?;
    let raw = backend.raw.as_deref().and_then(|raw| serde_json::from_str::<Map<String, Value>>(raw).ok());
    let raw = raw.map(|mut raw| {
        raw.insert("host".to_owned(), json!(address.to_string()));
        Arc::from(Value::Object(raw).to_string())
    });
    Ok(Backend { id, host: address.into(), raw, ..backend.clone() })
}
