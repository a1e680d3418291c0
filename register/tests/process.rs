//! The program `register` as a process, with real etcd and real Docker. Each test has an etcd, a node name and
//! containers of its own; the agent sees no others (`--filter label=…`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use registry::store::etcd::EtcdStore;
use registry::store::{Change, Op, Position, Store, WatchStream};
use serde_json::{Value, json};
use tempfile::TempDir;
use testing::etcd::Etcd;
use tokio::time::{sleep, timeout};

/// What `make images` builds: a small HTTP server that ends at SIGTERM.
const IMAGE: &str = "docker-register-demo/whoami";
const DEADLINE: Duration = Duration::from_secs(30);

/// One host: an etcd, a name, and containers that go with it.
struct Host {
    etcd: Etcd,
    store: EtcdStore,
    dir: TempDir,
    name: String,
    containers: Vec<String>,
}

/// A running agent; dropping it kills it.
struct Agent {
    child: Child,
    log: PathBuf,
}

impl Host {
    fn new(test: &str) -> Self {
        agent::tls::install_provider();
        let etcd = Etcd::start();
        let store = etcd.store();
        let name = format!("register-test-{test}-{}", std::process::id());
        Self { etcd, store, dir: TempDir::new().unwrap(), name, containers: Vec::new() }
    }

    /// A container of the host with one published port; gives its id.
    fn container(&mut self, args: &[&str]) -> String {
        let label = format!("{}=1", self.name);
        let run = ["run", "-d", "--label", &label, "--label", "register.service=web", "-p", "127.0.0.1::80"];
        let out = docker(&[&run, args, &[IMAGE]].concat());
        let id = out.trim().to_owned();
        self.containers.push(id.clone());
        id
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_register"));
        command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
        command.env("HOST_IP", "127.0.0.1").env("REGISTER_ALLOW_LOOPBACK", "true");
        command.env("ETCD_HOST", self.etcd.endpoint().to_string()).env("NODE_NAME", &self.name);
        command.env("REGISTER_CONTROL", self.dir.path().join("control.sock"));
        command
    }

    fn start(&self, args: &[&str]) -> Agent {
        let log = self.dir.path().join(format!("log-{}", rand::random::<u64>()));
        let mut command = self.command(args);
        let child = command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        Agent { child, log }
    }

    fn run(&self, args: &[&str]) -> Agent {
        let filter = format!("label={}=1", self.name);
        let base = ["run", "--filter", &filter, "--admin", "off", "--ttl", "8s", "--log-format", "text"];
        self.start(&[&base, args].concat())
    }

    /// `register put` of a database, once it is registered.
    async fn put(&self, args: &[&str]) -> Agent {
        let put = self.start(&[&["put", "db", "10.0.0.5:5432", "--ttl", "3s"], args].concat());
        let start = Instant::now();
        while self.statuses().await.is_empty() {
            assert!(start.elapsed() < DEADLINE, "{}", put.log());
            sleep(Duration::from_millis(10)).await;
        }
        put
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    async fn statuses(&self) -> BTreeMap<String, String> {
        let listing = self.store.list("/backends/").await.unwrap();
        listing.entries.iter().map(|e| (e.key.to_string(), status(&e.value))).collect()
    }

    async fn expect(&self, expected: &[(&str, &str)], agent: &Agent) {
        let key = |id: &str| format!("/backends/web/{}", &id[..12]);
        let expected: BTreeMap<_, _> = expected.iter().map(|(id, status)| (key(id), (*status).to_owned())).collect();
        let start = Instant::now();
        loop {
            let found = self.statuses().await;
            if found == expected {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "expected {expected:?}, found {found:?}; log:\n{}", agent.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn now(&self) -> Position {
        self.store.position("/backends/").await.unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for id in &self.containers {
            let _ = Command::new("docker").args(["rm", "-fv", id]).output();
        }
    }
}

impl Agent {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    async fn end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "it does not end; log:\n{}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn says(&self, words: &str) {
        let start = Instant::now();
        while !self.log().contains(words) {
            assert!(start.elapsed() < DEADLINE, "no {words:?} in the log:\n{}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "docker {args:?}: {error} (the image {IMAGE} is built by `make images`)");
    String::from_utf8(out.stdout).unwrap()
}

fn status(value: &[u8]) -> String {
    let value: Value = serde_json::from_slice(value).unwrap();
    value["status"].as_str().unwrap().to_owned()
}

/// Each change of a backend after `at`, until nothing more comes for `quiet`.
async fn changes(store: &EtcdStore, at: Position, quiet: Duration) -> Vec<String> {
    let mut stream = store.watch("/backends/", at).await.unwrap();
    let (mut seen, mut end) = (Vec::new(), Instant::now() + quiet);
    // A batch without a change is etcd's word that there was none.
    while let Ok(batch) = timeout(end.saturating_duration_since(Instant::now()), stream.next()).await {
        for change in batch.unwrap().changes {
            end = Instant::now() + quiet;
            seen.push(match change {
                Change::Put(entry) => status(&entry.value),
                Change::Delete { .. } => "deleted".to_owned(),
            });
        }
    }
    seen
}

#[tokio::test]
async fn a_container_comes_drains_and_goes() {
    let mut host = Host::new("life");
    let agent = host.run(&[]);
    agent.says("Lease granted").await;
    let start = host.now().await;
    let id = host.container(&[]);
    host.expect(&[(&id, "up")], &agent).await;
    docker(&["stop", "-t", "5", &id]);
    host.expect(&[], &agent).await;
    assert_eq!(changes(&host.store, start, Duration::from_millis(300)).await, ["up", "draining", "deleted"]);

    docker(&["start", &id]);
    host.expect(&[(&id, "up")], &agent).await;
    docker(&["pause", &id]);
    host.expect(&[], &agent).await;
    docker(&["unpause", &id]);
    host.expect(&[(&id, "up")], &agent).await;
}

#[tokio::test]
async fn killed_and_started_again_the_agent_is_no_event_for_anybody() {
    let mut host = Host::new("adopt");
    let (a, b) = (host.container(&[]), host.container(&[]));
    let mut agent = host.run(&[]);
    host.expect(&[(&a, "up"), (&b, "up")], &agent).await;
    let drained = host.output(&["drain", &b[..12]]);
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    host.expect(&[(&a, "up"), (&b, "draining")], &agent).await;

    let before = host.now().await;
    agent.signal(Signal::SIGKILL);
    agent.end().await;
    let agent = host.run(&[]);
    agent.says("Adopted the former agent's lease").await;
    // Longer than the lease lives without a beat.
    assert_eq!(changes(&host.store, before, Duration::from_secs(10)).await, [""; 0], "{}", agent.log());

    docker(&["rm", "-fv", &a]);
    host.expect(&[(&b, "draining")], &agent).await;
    assert!(host.output(&["undrain", "--all"]).status.success());
    host.expect(&[(&b, "up")], &agent).await;
}

#[tokio::test]
async fn at_sigterm_keys_live_out_their_time_and_with_drain_they_drain_first() {
    let mut host = Host::new("exit");
    let id = host.container(&[]);
    let mut agent = host.run(&[]);
    host.expect(&[(&id, "up")], &agent).await;
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().await.code(), Some(0), "{}", agent.log());
    assert_eq!(host.statuses().await.len(), 1);
    host.expect(&[], &agent).await;

    let mut agent = host.run(&["--on-exit", "drain", "--drain-wait", "500ms"]);
    host.expect(&[(&id, "up")], &agent).await;
    let before = host.now().await;
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.end().await.code(), Some(0), "{}", agent.log());
    assert_eq!(host.statuses().await.len(), 0);
    assert_eq!(changes(&host.store, before, Duration::from_millis(300)).await, ["draining", "deleted"]);
}

#[tokio::test]
async fn an_agent_stands_down_for_its_successor_and_does_not_start_under_anothers_name() {
    let mut host = Host::new("names");
    let id = host.container(&[]);
    let mut former = host.run(&[]);
    host.expect(&[(&id, "up")], &former).await;
    let before = host.now().await;
    let agent = host.run(&[]);
    assert_eq!(former.end().await.code(), Some(1));
    assert!(former.log().contains("standing down without revoking"), "{}", former.log());
    assert_eq!(changes(&host.store, before, Duration::from_millis(500)).await, [""; 0], "{}", agent.log());
    drop(agent);

    let lease = host.store.grant(Duration::from_secs(60)).await.unwrap().id;
    let other = r#"{"machine_id":"another","token":"t","lease":"1","version":"0","started":"2026-01-01T00:00:00Z","prefix":"/backends"}"#;
    let key = format!("/registrars/{}", host.name);
    host.store.txn(Vec::new(), vec![Op::put(key.as_str(), other.as_bytes(), Some(lease))]).await.unwrap();
    let mut agent = host.run(&[]);
    assert_eq!(agent.end().await.code(), Some(1));
    assert!(agent.log().contains("NODE_NAME") && agent.log().contains("another"), "{}", agent.log());
}

#[tokio::test]
async fn etcd_may_go_and_come_back() {
    let mut host = Host::new("etcd");
    let id = host.container(&[]);
    let agent = host.run(&[]);
    host.expect(&[(&id, "up")], &agent).await;
    host.etcd.kill();
    agent.says("The registry does not serve").await;
    let second = host.container(&[]);
    host.etcd.restart();
    host.expect(&[(&id, "up"), (&second, "up")], &agent).await;
    agent.says("The registry serves again").await;
}

#[tokio::test]
async fn put_holds_a_registration_for_as_long_as_it_runs() {
    let host = Host::new("put");
    let routes = ["--vhost", "db.example/admin/,*.db.example", "--strip-prefix", "--sticky", "--label", "az=x"];
    let mut put = host.put(&routes).await;
    let listed = String::from_utf8(host.output(&["ls"]).stdout).unwrap();
    assert!(listed.contains("db") && listed.contains("10.0.0.5:5432"), "{listed}");
    assert!(listed.contains("*.db.example/ (sticky) db.example/admin (prefix stripped, sticky)"), "{listed}");
    let listed: Value = serde_json::from_slice(&host.output(&["ls", "--json"]).stdout).unwrap();
    let db = &listed["services"]["db"][0];
    assert_eq!((&db["mode"], &db["labels"]), (&json!("http"), &json!({"az": "x"})));
    let first = json!({"host": "*.db.example", "sticky": true});
    assert_eq!(
        db["routes"],
        json!([first, {"host": "db.example", "path": "/admin", "strip_prefix": true, "sticky": true}])
    );
    put.signal(Signal::SIGTERM);
    assert_eq!(put.end().await.code(), Some(0), "{}", put.log());
    assert_eq!(host.statuses().await.len(), 0);
}

#[tokio::test]
async fn put_writes_the_services_port_where_docker_register_looks_for_it() {
    let compat = ["--compat", "docker-register"];
    for (args, port) in [
        (&compat[..], Some("5432")),
        (&["--compat", "docker-register", "--service-port", "80"], Some("80")),
        (&["--compat", "docker-register", "--value", "plain"], Some("5432")),
        (&["--value", "plain", "--service-port", "80"], Some("80")),
        (&["--value", "plain"], None),
        (&["--service-port", "80"], None), // the value says it
    ] {
        let host = Host::new("put-port");
        let mut put = host.start(&[&["put", "db", "10.0.0.5:5432", "--ttl", "3s"], args].concat());
        let keys = async || {
            let entries = host.store.list("/backends/").await.unwrap().entries;
            let text = |e: &registry::store::Entry| String::from_utf8_lossy(&e.value).into_owned();
            entries.iter().map(|e| (e.key.to_string(), text(e))).collect::<BTreeMap<_, _>>()
        };
        let start = Instant::now();
        let all = 1 + usize::from(port.is_some());
        while keys().await.len() < all {
            assert!(start.elapsed() < DEADLINE, "{args:?}: {:?}\n{}", keys().await, put.log());
            sleep(Duration::from_millis(10)).await;
        }
        let found = keys().await;
        assert!(found.contains_key("/backends/db/10.0.0.5:5432"), "{args:?}: {found:?}");
        assert_eq!(found.get("/backends/db/port").map(String::as_str), port, "{args:?}");
        put.signal(Signal::SIGTERM);
        assert_eq!(put.end().await.code(), Some(0), "{}", put.log());
        assert_eq!(keys().await, BTreeMap::new(), "{args:?}");
    }
}

#[tokio::test]
async fn put_asks_for_tls_by_its_name() {
    let host = Host::new("put-sni");
    let mut put = host.put(&["--sni", "DB.example,*.db.example"]).await;
    let listed = String::from_utf8(host.output(&["ls"]).stdout).unwrap();
    assert!(listed.contains("tls:*.db.example tls:db.example"), "{listed}");
    let listed: Value = serde_json::from_slice(&host.output(&["ls", "--json"]).stdout).unwrap();
    let db = &listed["services"]["db"][0];
    assert_eq!((&db["mode"], &db["sni"]), (&json!("tcp"), &json!(["*.db.example", "db.example"])));
    put.signal(Signal::SIGTERM);
    assert_eq!(put.end().await.code(), Some(0), "{}", put.log());
    for (args, told) in [
        (["--sni", "a.example", "--mode", "http"], "--sni is for --mode tcp"),
        (["--sni", "10.0.0.5", "--mode", "tcp"], "10.0.0.5 is an address"),
        (["--sni", "a.example", "--vhost", "b.example"], "cannot be used with"),
    ] {
        let refused = host.output(&[&["put", "db", "10.0.0.5:5432"][..], &args].concat());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(told), "{said}");
    }
}

#[tokio::test]
async fn plan_and_explain_need_no_registry() {
    let mut host = Host::new("plan");
    let id = host.container(&[]);
    let filter = format!("label={}=1", host.name);
    let plan = host.output(&["plan", "--filter", &filter]);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["registrations"]["web"][0]["id"], id[..12], "{plan}");
    let explained = host.output(&["explain", &id[..12]]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("label register.service") && text.contains("127.0.0.1:"), "{text}");
    assert!(text.contains("    ready: "), "{text}");
    let checked = host.container(&["--label", "register.check=http,exec", "--label", "register.check.command=exit 3"]);
    let explained = host.output(&["explain", &checked[..12]]);
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("http passes; exec fails: "), "{text}");
    let routed = ["--label", "register.vhost=a.example,b b", "--label", "register.path=/x"];
    let routed = host.container(&routed);
    let plan = host.output(&["plan", "--filter", &filter]);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let web = plan["registrations"]["web"].as_array().unwrap();
    let planned = web.iter().find(|backend| backend["id"] == routed[..12]).unwrap();
    assert_eq!(planned["routes"], json!([{"host": "a.example", "path": "/x"}]));
    assert_eq!(plan["warnings"][0]["id"], routed[..12], "{plan}");
    assert!(plan["warnings"][0]["warnings"][0].as_str().unwrap().contains("host \"b b\" is not"), "{plan}");
    let passing = host.container(&["--label", "register.sni=db.example"]);
    let plan: Value = serde_json::from_slice(&host.output(&["plan", "--filter", &filter]).stdout).unwrap();
    let web = plan["registrations"]["web"].as_array().unwrap();
    let planned = web.iter().find(|backend| backend["id"] == passing[..12]).unwrap();
    assert_eq!((&planned["sni"], &planned["mode"]), (&json!(["db.example"]), &json!("tcp")));
    let text = String::from_utf8(host.output(&["explain", &passing[..12]]).stdout).unwrap();
    assert!(text.contains("TLS passed through: db.example, by label register.sni"), "{text}");
    let unknown = host.output(&["explain", "no-such-container"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no container \"no-such-container\""));
}

#[tokio::test]
async fn wrong_settings_end_with_64_and_say_which() {
    let host = Host::new("usage");
    for (variable, value, words) in [
        ("HOST_IP", "0.0.0.0", "HOST_IP 0.0.0.0 is an unspecified address"),
        ("HOST_IP", "", "HOST_IP is empty"),
        ("REGISTER_ALLOW_LOOPBACK", "false", "--allow-loopback"),
        ("ETCD_HOST", "http://a/b", "ETCD_HOST"),
        ("ETCD_PREFIX", "a b", "key prefix"),
        ("DOCKER_HOST", "ssh://h", "DOCKER_HOST"),
        ("NODE_NAME", "a/b", "node name"),
        ("REGISTER_TTL", "1s", "between 2s and 24h"),
    ] {
        let out = host.command(&["--admin", "off"]).env(variable, value).output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(64), "{variable}={value}: {error}");
        assert!(error.contains(words), "{variable}={value}: {error}");
    }
}
