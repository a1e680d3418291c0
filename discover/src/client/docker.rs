//! The pools that `register` would publish from this daemon, without a registry in between (`discover --docker`).
//!
//! The keeper of containers is `register`'s; what comes of it goes into a snapshot instead of a store. There are no leases
//! that can run out, so there are no departures to tell apart: a container that is gone was stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use agent::watch::{Observation, Outlet, Watcher, channel};
use containers::docker::{Containers, Docker, DockerError, DockerSource, Options};
use containers::life::keeper::Keeper;
use containers::life::row::Row;
use containers::life::standings::{self, Standings};
use containers::life::verdict::Judged;
use containers::readiness::{Readiness, ReadyMode};
use model::desired::{ContainerId, Decision, Outcome, Settings, Skip};
use model::{Backend, Change, Pool, ServiceMap, ServiceName, replay};
use registry::store::{Key, Revision};
use registry::{Quarantined, Snapshot};

/// How many events may wait: they are taken as fast as they come.
const EVENTS: usize = 1024;

/// Watches one daemon and publishes what its containers offer.
#[derive(Debug)]
pub struct DockerWatcher {
    docker: Docker,
    options: Options,
    settings: Settings,
    ready: ReadyMode,
}

impl DockerWatcher {
    /// A watcher; nothing happens until it runs. See [`on_this_host`] for the settings.
    pub fn new(docker: Docker, options: Options, settings: Settings, ready: ReadyMode) -> Self {
        Self { docker, options, settings, ready }
    }
}

/// Settings for a load balancer on the daemon's own host: a port published on every address is reached at 127.0.0.1 unless
/// HOST_IP says otherwise, and loopback addresses will do. With `internal` set the containers' own addresses are taken.
pub fn on_this_host(settings: Settings) -> Settings {
    let host_ip = settings.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Settings { host_ip: Some(host_ip), allow_loopback: true, ..settings }
}

impl Watcher<Snapshot> for DockerWatcher {
    type Error = DockerError;

    async fn run(self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), DockerError> {
        let (events_in, events) = mpsc::channel(EVENTS);
        let (containers_in, containers) = channel();
        let source = DockerSource::new(self.docker.clone(), self.options).with_events(events_in);
        let readiness = Readiness::new(self.ready).with_docker(self.docker);
        let keeper = Keeper::new(containers, events, self.settings, readiness);
        let pools = Pools::new(keeper, out);
        // In one task: what the source told in one go is judged in one go.
        tokio::select! {
            ended = source.run(containers_in, cancel) => ended,
            never = pools.run() => match never {},
        }
    }
}

/// Where a backend stands in its pool: by its container's start, then by the port.
type Order = (Arc<str>, ContainerId, usize);

/// What came of one container.
#[derive(Default)]
struct Held {
    rows: Vec<Arc<Row>>,
    places: Vec<(ServiceName, Order)>,
    faults: Vec<Key>,
}

/// Makes snapshots of what the keeper knows. A change costs the pools that it is about.
struct Pools {
    keeper: Keeper,
    held: BTreeMap<ContainerId, Held>,
    pools: BTreeMap<ServiceName, BTreeMap<Order, Arc<Backend>>>,
    /// What was meant to be in a pool and cannot be, by the container's name and port.
    faults: BTreeMap<Key, Quarantined>,
    /// The last services published.
    services: ServiceMap,
    /// The first picture has been judged: every port in it was dialled once.
    begun: bool,
    standings: Standings,
    out: Outlet<Snapshot>,
}

/// There is no registry in between.
struct NoRegistry;

impl standings::Registry for NoRegistry {
    fn is_so(&self, _: &Row) -> bool {
        true
    }
    fn is_taken_over(&self, _: &Row) -> bool {
        false
    }
}

impl Pools {
    fn new(keeper: Keeper, out: Outlet<Snapshot>) -> Self {
        Self {
            keeper,
            held: BTreeMap::new(),
            pools: BTreeMap::new(),
            faults: BTreeMap::new(),
            services: ServiceMap::new(),
            begun: false,
            standings: Standings::default(),
            out,
        }
    }

    async fn run(mut self) -> Infallible {
        loop {
            let due = self.standings.due();
            tokio::select! {
                news = self.keeper.changed() => if news.looked {
                    self.keeper.open_gates(&BTreeSet::new(), &BTreeMap::new());
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            self.publish();
        }
    }

    /// Publishes what changed. While the source fails nothing new is: what is known is then no complete picture.
    fn publish(&mut self) {
        let containers = match self.keeper.containers() {
            Observation::Synced { snapshot } => snapshot,
            Observation::Pending { error: None } => return,
            Observation::Pending { error: Some(error) } | Observation::Stale { error, .. } => {
                return self.out.mark_stale_by(error);
            }
        };
        // Without this the first snapshot would hold none of the containers whose ports are only just being dialled.
        let begins = !self.begun;
        if begins && !self.keeper.is_settled() {
            return;
        }
        self.begun = true;
        let changes = self.changes(begins);
        let quarantined = self.quarantined(&containers);
        let known = self.out.current().snapshot().cloned();
        if changes.is_empty() && known.is_some_and(|known| *known.quarantined == quarantined) {
            return self.out.mark_synced();
        }
        // Pools that did not change stay the same allocation, which is cheap to compare.
        self.services = replay(std::mem::take(&mut self.services), changes);
        let services = self.services.clone();
        self.out.publish(Arc::new(Snapshot { services, quarantined: Arc::new(quarantined), ..Snapshot::default() }));
    }

    /// The pools that are not as they were: the backends that may be routed to, in the order in which their containers were
    /// started. Those of the first picture (`begins`) have warmed up.
    fn changes(&mut self, begins: bool) -> Vec<Change> {
        let (mut services, mut changed) = (BTreeSet::new(), BTreeSet::new());
        for (id, ports) in self.keeper.judge(|_| true, begins) {
            self.put(&id, ports, &mut services);
            changed.insert(id);
        }
        let rows = |id: &ContainerId| self.held.get(id).map_or(&[][..], |held| &held.rows);
        self.standings.tell(changed, rows, Instant::now(), &NoRegistry);
        let change = |service: ServiceName| {
            let Some(backends) = self.pools.get(&service) else { return Some(Change::Remove(service)) };
            let pool = Arc::new(Pool::new(backends.values().cloned()));
            (self.services.get(&service) != Some(&pool)).then_some(Change::Set(service, pool))
        };
        services.into_iter().filter_map(change).collect()
    }

    /// Takes in what became of one container; adds the services that it is or was in.
    fn put(&mut self, id: &ContainerId, ports: Vec<(Arc<Decision>, Judged)>, services: &mut BTreeSet<ServiceName>) {
        let former = self.held.remove(id).unwrap_or_default();
        former.faults.iter().for_each(|key| drop(self.faults.remove(key)));
        for (service, order) in former.places {
            if let Some(pool) = self.pools.get_mut(&service) {
                pool.remove(&order);
                if pool.is_empty() {
                    self.pools.remove(&service);
                }
            }
            services.insert(service);
        }
        let (mut held, started_at) =
            (Held::default(), Arc::<str>::from(self.keeper.started_at(id).unwrap_or_default()));
        for (number, (decision, judged)) in ports.into_iter().enumerate() {
            held.rows.push(Arc::new(Row::of(&decision, &judged, Vec::new())));
            if let (Some(candidate), Some(backend)) = (decision.candidate(), judged.backend) {
                let (service, order) = (candidate.service.clone(), (Arc::clone(&started_at), id.clone(), number));
                self.pools.entry(service.clone()).or_default().insert(order.clone(), Arc::new(backend));
                services.insert(service.clone());
                held.places.push((service, order));
            }
        }
        for (key, fault) in self.keeper.decisions_of(id).iter().filter_map(|decision| fault(decision)) {
            self.faults.insert(key.clone(), fault);
            held.faults.push(key);
        }
        if !held.rows.is_empty() || !held.faults.is_empty() {
            self.held.insert(id.clone(), held);
        }
    }

    /// What was meant to be in a pool and cannot be.
    fn quarantined(&self, containers: &Containers) -> BTreeMap<Key, Quarantined> {
        let unreadable = containers.refused.iter().map(|(id, why)| (Key::from(id.short()), because(why.to_string())));
        unreadable.chain(self.faults.iter().map(|(key, fault)| (key.clone(), fault.clone()))).collect()
    }
}

fn because(reason: String) -> Quarantined {
    Quarantined { reason, revision: Revision::default() }
}

/// Why this port cannot be in a pool, where it was meant to be.
fn fault(decision: &Decision) -> Option<(Key, Quarantined)> {
    let why = match &decision.outcome {
        Outcome::Skip(skip) => is_fault(skip).then(|| skip.to_string()),
        Outcome::Register(candidate) => candidate.backend.left_out.as_deref().map(str::to_owned),
    };
    let port = decision.port.map_or_else(String::new, |(port, transport)| format!(":{port}/{transport}"));
    why.map(|why| (Key::from(format!("{}{port}", decision.name)), because(why)))
}

/// Somebody has to mend something; the other reasons are as they should be.
fn is_fault(skip: &Skip) -> bool {
    match skip {
        Skip::LoopbackOnly
        | Skip::TooManyPorts { .. }
        | Skip::NoAddress(_)
        | Skip::HostIpMissing
        | Skip::BadLabel { .. }
        | Skip::BadName { .. }
        | Skip::NetworkOwnerMissing(_)
        | Skip::Contested(_)
        | Skip::Restricted { .. }
        | Skip::SameId { .. }
        | Skip::SameAddress { .. } => true,
        Skip::Stopped(_)
        | Skip::Paused
        | Skip::Filtered(_)
        | Skip::Ignored { .. }
        | Skip::NotExplicit
        | Skip::NoPort
        | Skip::NotListed
        | Skip::NotPublished
        | Skip::UdpOnHostNetwork { .. }
        | Skip::NoPortOfItsOwn(_)
        | Skip::OfAnother(_)
        | Skip::HealthStarting
        | Skip::Unhealthy => false,
    }
}
