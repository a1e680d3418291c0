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
use containers::life::standings::Standings;
use containers::readiness::{Readiness, ReadyMode};
use model::desired::{Outcome, Settings, Skip};
use model::{Backend, Pool, ServiceMap, ServiceName, diff, replay};
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
        let pools = Pools { keeper, services: ServiceMap::new(), begun: false, standings: Standings::default(), out };
        // In one task: what the source told in one go is judged in one go.
        tokio::select! {
            ended = source.run(containers_in, cancel) => ended,
            never = pools.run() => match never {},
        }
    }
}

/// Makes snapshots of what the keeper knows.
struct Pools {
    keeper: Keeper,
    /// The last services published.
    services: ServiceMap,
    /// The first picture has been judged: every port in it was dialled once.
    begun: bool,
    standings: Standings,
    out: Outlet<Snapshot>,
}

impl Pools {
    async fn run(mut self) -> Infallible {
        loop {
            let due = self.standings.due();
            tokio::select! {
                news = self.keeper.changed() => if news.looked {
                    self.keeper.open_gates(&BTreeSet::new(), &BTreeMap::new());
                    self.keeper.warn_once();
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
        self.begun |= self.keeper.is_settled();
        if !self.begun {
            return;
        }
        let fresh = self.services(begins);
        let changes = diff(&self.services, &fresh);
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

    /// The backends that may be routed to, in the order in which their containers were started. Those of the first picture
    /// (`begins`) have warmed up.
    fn services(&mut self, begins: bool) -> ServiceMap {
        let mut services: BTreeMap<ServiceName, Vec<Arc<Backend>>> = BTreeMap::new();
        let all = self.keeper.judge(|_| true, begins);
        let rows: Vec<Row> = all.iter().map(|(decision, judged)| Row::of(decision, judged, Vec::new())).collect();
        self.standings.tell(&rows, Instant::now(), |_| true);
        for (decision, judged) in all {
            if let (Some(candidate), Some(backend)) = (decision.candidate(), judged.backend) {
                services.entry(candidate.service.clone()).or_default().push(Arc::new(backend));
            }
        }
        services.into_iter().map(|(service, backends)| (service, Arc::new(Pool::new(backends)))).collect()
    }

    /// What was meant to be in a pool and cannot be, by the container's name and port.
    fn quarantined(&self, containers: &Containers) -> BTreeMap<Key, Quarantined> {
        let because = |reason: String| Quarantined { reason, revision: Revision::default() };
        let unreadable = containers.refused.iter().map(|(id, why)| (Key::from(id.short()), because(why.to_string())));
        let refused = self.keeper.decisions().iter().filter_map(|decision| {
            let why = match &decision.outcome {
                Outcome::Skip(skip) => is_fault(skip).then(|| skip.to_string()),
                Outcome::Register(candidate) => candidate.backend.left_out.as_deref().map(str::to_owned),
            };
            let port = decision.port.map_or_else(String::new, |(port, transport)| format!(":{port}/{transport}"));
            why.map(|why| (Key::from(format!("{}{port}", decision.name)), because(why)))
        });
        unreadable.chain(refused).collect()
    }
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
