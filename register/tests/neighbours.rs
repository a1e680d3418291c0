//! What another container or program may do to a container of this host, with real Docker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use registry::store::Store;
use registry::store::etcd::EtcdStore;
use tempfile::TempDir;
use testing::etcd::Etcd;
use tokio::time::sleep;

const DEADLINE: Duration = Duration::from_secs(30);
/// How long what must not happen is waited for: some intervals of a check.
const QUIET: Duration = Duration::from_secs(2);

/// One host: an etcd, an agent, and containers.
struct Host {
    etcd: Etcd,
    store: EtcdStore,
    dir: TempDir,
    name: String,
    image: String,
    admin: String,
    containers: Vec<String>,
    agent: Option<Child>,
}

fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().unwrap();
    assert!(out.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// What a command of register's prints.
fn register(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_register"));
    command.args(args).env("HOST_IP", "127.0.0.1").env("REGISTER_ALLOW_LOOPBACK", "true").env_remove("RUST_LOG");
    let out = command.output().unwrap();
    assert!(out.status.success(), "register {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Host {
    fn new(test: &str) -> Self {
        agent::tls::install_provider();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base-image.sh");
        let output = Command::new("bash").arg(script).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let image = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let (etcd, name) = (Etcd::start(), format!("register-neighbours-{test}-{}", std::process::id()));
        let (store, admin) = (etcd.store(), format!("127.0.0.1:{}", free_port()));
        let (dir, containers) = (TempDir::new().unwrap(), Vec::new());
        Self { etcd, store, dir, name, image, admin, containers, agent: None }
    }

    fn container(&mut self, args: &[&str], command: &[&str]) -> String {
        let label = format!("{}=1", self.name);
        let run = ["run", "-d", "--init", "--label", &label, "--label", "register.service=web"];
        let id = docker(&[&run, args, &[&self.image], command].concat());
        self.containers.push(id.clone());
        id
    }

    /// A container that publishes a port and serves it.
    fn serving(&mut self) -> String {
        let script = listener("0.0.0.0", 80);
        self.container(&["-p", "127.0.0.1::80"], &["perl", "-MIO::Socket::INET", "-e", &script])
    }

    fn start_agent(&mut self) {
        let filter = format!("label={}=1", self.name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_register"));
        command.args(["run", "--filter", &filter, "--admin", &self.admin, "--ttl", "8s", "--log-format", "text"]);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null());
        command.env("HOST_IP", "127.0.0.1").env("REGISTER_ALLOW_LOOPBACK", "true").env("NODE_NAME", &self.name);
        command.env("ETCD_HOST", self.etcd.endpoint().to_string());
        command.env("REGISTER_CONTROL", self.dir.path().join("control.sock"));
        let log = File::create(self.dir.path().join("log")).unwrap();
        self.agent = Some(command.stderr(log).spawn().unwrap());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What `register status` says.
    fn status(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_register"));
        let output = command.args(["status", "--json", "--admin", &format!("http://{}", self.admin)]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn until(&self, what: &str, so: impl Fn() -> bool) {
        let start = Instant::now();
        while !so() {
            assert!(start.elapsed() < DEADLINE, "not so: {what}; {}; log:\n{}", self.status(), self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn registered(&self) -> BTreeSet<String> {
        let listing = self.store.list("/backends/").await.unwrap();
        let id = |key: String| key.rsplit('/').next().unwrap_or_default().to_owned();
        listing.entries.iter().map(|entry| id(entry.key.to_string())).collect()
    }

    async fn expect(&self, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|id| id[..12].to_owned()).collect();
        let start = Instant::now();
        loop {
            let found = self.registered().await;
            if found == expected {
                return;
            }
            let late = start.elapsed() > DEADLINE;
            assert!(!late, "expected {expected:?}, found {found:?}; {}; log:\n{}", self.status(), self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Nothing changes for a while.
    async fn stays(&self, expected: &[&str]) {
        let start = Instant::now();
        while start.elapsed() < QUIET {
            self.expect(expected).await;
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        for id in &self.containers {
            let _ = Command::new("docker").args(["rm", "-fv", id]).output();
        }
    }
}

/// A program in Perl that listens until there is a file `/tmp/stop`.
fn listener(address: &str, port: u16) -> String {
    format!(
        "$s = IO::Socket::INET->new(Listen => 64, LocalAddr => '{address}', LocalPort => {port}, ReuseAddr => 1, Timeout => 0.1) \
         or die $!; while (!-e '/tmp/stop') {{ $c = $s->accept }}"
    )
}

/// Lets a container listen.
fn listen(id: &str, port: u16) {
    docker(&["exec", id, "rm", "-f", "/tmp/stop"]);
    docker(&["exec", "-d", id, "perl", "-MIO::Socket::INET", "-e", &listener("127.0.0.1", port)]);
}

/// Another program that takes the port as soon as it can.
async fn taken(port: u16) -> TcpListener {
    let start = Instant::now();
    loop {
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(listener) => return listener,
            Err(error) => assert!(start.elapsed() < DEADLINE, "{error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn on_the_hosts_network_another_programs_listener_is_nobodys_readiness() {
    let mut host = Host::new("port");
    let port = free_port();
    let stranger = taken(port).await;
    let expose = port.to_string();
    let id = host.container(&["--network", "host", "--expose", &expose], &["sleep", "600"]);
    host.start_agent();
    let foreign = || host.status().contains(&format!("port {port} of this host belongs to"));
    host.until("the reason is shown", foreign).await;
    host.stays(&[]).await;
    drop(stranger);
    host.stays(&[]).await;
    listen(&id, port);
    host.expect(&[&id]).await;
    host.stays(&[&id]).await;
    docker(&["exec", &id, "touch", "/tmp/stop"]);
    let stranger = taken(port).await;
    host.expect(&[]).await;
    host.until("the reason is shown again", foreign).await;
    drop(stranger);
    listen(&id, port);
    host.expect(&[&id]).await;
}

/// A container whose shim is stopped. Dropping it lets the shim go on.
struct Frozen {
    shim: Pid,
    killing: Child,
}

impl Frozen {
    /// Stops the shim and asks Docker for the container's end: Docker waits for the shim, and whoever asks about the container
    /// waits for Docker.
    async fn new(id: &str) -> Self {
        let is_shim = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("containerd-shim") && line.contains(id)
        };
        let pids = std::fs::read_dir("/proc").unwrap().flatten();
        let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let shim = Pid::from_raw(pids.find(is_shim).expect("the container's shim"));
        kill(shim, Signal::SIGSTOP).unwrap();
        let mut kill = Command::new("docker");
        let killing = kill.args(["kill", id]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let frozen = Self { shim, killing };
        let start = Instant::now();
        while Command::new("timeout").args(["1", "docker", "inspect", id]).output().unwrap().status.success() {
            assert!(start.elapsed() < DEADLINE, "Docker describes it all the same");
            sleep(Duration::from_millis(50)).await;
        }
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.shim, Signal::SIGCONT);
        let _ = self.killing.wait();
    }
}

#[tokio::test]
async fn a_container_that_docker_cannot_describe_holds_up_no_other_one() {
    let mut host = Host::new("shim");
    let (stuck, other) = (host.serving(), host.serving());
    let frozen = Frozen::new(&stuck).await;
    // At the start.
    host.start_agent();
    host.expect(&[&other]).await;
    host.until("it is shown", || host.status().contains("has not described")).await;
    let name = docker(&["ps", "--no-trunc", "--filter", &format!("id={stuck}"), "--format", "{{.Names}}"]);
    for (args, words) in [(vec!["explain", name.trim()], "left out: not described"), (vec!["plan"], &other[..12])] {
        let told = register(&args);
        assert!(told.contains(words), "{args:?}: {told}");
    }
    let later = host.serving();
    host.expect(&[&other, &later]).await;
    docker(&["kill", &other]);
    host.expect(&[&later]).await;
    drop(frozen);
    host.stays(&[&later]).await;
    // Later: it stays until its end is heard.
    let stuck = host.serving();
    host.expect(&[&later, &stuck]).await;
    let frozen = Frozen::new(&stuck).await;
    let last = host.serving();
    host.expect(&[&later, &stuck, &last]).await;
    docker(&["kill", &later]);
    host.expect(&[&stuck, &last]).await;
    host.stays(&[&stuck, &last]).await;
    drop(frozen);
    host.expect(&[&last]).await;
    host.stays(&[&last]).await;
}
