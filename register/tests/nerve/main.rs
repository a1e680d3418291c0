//! `register -c nerve.conf.json`, `exec` and `put` as processes, with real etcd and ports of the test's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod exec;
mod persistent;

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use registry::store::Store as _;
use registry::store::etcd::EtcdStore;
use serde_json::{Value, json};
use tempfile::TempDir;
use testing::etcd::Etcd;
use tokio::time::sleep;

const DEADLINE: Duration = Duration::from_secs(30);

/// One host with an etcd.
struct Host {
    etcd: Etcd,
    store: EtcdStore,
    dir: TempDir,
}

/// A process of `register`; dropping it kills it.
struct Agent {
    child: Child,
    log: PathBuf,
}

impl Host {
    fn new() -> Self {
        agent::tls::install_provider();
        let etcd = Etcd::start();
        Self { store: etcd.store(), etcd, dir: TempDir::new().unwrap() }
    }

    fn config_path(&self) -> PathBuf {
        self.dir.path().join("nerve.conf.json")
    }

    fn write(&self, config: &Value) {
        std::fs::write(self.config_path(), format!("// Nerve's\n{config}\n")).unwrap();
    }

    /// A service of the config, at this host's etcd, as a Nerve user has it.
    fn service(&self, port: u16, path: &str) -> Value {
        let etcd = self.etcd.endpoint();
        json!({
            "host": "127.0.0.1", "port": port, "check_interval": 0.05, "checks": [{"type": "tcp", "timeout": 1}],
            "reporter_type": "etcd", "etcd_host": etcd.host, "etcd_port": etcd.port, "etcd_path": path,
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_register"));
        command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command
    }

    fn spawn(&self, command: &mut Command) -> Agent {
        let log = self.dir.path().join(format!("log-{}", rand::random::<u64>()));
        let child = command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        Agent { child, log }
    }

    /// As Nerve is started.
    fn run(&self, args: &[&str]) -> Agent {
        let path = self.config_path();
        let base = ["-c", path.to_str().unwrap(), "--log-format", "text", "--ttl", "30s"];
        self.spawn(&mut self.command(&[&base, args].concat()))
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Every key under `prefix`, with its value; the numbers of keys are shown as `#`.
    async fn keys(&self, prefix: &str) -> Vec<String> {
        let listing = self.store.list(prefix).await.unwrap();
        let one = |e: &registry::store::Entry| {
            let (directory, number) = e.key.rsplit_once('/').unwrap();
            assert!(number.len() == 20 && number.bytes().all(|b| b.is_ascii_digit()), "{}", e.key);
            assert!(e.lease.is_some(), "{} would outlive everything", e.key);
            format!("{directory}/# {}", String::from_utf8_lossy(&e.value))
        };
        let mut keys: Vec<String> = listing.entries.iter().map(one).collect();
        keys.sort();
        keys
    }

    async fn expect(&self, prefix: &str, expected: &[String], agent: &Agent) {
        let start = Instant::now();
        loop {
            let found = self.keys(prefix).await;
            if found == expected {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "expected {expected:#?}, found {found:#?}; log:\n{}", agent.log());
            sleep(Duration::from_millis(10)).await;
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

    async fn says(&self, words: &str) {
        let start = Instant::now();
        while !self.log().contains(words) {
            assert!(start.elapsed() < DEADLINE, "no {words:?} in the log:\n{}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
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

    fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn key(path: &str, port: u16) -> String {
    format!(r#"{path}/i-1/# {{"host":"127.0.0.1","port":{port},"name":"i-1"}}"#)
}

#[tokio::test]
async fn nerves_services_are_published_under_one_lease_and_withdrawn_when_they_fail() {
    let host = Host::new();
    let ((_a, a), (b_listener, b)) = (listen(), listen());
    let services = json!({"a": host.service(a, "/nerve/a"), "b": host.service(b, "/backends/b")});
    host.write(&json!({"instance_id": "i-1", "services": services, "listen_port": 1025}));
    let agent = host.run(&["--admin", "off"]);
    host.expect("/nerve/", &[key("/nerve/a", a)], &agent).await;
    host.expect("/backends/", &[key("/backends/b", b)], &agent).await;
    let leases: Vec<_> = {
        let all = host.store.list("/").await.unwrap().entries;
        let mut leases: Vec<_> = all.iter().map(|e| e.lease.unwrap()).collect();
        leases.dedup();
        leases
    };
    assert_eq!(leases.len(), 1, "the registrar's key and both services hang on one lease");
    assert!(agent.threads() <= 4, "{} threads", agent.threads());

    // One fails: its key goes and stays gone. It comes back: a higher number.
    let number = |entries: Vec<registry::store::Entry>| entries[0].key.rsplit('/').next().unwrap().to_owned();
    let first = number(host.store.list("/backends/b/").await.unwrap().entries);
    drop(b_listener);
    host.expect("/backends/", &[], &agent).await;
    let _b = TcpListener::bind(("127.0.0.1", b)).unwrap();
    host.expect("/backends/", &[key("/backends/b", b)], &agent).await;
    assert!(number(host.store.list("/backends/b/").await.unwrap().entries) > first);
    assert_eq!(host.keys("/nerve/").await, [key("/nerve/a", a)]);
}

#[tokio::test]
async fn killed_and_started_again_nerves_agent_writes_nothing() {
    let host = Host::new();
    let ((_a, a), (b_listener, b)) = (listen(), listen());
    let services = json!({"a": host.service(a, "/nerve/a"), "b": host.service(b, "/nerve/b")});
    host.write(&json!({"instance_id": "i-1", "services": services}));
    let mut agent = host.run(&["--admin", "off"]);
    host.expect("/nerve/", &[key("/nerve/a", a), key("/nerve/b", b)], &agent).await;
    let before = host.store.list("/nerve/").await.unwrap().entries;
    agent.signal(Signal::SIGKILL);
    agent.end().await;
    // While nobody looks, b dies.
    drop(b_listener);
    let mut agent = host.run(&["--admin", "off"]);
    host.expect("/nerve/", &[key("/nerve/a", a)], &agent).await;
    assert_eq!(host.store.list("/nerve/").await.unwrap().entries, before[..1], "nothing was rewritten");
    // And with --on-exit drain everything goes with it.
    agent.signal(Signal::SIGKILL);
    agent.end().await;
    let mut agent = host.run(&["--admin", "off", "--on-exit", "drain"]);
    agent.says("Adopted").await;
    agent.says("Up.").await;
    agent.signal(Signal::SIGTERM);
    assert!(agent.end().await.success());
    assert_eq!(host.keys("/nerve/").await, [] as [String; 0]);
}

#[tokio::test]
async fn a_config_is_reloaded_at_a_signal_or_a_change_and_a_bad_one_is_refused() {
    let host = Host::new();
    let ((_a, a), (_b, b)) = (listen(), listen());
    let admin = format!("127.0.0.1:{}", testing::free_port());
    host.write(&json!({"instance_id": "i-1", "services": {"a": host.service(a, "/nerve/a")}}));
    let agent = host.run(&["--admin", &admin]);
    host.expect("/nerve/", &[key("/nerve/a", a)], &agent).await;
    let before = host.store.list("/nerve/a/").await.unwrap().entries;

    std::fs::write(host.config_path(), "{ this is no config").unwrap();
    agent.signal(Signal::SIGHUP);
    agent.says("The new config is refused").await;
    let status = host.output(&["status", "--json", "--admin", &format!("http://{admin}")]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert!(status["config"]["refused"].as_str().unwrap().contains("nerve.conf.json"), "{status}");
    assert_eq!(status["services"][0]["reporters"][0]["state"], "published", "{status}");

    // A good one, which nobody tells about: the file is looked at.
    host.write(&json!({"instance_id": "i-1", "services": {"a": host.service(a, "/nerve/a"), "b": host.service(b, "/nerve/b")}}));
    host.expect("/nerve/", &[key("/nerve/a", a), key("/nerve/b", b)], &agent).await;
    assert_eq!(host.store.list("/nerve/a/").await.unwrap().entries, before, "the unchanged service did not flap");
}

#[test]
fn register_check_reports_every_problem_with_its_key_path() {
    let host = Host::new();
    let path = host.config_path();
    let path = path.to_str().unwrap();
    host.write(&json!({"instance_id": "i-1", "unheard": 1, "services": {"a": host.service(80, "/nerve/a")}}));
    let good = host.output(&["check", "--config", path]);
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(
        good.status.success() && said.contains("unheard: unknown key") && said.contains("good; 1 services"),
        "{said}"
    );
    host.write(&json!({"instance_id": "i-1", "services": {
        "a": {"host": "a b", "port": 0, "checks": [{"type": "x"}], "reporter_type": "etcd"},
        "b": host.service(80, "/nerve/b"),
    }}));
    for args in [&["check", "--config", path][..], &["-k", "-c", path]] {
        let bad = host.output(args);
        let said = String::from_utf8_lossy(&bad.stderr).into_owned();
        assert_eq!(bad.status.code(), Some(64), "{said}");
        for problem in ["services.a.host: ", "services.a.port: ", "nerve.conf.json: "] {
            assert!(said.contains(problem), "{said}");
        }
    }
    let env = host.command(&["run"]).env("NERVE_CONFIG", path).env("NERVE_CHECK_CONFIG", "1").output().unwrap();
    assert_eq!(env.status.code(), Some(64), "the environment says the same");
}

/// A container that goes with the test.
struct Container(String);

impl Container {
    /// One of the image that `make images` builds, with a label of the test's own.
    fn start(label: &str) -> Self {
        let image = "docker-register-demo/whoami";
        let args = ["run", "-d", "--label", label, "--label", "register.service=web", "-p", "127.0.0.1::80", image];
        let out = Command::new("docker").args(args).output().unwrap();
        assert!(out.status.success(), "{} (is there an image {image}?)", String::from_utf8_lossy(&out.stderr));
        Self(String::from_utf8(out.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-fv", &self.0]).output();
    }
}

#[tokio::test]
async fn containers_and_nerves_services_go_side_by_side_on_one_lease() {
    let host = Host::new();
    let (_a, a) = listen();
    let label = format!("register-test-side-{}=1", std::process::id());
    let container = Container::start(&label);
    host.write(&json!({"instance_id": "i-1", "services": {"a": host.service(a, "/nerve/a")}}));
    let path = host.config_path();
    let filter = format!("label={label}");
    let args =
        ["-c", path.to_str().unwrap(), "--docker", "--filter", &filter, "--admin", "off", "--log-format", "text"];
    let run = || {
        let mut command = host.command(&args);
        command.env_remove("DOCKER_HOST").env("HOST_IP", "127.0.0.1").env("REGISTER_ALLOW_LOOPBACK", "true");
        command.env("ETCD_HOST", host.etcd.endpoint().to_string()).env("NODE_NAME", "side-by-side");
        command.env("REGISTER_CONTROL", host.dir.path().join("control.sock"));
        host.spawn(&mut command)
    };
    let all = async || {
        let entries = host.store.list("/").await.unwrap().entries;
        entries.into_iter().map(|e| (e.key.to_string(), e.modified, e.lease.unwrap())).collect::<Vec<_>>()
    };
    let complete = async |agent: &Agent| {
        let start = Instant::now();
        loop {
            let entries = all().await;
            let has = |prefix: &str| entries.iter().any(|(key, ..)| key.starts_with(prefix));
            if has(&format!("/backends/web/{}", &container.0[..12])) && has("/nerve/a/i-1/") {
                return entries;
            }
            assert!(start.elapsed() < DEADLINE, "{entries:?}; log:\n{}", agent.log());
            sleep(Duration::from_millis(10)).await;
        }
    };
    let mut agent = run();
    let before = complete(&agent).await;
    assert_eq!(before.len(), 3, "the agent's own, the container and the service: {before:?}");
    assert!(before.iter().all(|(.., lease)| *lease == before[0].2), "one lease for all: {before:?}");
    agent.signal(Signal::SIGKILL);
    agent.end().await;
    let agent = run();
    agent.says("Adopted").await;
    agent.says("Up.").await;
    // The agent's own key says who it is now; the others are as they were.
    let backends = |all: Vec<(String, _, _)>| {
        all.into_iter().filter(|(key, ..)| !key.starts_with("/registrars/")).collect::<Vec<_>>()
    };
    assert_eq!(backends(complete(&agent).await), backends(before));
}
