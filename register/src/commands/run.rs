//! `register run`: puts the agent's parts together: containers, services of a config, or both side by side.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use agent::admin::control::ControlServer;
use agent::admin::{AdminServer, Listen, StatusSource};
use agent::history::History;
use agent::lifecycle::Lifecycle;
use agent::telemetry::Chain;
use agent::watch::{Watcher, channel};
use clap::ValueEnum as _;
use containers::docker::{Docker, DockerSource, Endpoint, Info, Options};
use model::NodeName;
use registry::store::etcd::EtcdConfig;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Failure, check, host, look};
use crate::address::{self, HostAddress};
use crate::agent::board::Rows;
use crate::agent::{Agent, AgentSettings, Wires, control};
use crate::cli::{Compat, OnExit, RunArgs};
use crate::history::{follow_registry, follow_services};
use crate::metrics::Metrics;
use crate::nerve::reporters::Frame;
use crate::nerve::reporters::etcd::{EtcdFrame, Relay};
use crate::nerve::services::source::Source;
use crate::nerve::services::{self, Services};
use crate::nerve::statsd::Statsd;
use crate::publish::pulse::Pulse;
use crate::publish::{Form, Publication, PublisherSettings};
use crate::status::{DockerStatus, ServicesStatus, Status};

/// How much longer than `--drain-wait` the end may take.
const END: Duration = Duration::from_secs(8);

/// What is known of Docker and this host before anything starts.
struct DockerSide {
    endpoint: Endpoint,
    docker: Docker,
    about: Info,
    address: HostAddress,
}

/// Runs until a signal comes or the host's key belongs to another agent.
///
/// # Errors
/// Wrong flags or a wrong config; a registry that can never serve; another agent in our place.
pub async fn run(args: &RunArgs) -> Result<(), Failure> {
    if args.nerve.check_config {
        return check::check(&args.nerve);
    }
    let etcd = args.etcd.config_for_lease(args.form.ttl).map_err(Failure::usage)?;
    let mut lifecycle = Lifecycle::new().with_drain_deadline(END + args.drain_wait);
    lifecycle.listen().map_err(Failure::runtime)?;
    let (metrics, (changes, changed)) = (Metrics::default(), watch::channel(0));
    let source = match &args.nerve.config {
        Some(path) => {
            let instance = args.nerve.instance_id.clone();
            let opened = Source::open(path.clone(), instance, changes.clone(), metrics.services.clone());
            Some(opened.map_err(|e| Failure::usage(format!("the config is wrong\n{e}")))?)
        }
        None => None,
    };
    let side = if args.watches_docker() {
        match lifecycle.token().run_until_cancelled(docker_side(args, &etcd)).await {
            Some(side) => Some(side?),
            None => return Ok(()),
        }
    } else {
        None
    };
    let instance = source.as_ref().map(|source| source.configs().borrow().config.instance.clone());
    let (node, machine) = match &side {
        Some(side) => {
            (look::node_name(args.docker.node_name.as_ref(), &side.about.name)?, host::machine_id(&side.about)?)
        }
        None => {
            let instance = instance.clone().unwrap_or_default();
            let node = host::node_without_docker(args.docker.node_name.as_ref(), &instance)?;
            (node, host::machine_id_without_docker())
        }
    };
    let registry = etcd.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    info!(
        version = crate::VERSION,
        %node,
        instance = instance.as_deref(),
        docker = side.as_ref().map(|side| tracing::field::display(&side.endpoint)),
        docker_version = side.as_ref().map(|side| tracing::field::display(&side.about.version)),
        host_ip = side.as_ref().and_then(|side| side.address.address).map(tracing::field::display),
        config = args.nerve.config.as_deref().map(|path| tracing::field::display(path.display())),
        registry,
        prefix = %args.etcd.etcd_prefix,
        layout = args.form.layout.to_possible_value().map(|word| word.get_name().to_owned()),
        value = args.form.value.to_possible_value().map(|word| word.get_name().to_owned()),
        ttl_s = args.form.ttl.as_secs(),
        "Starting."
    );

    let form = Form {
        prefix: args.etcd.etcd_prefix.clone(),
        layout: args.form.layout.into(),
        node: node.clone(),
        values: args.form.value.into(),
        service_ports: args.form.compat == Some(Compat::DockerRegister),
    };
    let frame = Arc::new(EtcdFrame {
        config: etcd,
        form,
        machine,
        ttl: args.form.ttl,
        audit: args.resync,
        metrics: metrics.publish.clone(),
        claims: Mutex::new(BTreeSet::new()),
        pulse: Some(Pulse::start().map_err(Failure::runtime)?),
    });
    let started = SystemTime::now();
    let mut status = Status { node: node.to_string(), started, docker: None, services: None, history: None };
    let history = History::default();
    status.history = Some(history.clone());
    lifecycle.spawn("history", history.clone().keep(args.history_file.clone(), lifecycle.token()));
    let mut parts = Parts { args, frame, node, registry, metrics, changes, history, lifecycle };
    let mut services = source.map(|source| parts.services(source, &mut status));
    let mut ask_agent = None;
    if let Some(side) = side {
        ask_agent = Some(parts.docker(side, services.as_mut(), &mut status));
    }
    if let Some(services) = services {
        parts.lifecycle.spawn("services", services.run(parts.lifecycle.token()));
    }
    parts.serve(Arc::new(status), changed, ask_agent).await?;
    parts.lifecycle.supervise().await.map_err(Failure::runtime)
}

/// Finds Docker and this host's address.
async fn docker_side(args: &RunArgs, etcd: &EtcdConfig) -> Result<DockerSide, Failure> {
    let (endpoint, docker) = look::docker(&args.docker)?;
    let address = host::host_ip(args, etcd).await?;
    let about = host::ask(&docker, args.docker.node_name.is_some()).await;
    Ok(DockerSide { endpoint, docker, about, address })
}

/// What the agent's parts are made of.
struct Parts<'a> {
    args: &'a RunArgs,
    frame: Arc<EtcdFrame>,
    node: NodeName,
    registry: String,
    metrics: Metrics,
    changes: watch::Sender<u64>,
    history: History,
    lifecycle: Lifecycle,
}

/// `work`, cut off at the end.
fn stop_with(
    cancel: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
    let cancel = cancel.clone();
    async move {
        cancel.run_until_cancelled(work).await;
        cancel.cancelled().await;
        Ok(())
    }
}

impl Parts<'_> {
    fn drain_at_exit(&self) -> Option<Duration> {
        (self.args.on_exit == OnExit::Drain).then_some(self.args.drain_wait)
    }

    /// The services of the config, and its reading.
    fn services(&mut self, source: Source, status: &mut Status) -> Services {
        let (rows, shown) = watch::channel(Arc::default());
        let follow = follow_services(shown.clone(), self.history.clone());
        self.lifecycle.spawn("services' history", stop_with(&self.lifecycle.token(), follow));
        status.services = Some(ServicesStatus { rows: shown, reading: source.readings() });
        let config = source.configs();
        let statsd = match &config.borrow().config.statsd {
            None => Statsd::off(),
            Some((host, port)) => Statsd::to(host, *port).unwrap_or_else(|error| {
                warn!(host, port, %error, "StatsD cannot be reached; nothing is sent.");
                Statsd::off()
            }),
        };
        let max_failures = Arc::new(AtomicU32::new(config.borrow().config.max_failures));
        let frame = Frame { max_failures, statsd, etcd: Arc::clone(&self.frame) };
        self.lifecycle.spawn("config", source.run(self.lifecycle.reloads(), self.lifecycle.token()));
        let drain_at_exit = self.drain_at_exit();
        let wires = services::Wires { config, rows, changes: self.changes.clone(), drain_at_exit };
        Services::new(wires, frame, self.metrics.services.clone(), self.metrics.checks.clone())
    }

    /// Docker, the agent and the publisher of the agent's own etcd, which takes services along.
    fn docker(
        &mut self,
        side: DockerSide,
        services: Option<&mut Services>,
        status: &mut Status,
    ) -> mpsc::Sender<control::Request> {
        let (args, frame, cancel) = (self.args, Arc::clone(&self.frame), self.lifecycle.token());
        let DockerSide { docker, address, .. } = side;
        let docker = docker.with_odd_words(self.metrics.odd_words.clone());
        let host_ip = address.address;
        let (event_in, events) = mpsc::channel(1024);
        let options = Options { resync: args.resync, ..Options::default() };
        let source = DockerSource::new(docker.clone(), options).with_events(event_in);
        let (pictures, containers) = channel();
        let (desired, wanted) = watch::channel(None);
        let (out, publication) = watch::channel(Publication::default());
        let (rows, shown) = watch::channel(Rows::default());
        let (ask_agent, requests) = mpsc::channel(8);
        let (known, address) = watch::channel(address);
        let settings = AgentSettings {
            settings: look::settings(&args.docker, host_ip, &self.node),
            ready: args.ready,
            check_target: args.check_target,
            docker: Some(docker),
            prefix: frame.form.prefix.clone(),
            drain_at_exit: self.drain_at_exit(),
        };
        self.lifecycle.spawn(
            "registry's history",
            stop_with(&cancel, follow_registry(publication.clone(), self.history.clone())),
        );
        let follow = self.history.clone().follow("docker".into(), containers.clone(), ["docker_away", "docker_back"]);
        self.lifecycle.spawn("Docker's history", stop_with(&cancel, follow));
        status.docker = Some(DockerStatus {
            address: address.clone(),
            registry: self.registry.clone(),
            containers: containers.clone(),
            publication: publication.clone(),
            rows: shown,
        });
        let changes = self.changes.clone();
        let publications = publication.clone();
        let wires = Wires { containers, events, address, publication: publications, requests, desired, rows, changes };
        let agent = Agent::new(wires, settings, self.metrics.clone()).with_history(self.history.clone());

        let destination = frame.own_destination();
        let settings = PublisherSettings { metadata: args.metadata_interval, ..frame.settings(&destination) };
        let (stop, revoke) = (CancellationToken::new(), CancellationToken::new());
        let mut publisher = frame.publisher(&frame.config, settings, wanted, out);
        if let Some(services) = services {
            let (wanted, told) = services.own_etcd(&destination);
            let (relay, slots) = Relay::new(wanted, publication, told);
            publisher = publisher.with_slots(slots);
            let stop = stop.clone();
            self.lifecycle.spawn("publication", async move {
                stop.run_until_cancelled(relay.run()).await;
                Ok::<_, Infallible>(())
            });
        }
        self.lifecycle.spawn("address", {
            let machine = host::Machine { etcd: frame.config.clone(), allow_loopback: args.docker.allow_loopback };
            let (resync, cancel) = (args.resync, cancel.clone());
            async move {
                address::follow(known, machine, resync, cancel).await;
                Ok::<_, Infallible>(())
            }
        });
        self.lifecycle.spawn("docker", source.run(pictures, cancel.clone()));
        self.lifecycle.spawn("agent", {
            let ends = (cancel, stop.clone(), revoke.clone());
            async move {
                agent.run(ends.0, ends.1, ends.2).await;
                Ok::<_, Infallible>(())
            }
        });
        self.lifecycle.spawn("publisher", publisher.run(stop, revoke));
        ask_agent
    }

    /// The admin server, and the control socket where there are containers to drain.
    async fn serve(
        &mut self,
        status: Arc<dyn StatusSource>,
        changed: watch::Receiver<u64>,
        agent: Option<mpsc::Sender<control::Request>>,
    ) -> Result<(), Failure> {
        if let Listen::At(address) = self.args.admin {
            let access = self.args.access.access().map_err(Failure::usage)?;
            let server = AdminServer::new("register", status, Arc::new(self.metrics.registry()), changed);
            let server = server.with_routes(agent::history::serve::routes(self.history.clone())).with_access(access);
            let bound = server.bind(address, "--admin").await.map_err(Failure::runtime)?;
            self.lifecycle.spawn("admin server", bound.run(self.lifecycle.token()));
        }
        let Some(agent) = agent else { return Ok(()) };
        let handler = move |request| control::handle(agent.clone(), request);
        match ControlServer::new(&self.args.control, handler).bind() {
            Ok(bound) => self.lifecycle.spawn("control socket", bound.run(self.lifecycle.token())),
            // An agent that cannot be asked to drain still does all the rest.
            Err(e) => warn!(error = %Chain(&e), "No control socket: `register drain` will not work."),
        }
        Ok(())
    }
}
