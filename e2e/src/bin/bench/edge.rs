//! From a registration, or a container's label, that asks for a host to the host's first answer at the edge.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use e2e::agents::{Discover, Register};
use e2e::docker::Spec;
use e2e::figures::{Figure, Times};
use e2e::haproxy::{self, Haproxy};
use e2e::http::Client;
use e2e::scene::{PATIENCE, loopback};
use e2e::server::Server;
use e2e::terminal::Terminal;
use e2e::traffic::first_answer_of;
use e2e::{Context, Etcd, Lab, Result, free_port, wait};
use serde_json::json;

const TIMES: usize = 200;
/// Containers that are started, one after the other.
const STARTS: usize = 40;
/// Places that the edge has beside those that come and go.
const PLACES: usize = 1000;
/// A registration has at most 32 routes.
const ROUTES: usize = 32;
/// From one change to the next, so that each is a lone one: longer than discover's --max-wait.
pub const REST: Duration = Duration::from_millis(25);

/// With each HAProxy.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for haproxy in haproxy::all()? {
        let what = format!("{TIMES} hosts come and go at the edge of HAProxy {}", haproxy.version);
        figures.extend(terminal.while_waiting(&what, Box::pin(with(lab, &haproxy))).await?);
    }
    let what = format!("{STARTS} containers with a host of their own");
    figures.push(terminal.while_waiting(&what, Box::pin(labels(lab, &haproxy::newest()?))).await?);
    Ok(figures)
}

/// Containers that bring a host by their label, one after the other.
async fn labels(lab: &Lab, haproxy: &Haproxy) -> Result<Figure> {
    let (docker, etcd, port) = (lab.docker().await?, Etcd::start(), free_port());
    let _register = Register::new("edge-register").start(lab, &etcd).await?;
    let listen = format!("127.0.0.1:{port}");
    let args = ["--edge", &listen, "--service-ports", "none", "--section-linger", "0s"];
    let discover = Discover::new("edge-labels", haproxy).args(&args).start(lab, &etcd).await?;
    let beside = Server::start("beside").await?;
    let places: Vec<String> = (0..PLACES).map(|n| format!("beside-{n}.example")).collect();
    for (n, hosts) in places.chunks(ROUTES).enumerate() {
        let value = asking(beside.address, hosts.to_vec());
        etcd.operator().await.put(format!("/backends/beside-{n}/b"), value, None).await.during("putting into etcd")?;
    }
    for host in [&places[0], &places[PLACES - 1]] {
        first_answer_of(Client::new(loopback(port), true, PATIENCE).host(host), &beside.name, PATIENCE).await?;
    }
    discover.quiet().await?;
    let before = discover.metric("discover_reloads_total").await?;
    let mut times = Times::default();
    for n in 0..STARTS {
        let host = format!("h{n}.example");
        let events = docker.events().await?;
        let spec = Spec::whoami(&format!("edge-{n}")).label("register.80.vhost", &host);
        let container = docker.create(&spec).await?;
        let (asks, name) = (Client::new(loopback(port), true, PATIENCE).host(&host), container.short().to_owned());
        let probe = tokio::spawn(async move { first_answer_of(asks, &name, PATIENCE).await });
        container.start().await?;
        let answered = probe.await.during("asking for the newcomer")??.at;
        let event = events.first(container.id(), "start").await?;
        times.push(answered.duration_since(event.at).unwrap_or_default());
        container.remove().await?;
        tokio::time::sleep(REST).await;
    }
    let reloads = discover.metric("discover_reloads_total").await? - before;
    Ok(Figure {
        what: format!(
            "start event of a container with a host on its label → the host answers at the edge, HAProxy {}",
            haproxy.version
        ),
        value: format!("{times}; {reloads} reloads in all"),
        goal: "p50 ≤ 12 ms, p99 ≤ 24 ms; 0 reloads".to_owned(),
        conditions: format!(
            "{STARTS} containers one after the other, each a new service, beside {PLACES} places; asked without pause on one kept connection"
        ),
    })
}

/// A registration that asks for these hosts.
pub fn asking(at: SocketAddr, hosts: impl IntoIterator<Item = String>) -> String {
    let routes: Vec<_> = hosts.into_iter().map(|host| json!({ "host": host })).collect();
    json!({"host": at.ip(), "port": at.port(), "routes": routes}).to_string()
}

async fn with(lab: &Lab, haproxy: &Haproxy) -> Result<Vec<Figure>> {
    let etcd = Etcd::start();
    let port = free_port();
    let (to, listen) = (loopback(port), format!("127.0.0.1:{port}"));
    let server = Server::start("server").await?;
    // What goes leaves its section at once, so that the next one has it; nor is it held, though nobody drained it.
    let args = ["--edge", &listen, "--section-linger", "0s", "--hold", "0s"];
    let name = format!("edge-{}", haproxy.version);
    let discover = Discover::new(&name, haproxy).args(&args).start(lab, &etcd).await?;
    let mut client = etcd.operator().await;
    client
        .put("/backends/stays/b", asking(server.address, ["stays".into()]), None)
        .await
        .during("putting into etcd")?;
    let asks = |host: &str| Client::new(to, true, PATIENCE).host(host);
    first_answer_of(asks("stays"), &server.name, PATIENCE).await?;
    discover.quiet().await?;
    let before = discover.metric("discover_reloads_total").await?;

    let (mut services, mut hosts) = (Times::default(), Times::default());
    for n in 0..TIMES {
        let alone = format!("/backends/service-{n}/b");
        let more = "/backends/stays/c".to_owned();
        for (key, times) in [(alone, &mut services), (more, &mut hosts)] {
            let host = format!("h{n}-{}", times.count());
            let (probe, server_name) = (asks(&host), server.name.clone());
            let probe = tokio::spawn(async move { first_answer_of(probe, &server_name, PATIENCE).await });
            // Asked already when the key comes.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let put = SystemTime::now();
            client.put(&*key, asking(server.address, [host.clone()]), None).await.during("putting into etcd")?;
            times.push(probe.await.during("asking for the newcomer")??.at.duration_since(put).unwrap_or_default());
            client.delete(key, None).await.during("deleting from etcd")?;
            let mut asking = asks(&host);
            wait::until_true("the host goes", PATIENCE, async || {
                asking.get("/").await.is_ok_and(|reply| reply.status == 404)
            })
            .await?;
            // What follows within 20 ms is gathered with what may follow it, as changes of one deployment are.
            tokio::time::sleep(REST).await;
        }
    }
    let reloads = discover.metric("discover_reloads_total").await? - before;
    let collecting = if haproxy.version == "2.6" { "; 2.6: only reloads that collect servers" } else { "" };
    let figure = |what: &str, times: &Times| Figure {
        what: format!("etcd put with a host → the host answers at the edge, {what}, HAProxy {}", haproxy.version),
        value: format!("{times}; {reloads} reloads in all"),
        goal: format!("p50 ≤ 4 ms; 0 reloads{collecting}"),
        conditions: format!(
            "{TIMES} times, one after the other, 25 ms apart; asked without pause on one kept connection"
        ),
    };
    Ok(vec![figure("a new service", &services), figure("a host more of a service", &hosts)])
}
