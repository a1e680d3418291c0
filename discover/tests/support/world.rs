//! The HAProxy generator on a real HAProxy: desired states go in, and what comes out is asked of HAProxy itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use discover::addresses::AddressPolicy;
use discover::generators::haproxy::Haproxy;
use discover::generators::haproxy::file::edge::frontend::Frame;
use discover::generators::haproxy::file::layout::Layout;
use discover::generators::haproxy::file::settings::{HaproxySettings, PortRanges};
use discover::generators::haproxy::turn::connection::{Connection, ProcessMode};
use discover::generators::haproxy::turn::metrics::HaproxyMetrics;
use discover::generators::haproxy::turn::plan::Plan;
use discover::generators::{Generator, Outcome};
use discover::haproxy::api::runtime::Runtime;
use discover::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use discover::haproxy::api::tables::ServerState;
use discover::haproxy::api::version::{Capabilities, Version};
use discover::haproxy::process::launch::Launch;
use discover::haproxy::process::pace::ReloadPace;
use discover::haproxy::words::bind::ListenOn;
use discover::reconcile::Desired;
use model::{Backend, Mode, Pool, ServiceMap, Status};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::{Lab, version};

/// A generator and its HAProxy in a directory of their own; HAProxy ends with it.
pub struct World {
    pub lab: Lab,
    pub settings: HaproxySettings,
    pub haproxy: Haproxy,
    pub desired: Desired,
    pub mode: ProcessMode,
    pub registry: Registry,
    /// Where discover finds the runtime socket, when that is not where HAProxy has it.
    pub through: Option<PathBuf>,
    /// Whether this discover has looked at what was there before it.
    resumed: bool,
    /// The least time between two reloads.
    pub interval: Duration,
    /// How long turns have taken, one by one.
    pub turns: Vec<Duration>,
}

/// One server as HAProxy and the file both tell it.
pub type Seen = (String, String, Option<SocketAddr>, u16, bool);

impl World {
    /// Nothing runs yet and nothing is desired.
    pub fn new(program: &Path) -> Self {
        Self::with(program, |_| {})
    }

    /// As [`new`](Self::new), with other settings.
    pub fn with(program: &Path, change: impl FnOnce(&mut HaproxySettings)) -> Self {
        if std::env::var_os("TEST_LOG").is_some() {
            let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).try_init();
        }
        let lab = Lab::new(program, "");
        std::fs::remove_file(&lab.launch.config).unwrap();
        let mut settings = HaproxySettings {
            config_file: lab.launch.config.clone(),
            socket: lab.dir.path().join("admin.sock"),
            frame: Frame {
                listen: ListenOn::These(vec!["127.0.0.1".parse().unwrap()]),
                timeouts: [Duration::from_millis(500), Duration::from_secs(20), Duration::from_secs(20)],
                default_mode: Mode::Http,
                listener_maxconn: Some(1000),
                ..Frame::default()
            },
            stats: Default::default(),
            service_ports: PortRanges::default(),
            reserved: BTreeSet::new(),
            check: "check inter 200ms rise 1 fall 2".into(),
            check_rate: 0,
            maxconn: 2000,
            user: None,
            templates: None,
            edge: None,
        };
        change(&mut settings);
        let (interval, mode, registry) = (Duration::from_millis(50), ProcessMode::Spawn, Registry::default());
        let mut registry = registry;
        let haproxy = generator(&lab.launch, &settings, &settings.socket, mode, interval, &mut registry);
        let (desired, turns) = (Desired::default(), Vec::new());
        Self { lab, settings, haproxy, desired, mode, registry, through: None, resumed: false, interval, turns }
    }

    /// Another discover in the place of this one, which knows nothing but what is on disk and what runs.
    pub fn restart(&mut self) {
        (self.registry, self.resumed) = (Registry::default(), false);
        let socket = self.through.as_ref().unwrap_or(&self.settings.socket);
        self.haproxy =
            generator(&self.lab.launch, &self.settings, socket, self.mode, self.interval, &mut self.registry);
    }

    /// discover speaks to another socket than HAProxy's own.
    pub fn through(&mut self, socket: &Path) {
        self.through = Some(socket.to_owned());
        self.restart();
    }

    pub fn can(&self) -> Capabilities {
        Capabilities::of(&self.lab.version)
    }

    pub fn version(&self) -> &Version {
        &self.lab.version
    }

    /// Sets one service's pool; none removes the service.
    pub fn want(&mut self, service: &str, backends: Vec<Backend>) {
        let service = service.parse().unwrap();
        match backends.is_empty() {
            true => _ = self.desired.services.remove(&service),
            false => {
                _ = self.desired.services.insert(service, Arc::new(Pool::new(backends.into_iter().map(Arc::new))));
            }
        }
    }

    /// One turn, as the agent takes it.
    pub async fn turn(&mut self) -> Result<Outcome, String> {
        if !std::mem::replace(&mut self.resumed, true) {
            self.haproxy.resume().await;
        }
        let began = Instant::now();
        self.haproxy.prepare(&self.desired).await;
        let plan = self.haproxy.plan(&self.desired, Instant::now());
        let outcome = self.haproxy.apply(plan).await.map_err(|e| agent::telemetry::Chain(&e).to_string());
        self.turns.push(began.elapsed());
        outcome
    }

    /// Turns until there is nothing to do but to look again now and then.
    pub async fn settle(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut last = String::new();
        while Instant::now() < deadline {
            match self.turn().await {
                Ok(Outcome::Again(at)) if at > Instant::now() => {
                    self.haproxy.prepare(&self.desired).await;
                    if self.haproxy.plan(&self.desired, Instant::now()).plan == Plan::Unchanged
                        && !self.haproxy.is_proving()
                    {
                        return;
                    }
                    tokio::time::sleep_until(at.min(Instant::now() + Duration::from_millis(50))).await;
                }
                Ok(Outcome::Done) if !self.haproxy.is_proving() => return,
                Ok(_) => {}
                Err(error) => {
                    last = error;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        panic!("does not settle: {last}; {:#?}", self.haproxy.status().lock().unwrap());
    }

    /// Takes turns as the agent does, whenever one is due, until `holds` does.
    pub async fn turns_until(&mut self, what: &str, mut holds: impl AsyncFnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds(self).await {
            assert!(Instant::now() < deadline, "never happened: {what}; {:#?}", self.haproxy.status().lock().unwrap());
            let at = match self.turn().await {
                Ok(Outcome::Again(at)) => at,
                _ => Instant::now() + Duration::from_millis(100),
            };
            tokio::time::sleep_until(at.min(Instant::now() + Duration::from_millis(100))).await;
        }
    }

    /// The master and the worker that serves.
    pub async fn processes(&self) -> (i32, i32) {
        let mut found = None;
        super::eventually("the master answers", async || {
            found =
                self.lab.launch.master().show_proc().await.ok().and_then(|p| Some((p.master.pid, p.current_worker()?)));
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Reasons of all reloads that were tried, oldest first, those that failed with a `!`.
    pub fn reloads(&self) -> Vec<String> {
        let status = self.haproxy.status();
        let status = status.lock().unwrap();
        let word = |r: &discover::generators::haproxy::turn::status::ReloadRecord| {
            format!("{}{}", r.reasons, if r.error.is_some() { "!" } else { "" })
        };
        status.reloads.iter().rev().map(word).collect()
    }

    /// A client of its own, so that it always speaks to the worker that serves.
    pub fn api(&self) -> Runtime {
        Runtime::new(RuntimeSocket::new(Endpoint::Unix(self.settings.socket.clone()), Deadlines::default()))
    }

    pub fn file(&self) -> Option<Layout> {
        Layout::parse(&std::fs::read_to_string(&self.settings.config_file).ok()?)
    }

    /// What the file lists.
    pub fn on_disk(&self) -> BTreeSet<Seen> {
        let layout = self.file().unwrap();
        let servers = layout.sections.iter().flat_map(|section| section.servers.iter().map(move |s| (section, s)));
        servers
            .map(|(section, s)| (section.name.to_string(), s.name.to_string(), Some(s.address), s.weight, s.maint))
            .collect()
    }

    /// What HAProxy says, but for retired servers, and for those of fixed sections.
    pub async fn running(&self) -> BTreeSet<Seen> {
        let disk: BTreeSet<_> = self.on_disk().into_iter().map(|s| (s.0, s.1)).collect();
        let sections: BTreeSet<String> =
            self.file().unwrap().sections.iter().map(|section| section.name.to_string()).collect();
        let states = self.states().await.into_iter().filter(|s| sections.contains(&s.section));
        let seen = states.map(|s| {
            let address = s.addr.map(|ip| SocketAddr::new(ip, s.port));
            (s.section, s.name, address, s.weight, s.admin.in_maintenance())
        });
        seen.filter(|s| !s.4 || disk.contains(&(s.0.clone(), s.1.clone()))).collect()
    }

    pub async fn states(&self) -> Vec<ServerState> {
        self.api().servers_state(None).await.unwrap()
    }

    pub async fn state(&self, name: &str) -> Option<ServerState> {
        self.states().await.into_iter().find(|s| s.name == name)
    }

    /// The file on disk is what runs, and a reload by hand changes nothing.
    pub async fn assert_disk_is_what_runs(&mut self) {
        let before = self.running().await;
        assert_eq!(self.on_disk(), before, "HAProxy {}", self.version());
        let bytes = std::fs::read(&self.settings.config_file).unwrap();
        let reloads = self.reloads();
        self.lab.launch.master().reload().await.unwrap();
        assert_eq!(self.running().await, before, "a reload by hand changed something: HAProxy {}", self.version());
        self.settle().await;
        assert_eq!(self.running().await, before);
        assert_eq!(std::fs::read(&self.settings.config_file).unwrap(), bytes);
        assert_eq!(self.reloads(), reloads, "nor is there anything to do afterwards");
    }

    /// Ends HAProxy by hand.
    pub async fn kill(&self, pid: i32) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.lab.dir.path().join(name)
    }
}

fn generator(
    launch: &Launch,
    settings: &HaproxySettings,
    socket: &Path,
    mode: ProcessMode,
    interval: Duration,
    registry: &mut Registry,
) -> Haproxy {
    let connection = Connection::new(mode, launch.clone(), socket.to_owned());
    let pace = ReloadPace::new(interval, 0.0);
    let haproxy = Haproxy::new(settings.clone(), connection, pace, HaproxyMetrics::new(registry)).unwrap();
    haproxy.with_addresses(AddressPolicy::new(Vec::new(), true, false), None)
}

/// A backend whose clients come to `service_port`.
pub fn backend(id: &str, at: SocketAddr, service_port: u16) -> Backend {
    let mut backend =
        Backend::new(id.parse().unwrap(), at.ip().to_string().parse().unwrap(), at.port().try_into().unwrap());
    backend.service_port = service_port.try_into().ok();
    backend.mode = Some(Mode::Http);
    backend
}

/// The same backend with another weight.
pub fn weighing(mut backend: Backend, weight: u32) -> Backend {
    backend.weight = Some(weight.try_into().unwrap());
    backend
}

/// The same backend with another status.
pub fn being(mut backend: Backend, status: Status) -> Backend {
    backend.status = status;
    backend
}

/// Services from names and pools.
pub fn services(pools: BTreeMap<&str, Vec<Backend>>) -> ServiceMap {
    let pool = |backends: Vec<Backend>| Arc::new(Pool::new(backends.into_iter().map(Arc::new)));
    pools.into_iter().map(|(name, backends)| (name.parse().unwrap(), pool(backends))).collect()
}

/// Every HAProxy of this machine.
pub fn each() -> Vec<PathBuf> {
    let programs = super::programs();
    programs.iter().for_each(|p| _ = version(p));
    programs
}
