//! Several agents of one host as processes, with real etcd and real Docker: of one name, and of several prefixes. They see no
//! containers (`--filter`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use registry::store::etcd::EtcdStore;
use registry::store::{Change, Position, Store, WatchStream};
use serde_json::Value;
use tempfile::TempDir;
use testing::etcd::Etcd;
use tokio::time::{sleep, timeout};

const DEADLINE: Duration = Duration::from_secs(30);
/// How long two agents are started again and again.
const LOOPS: Duration = Duration::from_secs(15);

struct Host {
    etcd: Etcd,
    store: EtcdStore,
    dir: TempDir,
    name: String,
    /// Where the admin server of each agent is.
    admin: BTreeMap<&'static str, SocketAddr>,
}

/// The names of agents.
const AGENTS: [&str; 5] = ["a", "b", "backends", "ext", "int"];

/// A running agent; dropping it kills it.
struct Agent {
    child: Child,
    log: PathBuf,
}

impl Host {
    fn new(test: &str) -> Self {
        agent::tls::install_provider();
        let etcd = Etcd::start();
        let (store, name) = (etcd.store(), format!("register-test-{test}-{}", std::process::id()));
        let free = AGENTS.map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let admin = AGENTS.into_iter().zip(free.iter().map(|socket| socket.local_addr().unwrap())).collect();
        Self { etcd, store, dir: TempDir::new().unwrap(), name, admin }
    }

    /// An agent, whose log goes on with the one of the agent before it under this `name`.
    fn run(&self, name: &str, args: &[&str]) -> Agent {
        let log = self.dir.path().join(format!("{name}.log"));
        let (filter, admin) = (format!("label={}=1", self.name), self.admin[name].to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_register"));
        command.args(["run", "--filter", &filter, "--admin", &admin, "--ttl", "5s", "--log-format", "text"]).args(args);
        command.env_remove("RUST_LOG").env_remove("ETCD_PREFIX").env("NODE_NAME", &self.name);
        command.env("HOST_IP", "127.0.0.1").env("REGISTER_ALLOW_LOOPBACK", "true");
        command.env("ETCD_HOST", self.etcd.endpoint().to_string());
        command.env("REGISTER_CONTROL", self.dir.path().join(format!("{name}.sock")));
        let out = File::options().create(true).append(true).open(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).spawn().unwrap();
        Agent { child, log }
    }

    fn status(&self, name: &str) -> String {
        let at = format!("http://{}", self.admin[name]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_register"));
        let out = command.args(["status", "--json", "--admin", &at]).output().unwrap();
        String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
    }

    async fn now(&self) -> Position {
        self.store.position("/registrars/").await.unwrap()
    }

    /// The tokens that were at `key` since `start`, without repetitions.
    async fn tokens(&self, key: &str, start: Position) -> Vec<String> {
        let mut stream = self.store.watch(key, start).await.unwrap();
        let now = self.now().await.revision;
        let (mut tokens, mut seen) = (Vec::new(), start.revision);
        while seen < now {
            // Nothing more comes where the newest change is another key's.
            let Ok(batch) = timeout(Duration::from_secs(2), stream.next()).await else { break };
            let batch = batch.unwrap();
            seen = batch.at.revision;
            for change in batch.changes {
                if let Change::Put(entry) = change {
                    tokens.push(token(&entry.value));
                }
            }
        }
        tokens.dedup();
        tokens
    }

    /// The token at `key`, once there is one that `good` takes.
    async fn token(&self, key: &str, agents: &[&Agent], good: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let found = self.store.get(key).await.unwrap().map(|entry| token(&entry.value));
            if let Some(found) = found.filter(|found| good(found)) {
                return found;
            }
            let logs = agents.iter().map(|agent| agent.log()).collect::<Vec<_>>().join("\n---\n");
            assert!(start.elapsed() < DEADLINE, "{key}: {logs}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Agent {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn token(value: &[u8]) -> String {
    let value: Value = serde_json::from_slice(value).unwrap();
    value["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn two_agents_of_one_name_in_restart_loops_take_over_once_and_one_waits() {
    let host = Host::new("rivals");
    let (key, start) = (format!("/registrars/{}", host.name), host.now().await);
    let mut agents = [host.run("a", &[]), host.run("b", &[])];
    let began = Instant::now();
    while began.elapsed() < LOOPS {
        for (agent, name) in agents.iter_mut().zip(["a", "b"]) {
            if !agent.is_running() {
                *agent = host.run(name, &[]);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    let logs = format!("{}\n---\n{}", agents[0].log(), agents[1].log());
    let tokens = host.tokens(&key, start).await;
    assert!(tokens.len() <= 2, "one claim and at most one takeover: {tokens:?}\n{logs}");
    assert_eq!(logs.matches("second_agent").count(), 1, "said once: {logs}");
    assert!(logs.contains("--node-name"), "{logs}");
    let waiting = usize::from(!agents[0].log().contains("second_agent"));
    let status = host.status(["a", "b"][waiting]);
    assert!(status.contains("waits_for") && status.contains(&key), "{status}");

    // The one that serves goes for good: the other one follows while its lease lives yet.
    let (held, other) = (tokens.last().unwrap().clone(), 1 - waiting);
    agents[other].kill();
    let [a, b] = &agents;
    host.token(&key, &[a, b], |token| token != held).await;
    let lease = |at: Option<registry::store::Entry>| at.unwrap().lease;
    assert!(lease(host.store.get(&key).await.unwrap()).is_some());
    assert!(agents[waiting].log().contains("Adopted the former agent's lease"), "{}", agents[waiting].log());
}

#[tokio::test]
async fn an_agent_that_was_killed_follows_itself_at_once() {
    let host = Host::new("alone");
    let key = format!("/registrars/{}", host.name);
    let mut agent = host.run("a", &[]);
    let mut held = host.token(&key, &[&agent], |_| true).await;
    for _ in 0..3 {
        agent.kill();
        let began = Instant::now();
        agent = host.run("a", &[]);
        held = host.token(&key, &[&agent], |token| token != held).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}: {}", began.elapsed(), agent.log());
    }
    assert!(!agent.log().contains("second_agent"), "{}", agent.log());
}

#[tokio::test]
async fn two_prefixes_on_one_host_live_side_by_side() {
    let host = Host::new("prefixes");
    let start = host.now().await;
    let prefixes = ["/backends", "/ext", "/int"];
    let mut agents = prefixes.map(|prefix| host.run(&prefix[1..], &["--etcd-prefix", prefix]));
    let keys = ["", "ext/", "int/"].map(|prefix| format!("/registrars/{prefix}{}", host.name));
    for (key, agent) in keys.iter().zip(&agents) {
        host.token(key, &[agent], |_| true).await;
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(11) {
        for agent in &mut agents {
            assert!(agent.is_running(), "{}", agent.log());
        }
        sleep(Duration::from_millis(100)).await;
    }
    for key in &keys {
        assert_eq!(host.tokens(key, start).await.len(), 1, "{key}");
    }
}
