//! HAProxy for tests: every version that this machine has, started in a directory of its own and stopped when the test ends.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod proxy;
pub mod traffic;
pub mod world;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use discover::haproxy::api::runtime::Runtime;
use discover::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use discover::haproxy::api::stats::{StatRow, stat as read_stat};
use discover::haproxy::api::version::Version;
use discover::haproxy::process::launch::{Launch, Output, Running};

/// HAPROXY_BIN, else the lab's binaries, and the one on PATH: one program for each branch.
pub fn programs() -> Vec<PathBuf> {
    if let Some(one) = std::env::var_os("HAPROXY_BIN") {
        return vec![one.into()];
    }
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|dir| dir.join("haproxy"));
    let candidates = [lab.join("haproxy-2.6"), lab.join("haproxy-3.0")].into_iter().chain(on_path);
    let mut found = BTreeMap::new();
    for program in candidates.filter(|p| p.is_file()) {
        found.entry(version(&program).branch()).or_insert(program);
    }
    assert!(!found.is_empty(), "no HAProxy: install it, run deploy/lab-binaries.sh, or set HAPROXY_BIN");
    found.into_values().collect()
}

/// The lab's HAProxy that makes sections at run time, where Debian's experimental packages had one: for tests of what only it can.
pub fn making() -> Option<PathBuf> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab/bin/haproxy-3.4");
    let program = std::env::var_os("HAPROXY_BIN").map_or(lab, PathBuf::from);
    if !program.is_file() || version(&program).branch() < (3, 4) {
        testing::skipped(
            "there is no HAProxy 3.4 (deploy/lab-binaries.sh takes it from Debian's experimental packages)",
        );
        return None;
    }
    Some(program)
}

/// What `haproxy -v` says.
pub fn version(program: &Path) -> Version {
    let output = std::process::Command::new(program).arg("-v").output().unwrap();
    Version::parse(&String::from_utf8_lossy(&output.stdout)).unwrap()
}

/// One HAProxy in a directory of its own.
pub struct Lab {
    pub dir: tempfile::TempDir,
    pub launch: Launch,
    pub running: Option<Running>,
    pub version: Version,
}

impl Lab {
    /// A config that is not started yet: `body` behind a global section with an admin socket and short timeouts. `DIR` in it is the directory.
    pub fn new(program: &Path, body: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let launch = Launch {
            program: std::fs::canonicalize(program).unwrap(),
            config: dir.path().join("haproxy.cfg"),
            master_socket: dir.path().join("master.sock"),
            args: Vec::new(),
            output: Output::File(dir.path().join("haproxy.log")),
        };
        let lab = Self { dir, launch, running: None, version: version(program) };
        lab.write(body);
        lab
    }

    /// Writes the config and starts HAProxy.
    pub async fn start(program: &Path, body: &str) -> Self {
        let mut lab = Self::new(program, body);
        lab.running = Some(lab.launch.spawn().await.unwrap());
        lab
    }

    /// Replaces the config.
    pub fn write(&self, body: &str) {
        let head = "global\n    stats socket DIR/admin.sock mode 600 level admin\n    hard-stop-after 5s\ndefaults\n    mode http\n    timeout connect 200ms\n    timeout client 10s\n    timeout server 10s\n";
        let text = format!("{head}{body}\n").replace("DIR", &self.dir.path().display().to_string());
        std::fs::write(&self.launch.config, text).unwrap();
    }

    /// A client of the running worker.
    pub fn runtime(&self) -> Runtime {
        let socket = self.dir.path().join("admin.sock");
        Runtime::new(RuntimeSocket::new(Endpoint::Unix(socket), Deadlines::default()))
    }

    /// Stops HAProxy and waits until it is gone.
    pub async fn stop(mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Duration::ZERO).await.unwrap();
        }
    }
}

impl Drop for Lab {
    /// A failed test leaves nothing behind either, whoever started HAProxy: SIGTERM makes the master end its workers too.
    fn drop(&mut self) {
        use std::io::{Read, Write};
        let ask = || -> Option<i32> {
            let mut master = std::os::unix::net::UnixStream::connect(&self.launch.master_socket).ok()?;
            master.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            master.write_all(b"show proc\n").ok()?;
            master.shutdown(std::net::Shutdown::Write).ok()?;
            let mut text = String::new();
            master.read_to_string(&mut text).ok()?;
            discover::haproxy::process::procs::Procs::parse(&text).ok().map(|p| p.master.pid)
        };
        if let Some(pid) = self.running.as_ref().map(|r| r.master).or_else(ask) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
    }
}

/// `show stat`.
pub async fn stat(api: &mut Runtime) -> Vec<StatRow> {
    api.show(["show", "stat"], read_stat).await.unwrap()
}

/// Drains a server by hand: `section/server`.
pub async fn drain(api: &mut Runtime, server: &str) {
    let said = api.show(["set", "server", server, "state", "drain"], |said| Ok(said.to_owned())).await;
    assert_eq!(said.unwrap(), "");
}

/// A port on 127.0.0.1 that nobody listens on now. It is below those that the system gives out by itself (32768 and up), and test programs that
/// run at the same time begin at different ones, so that nobody else takes it a moment later.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = std::process::id().wrapping_mul(211).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(10_000 + n % 22_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// An HTTP server on 127.0.0.1 whose responses come after `delay` and whose body is `body`.
pub async fn http_server(body: &'static str, delay: Duration) -> SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while stream.read(&mut request).await.is_ok_and(|n| n > 0) {
                    tokio::time::sleep(delay).await;
                    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    if stream.write_all(response.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// The body of a GET over a connection of its own; an error text instead when anything goes wrong.
pub async fn get(port: u16) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
        let mut all = String::new();
        stream.read_to_string(&mut all).await?;
        std::io::Result::Ok(all)
    };
    match tokio::time::timeout(Duration::from_secs(10), ask).await {
        Ok(Ok(all)) => all.split_once("\r\n\r\n").map_or(all.clone(), |(_, body)| body.to_owned()),
        other => format!("{other:?}"),
    }
}

/// Waits until `holds` does, at most 20 s.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
