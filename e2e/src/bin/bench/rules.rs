//! Ten thousand rules of the edge, beside ten.

use std::time::{Duration, SystemTime};

use e2e::agents::{Agent, Discover};
use e2e::figures::{Figure, Times, megabytes};
use e2e::haproxy::{self, Haproxy};
use e2e::http::Client;
use e2e::process::resident_memory;
use e2e::scene::{PATIENCE, loopback};
use e2e::server::Server;
use e2e::terminal::Terminal;
use e2e::traffic::{Load, Plan, first_answer_of};
use e2e::{Context, Etcd, Lab, Result, free_port};
use tokio::time::MissedTickBehavior;

use crate::edge::{REST, asking};

const SERVICES: usize = 10;
/// A registration has at most 32 routes.
const ROUTES: usize = 32;
const MANY: usize = 10_000;
const SINGLE: usize = 100;
const CHANGES: usize = 1000;
/// Between two changes under load: 50 a second.
const PACE: Duration = Duration::from_millis(20);
const LATENCY: Duration = Duration::from_secs(5);

/// With each HAProxy.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for haproxy in haproxy::all()? {
        let what = format!("{MANY} rules in HAProxy {}", haproxy.version);
        figures.extend(terminal.while_waiting(&what, Box::pin(with(lab, &haproxy))).await?);
    }
    Ok(figures)
}

/// The edge under measurement.
struct Edge {
    port: u16,
    etcd: Etcd,
    server: Server,
    discover: Agent,
    master: discover::haproxy::process::master::MasterCli,
}

impl Edge {
    async fn start(lab: &Lab, haproxy: &Haproxy) -> Result<Self> {
        let (etcd, port) = (Etcd::start(), free_port());
        let listen = format!("127.0.0.1:{port}");
        let program = Discover::new(&format!("rules-{}", haproxy.version), haproxy).args(&["--edge", &listen]);
        let (discover, master) = (program.start(lab, &etcd).await?, program.master(lab)?);
        Ok(Self { port, etcd, server: Server::start("server").await?, discover, master })
    }

    async fn put(&self, key: &str, hosts: impl IntoIterator<Item = String>) -> Result<()> {
        let value = asking(self.server.address, hosts);
        self.etcd.operator().await.put(key, value, None).await.map(drop).during("putting into etcd")
    }

    async fn answers(&self, host: &str) -> Result<SystemTime> {
        let client = Client::new(loopback(self.port), true, PATIENCE).host(host);
        Ok(first_answer_of(client, &self.server.name, PATIENCE).await?.at)
    }

    /// Resident memory of HAProxy's worker and of discover.
    async fn memory(&self) -> Result<[u64; 2]> {
        let procs = self.master.show_proc().await.during("asking HAProxy's master")?;
        let worker = procs.current_worker().during("there is no worker")?;
        Ok([resident_memory(worker)?, self.discover.resident_memory()?])
    }

    async fn latency(&self, host: &str) -> Result<Times> {
        let plan = Plan { keep_alive: 2, closing: 1, rate: 200, ..Plan::mixed(loopback(self.port)) };
        let load = Load::start(&Plan { host: Some(host.to_owned()), ..plan });
        tokio::time::sleep(LATENCY).await;
        let report = load.stop().await;
        report.must_be_clean("measuring the latency")?;
        let mut times = Times::default();
        report.latencies.into_iter().for_each(|time| times.push(time));
        Ok(times)
    }

    /// One rule more and one less at a time, each waited for.
    async fn single(&self) -> Result<Times> {
        let mut times = Times::default();
        for n in 0..SINGLE {
            let host = format!("single-{n}.example");
            let put = SystemTime::now();
            self.put("/backends/s0/single", [host.clone()]).await?;
            times.push(self.answers(&host).await?.duration_since(put).unwrap_or_default());
            tokio::time::sleep(REST).await;
        }
        Ok(times)
    }
}

async fn with(lab: &Lab, haproxy: &Haproxy) -> Result<Vec<Figure>> {
    let edge = Edge::start(lab, haproxy).await?;
    for service in 0..SERVICES {
        edge.put(&format!("/backends/s{service}/b0"), [format!("first-{service}.example")]).await?;
    }
    edge.answers("first-9.example").await?;
    edge.discover.quiet().await?;
    let (few_memory, few_latency, few_single) =
        (edge.memory().await?, edge.latency("first-9.example").await?, edge.single().await?);

    let hosts: Vec<String> = (0..MANY).map(|n| format!("h{n}.example")).collect();
    for (n, hosts) in hosts.chunks(ROUTES).enumerate() {
        edge.put(&format!("/backends/s{}/many-{n}", n % SERVICES), hosts.to_vec()).await?;
    }
    edge.answers("h9999.example").await?;
    let (many_latency, many_single) = (edge.latency("h5000.example").await?, edge.single().await?);
    let many_memory = edge.memory().await?;

    // Each has a section of its own, which may cost a reload; after that only its rule changes.
    for service in 0..SERVICES {
        edge.put(&format!("/backends/s{service}/change"), [format!("before-{service}.example")]).await?;
        edge.answers(&format!("before-{service}.example")).await?;
    }
    edge.discover.quiet().await?;
    let reloads = edge.discover.metric("discover_reloads_total").await?;
    let plan = Plan { keep_alive: 4, closing: 2, rate: 80, ..Plan::mixed(loopback(edge.port)) };
    let load = Load::start(&Plan { host: Some("h5000.example".to_owned()), at_most: Duration::from_mins(3), ..plan });
    let mut tick = tokio::time::interval(PACE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0..CHANGES {
        tick.tick().await;
        edge.put(&format!("/backends/s{}/change", n % SERVICES), [format!("change-{n}.example")]).await?;
    }
    edge.answers(&format!("change-{}.example", CHANGES - 1)).await?;
    let report = load.stop().await;
    let reloads = edge.discover.metric("discover_reloads_total").await? - reloads;

    let version = &haproxy.version;
    let figure = |what: &str, value: String, goal: &str, conditions: &str| Figure {
        what: format!("{what}, HAProxy {version}"),
        value,
        goal: goal.to_owned(),
        conditions: conditions.to_owned(),
    };
    let [haproxy_few, discover_few] = few_memory.map(megabytes);
    let [haproxy_many, discover_many] = many_memory.map(megabytes);
    Ok(vec![
        figure(
            &format!("one rule's change beside {MANY} rules"),
            format!("{many_single}; beside {SERVICES}: {few_single}"),
            "p50 ≤ 20 ms",
            &format!("{SINGLE} times, 25 ms apart: etcd put with another host → the host answers"),
        ),
        figure(
            &format!("a request's latency with {MANY} rules"),
            format!("{many_latency}; with {SERVICES}: {few_latency}"),
            "as with few",
            "600 requests/s by 2 keep-alive and 1 close-per-request client",
        ),
        figure(
            &format!("memory with {MANY} rules"),
            format!(
                "HAProxy {haproxy_many} (with {SERVICES}: {haproxy_few}), discover {discover_many} ({discover_few})"
            ),
            "",
            &format!("{SERVICES} services, {} registrations of {ROUTES} hosts each; VmRSS", MANY.div_ceil(ROUTES)),
        ),
        figure(
            &format!("{CHANGES} changes of rules under load"),
            format!("{}, {reloads} reloads", report.summary()),
            if version == "2.6" { "0 failed" } else { "0 failed, 0 reloads" },
            &format!("beside {MANY} rules, {} changes a second, 480 requests/s", 1000 / PACE.as_millis()),
        ),
    ])
}
