//! What services of a Nerve config cost: a tcp check each every half second, 50 of them and 500.

use std::time::Duration;

use e2e::agents::Agent;
use e2e::figures::{Figure, megabytes};
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, Result, wait};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const SIZES: [usize; 2] = [50, 500];
const PATIENCE: Duration = Duration::from_secs(60);
const MEASURED: Duration = Duration::from_secs(20);

/// What was measured with so many services.
struct Measured {
    services: usize,
    percent: f64,
    memory: u64,
    threads: usize,
    checks: f64,
    writes: f64,
}

/// Processor time over 20 s, resident memory and threads.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut all = Vec::new();
    for services in SIZES {
        let measuring = Box::pin(with(lab, services));
        let waiting = Box::pin(terminal.while_waiting("measuring", measuring));
        all.push(waiting.await?);
    }
    let mut figures = Vec::new();
    for m in &all {
        let conditions = format!(
            "{} services of a Nerve config with real listeners, a tcp check every 0.5 s each; {} checks in {} s, {} keys written meanwhile",
            m.services,
            m.checks,
            MEASURED.as_secs(),
            m.writes
        );
        let figure = |what: &str, value: String, goal: &str| Figure {
            what: format!("{what} of register with {} Nerve services", m.services),
            value,
            goal: goal.to_owned(),
            conditions: conditions.clone(),
        };
        figures.push(figure("processor time", format!("{:.1} % of a core", m.percent), ""));
        figures.push(figure("resident memory", megabytes(m.memory), ""));
        figures.push(figure("threads", m.threads.to_string(), "the same for any number of services"));
    }
    Ok(figures)
}

async fn with(lab: &Lab, services: usize) -> Result<Measured> {
    let etcd = Etcd::start();
    let mut listeners = JoinSet::new();
    let mut config = Map::new();
    for n in 0..services {
        let listener = TcpListener::bind("127.0.0.1:0").await.during("opening a port")?;
        let port = listener.local_addr().during("opening a port")?.port();
        listeners.spawn(async move { while listener.accept().await.is_ok() {} });
        config.insert(format!("service-{n}"), service(&etcd, n, port));
    }
    let dir = lab.subdir(&format!("nerve-{services}"))?;
    let path = dir.join("nerve.conf.json");
    let text = json!({"instance_id": format!("bench-{services}"), "services": config}).to_string();
    std::fs::write(&path, text).during("writing the config")?;
    let mut agent = Agent::configured(lab, "register", &format!("nerve-{services}"), &path, &[])?;
    let mut client = etcd.operator().await;
    let published = async || {
        let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
        client.get("/nerve/", Some(options)).await.is_ok_and(|a| usize::try_from(a.count()) == Ok(services))
    };
    wait::until_true("all services in etcd", PATIENCE, published).await?;
    tokio::time::sleep(Duration::from_secs(3)).await; // what the start cost is not meant
    let busy = agent.process().processor_time()?;
    let checks = agent.metric("register_checks_total").await?;
    let writes = agent.metric("register_store_puts_total").await?;
    tokio::time::sleep(MEASURED).await;
    let busy = agent.process().processor_time()? - busy;
    let tasks = format!("/proc/{}/task", agent.process().pid());
    Ok(Measured {
        services,
        percent: 100.0 * busy.as_secs_f64() / MEASURED.as_secs_f64(),
        memory: agent.resident_memory()?,
        threads: std::fs::read_dir(tasks).during("counting threads")?.count(),
        checks: agent.metric("register_checks_total").await? - checks,
        writes: agent.metric("register_store_puts_total").await? - writes,
    })
}

fn service(etcd: &Etcd, n: usize, port: u16) -> Value {
    let etcd = etcd.endpoint();
    json!({
        "host": "127.0.0.1", "port": port, "check_interval": 0.5, "checks": [{"type": "tcp", "timeout": 1}],
        "reporter_type": "etcd", "etcd_host": etcd.host, "etcd_port": etcd.port, "etcd_path": format!("/nerve/{n}"),
    })
}
