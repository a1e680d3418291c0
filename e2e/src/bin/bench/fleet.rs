//! Services whose backends come, go, drain and change weight at random, on real servers and under load.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use discover::reconcile::Desired;
use e2e::random::Random;
use e2e::scene::{free_ports, loopback, routed};
use e2e::server::Server;
use e2e::traffic::{Load, Plan};
use e2e::{Context, Result};
use model::Pool;
use serde_json::json;

use crate::local::backend;

/// Answers for the backends: fewer than backends, for what is measured is not them.
const SERVERS: usize = 8;
/// Longer than any measurement.
const AT_MOST: Duration = Duration::from_mins(10);

/// The services, and what is registered of each.
pub struct Fleet {
    /// Where each service's clients go.
    pub ports: Vec<u16>,
    backends: usize,
    pools: Vec<Vec<Member>>,
    servers: Vec<Server>,
    started: usize,
    random: Random,
}

/// One registered backend.
struct Member {
    id: String,
    at: SocketAddr,
    weight: usize,
    draining: bool,
}

/// What happens to a key of the registry: a new value, or none any more.
pub struct Change {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Option<String>,
}

impl Fleet {
    /// So many services of so many backends each.
    ///
    /// # Errors
    /// When there are not so many ports.
    pub async fn new(services: usize, backends: usize) -> Result<Self> {
        let mut servers = Vec::with_capacity(SERVERS);
        for n in 0..SERVERS {
            servers.push(Server::start(&format!("server-{n}")).await?);
        }
        let pools = (0..services).map(|_| Vec::new()).collect();
        let mut fleet =
            Self { ports: free_ports(services)?, backends, pools, servers, started: 0, random: Random::new(7) };
        for service in 0..services {
            for _ in 0..backends {
                fleet.start(service);
            }
        }
        Ok(fleet)
    }

    /// Every key there is.
    pub fn all(&self) -> impl Iterator<Item = Change> {
        let pools = self.pools.iter().enumerate();
        pools.flat_map(move |(service, pool)| pool.iter().map(move |m| self.put(service, m)))
    }

    /// One more thing that happens in ordinary life.
    pub fn change(&mut self) -> Change {
        let service = self.random.below(self.pools.len());
        let pool = &self.pools[service];
        let (size, up) = (pool.len(), pool.iter().filter(|m| !m.draining).count());
        let leaving = pool.iter().position(|m| m.draining);
        match (self.random.below(4), leaving) {
            (0, _) if size < 2 * self.backends => {
                self.start(service);
                let last = self.pools[service].len() - 1;
                self.put(service, &self.pools[service][last])
            }
            (1, Some(at)) => {
                let gone = self.pools[service].remove(at);
                Change { key: key(service, &gone.id), value: None }
            }
            (1 | 2, _) if up > self.backends / 2 => {
                let nth = self.random.below(up);
                let member = self.pools[service].iter_mut().enumerate().filter(|(_, m)| !m.draining).nth(nth);
                let at = member.map_or(0, |(at, m)| {
                    m.draining = true;
                    at
                });
                self.put(service, &self.pools[service][at])
            }
            _ => {
                let at = self.random.below(size);
                let weight = 1 + self.random.below(9);
                let member = &mut self.pools[service][at];
                member.weight = if member.weight == weight { 10 } else { weight };
                self.put(service, &self.pools[service][at])
            }
        }
    }

    fn start(&mut self, service: usize) {
        self.started += 1;
        let at = self.address(self.started);
        let id = format!("b{}", self.started);
        self.pools[service].push(Member { id, at, weight: 1, draining: false });
    }

    fn put(&self, service: usize, member: &Member) -> Change {
        let value = json!({
            "host": member.at.ip(), "port": member.at.port(), "service_port": self.ports[service], "mode": "http",
            "weight": member.weight, "status": if member.draining { "draining" } else { "up" },
        });
        Change { key: key(service, &member.id), value: Some(value.to_string()) }
    }

    /// The same as pools.
    ///
    /// # Errors
    /// Never: the names are good.
    pub fn desired(&self) -> Result<Desired> {
        let mut desired = Desired::default();
        for (service, pool) in self.pools.iter().enumerate() {
            let backends = pool.iter().map(|m| backend(&m.id, m.at, self.ports[service]).map(Arc::new));
            let pool = backends.collect::<Result<Vec<_>>>()?;
            let name = format!("s{service}").parse().during("naming a service")?;
            desired.services.insert(name, Arc::new(Pool::new(pool)));
        }
        Ok(desired)
    }

    /// The address of one of the servers.
    pub fn address(&self, number: usize) -> SocketAddr {
        self.servers[number % self.servers.len()].address
    }

    /// The sections that a generator of files would write: nothing but what HAProxy needs.
    pub fn sections(&self) -> String {
        let mut text = String::new();
        for (service, pool) in self.pools.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ =
                writeln!(text, "listen s{service}\n    bind {}\n    balance roundrobin", loopback(self.ports[service]));
            for m in pool {
                let _ = writeln!(text, "    server {} {} check inter 2s rise 3 fall 2 weight {}", m.id, m.at, m.weight);
            }
        }
        text
    }

    /// Waits until each service answers.
    ///
    /// # Errors
    /// When one does not.
    pub async fn routed(&self) -> Result<()> {
        for (service, port) in self.ports.iter().enumerate() {
            let one = self.pools[service].first().and_then(|m| self.servers.iter().find(|s| s.address == m.at));
            routed(loopback(*port), one.map_or("", |server| &server.name)).await?;
        }
        Ok(())
    }

    /// Load on every service by these many clients that keep their connection and that do not, `rate` requests a second in
    /// all (a little more is asked for: timers run late).
    pub fn load(&self, keep_alive: u32, closing: u32, rate: u32) -> Vec<Load> {
        let clients = u32::try_from(self.ports.len()).unwrap_or(1) * (keep_alive + closing);
        let each = (rate * 6 / 5).div_ceil(clients.max(1));
        let plan = |port: &u16| {
            let at_most = AT_MOST;
            Load::start(&Plan { keep_alive, closing, rate: each, at_most, ..Plan::mixed(loopback(*port)) })
        };
        self.ports.iter().map(plan).collect()
    }
}

impl Change {
    /// Makes it so in etcd.
    ///
    /// # Errors
    /// When etcd refuses.
    pub async fn apply(self, client: &mut etcd_client::Client) -> Result<()> {
        match self.value {
            Some(value) => client.put(self.key, value, None).await.map(drop).during("putting into etcd"),
            None => client.delete(self.key, None).await.map(drop).during("deleting from etcd"),
        }
    }
}

fn key(service: usize, id: &str) -> String {
    format!("/backends/s{service}/{id}")
}
