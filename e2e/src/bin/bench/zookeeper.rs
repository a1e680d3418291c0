//! ZooKeeper as a source and as a registry: 1,000 services with 20 backends each through one session, and what 500
//! registrations ask of it while nothing changes.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::agents::Agent;
use e2e::figures::{Figure, Times, megabytes, millis};
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, Result, wait};
use serde_json::{Map, Value, json};
use testing::zookeeper::ZooKeeperServer;
use zookeeper::{NodeKind, ZkPath, ZooKeeper};

const SERVICES: usize = 1000;
const BACKENDS: usize = 20;
const REGISTRATIONS: usize = 500;
const CHANGES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(120);
const QUIET: Duration = Duration::from_secs(60);

/// discover as the reader, then register as the writer.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = reader(lab, terminal).await?;
    figures.extend(writer(lab, terminal).await?);
    Ok(figures)
}

fn figure(what: &str, value: impl ToString, goal: &str, conditions: &str) -> Figure {
    Figure { what: what.to_owned(), value: value.to_string(), goal: goal.to_owned(), conditions: conditions.to_owned() }
}

fn registration(service: usize, backend: usize) -> String {
    json!({"host": format!("10.{}.{}.{backend}", service / 250, service % 250), "port": 8000, "name": format!("node-{backend}")}).to_string()
}

fn node(service: usize) -> Result<ZkPath> {
    format!("/nerve/services/s{service:04}").parse().during("making a path")
}

async fn reader(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let server = ZooKeeperServer::start();
    let zk = server.client();
    terminal.while_waiting("registering 20,000 backends", fill(&zk)).await?;
    let out = lab.subdir("out")?;
    let service = |n: usize| {
        let path = format!("/nerve/services/s{n:04}");
        (
            format!("s{n:04}"),
            json!({"discovery": {"method": "zookeeper", "hosts": [server.address().to_string()], "path": path}}),
        )
    };
    let services: Map<String, Value> = (0..SERVICES).map(service).collect();
    let config = json!({"services": services, "file_output": {"output_directory": out.display().to_string()}});
    let path = lab.dir().join("synapse.json");
    std::fs::write(&path, config.to_string()).during("writing a config")?;
    let before = server.figure("zk_num_alive_connections");
    let began = Instant::now();
    let mut discover = Agent::of_config(lab, "discover", &path)?;
    let written = async || std::fs::read_dir(&out).map(|all| all.count()).unwrap_or_default() >= SERVICES;
    wait::until_true("1,000 files", PATIENCE, written).await?;
    let synced = began.elapsed();
    let connections = server.figure("zk_num_alive_connections") - before;
    let watches = server.figure("zk_watch_count");
    let time = discover.process().processor_time()?;
    terminal.while_waiting("doing nothing for half a minute", tokio::time::sleep(QUIET / 2)).await;
    let idle = discover.process().processor_time()?.saturating_sub(time);
    let memory = discover.resident_memory()?;
    let changes = changes(&zk, &out);
    let (comes, goes) = terminal.while_waiting("changing one service again and again", changes).await?;
    let conditions = format!("{SERVICES} services of {BACKENDS} backends each in one ZooKeeper 3.8, file_output only");
    Ok(vec![
        figure("zookeeper: create sent → file on disk", &comes, "p50 ≤ 5 ms", &conditions),
        figure("zookeeper: delete sent → file on disk", &goes, "p50 ≤ 5 ms", &conditions),
        figure(
            "zookeeper: first sync",
            millis(synced),
            "",
            &format!("{conditions}; from the start of the process to the last of 1,000 files"),
        ),
        figure(
            "zookeeper: connections and watches",
            format!("{connections} and {watches}"),
            "1 connection",
            &conditions,
        ),
        figure("zookeeper: idle processor time of discover", millis(idle), "", &format!("{conditions}; 30 s")),
        figure("zookeeper: resident memory of discover", megabytes(memory), "", &conditions),
    ])
}

async fn fill(zk: &ZooKeeper) -> Result<()> {
    for service in 0..SERVICES {
        let path = node(service)?;
        zk.create_all(&path).await.during("making a node")?;
        let mut tasks = tokio::task::JoinSet::new();
        for backend in 0..BACKENDS {
            let (zk, at) = (zk.clone(), path.child(&format!("node-{backend}_")).during("naming a node")?);
            tasks.spawn(async move {
                zk.create(&at, registration(service, backend).as_bytes(), NodeKind::EphemeralSequential).await
            });
        }
        for made in tasks.join_all().await {
            made.during("registering")?;
        }
    }
    Ok(())
}

/// One backend comes and goes, again and again.
async fn changes(zk: &ZooKeeper, out: &Path) -> Result<(Times, Times)> {
    let (mut comes, mut goes) = (Times::default(), Times::default());
    for n in 0..CHANGES {
        let service = n * 7 % SERVICES;
        let (file, path) = (out.join(format!("s{service:04}.json")), node(service)?);
        let at = path.child("newcomer_").during("naming a node")?;
        let began = Instant::now();
        let made = zk.create(&at, registration(service, 200).as_bytes(), NodeKind::EphemeralSequential).await;
        let made = made.during("registering")?;
        shows(&file, true).await?;
        comes.push(began.elapsed());
        let began = Instant::now();
        zk.delete(&made).await.during("deleting")?;
        shows(&file, false).await?;
        goes.push(began.elapsed());
    }
    Ok((comes, goes))
}

/// Waits until the file names the newcomer, or does not any more; looks without a pause.
async fn shows(file: &Path, comes: bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if std::fs::read_to_string(file).is_ok_and(|text| text.contains("node-200") == comes) {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
    Err(e2e::LabError::new(format!("{} does not change", file.display())))
}

async fn writer(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let (server, etcd) = (ZooKeeperServer::start(), Etcd::start());
    let service = |n: usize| {
        let service = json!({
            "host": "127.0.0.1", "port": 10_000 + n, "checks": [], "reporter_type": "zookeeper",
            "zk_hosts": [server.address().to_string()], "zk_path": format!("/nerve/s{n}"),
        });
        (format!("s{n}"), service)
    };
    let services: Map<String, Value> = (0..REGISTRATIONS).map(service).collect();
    let path = lab.dir().join("nerve.json");
    let config = json!({"instance_id": "bench", "services": services});
    std::fs::write(&path, config.to_string()).during("writing a config")?;
    let register = Agent::of_nerve(lab, "register", &path, &etcd.endpoint().authority())?;
    let all = async || server.figure("zk_ephemerals_count") == REGISTRATIONS as u64;
    wait::until_true("500 registrations", PATIENCE, all).await?;
    let newest = || -> Result<i64> {
        let told = server.four_letters("srvr").during("asking ZooKeeper")?;
        let text =
            told.lines().find_map(|line| line.strip_prefix("Zxid: 0x")).during("no transaction in its answer")?;
        i64::from_str_radix(text.trim(), 16).during("reading a transaction's number")
    };
    let before = newest()?;
    terminal.while_waiting("holding them for a minute", tokio::time::sleep(QUIET)).await;
    let writes = newest()? - before;
    let connections = server.figure("zk_num_alive_connections");
    let memory = register.resident_memory()?;
    Ok(vec![figure(
        "zookeeper: 500 registrations held for a minute",
        format!("{writes} writes, {connections} connections, {} of memory", megabytes(memory)),
        "0 writes",
        "Nerve's config without checks; one of the connections asks for this figure",
    )])
}
