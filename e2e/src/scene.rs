//! Everything that routes: etcd, both agents with HAProxy, and Docker.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use crate::agents::{Agent, Discover, Register};
use crate::docker::{Container, Docker, Spec};
use crate::haproxy::Haproxy;
use crate::http::Client;
use crate::{Context, Etcd, Lab, Result, haproxy, in_lab, wait};

/// How long anything may take to be routed, or to go.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Containers that are started or removed at the same time.
const TOGETHER: usize = 4;

/// All parts, running.
#[derive(Debug)]
pub struct Scene {
    /// discover, with HAProxy.
    pub discover: Agent,
    /// register.
    pub register: Agent,
    /// The registry.
    pub etcd: Etcd,
    /// The daemon.
    pub docker: Docker,
}

/// One key of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value, or null where that is no JSON.
    pub value: Value,
    /// The revision of its last change.
    pub revision: i64,
    /// The lease that it lives under.
    pub lease: i64,
}

impl Scene {
    /// Starts all parts.
    ///
    /// # Errors
    /// When one is missing or does not become ready.
    pub async fn start(lab: &Lab, haproxy: &Haproxy) -> Result<Self> {
        let docker = lab.docker().await?;
        let etcd = Etcd::start();
        let register = Register::new("register").start(lab, &etcd).await?;
        let discover = Discover::new("discover", haproxy).start(lab, &etcd).await?;
        Ok(Self { discover, register, etcd, docker })
    }

    /// Starts a container and waits until it answers through HAProxy at `to`.
    ///
    /// # Errors
    /// When it does not.
    pub async fn serve(&self, spec: &Spec, to: SocketAddr) -> Result<Container> {
        let container = self.docker.run(spec).await?;
        routed(to, container.short()).await?;
        Ok(container)
    }

    /// Starts that many services with one container each, and waits until all are routed.
    ///
    /// # Errors
    /// When one is not.
    pub async fn services(&self, services: usize) -> Result<Vec<Container>> {
        let ports = free_ports(services)?;
        let specs: Vec<_> =
            ports.iter().enumerate().map(|(n, port)| Spec::served(&format!("service-{n}"), *port)).collect();
        let containers = run_all(&self.docker, &specs).await?;
        for (container, port) in containers.iter().zip(&ports) {
            routed(loopback(*port), container.short()).await?;
        }
        Ok(containers)
    }

    /// The keys below `prefix`, in order.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn entries(&self, prefix: &str) -> Result<Vec<Entry>> {
        entries(&self.etcd, prefix).await
    }

    /// Waits until the container has a key (`there`), or has none.
    ///
    /// # Errors
    /// When that does not come true.
    pub async fn registered(&self, container: &Container, there: bool) -> Result<()> {
        let what = format!("{} {} in the registry", container.short(), if there { "being" } else { "no longer being" });
        wait::until_true(&what, PATIENCE, async || {
            let Ok(entries) = self.entries("/backends/").await else { return false };
            entries.iter().any(|entry| entry.key.contains(container.short())) == there
        })
        .await
    }

    /// Puts a key.
    ///
    /// # Errors
    /// When etcd refuses.
    pub async fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<()> {
        self.etcd.operator().await.put(key, value, None).await.during(format!("putting {key}")).map(drop)
    }
}

/// The keys of that etcd below `prefix`, in order.
///
/// # Errors
/// When it does not answer.
pub async fn entries(etcd: &Etcd, prefix: &str) -> Result<Vec<Entry>> {
    let what = format!("reading {prefix}");
    let mut client = etcd.try_operator().await.during(what.clone())?;
    let options = etcd_client::GetOptions::new().with_prefix();
    let reply = client.get(prefix, Some(options)).await.during(what)?;
    let entry = |kv: &etcd_client::KeyValue| Entry {
        key: String::from_utf8_lossy(kv.key()).into_owned(),
        value: serde_json::from_slice(kv.value()).unwrap_or_default(),
        revision: kv.mod_revision(),
        lease: kv.lease(),
    };
    Ok(reply.kvs().iter().map(entry).collect())
}

/// Ports on 127.0.0.1 that were free a moment ago, all of them different.
///
/// # Errors
/// When there are not so many.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()
        .during("looking for free ports")?;
    listeners
        .iter()
        .map(|listener| listener.local_addr().map(|at| at.port()).during("looking for a free port"))
        .collect()
}

/// A port of this machine's loopback address.
pub fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Waits until `name` answers at `to`.
///
/// # Errors
/// When it does not.
pub async fn routed(to: SocketAddr, name: &str) -> Result<()> {
    let mut client = Client::new(to, true, Duration::from_secs(2));
    let what = format!("an answer of {name} through {to}");
    wait::until_true(&what, PATIENCE, async || client.get("/").await.is_ok_and(|reply| reply.name() == name)).await
}

/// Starts containers, a few at a time.
///
/// # Errors
/// When one does not start.
pub async fn run_all(docker: &Docker, specs: &[Spec]) -> Result<Vec<Container>> {
    let mut containers = Vec::new();
    for group in specs.chunks(TOGETHER) {
        for run in join_all(group.iter().map(|spec| docker.run(spec))).await {
            containers.push(run?);
        }
    }
    Ok(containers)
}

/// Removes containers, a few at a time.
///
/// # Errors
/// When one does not go.
pub async fn remove_all(mut containers: Vec<Container>) -> Result<()> {
    while !containers.is_empty() {
        let group = containers.split_off(containers.len().saturating_sub(TOGETHER));
        join_all(group.into_iter().map(Container::remove)).await.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

/// HAProxy's master and worker, once no former worker is left: two equal answers mean no reload and no restart.
///
/// # Errors
/// When it is not these two.
pub async fn workers(lab: &Lab) -> Result<Vec<i32>> {
    let mut last = Vec::new();
    wait::until("HAProxy with one worker", PATIENCE, async || {
        // A master that executes itself anew is not seen for a moment, and a former worker still may be: twice the same, then.
        let processes = lab.processes("haproxy");
        let steady = processes.len() == 2 && processes == last;
        last.clone_from(&processes);
        steady.then_some(processes)
    })
    .await
}

/// Runs one test against every HAProxy of this machine, in a lab of its own each.
///
/// # Errors
/// The test's, with the version.
pub fn each_haproxy(test: impl AsyncFn(&Lab, &Haproxy) -> Result<()>) -> Result<()> {
    for haproxy in haproxy::all()? {
        println!("with HAProxy {} ({})", haproxy.version, haproxy.path.display());
        in_lab(async |lab| test(lab, &haproxy).await).during(format!("HAProxy {}", haproxy.version))?;
    }
    Ok(())
}
