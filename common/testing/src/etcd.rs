//! etcd as a child process: one node or a cluster, to be frozen, killed, restarted and set back.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, Permission, TlsOptions};
use tempfile::TempDir;

use super::certs::Certs;
use super::process::Daemon;
use super::{free_port, http_once};
use registry::store::etcd::{Endpoint, EtcdConfig, EtcdStore};

/// How long a node may take to serve.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// What [`Etcd::enable_auth`] gives to root.
pub const ROOT_PASSWORD: &str = "right";
/// How often a start is tried again, since somebody else may have taken a port in the meantime.
const STARTS: usize = 3;

/// The etcd binaries that tests run against: `ETCD_BIN`, else the lab's, else the one on PATH.
pub fn binaries() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("ETCD_BIN") {
        return vec![path.into()];
    }
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab/bin");
    let found: Vec<_> = ["etcd-3.5", "etcd-3.4"].iter().map(|name| lab.join(name)).filter(|p| p.exists()).collect();
    if found.is_empty() { vec!["etcd".into()] } else { found }
}

/// Where a node runs.
#[derive(Debug, Clone)]
pub struct Site {
    /// The address that it serves at, and that other nodes reach it by.
    pub address: IpAddr,
    /// What its command line begins with, to run it elsewhere.
    pub enter: Vec<String>,
    /// Where its directory is made.
    pub directory: PathBuf,
}

impl Site {
    /// This machine's loopback.
    pub fn loopback() -> Self {
        Self { address: [127, 0, 0, 1].into(), enter: Vec::new(), directory: std::env::temp_dir() }
    }
}

/// One node. Dropping it kills the process and removes its data.
#[derive(Debug)]
pub struct Etcd {
    site: Site,
    binary: PathBuf,
    dir: TempDir,
    args: Vec<String>,
    client_port: u16,
    /// Where `/health` is answered over plain HTTP.
    health_port: u16,
    certs: Option<Certs>,
    /// Whether it asks for passwords.
    root: bool,
    daemon: Option<Daemon>,
}

impl Deref for Etcd {
    type Target = Daemon;

    /// Its process, to be frozen; it must be running.
    fn deref(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }
}

impl Etcd {
    /// A node of its own, ready to serve, by the first of [`binaries`].
    pub fn start() -> Self {
        Self::start_with(&binaries()[0], &[])
    }

    /// A node of its own by this binary, with these arguments added.
    pub fn start_with(binary: &Path, args: &[&str]) -> Self {
        Self::cluster_with(binary, &[Site::loopback()], args, false).remove(0)
    }

    /// A node of its own that speaks TLS and wants a client certificate; see [`Self::certs`].
    pub fn start_tls() -> Self {
        Self::cluster_with(&binaries()[0], &[Site::loopback()], &[], true).remove(0)
    }

    /// A cluster of `size` nodes, ready to serve, by the first of [`binaries`].
    pub fn cluster(size: usize) -> Vec<Self> {
        Self::cluster_at(&vec![Site::loopback(); size], &[])
    }

    /// A cluster with a node at each of these sites, ready to serve, with these arguments added.
    pub fn cluster_at(sites: &[Site], args: &[&str]) -> Vec<Self> {
        Self::cluster_with(&binaries()[0], sites, args, false)
    }

    fn cluster_with(binary: &Path, sites: &[Site], args: &[&str], tls: bool) -> Vec<Self> {
        for start in 1.. {
            let mut nodes = Self::prepare(binary, sites, args, tls);
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

    fn prepare(binary: &Path, sites: &[Site], args: &[&str], tls: bool) -> Vec<Self> {
        let peer = |(n, site): (usize, &Site)| (format!("n{n}"), format!("http://{}:{}", site.address, free_port()));
        let peers: Vec<_> = sites.iter().enumerate().map(peer).collect();
        let cluster: Vec<_> = peers.iter().map(|(name, url)| format!("{name}={url}")).collect();
        // A single node need not wait long for itself; the shortest lease is 1.5 election timeouts.
        let pace = if sites.len() == 1 { ["20", "200"] } else { ["100", "1000"] };
        let node = |((name, peer_url), site): (&(String, String), &Site)| {
            let client_port = free_port();
            let scheme = if tls { "https" } else { "http" };
            let client_url = format!("{scheme}://{}:{client_port}", site.address);
            let dir = TempDir::with_prefix_in("etcd-test-", &site.directory).unwrap();
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
            let (site, binary) = (site.clone(), binary.to_owned());
            Self { site, binary, dir, args: all, client_port, health_port, certs, root: false, daemon: None }
        };
        peers.iter().zip(sites).map(node).collect()
    }

    fn spawn(&mut self) {
        let mut words = self.site.enter.iter().map(AsRef::as_ref).chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(&self.args).env_remove("ETCD_HOST");
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
        let address = SocketAddr::from((self.site.address, self.health_port));
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

    /// One of etcd's own figures, such as `etcd_debugging_mvcc_watcher_total`.
    pub fn figure(&self, name: &str) -> u64 {
        let request = "GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let told = http_once(self.health_port, request);
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        line.unwrap_or_else(|| panic!("no {name} in {told}")) as u64
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Where it serves clients.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { https: self.certs.is_some(), host: self.site.address.to_string(), port: self.client_port }
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
        self.try_operator().await.unwrap()
    }

    /// The same of a node that may not answer.
    ///
    /// # Errors
    /// When it does not.
    pub async fn try_operator(&self) -> Result<etcd_client::Client, etcd_client::Error> {
        self.connect(self.root.then_some(("root", ROOT_PASSWORD))).await
    }

    /// Asks for passwords from now on; `root` has [`ROOT_PASSWORD`].
    pub async fn enable_auth(&mut self) {
        let mut operator = self.operator().await;
        operator.user_add("root", ROOT_PASSWORD, None).await.unwrap();
        operator.role_add("root").await.unwrap();
        operator.user_grant_role("root", "root").await.unwrap();
        operator.auth_enable().await.unwrap();
        self.root = true;
    }

    /// Replaces the certificates of a node that speaks TLS, in their files: a new authority, and all anew. It takes the
    /// server's up at the next connection, and the authority's at its next start.
    pub fn rotate_certs(&self) {
        drop(Certs::make(self.dir.path()));
    }

    /// The same as this user, with a name and a password, and with the client's certificate where the node wants one.
    pub async fn operator_as(&self, user: Option<(&str, &str)>) -> Client {
        self.connect(user).await.unwrap()
    }

    async fn connect(&self, user: Option<(&str, &str)>) -> Result<Client, etcd_client::Error> {
        let mut options = ConnectOptions::new();
        if let Some(certs) = &self.certs {
            let read = |name: &str| fs::read(certs.path(name)).unwrap();
            let identity = Identity::from_pem(read("client.pem"), read("client.key"));
            let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read("ca.pem"))).identity(identity);
            options = options.with_tls(tls);
        }
        if let Some((name, password)) = user {
            options = options.with_user(name, password);
        }
        Client::connect([self.endpoint().to_string()], Some(options)).await
    }

    /// From now on every call needs a user: one of these, of whom each has a password and a role of his own with just
    /// these permissions, or `root`, as whom the client that is given back speaks.
    pub async fn demand_users(&self, users: &[(&str, &str, Vec<Permission>)]) -> Client {
        let mut client = self.operator_as(None).await;
        let root = ("root", "r00t", Vec::new());
        for (name, password, permissions) in users.iter().chain([&root]) {
            client.role_add(*name).await.unwrap();
            for permission in permissions {
                client.role_grant_permission(*name, permission.clone()).await.unwrap();
            }
            client.user_add(*name, *password, None).await.unwrap();
            client.user_grant_role(*name, *name).await.unwrap();
        }
        client.auth_enable().await.unwrap();
        self.operator_as(Some(("root", "r00t"))).await
    }

    /// Whether its process was started and not killed since.
    pub fn is_running(&self) -> bool {
        self.daemon.is_some()
    }

    /// Starts it again on the same ports and data, and does not wait: a member of a cluster needs the others to serve.
    pub fn launch(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Waits until it serves.
    pub fn served(&mut self) {
        assert!(self.wait_ready(), "etcd does not start again:\n{}", self.log());
    }

    /// Whether it says that it leads its cluster.
    pub async fn leads(&self) -> bool {
        let status = self.operator().await.status().await;
        status.is_ok_and(|s| s.header().is_some_and(|header| header.member_id() == s.leader()))
    }

    /// Ends the process at once; the data stays.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Starts it again on the same ports and data, and waits until it serves.
    pub fn restart(&mut self) {
        self.launch();
        self.served();
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

    /// Stops it, removes its data, and starts it again: the same cluster, as at its beginning.
    pub fn wipe(&mut self) {
        self.kill();
        self.remove("data");
        self.restart();
    }

    /// Saves a snapshot, by `etcdctl snapshot save`.
    pub fn save_snapshot(&self) {
        self.etcdctl(&["snapshot", "save", &self.path("snapshot")]);
    }

    /// Stops it and starts it again with the data of the last [`Self::save_snapshot`], by `etcdctl snapshot restore`:
    /// the same cluster by its id, at an older revision.
    pub fn restore_snapshot(&mut self) {
        self.kill();
        self.remove("data");
        let (snapshot, data) = (self.path("snapshot"), format!("--data-dir={}", self.path("data")));
        let identity = ["--name=", "--initial-cluster=", "--initial-advertise-peer-urls="];
        let identity = self.args.iter().filter(|arg| identity.iter().any(|name| arg.starts_with(name)));
        let args = ["snapshot", "restore", snapshot.as_str(), data.as_str()].into_iter();
        self.etcdctl(&args.chain(identity.map(String::as_str)).collect::<Vec<_>>());
        self.restart();
    }

    /// The etcdctl beside this etcd, against this node.
    fn etcdctl(&self, args: &[&str]) {
        let name = self.binary.file_name().and_then(|name| name.to_str()).unwrap().replacen("etcd", "etcdctl", 1);
        let endpoint = format!("--endpoints={}", self.endpoint().authority());
        let mut command = Command::new(self.binary.with_file_name(name));
        let done = command.arg(endpoint).args(args).env("ETCDCTL_API", "3").output().unwrap();
        assert!(done.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn remove(&self, name: &str) {
        drop(fs::remove_dir_all(self.path(name))); // it need not be there
    }

    fn copy(&self, from: &str, to: &str) {
        self.remove(to);
        let paths = [from, to].map(|name| self.path(name));
        assert!(Command::new("cp").arg("-a").args(paths).status().unwrap().success());
    }
}
