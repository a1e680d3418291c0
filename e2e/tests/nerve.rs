//! What a Nerve user has, from end to end: Nerve's config → etcd → Synapse's config → HAProxy, with nothing changed but the
//! programs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use e2e::agents::Agent;
use e2e::http::Client;
use e2e::scene::{PATIENCE, loopback};
use e2e::{Etcd, Lab, Result, free_port, haproxy, in_lab, wait};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// An HTTP server that answers with its name; dropping it closes its port.
struct Server {
    port: u16,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(name: &'static str, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    if stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                        let length = name.len();
                        let head =
                            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{name}");
                        let _ = stream.write_all(head.as_bytes()).await;
                    }
                });
            }
        });
        Self { port, _task: AbortOnDropHandle::new(task) }
    }
}

/// Nerve's config, as it was written for Nerve.
fn nerve(etcd: &Etcd, instance: &str, port: u16) -> String {
    let (host, etcd_port) = (&etcd.endpoint().host, etcd.endpoint().port);
    format!(
        r#"// what one host publishes
{{
  "instance_id": "{instance}",
  "listen_port": 1025,
  "services": {{
    "web": {{
      "host": "127.0.0.1", "port": {port},
      "reporter_type": "etcd", "etcd_host": "{host}", "etcd_port": {etcd_port}, "etcd_path": "/nerve/services/web",
      "check_interval": 0.1, "weight": 5, "labels": {{"az": "here"}},
      "checks": [{{"type": "http", "uri": "/health", "timeout": 1, "rise": 1, "fall": 1}}]
    }}
  }}
}}"#
    )
}

/// Synapse's config, as it was written for Synapse (with a fork's etcd watcher).
fn synapse(dir: &Path, etcd: &Etcd, port: u16, haproxy: &Path) -> Value {
    let at = |name: &str| dir.join(name).display().to_string();
    let (cfg, pid) = (at("haproxy.cfg"), at("pid"));
    let start = format!("{} -W -D -p {pid} -f {cfg}", haproxy.display());
    json!({
        "haproxy": {
            "global": [format!("stats socket {} mode 600 level admin", at("stats.sock")), "hard-stop-after 3s"],
            "defaults": ["mode http", "timeout connect 1s", "timeout client 10s", "timeout server 10s", "option redispatch", "retries 3"],
            "config_file_path": cfg, "socket_file_path": at("stats.sock"), "restart_interval": 1, "bind_address": "127.0.0.1",
            "reload_command": format!("if [ -f {pid} ]; then kill -USR2 $(cat {pid}); else {start}; fi"),
        },
        "services": {"web": {
            "discovery": {"method": "etcd", "hosts": [etcd.endpoint().authority()], "path": "/nerve/services/web"},
            "haproxy": {"port": port, "server_options": "check inter 500ms"},
        }},
    })
}

fn agent(lab: &Lab, program: &str, name: &str, config: &str) -> Result<Agent> {
    let dir = lab.subdir(&format!("{name}-run"))?;
    let path = dir.join("config.json");
    std::fs::write(&path, config).unwrap();
    let control = dir.join("control.sock").display().to_string();
    Agent::configured(lab, program, name, &path, &["--control", &control])
}

/// Who answers 12 requests in a row.
async fn answers(to: SocketAddr) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..12 {
        let reply = Client::new(to, false, Duration::from_secs(5)).get("/").await;
        names.push(reply.map_or_else(|failure| failure.to_string(), |reply| reply.name().to_owned()));
    }
    names.sort();
    names.dedup();
    names
}

async fn answer(what: &str, to: SocketAddr, expected: &[&str]) -> Result<()> {
    wait::until_true(what, PATIENCE, async || answers(to).await == expected).await
}

/// Waits until so many are in etcd: HAProxy's own checks may be faster than register's.
async fn registered(etcd: &Etcd, count: i64) -> Result<()> {
    let found = async || etcd.operator().await.get("/nerve/services/", Some(everything())).await;
    wait::until_true("as many in etcd", PATIENCE, async || found().await.is_ok_and(|f| f.count() == count)).await
}

#[test]
fn nerves_config_reaches_clients_through_etcd_and_haproxy() -> Result<()> {
    in_lab(async |lab| {
        let etcd = Etcd::start();
        let (a, b) = (Server::start("a", 0).await, Server::start("b", 0).await);
        let mut first = agent(lab, "register", "nerve-1", &nerve(&etcd, "i-1", a.port))?;
        let _second = agent(lab, "register", "nerve-2", &nerve(&etcd, "i-2", b.port))?;
        let port = free_port();
        let (to, dir) = (loopback(port), lab.subdir("synapse")?);
        let config = synapse(&dir, &etcd, port, &haproxy::newest()?.path).to_string();
        let mut discover = agent(lab, "discover", "synapse", &config)?;
        answer("both hosts answer", to, &["a", "b"]).await?;

        // A service that fails is out at once, and back when it works again.
        let port_of_a = a.port;
        drop(a);
        answer("only b answers", to, &["b"]).await?;
        registered(&etcd, 1).await?;
        let _a = Server::start("a", port_of_a).await;
        registered(&etcd, 2).await?;
        answer("both answer again", to, &["a", "b"]).await?;

        // An agent that is killed and started again is no event for anybody.
        let before = etcd.operator().await.get("/nerve/", Some(everything())).await.unwrap();
        first.process().restart()?;
        first.ready().await?;
        for _ in 0..5 {
            assert_eq!(answers(to).await, ["a", "b"]);
        }
        let after = etcd.operator().await.get("/nerve/", Some(everything())).await.unwrap();
        let keys = |answer: &etcd_client::GetResponse| {
            answer.kvs().iter().map(|kv| (kv.key().to_vec(), kv.mod_revision(), kv.lease())).collect::<Vec<_>>()
        };
        assert_eq!(keys(&before), keys(&after), "a restart rewrote something");
        discover.process().stop(PATIENCE).await?;
        Ok(())
    })
}

fn everything() -> etcd_client::GetOptions {
    etcd_client::GetOptions::new().with_prefix()
}
