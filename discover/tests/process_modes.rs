//! Each way to run discover and HAProxy, as real processes with a real etcd: whoever dies, clients notice nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use discover::haproxy::process::launch::alive;
use discover::haproxy::process::master::MasterCli;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use registry::store::Store;
use registry::store::etcd::EtcdStore;
use support::traffic::{HttpBackend, Load};
use support::world::each;
use support::{eventually, free_port, get};
use testing::etcd::Etcd;

/// One host: a directory, a registry, a HAProxy of some version, and the programs that were started.
struct Site {
    dir: tempfile::TempDir,
    etcd: Etcd,
    store: EtcdStore,
    haproxy: PathBuf,
    /// Where clients come to.
    port: u16,
    backends: Vec<HttpBackend>,
}

/// A program of ours; it is ended with the test, and its HAProxy too.
struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// As `kill -9`.
    fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits; tells the exit code.
    async fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        let mut status = None;
        eventually("it ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().code()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its children that run this program.
    fn children(&self, name: &str) -> Vec<i32> {
        let parent = self.pid().to_string();
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
        let is_ours = |pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let Some((head, rest)) = stat.rsplit_once(") ") else { return false };
            head.contains(&format!("({name}")) && rest.split(' ').nth(1) == Some(&parent)
        };
        processes.filter(is_ours).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SIGTERM first: supervise then ends its children.
            self.signal(Signal::SIGTERM);
            for _ in 0..200 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Site {
    /// HAProxy outlives whoever started it; not the test.
    fn drop(&mut self) {
        for pid in std::fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok())
        {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&*self.dir.path().to_string_lossy()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
    }
}

impl Site {
    async fn new(haproxy: &Path) -> Self {
        let etcd = Etcd::start();
        let (store, haproxy) = (etcd.store(), std::fs::canonicalize(haproxy).unwrap());
        let mut backends = Vec::new();
        for name in ["one", "two"] {
            backends.push(HttpBackend::start(name).await);
        }
        let site = Self { dir: tempfile::tempdir().unwrap(), etcd, store, haproxy, port: free_port(), backends };
        site.register(0).await;
        site
    }

    async fn register(&self, n: usize) {
        let (address, port) = (self.backends[n].address, self.port);
        let value = format!(
            "{{\"host\":\"{}\",\"port\":{},\"service_port\":{port},\"mode\":\"http\"}}",
            address.ip(),
            address.port()
        );
        self.put(&format!("b{n}"), &value).await;
    }

    async fn put(&self, id: &str, value: &str) {
        self.store
            .put_all(vec![registry::store::Op::put(format!("/backends/web/{id}"), value.as_bytes(), None)])
            .await
            .unwrap();
    }

    async fn deregister(&self, n: usize) {
        self.store.put_all(vec![registry::store::Op::delete(format!("/backends/web/b{n}"))]).await.unwrap();
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn master(&self) -> MasterCli {
        MasterCli::new(self.at("run/haproxy-master.sock"))
    }

    /// The master and the worker that serves.
    async fn processes(&self) -> (i32, i32) {
        let mut found = None;
        eventually("the master answers", async || {
            found = self.master().show_proc().await.ok().and_then(|p| Some((p.master.pid, p.current_worker()?)));
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Flags of `discover run` for this directory.
    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.at(name).display().to_string();
        let flags = [
            ("--etcd-host", self.etcd.endpoint().to_string()),
            ("--dir", path("var")),
            ("--run-dir", path("run")),
            ("--control", path("run/control.sock")),
            ("--haproxy-bin", self.haproxy.display().to_string()),
            ("--haproxy-user", "none".into()),
            ("--listen", "127.0.0.1".into()),
            ("--stats-port", "off".into()),
            ("--admin", "off".into()),
            ("--check", "check inter 200ms rise 1 fall 2".into()),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    fn start(&self, name: &str, args: &[String]) -> Program {
        let log = self.at(&format!("{name}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_discover"));
        command
            .args(args)
            .env("DISCOVER_ALLOW_LOOPBACK", "true")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Program { child: command.spawn().unwrap(), log }
    }

    /// `discover run`, HAProxy run by whom `mode` says.
    fn run(&self, mode: &str) -> Program {
        let first = ["run", "--haproxy", mode].map(str::to_owned);
        self.start("run", &[first.to_vec(), self.flags()].concat())
    }

    /// This one answers, and nobody else takes turns with it.
    async fn serves(&self, text: &str) {
        let alone = async || {
            for _ in 0..8 {
                if get(self.port).await != text {
                    return false;
                }
            }
            true
        };
        eventually(text, alone).await;
    }

    /// The first config is loaded, and discover knows it.
    async fn settled(&self) {
        let (live, mark) = (self.at("var/haproxy.cfg"), self.at("var/haproxy.cfg.reloading"));
        eventually("the first turn has ended", async || live.exists() && !mark.exists()).await;
    }

    /// Registers the second backend and takes the first away: whoever is to notice has noticed.
    async fn moves_on(&self, from: usize, to: usize) {
        self.register(to).await;
        self.deregister(from).await;
        self.serves(["one", "two"][to]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spawned_haproxy_outlives_discover_and_is_adopted_without_a_reload() {
    for program in each() {
        let mut site = Site::new(&program).await;
        let mut discover = site.run("spawn");
        site.serves("one").await;
        site.settled().await;
        let (processes, load) = (site.processes().await, Load::start(site.port, 4));
        for n in 0..20 {
            discover.kill();
            load.flows(20).await;
            discover = site.run("spawn");
            if n % 10 == 9 {
                let (from, to) = (n / 10, 1 - n / 10);
                site.moves_on(from, to).await;
            }
        }
        assert_eq!(site.processes().await, processes, "HAProxy was neither started nor reloaded: {}", discover.log());
        // With the registry away, too.
        discover.kill();
        site.etcd.kill();
        discover = site.run("spawn");
        load.flows(200).await;
        assert!(load.finish().await > 0);
        // And a HAProxy that died with the registry away is started with its last config.
        discover.kill();
        kill(Pid::from_raw(processes.0), Signal::SIGKILL).unwrap();
        eventually("it is gone", async || !alive(processes.1)).await;
        discover = site.run("spawn");
        site.serves("one").await;
        assert_ne!(site.processes().await.0, processes.0);
        assert_eq!(discover.stop().await, Some(0));
        site.serves("one").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_discover_on_one_haproxy_says_so_and_stops() {
    let site = Site::new(&each()[0]).await;
    let first = site.run("spawn");
    site.serves("one").await;
    let mut second = site.run("spawn");
    let mut status = None;
    eventually("it ends", async || {
        status = second.child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert_eq!(status.unwrap().code(), Some(1));
    assert!(second.log().contains("another discover keeps"), "{}", second.log());
    site.moves_on(0, 1).await;
    assert_eq!(first.stop().await, Some(0));
    // A lock is let go with its process, however that ends.
    site.run("spawn").kill();
    let third = site.run("spawn");
    site.moves_on(1, 0).await;
    drop(third);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_supervise_a_killed_agent_is_started_again_and_haproxy_is_untouched() {
    for program in each() {
        let site = Site::new(&program).await;
        for dir in ["var", "run"] {
            std::fs::create_dir(site.at(dir)).unwrap();
        }
        let path = |name: &str| site.at(name).display().to_string();
        let mut args = vec!["supervise".to_owned(), "--grace".into(), "2s".into()];
        args.extend(["--haproxy-config".to_owned(), path("var/haproxy.cfg")]);
        args.extend(["--master-socket".to_owned(), path("run/haproxy-master.sock")]);
        args.extend(site.flags().into_iter().map(|flag| format!("--run-arg={flag}")));
        args.extend(["--".to_owned(), site.haproxy.display().to_string()]);
        let supervise = site.start("supervise", &args);
        site.serves("one").await;
        site.settled().await;
        let (processes, load) = (site.processes().await, Load::start(site.port, 4));
        for (from, to) in [(0, 1), (1, 0), (0, 1)] {
            // The one that was killed before is started again after a while.
            eventually("one agent runs", async || supervise.children("discover").len() == 1).await;
            let agents = supervise.children("discover");
            kill(Pid::from_raw(agents[0]), Signal::SIGKILL).unwrap();
            load.flows(50).await;
            site.moves_on(from, to).await;
            assert_ne!(supervise.children("discover"), agents);
        }
        load.finish().await;
        assert_eq!(site.processes().await, processes, "{}", supervise.log());
        // A HAProxy that dies is started again, with what was last.
        kill(Pid::from_raw(processes.1), Signal::SIGKILL).unwrap();
        eventually("another master", async || site.processes().await.0 != processes.0).await;
        site.serves("two").await;
        site.moves_on(1, 0).await;
        let master = site.processes().await.0;
        assert_eq!(supervise.stop().await, Some(0));
        assert!(!alive(master), "nothing is left");
    }
}

/// Two containers that share a directory: one writes the file, the other watches it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_only_with_a_supervisor_elsewhere_that_watches_the_file() {
    for program in each() {
        let site = Site::new(&program).await;
        for dir in ["var", "run", "other"] {
            std::fs::create_dir(site.at(dir)).unwrap();
        }
        let path = |name: &str| site.at(name).display().to_string();
        let mut args = ["supervise", "--grace", "2s", "--file"].map(str::to_owned).to_vec();
        args.extend([path("var/haproxy.cfg"), "--".into(), site.haproxy.display().to_string(), "-S".into()]);
        args.push(path("run/haproxy-master.sock"));
        let supervise = site.start("supervise", &args);
        let discover = site.run("files");
        site.serves("one").await;
        site.settled().await;
        let load = Load::start(site.port, 4);
        site.register(1).await;
        eventually("both take part", async || get(site.port).await == "two").await;
        site.deregister(0).await;
        site.serves("two").await;
        // Either may end and come back.
        discover.kill();
        load.flows(50).await;
        let discover = site.run("files");
        site.moves_on(1, 0).await;
        load.finish().await;
        site.settled().await;
        assert_eq!(discover.stop().await, Some(0));
        site.serves("one").await;
        assert_eq!(supervise.stop().await, Some(0));
    }
}

/// HAProxy is somebody else's (systemd's): discover speaks to its sockets, and waits for it where it must.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn external_haproxy_is_spoken_to_over_its_sockets() {
    for program in each() {
        let site = Site::new(&program).await;
        let discover = site.run("external");
        let config = site.at("var/haproxy.cfg");
        eventually("the first config is written", async || config.exists()).await;
        let master_socket = site.at("run/haproxy-master.sock");
        let launch = discover::haproxy::process::launch::Launch {
            program: site.haproxy.clone(),
            config: config.clone(),
            master_socket,
            args: Vec::new(),
            output: discover::haproxy::process::launch::Output::File(site.at("haproxy.log")),
        };
        let haproxy = launch.spawn().await.unwrap();
        site.serves("one").await;
        let processes = site.processes().await;
        let load = Load::start(site.port, 4);
        site.moves_on(0, 1).await;
        assert_eq!(site.processes().await, processes);
        load.finish().await;
        // Restarted by its owner: what it read is what is desired, and it goes on.
        haproxy.stop(Duration::ZERO).await.unwrap();
        site.register(0).await;
        site.deregister(1).await;
        let haproxy = launch.spawn().await.unwrap();
        site.serves("one").await;
        site.moves_on(0, 1).await;
        assert_eq!(discover.stop().await, Some(0));
        haproxy.stop(Duration::ZERO).await.unwrap();
    }
}
