//! `discover run -c FILE`: the agent as Synapse's config describes it. SIGHUP, or a change of the file, reads it again:
//! a bad one is refused, and what runs goes on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::config::files::stamps;
use common::debounce::Debounce;
use common::lifecycle::Lifecycle;
use common::model::ServiceMap;
use common::store::etcd::EtcdConfig;
use common::telemetry::Chain;
use common::watch::channel;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Failure;
use super::run::{RunArgs, lock};
use super::serve::{Offer, serve};
use crate::agent::{Agent, Turn};
use crate::certificates::Keeper;
use crate::config::{Config, Loaded, load};
use crate::edge::EdgeSettings;
use crate::generators::file_output::FileOutput;
use crate::generators::haproxy::Haproxy;
use crate::generators::haproxy::file::synapse::SynapseComposer;
use crate::generators::haproxy::file::synapse::state::State;
use crate::generators::haproxy::turn::connection::{Commands, Connection};
use crate::generators::haproxy::turn::files::ConfigFiles;
use crate::generators::haproxy::turn::metrics::HaproxyMetrics;
use crate::generators::haproxy::turn::status::HaproxyStatus;
use crate::generators::nginx::Nginx;
use crate::generators::prometheus::Prometheus;
use crate::generators::template::Template;
use crate::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use crate::haproxy::process::pace::ReloadPace;
use crate::metrics::Metrics;
use crate::reconcile::{Admission, Emptied, Guard, GuardSettings, Policies, Source};
use crate::state::StateFile;
use crate::status::Shared;
use crate::watchers::{Context, configured};
use common::files::beside;

/// How often the config's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Everything that outlives one config.
struct Frame {
    memory_file: Option<PathBuf>,
    /// What was routed before the start.
    routed: ServiceMap,
    args: RunArgs,
    path: PathBuf,
    etcd: EtcdConfig,
    guard: Arc<Mutex<Guard>>,
    wake: Arc<Notify>,
    shared: Shared,
    changes: watch::Sender<u64>,
    metrics: Metrics,
    of_haproxy: HaproxyMetrics,
}

/// Runs the agent until a signal.
///
/// # Errors
/// [`Failure`].
pub async fn run(args: RunArgs, path: PathBuf) -> Result<(), Failure> {
    args.source.no_owners("--config, which has a key owners")?;
    let first = read(&path).map_err(Failure::Usage)?;
    let top = first.config.haproxy.as_ref();
    let _lock = top.filter(|t| t.do_writes).and_then(|t| t.config_file_path.as_deref()).map(lock).transpose()?;

    let mut lifecycle = Lifecycle::new();
    lifecycle.listen().map_err(Failure::runtime)?;
    let cancel = lifecycle.token();
    let mut registry = Registry::default();
    let guard = GuardSettings { hold: args.pace.hold, threshold_percent: args.pace.hold_above };
    let (changes, changed) = watch::channel(0);
    // What of the registry must outlive a restart; Synapse's own state file knows servers only.
    let memory_file = top.and_then(|t| t.config_file_path.as_deref()).map(|path| beside(path, ".memory"));
    let memory = memory_file.clone().map(|path| StateFile::new(path).load()).unwrap_or_default();
    let mut routed: ServiceMap = memory.told.clone();
    Admission::new(args.addresses.policy_with(&first.config.backend_networks)).admit(&mut routed);
    routed.extend(memory.kept.clone());
    let frame = Frame {
        memory_file,
        routed,
        etcd: args.source.etcd().config().map_err(|e| Failure::usage(&e))?,
        guard: Arc::new(Mutex::new(Guard::new(guard, memory, Instant::now()))),
        wake: Arc::new(Notify::new()),
        shared: Shared::new(None),
        changes,
        metrics: Metrics::new(&mut registry),
        of_haproxy: HaproxyMetrics::new(&mut registry),
        args,
        path,
    };
    // What is wrong in a generator's own files (a template) is a fault of the config, too.
    frame.generators(&first.config).map_err(Failure::Usage)?;
    let offer = Offer { shared: &frame.shared, registry, changed, guard: &frame.guard, wake: &frame.wake };
    serve(offer, &frame.args, &mut lifecycle).await?;
    let reloads = lifecycle.reloads();
    lifecycle.spawn("turns", frame.run(first, reloads, cancel));
    lifecycle.supervise().await.map_err(Failure::runtime)
}

/// Reads the config and everything that follows from it, or says all that is wrong.
pub(super) fn read(path: &Path) -> Result<Loaded, String> {
    let loaded = load(path).map_err(|e| format!("the config is wrong\n{e}"))?;
    configured(&loaded.config).map_err(|e| format!("the config is wrong\n{e}"))?;
    for note in loaded.warnings.iter().chain(&loaded.notices) {
        warn!(%note, "Config.");
    }
    Ok(loaded)
}

impl Frame {
    /// Runs one config after the other until `cancel`.
    async fn run(
        self,
        mut loaded: Loaded,
        mut reloads: watch::Receiver<u64>,
        cancel: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        loop {
            let inner = cancel.child_token();
            let mut tasks = self.start(&loaded.config, &inner);
            let next = tokio::select! {
                biased; // shutdown wins over work
                () = cancel.cancelled() => None,
                next = self.next_config(&loaded, &mut reloads) => Some(next),
            };
            inner.cancel();
            // A turn is never cut in two.
            while tasks.join_next().await.is_some() {}
            match next {
                None => return Ok(()),
                Some(next) => loaded = next,
            }
        }
    }

    /// The next good config; a bad one is told and passed over.
    async fn next_config(&self, now: &Loaded, reloads: &mut watch::Receiver<u64>) -> Loaded {
        let mut seen = stamps(&now.files);
        loop {
            tokio::select! {
                asked = reloads.changed() => if asked.is_err() { std::future::pending().await },
                () = tokio::time::sleep(LOOK_EVERY) => {
                    let is = stamps(&now.files);
                    if is == seen {
                        continue;
                    }
                    seen = is;
                }
            }
            match read(&self.path).and_then(|new| self.generators(&new.config).map(|_| new)) {
                Ok(new) if new.config == now.config => info!("Config read again: nothing has changed."),
                Ok(new) => {
                    info!(services = new.config.services.len(), "Config read again.");
                    return new;
                }
                Err(problems) => error!(%problems, "The new config is refused; the running one goes on."),
            }
        }
    }

    fn start(&self, config: &Config, cancel: &CancellationToken) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let mut context = Context::new(self.etcd.clone()).with_owners(config.owners.clone());
        let mut sources = Vec::new();
        // It was tried when the config was read.
        for watcher in configured(config).unwrap_or_default() {
            let (outlet, inlet) = channel();
            let name = watcher.source_name();
            sources.push(Source { name: name.clone(), required: true, answers_for: watcher.answers_for(), inlet });
            let (watcher, cancel) = (watcher.watcher(&mut context), cancel.clone());
            tasks.spawn(async move {
                if let Err(e) = watcher.run(outlet, cancel).await {
                    error!(source = %name, error = %Chain(&*e), "Watcher has given up; its last answer stays.");
                }
            });
        }
        match self.keeper(config) {
            Ok(Some((keeper, socket))) => {
                self.shared.set_certificates(Some(keeper.loaded()));
                tasks.spawn(keeper.run(socket, cancel.clone()));
            }
            Ok(None) => self.shared.set_certificates(None),
            Err(problem) => error!(%problem, "The edge has no certificates."),
        }
        let (generators, status) = match self.generators(config) {
            Ok(made) => made,
            Err(problems) => {
                error!(%problems, "The generators of this config cannot be made.");
                (Vec::new(), None)
            }
        };
        let before = self.shared.services();
        let before = if before.is_empty() { &self.routed } else { &before };
        self.shared.set_haproxy(status);
        self.shared.set_inner(context.shown());
        let agent = Agent {
            sources,
            policies: Some(Policies::new(config).beginning_with(before)),
            generators,
            guard: self.guard.clone(),
            limits: self.args.limits,
            admission: Admission::new(self.args.addresses.policy_with(&config.backend_networks)),
            emptied: Emptied::new(self.args.pace.on_empty, self.routed.clone())
                .with_defaults(self.args.pace.default_servers.clone()),
            state: self.memory_file.clone().map(StateFile::new),
            kept: ServiceMap::new(),
            debounce: Debounce::new(self.args.pace.quiet, self.args.pace.max_wait),
            sync_deadline: self.args.pace.sync_deadline,
            wake: self.wake.clone(),
            shared: self.shared.clone(),
            changes: self.changes.clone(),
            metrics: self.metrics.clone(),
        };
        let cancel = cancel.clone();
        tasks.spawn(async move {
            let Ok(()) = agent.run(cancel).await;
        });
        tasks
    }

    /// The edge that the flags or a config ask for.
    fn edge(&self, config: &Config) -> Result<Option<Arc<EdgeSettings>>, String> {
        Ok(self.args.edge.settings().map_err(|e| e.to_string())?.or_else(|| config.edge.clone()))
    }

    /// Who keeps the edge's certificates, with our copies of them written, and HAProxy's socket if it is to be used.
    fn keeper(&self, config: &Config) -> Result<Option<(Keeper, Option<RuntimeSocket>)>, String> {
        let top = config.haproxy.as_ref().filter(|t| t.do_writes);
        let Some((top, path)) = top.and_then(|t| Some((t, t.config_file_path.as_ref()?))) else { return Ok(None) };
        let Some(edge) = self.edge(config)? else { return Ok(None) };
        let keeper = Keeper::of(&Arc::unwrap_or_clone(edge).with_copies_beside(path), &self.metrics);
        let Some(mut keeper) = keeper.map_err(|e| Chain(&e).to_string())? else { return Ok(None) };
        keeper.refresh().map_err(|e| Chain(&e).to_string())?;
        let socket = top.socket_file_path.first().filter(|_| top.do_socket).cloned();
        Ok(Some((keeper, socket.map(|path| RuntimeSocket::new(Endpoint::Unix(path), Deadlines::default())))))
    }

    /// The generators that a config asks for, and HAProxy's status.
    fn generators(&self, config: &Config) -> Result<Made, String> {
        let mut made: Vec<Box<dyn Turn>> = Vec::new();
        let mut status = None;
        if let Some(haproxy) = of_config(config, self.edge(config)?, &self.args, self.of_haproxy.clone()) {
            status = Some(haproxy.status());
            made.push(Box::new(haproxy));
        }
        made.extend(Nginx::new(config).map(|g| Box::new(g) as Box<dyn Turn>));
        made.extend(FileOutput::new(config).map(|g| Box::new(g) as Box<dyn Turn>));
        made.extend(Prometheus::new(config).map(|g| Box::new(g) as Box<dyn Turn>));
        for (name, settings) in &config.templates {
            let template = Template::new(name, settings);
            made.push(Box::new(template.map_err(|e| format!("template.{name}: {}", Chain(&e)))?));
        }
        Ok((made, status))
    }
}

/// HAProxy as the config wants it kept; `None` where nothing is to be written.
pub(super) fn of_config(
    config: &Config,
    edge: Option<Arc<EdgeSettings>>,
    args: &RunArgs,
    metrics: HaproxyMetrics,
) -> Option<Haproxy> {
    let top = config.haproxy.as_ref().filter(|t| t.do_writes)?;
    let path = top.config_file_path.clone()?;
    let candidate = top.candidate_config_file_path.clone().unwrap_or_else(|| beside(&path, ".tmp"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let state = top.state_file_path.as_ref().map(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default(); // none yet: nothing is remembered
        State::parse(&text, Some(path.clone()), top.state_file_ttl, now)
    });
    let composer = SynapseComposer::new(config, state)?;
    for warning in composer.warnings() {
        warn!(%warning, "Config.");
    }
    let commands = Commands {
        check: top.check_command.clone().filter(|_| top.do_checks),
        reload: top.reload_command.clone().filter(|_| top.do_reloads),
        sockets: if top.do_socket { top.socket_file_path.clone() } else { Vec::new() },
    };
    let edge = edge.map(|edge| Arc::new(Arc::unwrap_or_clone(edge).with_copies_beside(&path)));
    let connection = Connection::by_commands(commands, args.process.haproxy_bin.clone(), path.clone());
    let connection = connection.with_check_timeout(args.process.check_timeout);
    let files = ConfigFiles::new(path).with_candidate(candidate);
    let pace = ReloadPace::new(Duration::from_secs(top.restart_interval), top.restart_jitter);
    let haproxy = Haproxy::of_synapse(composer, edge, files, connection, pace, metrics);
    Some(haproxy.with_addresses(args.addresses.policy_with(&config.backend_networks), args.admin.address()))
}

/// Generators, and what HAProxy's tells of itself.
type Made = (Vec<Box<dyn Turn>>, Option<Arc<Mutex<HaproxyStatus>>>);
