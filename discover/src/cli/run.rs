//! `discover run`: the agent.

use std::convert::Infallible;
use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Args;
use common::admin::Listen;
use common::admin::access::AccessArgs;
use common::debounce::Debounce;
use common::lifecycle::Lifecycle;
use common::model::{Port, ServiceMap};
use common::watch::channel;
use nix::fcntl::{Flock, FlockArg};
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Failure;
use super::docker_ports::DockerPortsArgs;
use super::edge::EdgeArgs;
use super::serve::{Offer, serve};
use super::settings::HaproxyArgs;
use super::source::SourceArgs;
use crate::addresses::{AddressArgs, AddressPolicy};
use crate::agent::Agent;
use crate::certificates::Keeper;
use crate::edge::EdgeSettings;
use crate::generators::haproxy::Haproxy;
use crate::generators::haproxy::file::settings::HaproxySettings;
use crate::generators::haproxy::turn::connection::{Connection, ProcessMode};
use crate::generators::haproxy::turn::metrics::HaproxyMetrics;
use crate::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use crate::haproxy::process::launch::{Launch, Output};
use crate::haproxy::process::pace::{MOST_OLD, ReloadPace};
use crate::metrics::Metrics;
use crate::reconcile::{Admission, DefaultServer, Emptied, Guard, GuardSettings, Limits, OnEmpty, Source};
use crate::state::StateFile;
use crate::status::Shared;

/// Where the control socket is, unless said otherwise.
pub const CONTROL_SOCKET: &str = "/run/discover/control.sock";

/// Flags of `discover run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Synapse's config, JSON or YAML: services, watchers and generators come from it
    #[arg(short, long, env = "SYNAPSE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    haproxy: HaproxyArgs,
    #[command(flatten)]
    docker_ports: DockerPortsArgs,
    #[command(flatten)]
    pub(super) edge: EdgeArgs,
    #[command(flatten)]
    pub(super) process: ProcessArgs,
    #[command(flatten)]
    pub(super) pace: PaceArgs,
    #[command(flatten)]
    pub(super) limits: Limits,
    #[command(flatten)]
    pub(super) addresses: AddressArgs,
    /// Where the admin server listens (GET only: status page, metrics, health), or off
    #[arg(long, env = "DISCOVER_ADMIN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9181")]
    pub(super) admin: Listen,
    #[command(flatten)]
    pub(super) access: AccessArgs,
    /// The Unix socket for `discover release`
    #[arg(long, env = "DISCOVER_CONTROL", value_name = "SOCKET", default_value = CONTROL_SOCKET)]
    pub(super) control: PathBuf,
}

/// Who runs HAProxy, and where it keeps its files.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HAProxy's process")]
pub(super) struct ProcessArgs {
    /// Who runs HAProxy [default: spawn; external below `discover supervise`]
    #[arg(long = "haproxy", env = "DISCOVER_HAPROXY", value_name = "MODE", value_enum)]
    mode: Option<ProcessMode>,
    /// HAProxy's program
    #[arg(long, env = "DISCOVER_HAPROXY_BIN", value_name = "FILE", default_value = "haproxy")]
    pub(super) haproxy_bin: PathBuf,
    /// Directory of haproxy.cfg and what must outlive a restart
    #[arg(long, env = "DISCOVER_DIR", value_name = "DIR", default_value = "/var/lib/discover")]
    pub(super) dir: PathBuf,
    /// Directory of HAProxy's sockets
    #[arg(long, env = "DISCOVER_RUN_DIR", value_name = "DIR", default_value = "/run/discover")]
    run_dir: PathBuf,
    /// haproxy.cfg [default: in --dir]
    #[arg(long, env = "DISCOVER_HAPROXY_CONFIG", value_name = "FILE")]
    haproxy_config: Option<PathBuf>,
    /// How long haproxy -c may take for a config, and 1s more for each 1,000 servers; what takes longer is refused
    #[arg(long, env = "DISCOVER_CHECK_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(super) check_timeout: Duration,
    /// HAProxy's master CLI [default: in --run-dir]
    #[arg(long, env = "DISCOVER_HAPROXY_MASTER", value_name = "SOCKET")]
    haproxy_master: Option<PathBuf>,
}

/// How fast things may go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pace and guard")]
pub(super) struct PaceArgs {
    /// News that follows other news is gathered until it has been quiet this long …
    #[arg(long, env = "DISCOVER_QUIET", value_name = "TIME", default_value = "1ms", value_parser = humantime::parse_duration)]
    pub(super) quiet: Duration,
    /// … and at most this long after the first; news after a rest of this length is acted upon at once
    #[arg(long, env = "DISCOVER_MAX_WAIT", value_name = "TIME", default_value = "20ms", value_parser = humantime::parse_duration)]
    pub(super) max_wait: Duration,
    /// Least time between two reloads of HAProxy
    #[arg(long, env = "DISCOVER_RELOAD_INTERVAL", value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    reload_interval: Duration,
    /// Up to this share of the interval is added at random
    #[arg(long, env = "DISCOVER_RELOAD_JITTER", value_name = "0-1", default_value_t = 0.1)]
    reload_jitter: f64,
    /// With more old workers of HAProxy than this that still have sessions, reloads wait longer each time
    #[arg(long, env = "DISCOVER_MAX_OLD_WORKERS", value_name = "N", default_value_t = MOST_OLD)]
    pub(super) max_old_workers: usize,
    /// How long registrations that ran out together are held; 0s turns the guard off
    #[arg(long, env = "DISCOVER_HOLD", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(super) hold: Duration,
    /// Share of a pool, in percent, above which its expiries are held
    #[arg(long, env = "DISCOVER_HOLD_ABOVE", value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) hold_above: u8,
    /// What becomes of a service whose last backend was taken away: empty, keep (its last backends stay, under HAProxy's checks) or defaults (those of --default-server)
    #[arg(long, env = "DISCOVER_ON_EMPTY", value_name = "POLICY", default_value = "empty", value_enum)]
    pub(super) on_empty: OnEmpty,
    /// A server that stands in for a service without backends, with --on-empty defaults; may be given several times
    #[arg(
        long = "default-server",
        env = "DISCOVER_DEFAULT_SERVERS",
        value_name = "SERVICE=HOST:PORT",
        value_delimiter = ','
    )]
    pub(super) default_servers: Vec<DefaultServer>,
    /// How long a source is waited for at the start, once another has answered
    #[arg(long, env = "DISCOVER_SYNC_DEADLINE", value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    pub(super) sync_deadline: Duration,
}

impl ProcessArgs {
    fn mode(&self) -> ProcessMode {
        let supervised = self.haproxy_master.is_some();
        self.mode.unwrap_or(if supervised { ProcessMode::External } else { ProcessMode::Spawn })
    }

    fn launch(&self) -> Launch {
        Launch {
            program: self.haproxy_bin.clone(),
            config: self.haproxy_config.clone().unwrap_or_else(|| self.dir.join("haproxy.cfg")),
            master_socket: self.haproxy_master.clone().unwrap_or_else(|| self.run_dir.join("haproxy-master.sock")),
            args: Vec::new(),
            output: Output::File(self.run_dir.join("haproxy.log")),
        }
    }

    /// HAProxy's runtime API.
    fn socket(&self) -> PathBuf {
        self.run_dir.join("haproxy.sock")
    }

    /// Takes the lock of this HAProxy's agent.
    fn lock(&self, launch: &Launch) -> Result<Flock<File>, Failure> {
        lock(&launch.config)
    }

    fn make_directories(&self, launch: &Launch) -> Result<(), Failure> {
        let parents = [launch.config.parent(), launch.master_socket.parent(), Some(self.run_dir.as_path())];
        for dir in parents.into_iter().flatten().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(|e| {
                Failure::Usage(format!("making the directory {}: {e} (see --dir and --run-dir)", dir.display()))
            })?;
        }
        Ok(())
    }
}

/// Locks a haproxy.cfg: a second agent on one HAProxy would undo what the first one does.
pub(super) fn lock(config: &std::path::Path) -> Result<Flock<File>, Failure> {
    let path = config.with_extension("cfg.lock");
    // Who can open it can lock it, and keep every agent from starting: so that is its owner alone.
    let open = || {
        let file =
            File::options().create(true).append(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW).open(&path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok::<_, std::io::Error>(file)
    };
    let file = open().map_err(|e| Failure::Usage(format!("opening {} for its owner alone: {e}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| {
        let config = config.display();
        Failure::Runtime(format!("another discover keeps {config} ({} is locked: {e})", path.display()).into())
    })
}

impl RunArgs {
    /// The edge that these flags describe.
    fn edge(&self, launch: &Launch) -> Result<Option<EdgeSettings>, Failure> {
        let edge = self.edge.settings()?;
        Ok(edge.map(|edge| Arc::unwrap_or_clone(edge).with_copies_beside(&launch.config)))
    }

    /// Who keeps the edge's certificates, with our copies of them written.
    fn keeper(&self, metrics: &Metrics) -> Result<Option<(Keeper, RuntimeSocket)>, Failure> {
        let launch = self.process.launch();
        let Some(edge) = self.edge(&launch)? else { return Ok(None) };
        let Some(mut keeper) = Keeper::of(&edge, metrics).map_err(|e| Failure::usage(&e))? else { return Ok(None) };
        keeper.refresh().map_err(Failure::runtime)?;
        let socket = RuntimeSocket::new(Endpoint::Unix(self.process.socket()), Deadlines::default());
        Ok(Some((keeper, socket.with_master(Endpoint::Unix(launch.master_socket)))))
    }

    /// The HAProxy that these flags describe, not looked at yet.
    pub(super) fn haproxy(&self, metrics: HaproxyMetrics) -> Result<Haproxy, Failure> {
        let launch = self.process.launch();
        let socket = self.process.socket();
        let admin_port = match self.admin {
            Listen::Off => None,
            Listen::At(address) => Port::new(address.port()),
        };
        let edge = self.edge(&launch)?;
        let files_only = self.process.mode() == ProcessMode::Files;
        if edge.is_some() && files_only {
            let why = "--edge changes its rules at run time, over HAProxy's socket, which --haproxy files does not have: \
                       share the directory of the sockets with HAProxy, and use --haproxy external";
            return Err(Failure::Usage(why.into()));
        }
        let reserved = admin_port.into_iter().chain(edge.iter().flat_map(EdgeSettings::ports));
        let settings = self.haproxy.settings(&launch.config, &socket, reserved)?;
        let settings = HaproxySettings { edge: edge.map(Arc::new), ..settings };
        let connection = Connection::new(self.process.mode(), launch, socket);
        let connection = connection.with_check_timeout(self.process.check_timeout);
        let pace = ReloadPace::new(self.pace.reload_interval, self.pace.reload_jitter);
        let pace = pace.with_most_old(self.pace.max_old_workers);
        let haproxy = Haproxy::new(settings, connection, pace, metrics).map_err(|e| Failure::usage(&e))?;
        Ok(haproxy.with_addresses(self.address_policy(), self.admin.address()))
    }

    /// Which addresses backends may have.
    pub(super) fn address_policy(&self) -> AddressPolicy {
        self.addresses.policy(self.source.is_own())
    }
}

/// Runs the agent until a signal.
///
/// # Errors
/// [`Failure`].
pub async fn run(args: RunArgs) -> Result<(), Failure> {
    if let Some(path) = args.config.clone() {
        return super::configured::run(args, path).await;
    }
    let launch = args.process.launch();
    args.process.make_directories(&launch)?;
    let _lock = args.process.lock(&launch)?;

    let mut lifecycle = Lifecycle::new();
    lifecycle.listen().map_err(Failure::runtime)?;
    let cancel = lifecycle.token();
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let wake = Arc::new(Notify::new());

    let mut haproxy = args.haproxy(HaproxyMetrics::new(&mut registry))?;
    if let Some(published) = args.docker_ports.watch(&args.source, wake.clone(), &mut lifecycle).await? {
        haproxy.keep_off(published);
    }
    let shared = Shared::new(Some(haproxy.status()));
    if let Some((keeper, socket)) = args.keeper(&metrics)? {
        shared.set_certificates(Some(keeper.loaded()));
        let cancel = cancel.clone();
        lifecycle.spawn("certificates", async move {
            keeper.run(Some(socket), cancel).await;
            Ok::<(), Infallible>(())
        });
    }

    let (outlet, inlet) = channel();
    let sources = vec![Source { name: args.source.name().into(), required: true, answers_for: None, inlet }];
    lifecycle.spawn(args.source.name(), args.source.watcher()?.run(outlet, cancel.clone()));

    // Docker itself says at every start what there is; of a registry's silence nobody knows what it means.
    let state = (!args.source.knows_all_at_start()).then(|| StateFile::new(args.process.dir.join("state.json")));
    let memory = state.as_ref().map(StateFile::load).unwrap_or_default();
    let mut routed: ServiceMap = memory.told.clone();
    Admission::new(args.address_policy()).admit(&mut routed);
    routed.extend(memory.kept.clone());
    let emptied = Emptied::new(args.pace.on_empty, routed).with_defaults(args.pace.default_servers.clone());
    let guard = GuardSettings { hold: args.pace.hold, threshold_percent: args.pace.hold_above };
    let guard = Arc::new(Mutex::new(Guard::new(guard, memory, Instant::now())));
    let (changes, changed) = watch::channel(0);
    let offer = Offer { shared: &shared, registry, changed, guard: &guard, wake: &wake };
    serve(offer, &args, &mut lifecycle).await?;

    let agent = Agent {
        sources,
        policies: None,
        generators: vec![Box::new(haproxy)],
        guard,
        limits: args.limits,
        admission: Admission::new(args.address_policy()),
        emptied,
        state,
        kept: ServiceMap::new(),
        debounce: Debounce::new(args.pace.quiet, args.pace.max_wait),
        sync_deadline: args.pace.sync_deadline,
        wake,
        shared,
        changes,
        metrics,
    };
    lifecycle.spawn("turns", agent.run(cancel));
    lifecycle.supervise().await.map_err(Failure::runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_can_open_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let (config, path) = (dir.path().join("haproxy.cfg"), dir.path().join("haproxy.cfg.lock"));
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        drop(lock(&config).unwrap());
        assert_eq!(mode(), 0o600);
        for before in [0o644, 0o666, 0o640] {
            std::fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            let held = lock(&config).unwrap();
            assert_eq!(mode(), 0o600, "{before:o}");
            let second = lock(&config).unwrap_err().to_string();
            assert!(second.contains("another discover keeps"), "{second}");
            drop(held);
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(lock(&config).is_err(), "what a link leads to is not ours to change");
    }
}
