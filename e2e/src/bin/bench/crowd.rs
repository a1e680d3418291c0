//! 20,000 backends from each push source: what they take of memory. ZooKeeper's stand in its own row.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::agents::Agent;
use e2e::figures::{Figure, megabytes, millis};
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, Result, wait};
use etcd_client::{Txn, TxnOp};
use serde_json::{Map, Value, json};
use testing::docker_api::{DockerApi, running};

const SERVICES: usize = 1000;
const BACKENDS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(180);

/// One after the other, each with an agent of its own.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();

    let files = lab.subdir("files")?;
    let path = |service: usize| files.join(format!("s{service:04}.json"));
    for service in 0..SERVICES {
        let all: Vec<Value> = (0..BACKENDS).map(|n| backend(service, n)).collect();
        std::fs::write(path(service), json!(all).to_string()).during("writing a source's file")?;
    }
    let of = |service| json!({"method": "file", "path": path(service)});
    figures.extend(one(lab, terminal, "file", of, "a file for each service").await?);

    let etcd = Etcd::start();
    let mut client = etcd.operator().await;
    for service in 0..SERVICES {
        let put = |n| TxnOp::put(format!("/nerve/s{service:04}/i-{n:02}/1"), backend(service, n).to_string(), None);
        let all: Vec<TxnOp> = (0..BACKENDS).map(put).collect();
        client.txn(Txn::new().and_then(all)).await.during("filling etcd")?;
    }
    let hosts = etcd.endpoint().authority();
    let of = |service| json!({"method": "etcd", "hosts": [hosts], "path": format!("/nerve/s{service:04}")});
    figures.extend(one(lab, terminal, "etcd", of, "a path for each service, one stream for all").await?);
    drop(etcd);

    let docker = DockerApi::start();
    for number in 0..SERVICES * BACKENDS {
        docker.put(running(number, &format!("example/s{:04}:1", number / BACKENDS)));
    }
    let host = docker.host();
    let of = |service| {
        let image = format!("example/s{service:04}");
        json!({"method": "docker", "servers": [{"host": host}], "image_name": image, "container_port": 80})
    };
    figures.extend(one(lab, terminal, "docker", of, "an image for each service, one scripted daemon").await?);
    Ok(figures)
}

fn backend(service: usize, n: usize) -> Value {
    json!({"host": format!("10.{}.{}.{n}", service / 250, service % 250), "port": 8000 + n, "name": format!("node-{n:04}")})
}

/// Reads all services from such sources.
async fn one(
    lab: &Lab,
    terminal: Terminal,
    name: &str,
    discovery: impl Fn(usize) -> Value,
    how: &str,
) -> Result<Vec<Figure>> {
    let out = lab.subdir(&format!("{name}-out"))?;
    let services: Map<String, Value> =
        (0..SERVICES).map(|n| (format!("s{n:04}"), json!({"discovery": discovery(n)}))).collect();
    let config = lab.dir().join(format!("{name}.json"));
    let text = json!({"services": services, "file_output": {"output_directory": out}}).to_string();
    std::fs::write(&config, text).during("writing a config")?;
    let began = Instant::now();
    let agent = Agent::of_config(lab, name, &config)?;
    let written = wait::until_true("every service's file", PATIENCE, async || complete(&out));
    terminal.while_waiting(&format!("reading them by {name}"), written).await?;
    let synced = began.elapsed();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let conditions = format!("{SERVICES} services × {BACKENDS}, {how}; file_output only");
    let figure =
        |what: String, value: String, conditions: String| Figure { what, value, goal: String::new(), conditions };
    Ok(vec![
        figure(format!("{name}: first sync of {} backends", SERVICES * BACKENDS), millis(synced), conditions.clone()),
        figure(
            format!("{name}: resident memory of discover with {} backends", SERVICES * BACKENDS),
            megabytes(agent.resident_memory()?),
            format!("{conditions}; VmRSS 2 s after the first sync"),
        ),
    ])
}

/// Whether the last of all services is written: they are written in one turn, when all are known.
fn complete(out: &Path) -> bool {
    let count = std::fs::read_dir(out)
        .map(|all| all.flatten().filter(|e| !e.file_name().to_string_lossy().starts_with('.')).count());
    count.unwrap_or_default() == SERVICES
}
