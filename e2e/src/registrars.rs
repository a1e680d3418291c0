//! Many backends without containers: agents of this process hold real leases in a real etcd, each for a share of all backends.
//!
//! They keep what register keeps: one lease for each agent, its own key and those of its backends under it, and all of it put anew where
//! the lease was lost. So a thousand backends cost no thousand containers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn, TxnOp};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::server::Server;
use crate::{Context, Etcd, Result};

/// Operations of one transaction: etcd takes 128.
const BATCH: usize = 100;
/// Between two tries to register, while etcd does not answer.
const AGAIN: Duration = Duration::from_millis(200);

/// How many of everything.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Services, at most 250; each has a port of its own, from [`FIRST_PORT`] on.
    pub services: usize,
    /// Backends of each service, at most 250.
    pub each: usize,
    /// Agents; every pool is spread over all of them.
    pub agents: usize,
    /// The life of an agent's lease, in whole seconds.
    pub ttl: Duration,
}

/// The port of the first service; below those that the system gives to clients, so that nobody else has it by chance.
pub const FIRST_PORT: u16 = 12_000;

/// The services, their backends, and who answers for them.
pub struct Registrars {
    size: Size,
    backends: BTreeMap<(usize, usize), Server>,
    keys: Vec<Keys>,
    frozen: watch::Sender<bool>,
    _agents: Vec<AbortOnDropHandle<()>>,
}

/// What an agent has to register: key and value.
type Keys = Arc<Mutex<BTreeMap<String, Value>>>;

impl Registrars {
    /// Starts the backends, each at an address of its own, and the agents, which begin to register them.
    ///
    /// # Errors
    /// When a backend cannot listen.
    pub async fn start(etcd: &Etcd, size: Size) -> Result<Self> {
        let (frozen, thawed) = watch::channel(false);
        let keys: Vec<Keys> = (0..size.agents).map(|_| Keys::default()).collect();
        let mut backends = BTreeMap::new();
        for (service, number) in (0..size.services).flat_map(|s| (0..size.each).map(move |n| (s, n))) {
            let server = Server::start_at(place(service, number)?, &format!("{}-{number}", name(service))).await?;
            let value = json!({
                "host": server.address.ip(), "port": server.address.port(), "mode": "http",
                "service_port": port(service),
            });
            lock(&keys[number % size.agents]).insert(key(service, number), value);
            backends.insert((service, number), server);
        }
        let mut agents = Vec::new();
        for (node, keys) in keys.iter().enumerate() {
            let agent = Agent {
                client: etcd.try_operator().await.during("reaching etcd")?,
                node,
                ttl: size.ttl,
                keys: Arc::clone(keys),
                frozen: thawed.clone(),
            };
            agents.push(AbortOnDropHandle::new(tokio::spawn(agent.run())));
        }
        Ok(Self { size, backends, keys, frozen, _agents: agents })
    }

    /// All agents stop, as with SIGSTOP: their leases run out.
    pub fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// They go on.
    pub fn thaw(&self) {
        self.frozen.send_replace(false);
    }

    /// A backend dies; its agent will not register it again.
    pub fn kill(&mut self, service: usize, number: usize) {
        self.backends.remove(&(service, number));
        lock(&self.keys[number % self.size.agents]).remove(&key(service, number));
    }

    /// How many live.
    pub fn living(&self) -> usize {
        self.backends.len()
    }
}

/// The name of a service.
pub fn name(service: usize) -> String {
    format!("s{service:03}")
}

/// Where clients reach a service, on discover's address.
pub fn port(service: usize) -> u16 {
    FIRST_PORT.saturating_add(u16::try_from(service).unwrap_or(u16::MAX))
}

fn key(service: usize, number: usize) -> String {
    format!("/backends/{}/i-{number}", name(service))
}

/// An address for each backend: its port is then nobody else's business.
fn place(service: usize, number: usize) -> Result<Ipv4Addr> {
    let byte = |n: usize| u8::try_from(n + 1).during("counting services and backends");
    Ok(Ipv4Addr::new(127, 77, byte(service)?, byte(number)?))
}

fn lock(keys: &Keys) -> MutexGuard<'_, BTreeMap<String, Value>> {
    keys.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the agents.
struct Agent {
    client: Client,
    node: usize,
    ttl: Duration,
    keys: Keys,
    frozen: watch::Receiver<bool>,
}

impl Agent {
    /// Registers, keeps the lease, and registers anew where it was lost.
    async fn run(mut self) {
        loop {
            match self.register().await {
                Ok((mut keeper, mut replies)) => while self.beat(&mut keeper, &mut replies).await {},
                Err(_) => sleep(AGAIN).await, // a busy etcd: the test waits for what it needs
            }
        }
    }

    /// All of it under a new lease, the agent's own key first.
    async fn register(&mut self) -> Result<(LeaseKeeper, LeaseKeepAliveStream)> {
        let seconds = i64::try_from(self.ttl.as_secs()).during("counting seconds")?;
        let lease = self.client.lease_grant(seconds, None).await.during("granting a lease")?.id();
        let put = |key: String, value: String| TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
        let own = put(format!("/registrars/n{}", self.node), json!({"lease": format!("{lease:x}")}).to_string());
        let backends: Vec<_> =
            lock(&self.keys).iter().map(|(key, value)| put(key.clone(), value.to_string())).collect();
        let all: Vec<_> = std::iter::once(own).chain(backends).collect();
        for batch in all.chunks(BATCH) {
            self.client.txn(Txn::new().and_then(batch)).await.during("registering")?;
        }
        self.client.lease_keep_alive(lease).await.during("keeping a lease")
    }

    /// One beat, a quarter of the lease's life after the last one; `false` where there is no lease any more.
    async fn beat(&mut self, keeper: &mut LeaseKeeper, replies: &mut LeaseKeepAliveStream) -> bool {
        sleep(self.ttl / 4).await;
        if self.frozen.wait_for(|frozen| !frozen).await.is_err() || keeper.keep_alive().await.is_err() {
            return false;
        }
        matches!(replies.message().await, Ok(Some(reply)) if reply.ttl() > 0)
    }
}
