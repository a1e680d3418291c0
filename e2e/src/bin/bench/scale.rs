//! What a change, an hour without one, and a restart cost a discover with many backends; beside each figure the same at a tenth of the services,
//! so that growth can be seen.

use std::time::{Duration, Instant};

use discover::haproxy::api::runtime::Runtime;
use e2e::agents::{Agent, Discover};
use e2e::figures::{Figure, Times, megabytes, millis};
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, LabError, Result, haproxy, wait};
use etcd_client::{Client, Txn, TxnOp};
use serde_json::json;
use tokio::io::{AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;

const SERVICES: usize = 990;
const BACKENDS: usize = 20;
const CHANGES: usize = 200;
const IDLE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two changes, so that each is a turn of its own.
const PAUSE: Duration = Duration::from_millis(30);

/// What was measured at one size.
struct Measured {
    routed: Times,
    /// Of a processor, each.
    change: Duration,
    idle: Duration,
    /// The same while somebody looks at the page.
    viewed: Duration,
    memory: u64,
    restarted: u64,
}

/// 990 services of 20 backends each, and a tenth of them.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let whole = Box::pin(at(lab, terminal, SERVICES)).await?;
    let tenth = Box::pin(at(lab, terminal, SERVICES / 10)).await?;
    let version = haproxy::newest()?.version;
    let conditions = format!(
        "{SERVICES} services × {BACKENDS}, one etcd, HAProxy {version} without checks; {CHANGES} newcomers, one after the other"
    );
    let figure = |what: &str, of: &dyn Fn(&Measured) -> String, goal: &str| Figure {
        what: what.to_owned(),
        value: format!("{} (at a tenth: {})", of(&whole), of(&tenth)),
        goal: goal.to_owned(),
        conditions: conditions.clone(),
    };
    let share = |time: Duration| format!("{:.2} % of a core", time.as_secs_f64() / IDLE.as_secs_f64() * 100.0);
    Ok(vec![
        figure(
            "many backends: etcd put sent → HAProxy routes to it",
            &|m| m.routed.to_string(),
            "p50 ≤ 4 ms, p99 ≤ 12 ms",
        ),
        figure("many backends: processor time of discover for a change", &|m| millis(m.change), "≤ 0.5 ms"),
        figure("many backends: an idle discover", &|m| share(m.idle), "≤ 0.1 % of a core"),
        figure("many backends: a discover whose page somebody looks at", &|m| share(m.viewed), "≤ 2 % of a core"),
        figure("many backends: resident memory of discover", &|m| megabytes(m.memory), "≤ 55 MB"),
        figure("many backends: the same after kill -9 and a restart", &|m| megabytes(m.restarted), "as before"),
    ])
}

async fn at(lab: &Lab, terminal: Terminal, services: usize) -> Result<Measured> {
    let etcd = Etcd::start();
    let mut client = etcd.operator().await;
    terminal.while_waiting("filling etcd", Box::pin(fill(&mut client, services))).await?;
    let haproxy = haproxy::newest()?;
    let discover = Discover::new(&format!("many-{services}"), &haproxy).args(&["--check", ""]);
    let mut agent = discover.start(lab, &etcd).await?;
    let all = services * BACKENDS;
    routed_in_all(&discover, lab, all).await?;
    agent.quiet().await?;

    let before = agent.process().processor_time()?;
    let mut routed = Times::default();
    let mut runtime = discover.runtime(lab)?;
    let changing = async {
        for n in 0..CHANGES {
            let service = n * 37 % services;
            let (key, value) = (
                format!("/backends/service-{service:04}/new{n:08}"),
                backend(services, service, 100 + n / 200, n % 200),
            );
            let section = format!("service-{service:04}");
            let sent = Instant::now();
            client.put(key, value, None).await.during("putting into etcd")?;
            let name = format!("new{n:08}");
            while !is_routed(&mut runtime, &section, &name).await {
                if sent.elapsed() > PATIENCE {
                    return Err(LabError::new(format!("{name} is not routed after {PATIENCE:?}")));
                }
            }
            routed.push(sent.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    };
    terminal.while_waiting(&format!("{CHANGES} changes beside {all} backends"), changing).await?;
    // What the changes leave to be written is theirs, too.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let change = (agent.process().processor_time()? - before) / u32::try_from(CHANGES).during("counting changes")?;

    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = agent.process().processor_time()?;
    terminal.while_waiting("idling", tokio::time::sleep(IDLE)).await;
    let idle = agent.process().processor_time()? - before;
    let memory = agent.resident_memory()?;

    let mut viewer = TcpStream::connect(agent.address()).await.during("looking at the page")?;
    let request = "GET /events?page HTTP/1.1\r\nhost: localhost\r\n\r\n";
    viewer.write_all(request.as_bytes()).await.during("looking at the page")?;
    let seen = tokio::spawn(async move { copy(&mut viewer, &mut sink()).await });
    let before = agent.process().processor_time()?;
    terminal.while_waiting("being looked at", tokio::time::sleep(IDLE)).await;
    let viewed = agent.process().processor_time()? - before;
    if seen.is_finished() {
        return Err(LabError::new("the page's stream ended"));
    }
    seen.abort();
    let restarted = restarted(&mut agent).await?;
    Ok(Measured { routed, change, idle, viewed, memory, restarted })
}

/// Asked without a pause: HAProxy answers in a tenth of a millisecond.
async fn is_routed(runtime: &mut Runtime, section: &str, name: &str) -> bool {
    let states = runtime.servers_state(Some(section)).await.unwrap_or_default();
    states.iter().any(|state| state.name == name && !state.admin.in_maintenance())
}

async fn restarted(agent: &mut Agent) -> Result<u64> {
    agent.crash_and_restart().await?;
    tokio::time::sleep(Duration::from_secs(15)).await;
    agent.resident_memory()
}

async fn fill(client: &mut Client, services: usize) -> Result<()> {
    for service in 0..services {
        let put = |n: usize| {
            TxnOp::put(
                format!("/backends/service-{service:04}/{n:012x}"),
                backend(services, service, 1 + service / 250, n),
                None,
            )
        };
        let all: Vec<TxnOp> = (0..BACKENDS).map(put).collect();
        client.txn(Txn::new().and_then(all)).await.during("filling etcd")?;
    }
    Ok(())
}

/// Each size has ports of its own: HAProxy outlives the discover of the size before.
fn backend(services: usize, service: usize, net: usize, n: usize) -> String {
    let first = if services == SERVICES { 20_000 } else { 22_000 };
    json!({"host": format!("127.{net}.{}.{}", service % 250, n + 1), "port": 9, "service_port": first + service})
        .to_string()
}

async fn routed_in_all(discover: &Discover, lab: &Lab, all: usize) -> Result<()> {
    let mut runtime = discover.runtime(lab)?;
    wait::until_true("all backends in HAProxy", PATIENCE, async || {
        runtime.servers_state(None).await.is_ok_and(|states| states.len() >= all)
    })
    .await
}
