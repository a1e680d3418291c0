//! discover's HAProxy generator in this process, with a HAProxy of the lab: so that single turns can be timed.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use discover::generators::haproxy::Haproxy as Generator;
use discover::generators::haproxy::file::edge::frontend::Frame;
use discover::generators::haproxy::file::settings::{HaproxySettings, PortRanges};
use discover::generators::haproxy::turn::connection::{Connection, ProcessMode};
use discover::generators::haproxy::turn::metrics::HaproxyMetrics;
use discover::generators::{Generator as _, Outcome};
use discover::haproxy::api::runtime::Runtime;
use discover::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use discover::haproxy::process::launch::{Launch, Output};
use discover::haproxy::process::master::MasterCli;
use discover::haproxy::process::pace::ReloadPace;
use discover::haproxy::words::bind::ListenOn;
use discover::reconcile::Desired;
use e2e::haproxy::Haproxy;
use e2e::process::Process;
use e2e::scene::PATIENCE;
use e2e::{Context, Lab, Result, wait};
use model::{Backend, Mode, Pool};

/// discover's own interval between two reloads.
const INTERVAL: Duration = Duration::from_secs(2);

/// A generator and its HAProxy, which ends with it.
pub struct Local {
    generator: Generator,
    /// What ought to run.
    pub desired: Desired,
    master: MasterCli,
    socket: PathBuf,
    reloads: usize,
    /// When the last one ended, in milliseconds since 1970.
    last_reload: Option<u64>,
    _process: Process,
}

impl Local {
    /// Starts HAProxy with what is desired.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(lab: &Lab, name: &str, haproxy: &Haproxy, desired: Desired) -> Result<Self> {
        let dir = lab.subdir(&format!("{name}-{}", haproxy.version))?;
        let (config_file, socket) = (dir.join("haproxy.cfg"), dir.join("haproxy.sock"));
        let launch = Launch {
            program: haproxy.path.clone(),
            config: config_file.clone(),
            master_socket: dir.join("master.sock"),
            args: Vec::new(),
            output: Output::Inherit,
        };
        let settings = HaproxySettings {
            config_file: config_file.clone(),
            socket: socket.clone(),
            frame: Frame {
                listen: ListenOn::These(vec![Ipv4Addr::LOCALHOST.into()]),
                default_mode: Mode::Http,
                listener_maxconn: Some(2048),
                ..Frame::default()
            },
            stats: Default::default(),
            service_ports: PortRanges::default(),
            reserved: BTreeSet::new(),
            check: "check inter 2s rise 3 fall 2".to_owned(),
            check_rate: 0,
            maxconn: 4096,
            user: None,
            templates: None,
            edge: None,
        };
        let (master, arguments) = (launch.master(), arguments(&launch));
        let connection = Connection::new(ProcessMode::External, launch, socket.clone());
        let metrics = HaproxyMetrics::default();
        let pace = ReloadPace::new(INTERVAL, 0.1);
        let mut generator = Generator::new(settings, connection, pace, metrics).during("making a generator")?;
        generator.resume().await;
        // The first turn writes the file and waits for somebody to start HAProxy with it.
        let starting = async {
            wait::until_true("haproxy.cfg", PATIENCE, async || config_file.exists()).await?;
            Process::spawn(lab, name, &haproxy.path, arguments, &[])
        };
        let (turned, process) = tokio::join!(turn(&mut generator, &desired), starting);
        turned?;
        let (reloads, last_reload) = (0, last_reload(&generator));
        Ok(Self { generator, desired, master, socket, reloads, last_reload, _process: process? })
    }

    /// Sets one service's pool.
    ///
    /// # Errors
    /// When that is no name of a service.
    pub fn want(&mut self, service: &str, backends: Vec<Backend>) -> Result<()> {
        let pool = Pool::new(backends.into_iter().map(Arc::new));
        self.desired.services.insert(service.parse().during("naming a service")?, Arc::new(pool));
        Ok(())
    }

    /// One whole turn; tells how long it took and when the next one is due.
    ///
    /// # Errors
    /// When it fails.
    pub async fn turn(&mut self) -> Result<(Duration, Outcome)> {
        let began = Instant::now();
        let outcome = turn(&mut self.generator, &self.desired).await?;
        let took = began.elapsed();
        let last = last_reload(&self.generator);
        self.reloads += usize::from(last != self.last_reload);
        self.last_reload = last;
        Ok((took, outcome))
    }

    /// Reloads since HAProxy was started.
    pub fn reloads(&self) -> usize {
        self.reloads
    }

    /// A session of its own with the worker that serves now.
    pub fn runtime(&self) -> Runtime {
        Runtime::new(RuntimeSocket::new(Endpoint::Unix(self.socket.clone()), Deadlines::default()))
    }

    /// Resident memory of the worker that serves now, in bytes.
    ///
    /// # Errors
    /// When there is none.
    pub async fn resident_memory(&self) -> Result<u64> {
        let procs = self.master.show_proc().await.during("asking HAProxy's master")?;
        e2e::process::resident_memory(procs.current_worker().during("there is no worker")?)
    }
}

fn last_reload(generator: &Generator) -> Option<u64> {
    let status = generator.status();
    let status = status.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    status.reloads.front().map(|r| r.at_unix_ms)
}

async fn turn(generator: &mut Generator, desired: &Desired) -> Result<Outcome> {
    generator.prepare(desired).await;
    let plan = generator.plan(desired, tokio::time::Instant::now());
    generator.apply(plan).await.during("taking a turn")
}

fn arguments(launch: &Launch) -> Vec<String> {
    let socket = format!("{},mode,600", launch.master_socket.display());
    ["-W", "-S", &socket, "-f", &launch.config.display().to_string()].map(str::to_owned).to_vec()
}

/// A backend whose clients come to `service_port`.
///
/// # Errors
/// When that is no id.
pub fn backend(id: &str, at: std::net::SocketAddr, service_port: u16) -> Result<Backend> {
    let host = at.ip().to_string().parse().during("making a host")?;
    let mut backend = Backend::new(id.parse().during("making an id")?, host, at.port().try_into().during("a port")?);
    backend.service_port = service_port.try_into().ok();
    backend.mode = Some(Mode::Http);
    Ok(backend)
}
