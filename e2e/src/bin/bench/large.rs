//! A large registry: how long the first sync takes, from a real etcd to a file on disk, and how much memory it fills.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::agents::{Agent, Discover};
use e2e::figures::{Figure, megabytes, millis};
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, Result, haproxy, wait};
use etcd_client::{Txn, TxnOp};
use serde_json::{Map, Value, json};

const SERVICES: usize = 1000;
const BACKENDS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the file.
const RESOLUTION: Duration = Duration::from_micros(500);
/// How often the first sync is measured; the median counts.
const ROUNDS: usize = 5;

/// docker-discover's way, with one watcher for all; and Synapse's, with one for each service.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let etcd = Etcd::start();
    terminal.while_waiting("filling etcd", Box::pin(fill(&etcd))).await?;
    let haproxy = haproxy::newest()?;
    let config = lab.dir().join("synapse.json");
    let file = lab.dir().join("haproxy.cfg");
    std::fs::write(&config, synapse(&etcd, &file).to_string()).during("writing a config")?;
    let plain = Discover::new("plain", &haproxy).files_only();
    let synapse = Discover::new("synapse", &haproxy).args(&["-c", &config.to_string_lossy()]);
    let ways = [
        (plain.dir(lab)?.join("haproxy.cfg"), plain, "one watcher, HAProxy elsewhere", "≤ 500 ms", "≤ 60 MB"),
        (file, synapse, "Synapse's config, 1,000 watchers", "", ""),
    ];
    let mut figures = Vec::new();
    for (file, discover, how, soon, small) in ways {
        let (time, memory) = first_sync(lab, &etcd, &discover, &file).await?;
        let all = SERVICES * BACKENDS;
        let conditions = format!("{SERVICES} services × {BACKENDS}, one etcd; {how}");
        figures.push(Figure {
            what: format!("first sync of {all} keys: start of the process → haproxy.cfg on disk"),
            value: millis(time),
            goal: soon.to_owned(),
            conditions: conditions.clone(),
        });
        figures.push(Figure {
            what: format!("resident memory of discover with {all} backends"),
            value: megabytes(memory),
            goal: small.to_owned(),
            conditions: format!("{conditions}; VmRSS 2 s after the first sync"),
        });
    }
    Ok(figures)
}

async fn fill(etcd: &Etcd) -> Result<()> {
    let mut client = etcd.operator().await;
    for service in 0..SERVICES {
        let put = |n: usize| {
            let (key, value) = registration(service, n);
            TxnOp::put(key, value, None)
        };
        let all: Vec<TxnOp> = (0..BACKENDS).map(put).collect();
        client.txn(Txn::new().and_then(all)).await.during("filling etcd")?;
    }
    Ok(())
}

fn registration(service: usize, n: usize) -> (String, String) {
    let value = json!({
        "host": format!("10.{}.{}.{n}", service / 250, service % 250), "port": 8000 + n, "name": format!("node-{n:04}"),
        "service_port": 10_000 + service,
    });
    (format!("/backends/service-{service:04}/{service:04x}{n:08x}"), value.to_string())
}

fn synapse(etcd: &Etcd, file: &Path) -> Value {
    let service = |n: usize| {
        let name = format!("service-{n:04}");
        let discovery =
            json!({"method": "etcd", "hosts": [etcd.endpoint().authority()], "path": format!("/backends/{name}")});
        let haproxy = json!({"port": 10_000 + n, "server_options": "check inter 2s", "listen": ["mode http"]});
        (name, json!({"discovery": discovery, "haproxy": haproxy}))
    };
    let services: Map<String, Value> = (0..SERVICES).map(service).collect();
    json!({"services": services, "haproxy": {"global": ["maxconn 9"], "defaults": ["mode http"], "config_file_path": file,
        "do_checks": true, "check_command": "true", "candidate_config_file_path": file.with_extension("candidate"),
        "do_socket": false, "do_reloads": false}})
}

/// The median time, and the memory of the last one.
async fn first_sync(lab: &Lab, etcd: &Etcd, discover: &Discover, file: &PathBuf) -> Result<(Duration, u64)> {
    let mut times = Vec::new();
    let mut memory = 0;
    for _ in 0..ROUNDS {
        for entry in file.parent().and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten() {
            let ours = entry.file_name().to_string_lossy().starts_with("haproxy.cfg");
            if ours || entry.file_name() == "state.json" {
                let _ = std::fs::remove_file(entry.path()); // what a former round left
            }
        }
        let began = Instant::now();
        let agent: Agent = discover.spawn(lab, Some(&etcd.endpoint().authority()))?;
        while !file.exists() && began.elapsed() < PATIENCE {
            tokio::time::sleep(RESOLUTION).await;
        }
        times.push(began.elapsed());
        let servers = || {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.lines().filter(|line| line.starts_with("\tserver ")).count()
        };
        wait::until_true("all servers in haproxy.cfg", PATIENCE, async || servers() == SERVICES * BACKENDS).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        memory = agent.resident_memory()?;
    }
    times.sort_unstable();
    Ok((times[times.len() / 2], memory))
}
