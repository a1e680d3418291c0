//! The pools that `register` would publish from this daemon, without a registry in between (`discover --docker`).
//!
//! Containers, events, readiness and drains are read as `register` reads them; what comes of them goes into a snapshot
//! instead of a store. Nobody's lease can run out, so there are no departures to tell apart: what is gone was stopped.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::containers::docker::{Containers, Docker, DockerError, DockerSource, Event, Options};
use crate::containers::life::drain::Drains;
use crate::containers::life::handover::Handovers;
use crate::containers::life::verdict::{Judged, RowState, gate_key, judge};
use crate::containers::life::warmup::Warmups;
use crate::containers::readiness::{Readiness, ReadyMode, Verdict, Why};
use crate::desired::{Candidate, Decider, Decision, Outcome, Settings, Skip};
use crate::model::{Backend, Pool, ServiceMap, ServiceName, Status, diff, replay};
use crate::registry::{Quarantined, Snapshot};
use crate::store::{Key, Revision};
use crate::watch::{Inlet, Observation, Outlet, Watcher, channel};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

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
        let judge = Judge {
            containers,
            events,
            decider: Decider::new(self.settings),
            readiness: Readiness::new(self.ready).with_docker(self.docker),
            drains: Drains::default(),
            warmups: Warmups::default(),
            decisions: Vec::new(),
            services: ServiceMap::new(),
            begun: false,
            out,
        };
        // In one task: what the source told in one go is judged in one go.
        tokio::select! {
            ended = source.run(containers_in, cancel) => ended,
            () = judge.run() => Ok(()),
        }
    }
}

/// Makes snapshots of what the source tells.
struct Judge {
    containers: Inlet<Containers>,
    events: mpsc::Receiver<Event>,
    decider: Decider,
    readiness: Readiness,
    drains: Drains,
    warmups: Warmups,
    decisions: Vec<Arc<Decision>>,
    /// The last services published.
    services: ServiceMap,
    /// The first picture has been judged: every port in it was dialled once.
    begun: bool,
    out: Outlet<Snapshot>,
}

impl Judge {
    /// Ends when the source does.
    async fn run(mut self) {
        loop {
            let deadline = self.drains.next_deadline().into_iter().chain(self.warmups.next(Instant::now())).min();
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.take(&event),
                    None => return,
                },
                changed = self.containers.changed() => match changed {
                    Ok(()) => self.look(),
                    Err(_) => return,
                },
                () = self.readiness.changed() => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.expire(),
            }
            // All that is there, lest a container that died be seen without its drain for a moment.
            while let Ok(event) = self.events.try_recv() {
                self.take(&event);
            }
            if self.containers.has_changed().unwrap_or(false) {
                self.look();
            }
            self.publish();
        }
    }

    /// An event may begin or end a drain; what became of the container is seen when it is read again.
    fn take(&mut self, event: &Event) {
        let of_container = |d: &&Arc<Decision>| d.container == event.container && d.candidate().is_some();
        let decision = self.decisions.iter().find(of_container);
        if self.drains.observe(event, decision.and_then(|d| d.candidate()), Instant::now())
            && let (Some(decision), Some(_)) = (decision, self.drains.get(&event.container))
        {
            info!(container = %decision.name, id = %event.container, "Asked to stop: draining.");
        }
    }

    /// The source told something new of the containers, or of itself.
    fn look(&mut self) {
        let observation = self.containers.borrow_and_update().clone();
        let Some(containers) = observation.snapshot() else { return };
        self.decisions = self.decider.decide(&containers.running);
        self.drains.retain(|id| containers.running.contains_key(id));
        let gates = self.decisions.iter().filter_map(|decision| {
            let candidate = decision.candidate()?;
            let started_at = containers.running.get(&decision.container)?.started_at.as_str();
            Some((gate_key(decision, candidate), candidate, started_at))
        });
        self.readiness.update(gates, &Default::default());
    }

    fn expire(&mut self) {
        for id in self.drains.expire(Instant::now()) {
            let name = self.decisions.iter().find(|d| d.container == id).map_or("", |d| &d.name);
            warn!(container = %name, %id, "Asked to stop, but still running after its deadline: taking clients again.");
        }
    }

    /// Publishes what changed. While the source fails nothing new is: what is known is then no complete picture.
    fn publish(&mut self) {
        let containers = match &*self.containers.borrow() {
            Observation::Synced { snapshot } => snapshot.clone(),
            Observation::Pending { error: None } => return,
            Observation::Pending { error: Some(error) } | Observation::Stale { error, .. } => {
                return self.out.mark_stale_by(error.clone());
            }
        };
        // Without this the first snapshot would hold none of the containers whose ports are only just being dialled.
        let begins = !self.begun;
        self.begun |= self.readiness.is_settled();
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
        let Self { decisions, readiness, drains, warmups, .. } = self;
        let mut services: BTreeMap<ServiceName, Vec<Arc<Backend>>> = BTreeMap::new();
        let serves = |decision: &Decision, candidate: &Candidate| {
            candidate.backend.status == Status::Up
                && drains.get(&decision.container).is_none()
                && matches!(readiness.verdict(&gate_key(decision, candidate)), Verdict::Ready(_))
        };
        let handovers = Handovers::new(decisions, serves);
        warmups.begin_turn();
        for decision in decisions.iter() {
            let Some(candidate) = decision.candidate() else { continue };
            let key = gate_key(decision, candidate);
            let verdict = readiness.verdict(&key);
            let replaced = || handovers.get(&decision.container, &candidate.service);
            let drain = drains.get(&decision.container).or_else(replaced);
            let Judged { backend: Some(mut backend), state, .. } = judge(candidate, verdict, drain) else { continue };
            if state == RowState::Up {
                let verdict = if begins { &Verdict::Ready(Why::Registered) } else { verdict };
                backend.weight = warmups.weigh(&key, candidate, verdict, Instant::now());
            }
            services.entry(candidate.service.clone()).or_default().push(Arc::new(backend));
        }
        services.into_iter().map(|(service, backends)| (service, Arc::new(Pool::new(backends)))).collect()
    }

    /// What was meant to be in a pool and cannot be, by the container's name and port.
    fn quarantined(&self, containers: &Containers) -> BTreeMap<Key, Quarantined> {
        let because = |reason: String| Quarantined { reason, revision: Revision::default() };
        let unreadable = containers.refused.iter().map(|(id, why)| (Key::from(id.short()), because(why.to_string())));
        let refused = self.decisions.iter().filter_map(|decision| {
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
        | Skip::HealthStarting
        | Skip::Unhealthy => false,
    }
}
