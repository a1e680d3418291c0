//! `discover run -c`: a config of Synapse's with real etcd and real HAProxy, which shell commands start and reload.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy excuses only functions marked as tests"
)]

mod backup;
mod edge;
mod killing;
mod loops;
mod nginx;
#[path = "../support/mod.rs"]
mod support;
mod switches;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use registry::store::Store;
use registry::store::etcd::EtcdStore;
use serde_json::{Value, json};
use support::{eventually, get, http_server, making, programs, version};
use testing::etcd::Etcd;
use testing::free_port;

struct World {
    dir: tempfile::TempDir,
    etcd: Etcd,
    store: EtcdStore,
    port: u16,
    agent: Child,
}

impl World {
    /// HAProxy by shell commands: started by the first reload, told of the others by its signal.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let etcd = Etcd::start();
        let store = etcd.store();
        let port = free_port();
        std::fs::write(dir.path().join("synapse.json"), config(dir.path(), &etcd, port, json!({})).to_string())
            .unwrap();
        let agent = agent(dir.path());
        Self { dir, etcd, store, port, agent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn cfg(&self) -> String {
        std::fs::read_to_string(self.path("haproxy.cfg")).unwrap_or_default()
    }

    async fn put(&self, id: u8, address: SocketAddr) {
        let value =
            json!({"host": address.ip().to_string(), "port": address.port(), "name": format!("n{id}")}).to_string();
        let key = format!("/nerve/web/n{id}/{id:020}");
        put(&self.etcd, &key, Some(&value)).await;
    }

    async fn delete(&self, id: u8) {
        put(&self.etcd, &format!("/nerve/web/n{id}/{id:020}"), None).await;
    }

    fn reloads(&self) -> usize {
        std::fs::read_to_string(self.path("reloads")).unwrap_or_default().lines().count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n{}", std::fs::read_to_string(self.path("log")).unwrap_or_default(), self.cfg());
        }
        let _ = kill(Pid::from_raw(self.agent.id().try_into().unwrap()), Signal::SIGTERM);
        let _ = self.agent.wait();
        if let Ok(pid) = std::fs::read_to_string(self.path("pid")) {
            let _ = kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL);
        }
    }
}

fn agent(dir: &Path) -> Child {
    agent_of(dir, &programs().pop().unwrap())
}

/// An agent that is told which program HAProxy is.
fn agent_of(dir: &Path, haproxy: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_discover"));
    command.args(["run", "-c", "synapse.json", "--admin", "off", "--control", "control.sock"]).current_dir(dir);
    command.env("DISCOVER_HAPROXY_BIN", haproxy);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// Writes or deletes a key without a lease, as an operator does.
async fn put(etcd: &Etcd, key: &str, value: Option<&str>) {
    let mut client = etcd.operator().await;
    match value {
        Some(value) => drop(client.put(key, value, None).await.unwrap()),
        None => drop(client.delete(key, None).await.unwrap()),
    }
}

fn config(dir: &Path, etcd: &Etcd, port: u16, more: Value) -> Value {
    config_with(&programs().pop().unwrap(), dir, etcd, port, more)
}

/// A config that starts this HAProxy.
fn config_with(haproxy: &Path, dir: &Path, etcd: &Etcd, port: u16, more: Value) -> Value {
    let at = |name: &str| dir.join(name).display().to_string();
    let (cfg, pid, reloads) = (at("haproxy.cfg"), at("pid"), at("reloads"));
    let start = format!("{} -W -D -p {pid} -f {cfg}", haproxy.display());
    let reload = format!("echo x >> {reloads}; if [ -f {pid} ]; then kill -USR2 $(cat {pid}); else {start}; fi");
    let mut config = json!({
        "haproxy": {
            "global": [format!("stats socket {} mode 600 level admin", at("stats.sock")), "hard-stop-after 3s"],
            "defaults": ["mode http", "timeout connect 1s", "timeout client 10s", "timeout server 10s", "balance roundrobin", "option redispatch"],
            "config_file_path": cfg, "socket_file_path": at("stats.sock"), "reload_command": reload, "restart_interval": 1,
            "state_file_path": at("state.json"), "bind_address": "127.0.0.1",
        },
        "file_output": {"output_directory": at("out")},
        "services": {"web": {
            "discovery": {"method": "etcd", "hosts": [etcd.endpoint().authority()], "path": "/nerve/web"},
            "haproxy": {"port": port, "server_options": "check inter 500ms"},
        }},
    });
    for (key, value) in more.as_object().unwrap() {
        config["services"][key] = value.clone();
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn synapses_config_keeps_haproxy_at_the_state_of_etcd() {
    let mut world = World::start().await;
    let (a, b) = (http_server("a", Duration::ZERO).await, http_server("b", Duration::ZERO).await);
    world.put(1, a).await;
    eventually("a answers", async || get(world.port).await == "a").await;
    assert_eq!(world.reloads(), 1);

    // A new server, and a server that goes: no reload.
    world.put(2, b).await;
    eventually("b answers", async || get(world.port).await == "b").await;
    world.delete(1).await;
    eventually("a is disabled in the file", async || {
        world.cfg().lines().any(|l| l.contains("n1_") && l.ends_with(" disabled"))
    })
    .await;
    // The file comes first, then the operation.
    eventually("b alone answers", async || {
        let mut answers = Vec::new();
        for _ in 0..6 {
            answers.push(get(world.port).await);
        }
        answers.iter().all(|answer| answer == "b")
    })
    .await;
    assert_eq!(world.reloads(), 1, "{}", std::fs::read_to_string(world.path("log")).unwrap());
    let out = std::fs::read_to_string(world.path("out/web.json")).unwrap();
    assert!(out.contains("\"n2\"") && !out.contains("\"n1\""), "{out}");
    let state: Value = serde_json::from_str(&std::fs::read_to_string(world.path("state.json")).unwrap()).unwrap();
    assert_eq!(state["web"].as_object().unwrap().len(), 3, "{state}");

    // A bad config is refused, a good one taken.
    let before = world.cfg();
    std::fs::write(world.path("synapse.json"), "{\"haproxy\": 7").unwrap();
    kill(Pid::from_raw(world.agent.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
    let log_file = world.path("log");
    let log = || std::fs::read_to_string(&log_file).unwrap();
    eventually("the bad config is refused", async || log().contains("refused")).await;
    assert_eq!((get(world.port).await, world.cfg()), ("b".to_owned(), before));
    let second = free_port();
    let more = json!({"fixed": {"discovery": {"method": "base"}, "default_servers": [{"host": "127.0.0.1", "port": b.port()}], "haproxy": {"port": second}}});
    std::fs::write(world.path("synapse.json"), config(world.dir.path(), &world.etcd, world.port, more).to_string())
        .unwrap();
    eventually("the new service answers, without a signal", async || get(second).await == "b").await;
    assert_eq!(world.reloads(), 2);

    // A frontend on a stranger's port is not loaded, and comes when the port is free.
    let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = stranger.local_addr().unwrap().port();
    let also = |port: u16| json!({"discovery": {"method": "base"}, "default_servers": [{"host": "127.0.0.1", "port": b.port()}], "haproxy": {"port": port}});
    let both = json!({"fixed": also(second), "third": also(taken)});
    std::fs::write(world.path("synapse.json"), config(world.dir.path(), &world.etcd, world.port, both).to_string())
        .unwrap();
    eventually("the taken port is told", async || log().contains("another program on this host listens there")).await;
    assert_eq!((get(second).await.as_str(), world.reloads()), ("b", 2));
    drop(stranger);
    eventually("it answers", async || get(taken).await == "b").await;
    assert_eq!(world.reloads(), 3);

    // ls and diff know the config, too.
    let said = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_discover"));
        let output = command.args(args).args(["-c", "synapse.json"]).current_dir(world.dir.path()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let listed: Value = serde_json::from_str(&said(&["ls", "--json"])).unwrap();
    assert_eq!(listed["services"]["web"].as_array().unwrap().len(), 1, "{listed}");
    let nothing = said(&["diff"]);
    assert!(nothing.contains("nothing to do"), "{nothing}");

    // A restart changes nothing.
    let before = world.cfg();
    kill(Pid::from_raw(world.agent.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(world.agent.wait().unwrap().success());
    world.agent = agent(world.dir.path());
    world.put(3, a).await;
    eventually("a answers again", async || get(world.port).await == "a").await;
    assert_eq!(world.reloads(), 3, "{}", log());
    let kept = before.lines().filter(|l| l.starts_with("\tserver ")).all(|l| world.cfg().contains(l));
    assert!(kept, "{before}\n{}", world.cfg());
    assert!(world.store.list("/nerve/").await.is_ok());
}
