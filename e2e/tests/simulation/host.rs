//! A host with containers: a scripted Docker, and the real agent and publisher of `register`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use agent::watch::{Outlet, channel};
use containers::docker::{Containers, Event, EventKind};
use containers::readiness::{CheckTarget, ReadyMode};
use model::desired::{Binding, Container, ContainerId, Health, Settings, State};
use model::{Layout, NodeName, Prefix, ValueFormat};
use register::address::HostAddress;
use register::agent::board::Rows;
use register::agent::control::{Request, Whom};
use register::agent::{Agent, AgentSettings, Wires};
use register::metrics::Metrics;
use register::publish::{Form, Identity, Publication, PublishError, Publisher, PublisherSettings};
use testing::containers::running;
use testing::fake::{Cut, FakeStore};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::ice::Ice;
use super::world::TTL;

/// A container as it really is.
#[derive(Debug, Clone)]
pub struct Unit {
    pub number: u32,
    pub host: usize,
    pub service: usize,
    pub id: ContainerId,
    pub alive: bool,
    pub paused: bool,
    pub sick: bool,
    pub drained: bool,
    /// Docker answers for it with an error.
    pub unreadable: bool,
    /// Asked to stop; it ends then.
    pub stopping: Option<Instant>,
    /// When it last began or ceased to want clients.
    pub changed: Instant,
    /// Whether it was in the registry at any time since.
    pub published: bool,
    /// Since when it is missing in the registry, at the earliest.
    pub unregistered: Option<Instant>,
}

impl Unit {
    pub fn new(number: u32, host: usize, service: usize) -> Self {
        Self {
            number,
            host,
            service,
            id: format!("{number:08x}").repeat(8).parse().unwrap(),
            alive: true,
            paused: false,
            sick: false,
            drained: false,
            unreadable: false,
            stopping: None,
            changed: Instant::now(),
            published: false,
            unregistered: Some(Instant::now()),
        }
    }

    /// Whether it can serve clients, and nobody meant it not to.
    pub fn wants_clients(&self) -> bool {
        self.alive && !self.paused && !self.sick && !self.drained && self.stopping.is_none()
    }

    /// Whether its key is to be in the registry, draining or not.
    pub fn is_registered(&self) -> bool {
        self.alive && !self.paused && !self.sick
    }

    fn container(&self) -> Container {
        let mut container = running(1, 1);
        let port = u16::try_from(10_000 + self.number).unwrap().try_into().unwrap();
        container.id = self.id.clone();
        container.name = format!("unit-{}", self.number);
        container.image = format!("s{}:1", self.service);
        container.health = Some(if self.sick { Health::Unhealthy } else { Health::Healthy });
        container.state = if self.paused { State::Paused } else { State::Running };
        container.ports[0].published = vec![Binding { ip: None, port }];
        container
    }
}

/// One process of `register`.
pub struct Register {
    containers: Outlet<Containers>,
    events: mpsc::Sender<Event>,
    requests: mpsc::Sender<Request>,
    agent: JoinHandle<()>,
    publisher: JoinHandle<Result<(), PublishError>>,
    pub ice: Ice,
}

impl Register {
    fn start(way: &FakeStore, host: usize, run: u32) -> Self {
        let (node, prefix): (NodeName, _) = (format!("h{host}").parse().unwrap(), Prefix::default());
        let (containers, inlet) = channel();
        let (events, event_out) = mpsc::channel(64);
        let (requests, request_out) = mpsc::channel(16);
        let (desired, wanted) = watch::channel(None);
        let (out, publication) = watch::channel(Publication::default());
        let host_ip = Some([10, 0, 0, u8::try_from(host + 1).unwrap()].into());
        let wires = Wires {
            containers: inlet,
            events: event_out,
            address: watch::channel(HostAddress::found(host_ip)).1,
            publication,
            requests: request_out,
            desired,
            rows: watch::channel(Rows::default()).0,
            changes: watch::channel(0).0,
        };
        let settings = AgentSettings {
            settings: Settings { host_ip, ..Settings::default() },
            ready: ReadyMode::None,
            check_target: CheckTarget::Own,
            docker: None,
            prefix: prefix.clone(),
            drain_at_exit: None,
        };
        let (layout, values) = (Layout::Service, ValueFormat::Json);
        let (machine, token) = (format!("m{host}"), format!("{host}-{run}"));
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(run.into());
        let identity = Identity { node: node.clone(), machine, token, started };
        let publisher = PublisherSettings {
            form: Form { prefix, layout, node, values, service_ports: false },
            identity,
            ttl: TTL,
            audit: Duration::from_secs(30),
            metadata: None,
        };
        let metrics = Metrics::default();
        let publisher = Publisher::new(way.clone(), publisher, wanted, out, metrics.publish.clone());
        let (stop, revoke, ice) = (CancellationToken::new(), CancellationToken::new(), Ice::default());
        let publisher = tokio::spawn(ice.clone().over(publisher.run(stop.clone(), revoke.clone())));
        let agent = Agent::new(wires, settings, metrics).run(CancellationToken::new(), stop, revoke);
        let agent = tokio::spawn(ice.clone().over(agent));
        Self { containers, events, requests, agent, publisher, ice }
    }

    fn kill(&self) {
        self.agent.abort();
        self.publisher.abort();
    }
}

/// The host.
pub struct Host {
    pub number: usize,
    /// Its way to the registry.
    pub way: FakeStore,
    pub cut: bool,
    pub docker_away: bool,
    pub frozen: bool,
    pub register: Option<Register>,
    /// Those that a newer one is to take over from.
    pub former: Vec<Register>,
    /// The containers that were in the registry at any time since its present agent was started.
    pub published: BTreeSet<u32>,
    /// Since when its agent runs and reaches the registry.
    pub linked: Option<Instant>,
    /// Since when all is well with it.
    pub well: Option<Instant>,
    runs: u32,
}

impl Host {
    pub fn new(number: usize, way: FakeStore) -> Self {
        Self {
            number,
            way,
            cut: false,
            docker_away: false,
            frozen: false,
            register: None,
            former: Vec::new(),
            published: BTreeSet::new(),
            linked: None,
            well: None,
            runs: 0,
        }
    }

    pub fn start(&mut self, units: &[Unit]) {
        self.runs += 1;
        self.published.clear();
        self.register = Some(Register::start(&self.way, self.number, self.runs));
        self.tell(units);
    }

    /// Starts a newer one beside the one that runs.
    pub fn upgrade(&mut self, units: &[Unit]) {
        self.former.extend(self.register.take());
        self.start(units);
    }

    pub fn kill(&mut self) {
        self.register.take().iter().for_each(Register::kill);
        self.frozen = false;
    }

    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
        self.register.iter().for_each(|r| r.ice.set(frozen));
    }

    pub fn cut(&mut self, how: Option<Cut>) {
        self.cut = how.is_some();
        how.map_or_else(|| self.way.heal(), |how| self.way.cut(how));
    }

    /// What a supervisor does: starts a process that has ended. Tells whether it did.
    pub fn supervise(&mut self, units: &[Unit]) -> bool {
        self.former.retain(|r| !r.publisher.is_finished());
        let ended = self.register.as_ref().is_some_and(|r| r.publisher.is_finished() || r.agent.is_finished());
        if ended {
            self.kill();
            self.start(units);
        }
        ended
    }

    /// Docker tells what runs, or nothing while it is away.
    pub fn tell(&self, units: &[Unit]) {
        let mut told = Containers::default();
        for unit in units.iter().filter(|u| u.host == self.number && u.alive) {
            if unit.unreadable {
                told.refused.insert(unit.id.clone(), "500 Internal Server Error".into());
            } else {
                told.running.insert(unit.id.clone(), Arc::new(unit.container()));
            }
        }
        let told = Arc::new(told);
        for register in self.register.iter().chain(&self.former) {
            if self.docker_away {
                register.containers.mark_stale_by("no Docker".into());
            } else {
                register.containers.publish(told.clone());
            }
        }
    }

    /// An event, which is lost while Docker is away.
    pub fn event(&self, kind: EventKind, unit: &Unit) {
        for register in self.register.iter().chain(&self.former).filter(|_| !self.docker_away) {
            // A frozen agent's channel may be full: then the event is lost, as with the real source.
            let _ = register.events.try_send(Event { kind, container: unit.id.clone(), time_nanos: 0 });
        }
    }

    /// An operator's word.
    pub fn ask(&self, drain: bool, unit: &Unit) {
        let whom = Whom::Some(vec![format!("unit-{}", unit.number)]);
        if let Some(register) = &self.register {
            let (reply, _) = oneshot::channel();
            let _ = register.requests.try_send(Request { drain, whom: whom.clone(), reply });
        }
    }

    /// Notes how it is doing.
    pub fn note(&mut self, units: &[Unit], now: Instant) {
        let linked = !self.cut && !self.frozen && self.register.is_some();
        let trouble = units.iter().any(|u| u.host == self.number && u.alive && u.unreadable);
        let well = linked && !self.docker_away && !trouble && self.former.is_empty();
        since(&mut self.linked, linked, now);
        since(&mut self.well, well, now);
    }
}

/// `time` as the time since when `is` holds.
pub fn since(time: &mut Option<Instant>, is: bool, now: Instant) {
    *time = is.then(|| time.unwrap_or(now));
}

/// Units by the id of their backends.
pub fn by_backend(units: &[Unit]) -> BTreeMap<&str, &Unit> {
    units.iter().map(|u| (u.id.short(), u)).collect()
}
