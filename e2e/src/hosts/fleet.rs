//! Backend hosts with containers, a client host, and etcd's hosts between them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use discover::haproxy::api::runtime::Runtime;
use discover::haproxy::api::stats::{StatKind, stat};
use futures_util::future::join_all;

use super::{Dockerd, Host, Network};
use crate::agents::{Agent, Discover, Register};
use crate::docker::{Container, Docker, Spec};
use crate::forwarder::{Forwarder, Way};
use crate::haproxy::Haproxy;
use crate::scene::{entries, routed};
use crate::{Context, Etcd, Lab, Result, haproxy};

/// What HAProxy serves, on the client host's port 8000.
pub const SERVICE: &str = "web";
const PORT: u16 = 8000;

/// How many hosts, and how their agents are started.
#[derive(Debug, Clone)]
pub struct Size {
    /// Nodes of etcd's cluster.
    pub etcd: usize,
    /// Hosts with containers.
    pub backends: usize,
    /// The life of register's lease, such as `10s`.
    pub ttl: &'static str,
    /// Arguments of dockerd in addition.
    pub dockerd: &'static [&'static str],
    /// How long everything takes between the agents and etcd, in each direction; else it is reached directly.
    pub etcd_away: Option<Duration>,
    /// The client host's HAProxy; else the newest.
    pub haproxy: Option<Haproxy>,
}

impl Default for Size {
    /// What the demonstration has: three backend hosts, etcd on three more.
    fn default() -> Self {
        Self { etcd: 3, backends: 3, ttl: "10s", dockerd: &[], etcd_away: None, haproxy: None }
    }
}

/// A node of etcd's, and where it is.
#[derive(Debug)]
pub struct Node {
    /// Its host.
    pub host: Host,
    /// The node.
    pub etcd: Etcd,
}

/// A host with containers.
#[derive(Debug)]
pub struct Backend {
    /// register.
    pub register: Agent,
    /// Its containers, in the order of their start.
    pub containers: Vec<Placed>,
    /// The daemon's API.
    pub docker: Docker,
    /// The daemon.
    pub dockerd: Dockerd,
    /// The host.
    pub host: Host,
}

/// A container that was started, and where it serves.
#[derive(Debug)]
pub struct Placed {
    /// What it answers.
    pub name: String,
    /// Where clients on other hosts reach it.
    pub address: SocketAddr,
    /// The container.
    pub container: Container,
}

impl Backend {
    async fn start(lab: &Lab, host: Host, etcd: &str, size: &Size) -> Result<Self> {
        let dockerd = Dockerd::start(lab, &host, size.dockerd).await?;
        let args = ["--docker-host", &dockerd.host(), "--ttl", size.ttl];
        let mut register =
            Register::new(&format!("{}-register", host.name())).on(&host).args(&args).spawn(lab, etcd)?;
        register.ready().await?;
        Ok(Self { register, containers: Vec::new(), docker: dockerd.docker().await?, dockerd, host })
    }

    /// A container of the fleet's service.
    pub fn spec() -> Spec {
        let mut spec = Spec::served(SERVICE, PORT);
        spec.publish = vec![("0.0.0.0".to_owned(), "80/tcp".to_owned())];
        spec
    }

    /// Starts a container of the fleet's service.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn run(&mut self) -> Result<&Placed> {
        let container = self.docker.run(&Self::spec()).await?;
        let address = (self.host.address(), container.published("80/tcp").await?.port()).into();
        self.containers.push(Placed { name: container.short().to_owned(), address, container });
        self.containers.last().during("a container that was just made")
    }
}

/// All hosts, running.
#[derive(Debug)]
pub struct Fleet {
    /// discover, with its HAProxy, on the client host.
    pub discover: Agent,
    /// Backend hosts: b1, b2, …
    pub backends: Vec<Backend>,
    /// The cluster: e1, e2, …
    pub nodes: Vec<Node>,
    /// The client host: c1.
    pub client: Host,
    etcd: String,
    runtime: Runtime,
    _ways: Vec<Forwarder>,
}

impl Fleet {
    /// Starts all of them, without containers.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(lab: &Lab, network: &mut Network, size: &Size) -> Result<Self> {
        let etcd_hosts = hosts(lab, network, "e", size.etcd).await?;
        let backend_hosts = hosts(lab, network, "b", size.backends).await?;
        let client = network.host(lab, "c1").await?;

        let sites: Vec<_> = etcd_hosts.iter().map(Host::site).collect();
        let cluster =
            tokio::task::spawn_blocking(move || Etcd::cluster_at(&sites, &[])).await.during("starting etcd")?;
        let nodes: Vec<_> = etcd_hosts.into_iter().zip(cluster).map(|(host, etcd)| Node { host, etcd }).collect();
        let mut ways = Vec::new();
        for (node, away) in nodes.iter().filter_map(|node| Some((node, size.etcd_away?))) {
            let target = node.etcd.endpoint().authority().parse().during("reading etcd's address")?;
            let way = Forwarder::start_at((network.observer(), 0).into(), target).await?;
            way.be(Way::slow(away));
            ways.push(way);
        }
        let near: Vec<_> = ways.iter().map(|way| way.address().to_string()).collect();
        let etcd = if near.is_empty() { endpoints(&nodes) } else { near.join(",") };

        let backends = join_all(backend_hosts.into_iter().map(|host| Backend::start(lab, host, &etcd, size))).await;
        let backends = backends.into_iter().collect::<Result<_>>()?;
        let discover =
            Discover::new("c1-discover", &size.haproxy.clone().map_or_else(haproxy::newest, Ok)?).on(&client);
        let runtime = discover.runtime(lab)?;
        let mut discover = discover.spawn(lab, Some(&etcd))?;
        discover.ready().await?;
        Ok(Self { discover, backends, nodes, client, etcd, runtime, _ways: ways })
    }

    /// Where HAProxy serves.
    pub fn to(&self) -> SocketAddr {
        (self.client.address(), PORT).into()
    }

    /// Where the agents are told that etcd is.
    pub fn etcd(&self) -> String {
        self.etcd.clone()
    }

    /// The addresses of etcd's hosts.
    pub fn etcd_addresses(&self) -> Vec<Ipv4Addr> {
        self.nodes.iter().map(|node| node.host.address()).collect()
    }

    /// The keys of all registrations.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn keys(&self) -> Result<Vec<String>> {
        let node = self.nodes.first().during("there is no etcd")?;
        Ok(entries(&node.etcd, "/backends/").await?.into_iter().map(|entry| entry.key).collect())
    }

    /// Starts a container on each of these backend hosts, and waits until all of them are served.
    ///
    /// # Errors
    /// When one is not.
    pub async fn serve(&mut self, on: &[usize]) -> Result<()> {
        let to = self.to();
        for number in on {
            let backend = self.backends.get_mut(*number).during("there is no such backend host")?;
            let name = &backend.run().await?.name;
            routed(to, name).await?;
        }
        Ok(())
    }

    /// What HAProxy has as servers: address and status, such as UP or DOWN.
    ///
    /// # Errors
    /// When HAProxy does not answer.
    pub async fn servers(&mut self) -> Result<BTreeMap<SocketAddr, String>> {
        // A reload ends the session.
        self.runtime.reopen();
        let rows = self.runtime.show(["show", "stat"], stat).await.during("asking HAProxy for its servers")?;
        let server = rows.into_iter().filter(|row| row.kind == StatKind::Server && row.section == SERVICE);
        Ok(server.filter_map(|row| Some((row.addr.parse().ok()?, row.status))).collect())
    }
}

fn endpoints(nodes: &[Node]) -> String {
    let all: Vec<_> = nodes.iter().map(|node| node.etcd.endpoint().authority()).collect();
    all.join(",")
}

async fn hosts(lab: &Lab, network: &mut Network, letter: &str, count: usize) -> Result<Vec<Host>> {
    let mut hosts = Vec::new();
    for number in 1..=count {
        hosts.push(network.host(lab, &format!("{letter}{number}")).await?);
    }
    Ok(hosts)
}
