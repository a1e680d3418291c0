//! etcd as a child process: one node or a cluster, to be frozen, killed, restarted and set back.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::certs::Certs;
use super::free_port;
use super::process::Daemon;
use crate::store::etcd::{Endpoint, EtcdConfig, EtcdStore};

/// How long a node may take to serve.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How often a start is tried again, since somebody else may have taken a port in the meantime.
const STARTS: usize = 3;

/// The etcd binaries that tests run against: `ETCD_BIN`, else the lab's, else the one on PATH.
pub fn binaries() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("ETCD_BIN") {
        return vec![path.into()];
    }
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab/bin");
    let found: Vec<_> = ["etcd-3.5", "etcd-3.4"].iter().map(|name| lab.join(name)).filter(|p| p.exists()).collect();
    if found.is_empty() { vec!["etcd".into()] } else { found }
}

/// One node. Dropping it kills the process and removes its data.
#[derive(Debug)]
pub struct Etcd {
    binary: PathBuf,
    dir: TempDir,
    args: Vec<String>,
    client_port: u16,
    /// Where `/health` is answered over plain HTTP.
    health_port: u16,
    certs: Option<Certs>,
    daemon: Option<Daemon>,
}

impl Etcd {
    /// A node of its own, ready to serve, by the first of [`binaries`].
    pub fn start() -> Self {
        Self::start_with(&binaries()[0], &[])
    }

    /// A node of its own by this binary, with these arguments added.
    pub fn start_with(binary: &Path, args: &[&str]) -> Self {
        Self::cluster_with(binary, 1, args, false).remove(0)
    }

    /// A node of its own that speaks TLS and wants a client certificate; see [`Self::certs`].
    pub fn start_tls() -> Self {
        Self::cluster_with(&binaries()[0], 1, &[], true).remove(0)
    }

    /// A cluster of `size` nodes, ready to serve, by the first of [`binaries`].
    pub fn cluster(size: usize) -> Vec<Self> {
        Self::cluster_with(&binaries()[0], size, &[], false)
    }

    fn cluster_with(binary: &Path, size: usize, args: &[&str], tls: bool) -> Vec<Self> {
        for start in 1.. {
            let mut nodes = Self::prepare(binary, size, args, tls);
            for node in &mut nodes {
                node.spawn();
            }
            if nodes.iter_mut().all(Self::wait_ready) {
                return nodes;
            }
            assert!(start < STARTS, "etcd does not start:\n{}", nodes.iter().map(Self::log).collect::<String>());
        }
        unreachable!()
    }

    fn prepare(binary: &Path, size: usize, args: &[&str], tls: bool) -> Vec<Self> {
        let peers: Vec<_> = (0..size).map(|n| (format!("n{n}"), format!("http://127.0.0.1:{}", free_port()))).collect();
        let cluster: Vec<_> = peers.iter().map(|(name, url)| format!("{name}={url}")).collect();
        // A single node need not wait long for itself; the shortest lease is 1.5 election timeouts.
        let pace = if size == 1 { ["20", "200"] } else { ["100", "1000"] };
        let node = |(name, peer_url): &(String, String)| {
            let client_port = free_port();
            let scheme = if tls { "https" } else { "http" };
            let client_url = format!("{scheme}://127.0.0.1:{client_port}");
            let dir = TempDir::with_prefix("etcd-test-").unwrap();
            let certs = tls.then(|| Certs::make(dir.path()));
            let health_port = if tls { free_port() } else { client_port };
            let flag = |name: &str, value: &str| format!("--{name}={value}");
            let mut all = vec![
                flag("name", name),
                flag("data-dir", &dir.path().join("data").to_string_lossy()),
                flag("listen-client-urls", &client_url),
                flag("advertise-client-urls", &client_url),
                flag("listen-peer-urls", peer_url),
                flag("initial-advertise-peer-urls", peer_url),
                flag("initial-cluster", &cluster.join(",")),
                flag("heartbeat-interval", pace[0]),
                flag("election-timeout", pace[1]),
            ];
            if let Some(certs) = &certs {
                let file = |name: &str, file: &str| flag(name, &certs.path(file).to_string_lossy());
                all.push(flag("listen-metrics-urls", &format!("http://127.0.0.1:{health_port}")));
                all.push("--client-cert-auth".to_owned());
                all.push(file("trusted-ca-file", "ca.pem"));
                all.push(file("cert-file", "server.pem"));
                all.push(file("key-file", "server.key"));
            }
            all.extend(args.iter().map(|arg| (*arg).to_owned()));
            Self { binary: binary.to_owned(), dir, args: all, client_port, health_port, certs, daemon: None }
        };
        peers.iter().map(node).collect()
    }

    fn spawn(&mut self) {
        let mut command = Command::new(&self.binary);
        command.args(&self.args).env_remove("ETCD_HOST");
        self.daemon = Some(Daemon::start(&mut command, &self.dir.path().join("log")));
    }

    fn wait_ready(&mut self) -> bool {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if self.daemon.as_mut().is_none_or(Daemon::has_ended) {
                return false;
            }
            if self.is_healthy() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Whether it has a leader and serves.
    fn is_healthy(&self) -> bool {
        let address = SocketAddr::from(([127, 0, 0, 1], self.health_port));
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains(r#""health":"true""#))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Where it serves clients.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { https: self.certs.is_some(), host: "127.0.0.1".into(), port: self.client_port }
    }

    /// The certificates of a node that speaks TLS.
    pub fn certs(&self) -> &Certs {
        self.certs.as_ref().unwrap()
    }

    /// A store that uses this node only.
    pub fn store(&self) -> EtcdStore {
        EtcdStore::new(EtcdConfig::new(vec![self.endpoint()]))
    }

    /// A plain client, for what only an operator does: compaction, users and roles.
    pub async fn operator(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.endpoint().authority()], None).await.unwrap()
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Its process id; it must be running.
    pub fn pid(&self) -> u32 {
        self.daemon().pid()
    }

    /// Stops the process without ending it: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.daemon().freeze();
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.daemon().thaw();
    }

    /// Ends the process at once; the data stays.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Starts it again on the same ports and data, and waits until it serves.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.wait_ready(), "etcd does not start again:\n{}", self.log());
    }

    /// Stops it, puts a copy of its data aside, and starts it again.
    pub fn back_up(&mut self) {
        self.kill();
        self.copy("data", "backup");
        self.restart();
    }

    /// Stops it and starts it again with the data of the last [`Self::back_up`].
    pub fn set_back(&mut self) {
        self.kill();
        self.copy("backup", "data");
        self.restart();
    }

    fn copy(&self, from: &str, to: &str) {
        drop(fs::remove_dir_all(self.dir.path().join(to)));
        let paths = [from, to].map(|name| self.dir.path().join(name));
        assert!(Command::new("cp").arg("-a").args(paths).status().unwrap().success());
    }
}
