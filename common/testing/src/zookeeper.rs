//! ZooKeeper as a child process: one server or an ensemble, to be frozen, killed, restarted and wiped; and the end of any
//! session on demand.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::free_port;
use super::process::Daemon;
use zookeeper::{Target, ZooKeeper};

/// How long a server may take to serve: a JVM on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How often a start is tried again, since somebody else may have taken a port in the meantime.
const STARTS: usize = 3;
/// The server's clock, in milliseconds. Sessions may be as short as two ticks.
const TICK: u64 = 100;
/// Where Debian's package puts it. The second one makes it tell what it does; it does without.
const JARS: [&str; 2] = ["/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"];
/// What a session's password is made of. Source: `SessionTrackerImpl` and `ZooKeeperServer.superSecret`.
const SECRET: i64 = 0xB341_5C00;

/// One server. Dropping it kills the process and removes its data.
#[derive(Debug)]
pub struct ZooKeeperServer {
    dir: TempDir,
    port: u16,
    daemon: Option<Daemon>,
}

impl Deref for ZooKeeperServer {
    type Target = Daemon;

    /// Its process, to be frozen; it must be running.
    fn deref(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }
}

impl ZooKeeperServer {
    /// A server of its own, ready to serve.
    pub fn start() -> Self {
        Self::ensemble(1).remove(0)
    }

    /// An ensemble of `size` servers, ready to serve.
    pub fn ensemble(size: usize) -> Vec<Self> {
        assert!(Path::new(JARS[0]).exists(), "{} is missing: deploy/setup.sh installs it", JARS[0]);
        for start in 1.. {
            let mut servers = Self::prepare(size);
            servers.iter_mut().for_each(Self::spawn);
            if servers.iter_mut().all(Self::wait_ready) {
                return servers;
            }
            let logs: String = servers.iter().map(Self::log).collect();
            assert!(start < STARTS, "ZooKeeper does not start:\n{logs}");
        }
        unreachable!()
    }

    fn prepare(size: usize) -> Vec<Self> {
        let member = |n| format!("server.{n}=127.0.0.1:{}:{}\n", free_port(), free_port());
        let members: String = if size > 1 { (1..=size).map(member).collect() } else { String::new() };
        let server = |n| {
            let (dir, port) = (TempDir::with_prefix("zookeeper-test-").unwrap(), free_port());
            let data = dir.path().join("data");
            fs::create_dir(&data).unwrap();
            fs::write(data.join("myid"), format!("{n}")).unwrap();
            let config = format!(
                "tickTime={TICK}\ninitLimit=100\nsyncLimit=50\ndataDir={}\nclientPort={port}\n\
                 clientPortAddress=127.0.0.1\nmaxSessionTimeout=60000\nmaxClientCnxns=0\nadmin.enableServer=false\n\
                 4lw.commands.whitelist=*\n{members}",
                data.display()
            );
            fs::write(dir.path().join("zoo.cfg"), config).unwrap();
            Self { dir, port, daemon: None }
        };
        (1..=size).map(server).collect()
    }

    fn spawn(&mut self) {
        let mut command = Command::new("java");
        // Little memory, a quick start, no file in /tmp, and no wait for the disk.
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
        command.args(["-Dzookeeper.forceSync=no", "-cp", &JARS.join(":")]);
        command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(self.dir.path().join("zoo.cfg"));
        self.daemon = Some(Daemon::start(&mut command, &self.dir.path().join("log")));
    }

    fn wait_ready(&mut self) -> bool {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if self.daemon.as_mut().is_none_or(Daemon::has_ended) {
                return false;
            }
            if self.four_letters("srvr").is_ok_and(|told| told.contains("Mode: ")) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Where it serves clients.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// What it says to one of ZooKeeper's four-letter words (`srvr`, `mntr`, `cons`, `wchs`).
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn four_letters(&self, word: &str) -> std::io::Result<String> {
        let mut stream = self.dial()?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn dial(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address(), Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(stream)
    }

    /// One number of `mntr`, such as `zk_watch_count`.
    pub fn figure(&self, name: &str) -> u64 {
        let told = self.four_letters("mntr").unwrap();
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        line.unwrap_or_else(|| panic!("no {name} in {told}")) as u64
    }

    /// A session with this server alone.
    pub fn client(&self) -> ZooKeeper {
        ZooKeeper::new(Target::parse([&*self.address().to_string()]).unwrap())
    }

    /// Ends a session as if it had run out: its owner is cut off and learns it when it comes back.
    pub fn expire(&self, session: i64) {
        let mut stream = self.dial().unwrap();
        let mut hello = vec![0, 0, 0, 45];
        hello.extend([0; 4 + 8]);
        hello.extend(10_000_i32.to_be_bytes());
        hello.extend(session.to_be_bytes());
        hello.extend(16_i32.to_be_bytes());
        hello.extend(password(session));
        hello.push(0);
        stream.write_all(&hello).unwrap();
        stream.read_exact(&mut [0; 41]).unwrap();
        // Transaction 1: close the session. The server answers and hangs up.
        stream.write_all(&[0, 0, 0, 8, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xf5]).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }

    /// What ZooKeeper's own client says to one of its commands, such as `["get", "/path"]`.
    pub fn cli(&self, command: &[&str]) -> String {
        let mut java = Command::new("java");
        java.args(["-Xmx64m", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-cp", JARS[0]]);
        java.args(["org.apache.zookeeper.ZooKeeperMain", "-server", &self.address().to_string()]).args(command);
        let done = java.output().unwrap();
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{command:?}: {told}{}", String::from_utf8_lossy(&done.stderr));
        told
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends the process at once; the data stays.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Starts it again on the same port and data, and waits until it serves.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        assert!(self.wait_ready(), "ZooKeeper does not start again:\n{}", self.log());
    }

    /// Starts it again without any of its data.
    pub fn wipe(&mut self) {
        self.kill();
        drop(fs::remove_dir_all(self.dir.path().join("data/version-2")));
        self.restart();
    }
}

/// The password that the servers give to a session: sixteen bytes of Java's generator, seeded by the id.
fn password(session: i64) -> [u8; 16] {
    const MASK: i64 = (1 << 48) - 1;
    let mut state = ((session ^ SECRET) ^ 0x5_DEEC_E66D) & MASK;
    let mut bytes = [0; 16];
    for chunk in bytes.chunks_mut(4) {
        state = state.wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & MASK;
        let [.., a, b, c, d] = (state >> 16).to_be_bytes();
        chunk.copy_from_slice(&[d, c, b, a]);
    }
    bytes
}
