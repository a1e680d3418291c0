//! All of it: the registry, the hosts, the clients, and what is true.

use e2e::random::Random;
use model::ServiceName;
use testing::fake::{FakeStore, Snapshot};
use tokio::time::{Duration, Instant};

use super::client::Client;
use super::host::{Host, Unit, since};

/// How long registrations outlive their agent.
pub const TTL: Duration = Duration::from_secs(10);
/// How long the guard holds.
pub const HOLD: Duration = Duration::from_secs(120);

/// How often a supervisor looks.
const SUPERVISED: Duration = Duration::from_secs(1);

pub struct World {
    /// The registry as its operator reaches it.
    pub store: FakeStore,
    pub hosts: Vec<Host>,
    pub clients: Vec<Client>,
    pub services: usize,
    /// Every container that there ever was.
    pub units: Vec<Unit>,
    /// A backup of the registry.
    pub saved: Option<Snapshot>,
    /// When somebody last tampered with the registry.
    pub tampered: Instant,
    /// Registers that ended by themselves.
    pub ended: u32,
}

impl World {
    /// Some hosts, clients and containers, all of them started.
    pub fn new(random: &mut Random) -> Self {
        let store = FakeStore::new();
        let hosts = (0..1 + random.below(4)).map(|n| Host::new(n, store.peer())).collect();
        let clients = (0..1 + random.below(3)).map(|_| Client::new(store.peer())).collect();
        let services = 1 + random.below(3);
        let (units, saved, tampered) = (Vec::new(), None, Instant::now());
        let mut world = Self { store, hosts, clients, services, units, saved, tampered, ended: 0 };
        for _ in 0..random.below(9) {
            let (host, service) = (random.below(world.hosts.len()), random.below(services));
            world.launch(host, service);
        }
        world.hosts.iter_mut().for_each(|host| host.start(&world.units));
        world.clients.iter_mut().for_each(Client::start);
        world
    }

    /// A new container.
    pub fn launch(&mut self, host: usize, service: usize) -> usize {
        let number = self.units.len();
        self.units.push(Unit::new(u32::try_from(number).unwrap(), host, service));
        number
    }

    /// Changes what is true of a container, and has its host told.
    pub fn change(&mut self, unit: usize, change: impl FnOnce(&mut Unit)) {
        let unit = &mut self.units[unit];
        let before = unit.wants_clients();
        change(unit);
        if unit.wants_clients() != before {
            (unit.changed, unit.published) = (Instant::now(), false);
        }
        self.hosts[unit.host].tell(&self.units);
    }

    /// Lets time pass; containers end and supervisors start what has ended.
    pub async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let ends = self.units.iter().filter(|u| u.alive).filter_map(|u| u.stopping).min();
            let now = Instant::now();
            tokio::time::sleep_until(ends.unwrap_or(until).min(until).min(now + SUPERVISED)).await;
            let now = Instant::now();
            for n in 0..self.units.len() {
                if self.units[n].alive && self.units[n].stopping.is_some_and(|at| at <= now) {
                    self.end(n);
                }
            }
            for host in &mut self.hosts {
                self.ended += u32::from(host.supervise(&self.units));
            }
            if now >= until {
                return;
            }
        }
    }

    /// A container's program ends.
    pub fn end(&mut self, unit: usize) {
        self.change(unit, |u| u.alive = false);
        let unit = &self.units[unit];
        self.hosts[unit.host].event(containers::docker::EventKind::Die, unit);
    }

    /// Ends every fault.
    pub fn heal(&mut self) {
        for n in 0..self.units.len() {
            self.change(n, |u| u.unreadable = false);
        }
        for host in &mut self.hosts {
            host.cut(None);
            host.freeze(false);
            host.former.iter().for_each(|r| r.ice.set(false));
            host.docker_away = false;
            if host.register.is_none() {
                host.start(&self.units);
            }
            host.tell(&self.units);
        }
        for client in &mut self.clients {
            client.cut(None);
            client.freeze(false);
            if !client.is_running() {
                client.start();
            }
        }
    }

    /// What there is, for whoever reads a history.
    pub fn tell(&self) {
        let keys: Vec<_> =
            self.store.entries("").iter().map(|e| format!("{} {:?}", e.key, e.lease.map(|l| l.0))).collect();
        let units: Vec<_> = self
            .units
            .iter()
            .filter(|u| u.is_registered())
            .map(|u| format!("{}@h{}:s{} {} {}", u.number, u.host, u.service, u.wants_clients(), u.unreadable))
            .collect();
        println!("    units {units:?}\n    keys {keys:?}");
        for (n, client) in self.clients.iter().enumerate() {
            let routed = client.routed();
            let all: Vec<_> = routed
                .services
                .iter()
                .flat_map(|(s, p)| p.backends().iter().map(move |b| format!("{s}/{} {}", b.id, b.status)))
                .collect();
            println!(
                "    client {n} {all:?} held {:?}",
                routed.held.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>()
            );
        }
    }

    /// Notes since when everybody is well.
    pub fn note(&mut self) {
        let now = Instant::now();
        for host in &mut self.hosts {
            host.note(&self.units, now);
        }
        for client in &mut self.clients {
            let runs = client.is_running() && !client.frozen;
            since(&mut client.well, runs && !client.cut, now);
            // A silent stream of the fake's is found out after 7 s, and the longest back-off is 5 s.
            let heard = client.synced.is_some() || client.well.is_some_and(|at| at + Duration::from_secs(15) <= now);
            since(&mut client.synced, runs && heard, now);
        }
    }
}

/// The name of a service.
pub fn service(number: usize) -> ServiceName {
    format!("s{number}").parse().unwrap()
}
