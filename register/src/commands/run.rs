//! `register run`: puts the agent's parts together.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::admin::control::ControlServer;
use common::admin::{AdminServer, Listen, StatusSource};
use common::backoff::Backoff;
use common::docker::{Docker, DockerSource, Info, Options};
use common::hostip;
use common::lifecycle::Lifecycle;
use common::store::etcd::{EtcdConfig, EtcdStore};
use common::telemetry::Chain;
use common::watch::{Watcher, channel};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Failure, look};
use crate::agent::{Agent, AgentSettings, Wires, control};
use crate::cli::{OnExit, RunArgs};
use crate::metrics::Metrics;
use crate::publish::{Form, Identity, Publication, Publisher, PublisherSettings};
use crate::status::Status;

/// How much longer than `--drain-wait` the end may take.
const END: Duration = Duration::from_secs(8);

/// Runs until a signal comes or the host's key belongs to another agent.
///
/// # Errors
/// Wrong flags; a registry that can never serve; another agent in our place.
pub async fn run(args: &RunArgs) -> Result<(), Failure> {
    let config = args.etcd.config_for_lease(args.form.ttl).map_err(Failure::usage)?;
    let (endpoint, docker) = look::docker(&args.docker)?;
    let mut lifecycle = Lifecycle::new().with_drain_deadline(END + args.drain_wait);
    lifecycle.listen().map_err(Failure::runtime)?;
    let cancel = lifecycle.token();

    let Some(host_ip) = cancel.run_until_cancelled(host_ip(args, &config)).await else { return Ok(()) };
    let host_ip = host_ip?;
    let Some(about) = cancel.run_until_cancelled(ask(&docker)).await else { return Ok(()) };
    let node = look::node_name(args.docker.node_name.as_ref(), &about.name)?;
    let identity = Identity::new(node.clone(), machine_id(&about)?);
    let registry = config.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    info!(%node, docker = %endpoint, docker_version = %about.version, %registry, prefix = %args.etcd.etcd_prefix,
        host_ip = host_ip.map(tracing::field::display), "Starting.");

    let metrics = Metrics::default();
    let (event_in, events) = mpsc::channel(1024);
    let options = Options { resync: args.resync, ..Options::default() };
    let source = DockerSource::new(docker.clone(), options).with_events(event_in);
    let (pictures, containers) = channel();
    let (desired, wanted) = watch::channel(None);
    let (out, publication) = watch::channel(Publication::default());
    let (rows, shown) = watch::channel(Arc::default());
    let (changes, changed) = watch::channel(0);
    let (ask_agent, requests) = mpsc::channel(8);
    let form = Form {
        prefix: args.etcd.etcd_prefix.clone(),
        layout: args.form.layout.into(),
        node: node.clone(),
        values: args.form.value.into(),
        service_ports: args.form.compat.is_some(),
    };
    let agent_settings = AgentSettings {
        settings: look::settings(&args.docker, host_ip, &node),
        ready: args.ready,
        check_target: args.check_target,
        docker: Some(docker.clone()),
        prefix: form.prefix.clone(),
        drain_at_exit: (args.on_exit == OnExit::Drain).then_some(args.drain_wait),
    };
    let status: Arc<dyn StatusSource> = Arc::new(Status {
        node: node.to_string(),
        registry,
        started: SystemTime::now(),
        containers: containers.clone(),
        publication: publication.clone(),
        rows: shown,
    });
    serve(args, &mut lifecycle, status, &metrics, changed, ask_agent).await?;

    let wires = Wires { containers, events, publication, requests, desired, rows, changes };
    let agent = Agent::new(wires, agent_settings, metrics.clone());
    let settings =
        PublisherSettings { form, identity, ttl: args.form.ttl, audit: args.resync, metadata: args.metadata_interval };
    let publisher = Publisher::new(EtcdStore::new(config), settings, wanted, out, metrics.publish.clone());
    let (stop, revoke) = (CancellationToken::new(), CancellationToken::new());
    lifecycle.spawn("docker", source.run(pictures, cancel.clone()));
    lifecycle.spawn("agent", {
        let ends = (cancel, stop.clone(), revoke.clone());
        async move {
            agent.run(ends.0, ends.1, ends.2).await;
            Ok::<_, std::convert::Infallible>(())
        }
    });
    lifecycle.spawn("publisher", publisher.run(stop, revoke));
    lifecycle.supervise().await.map_err(Failure::runtime)
}

/// The admin server and the control socket.
async fn serve(
    args: &RunArgs,
    lifecycle: &mut Lifecycle,
    status: Arc<dyn StatusSource>,
    metrics: &Metrics,
    changed: watch::Receiver<u64>,
    agent: mpsc::Sender<control::Request>,
) -> Result<(), Failure> {
    if let Listen::At(address) = args.admin {
        let server = AdminServer::new("register", status, Arc::new(metrics.registry()), changed);
        let bound = server.bind(address, "--admin").await.map_err(Failure::runtime)?;
        lifecycle.spawn("admin server", bound.run(lifecycle.token()));
    }
    let handler = move |request| control::handle(agent.clone(), request);
    match ControlServer::new(&args.control, handler).bind() {
        Ok(bound) => lifecycle.spawn("control socket", bound.run(lifecycle.token())),
        // An agent that cannot be asked to drain still does all the rest.
        Err(e) => warn!(error = %Chain(&e), "No control socket: `register drain` will not work."),
    }
    Ok(())
}

/// HOST_IP as given, else worked out.
async fn host_ip(args: &RunArgs, etcd: &EtcdConfig) -> Result<Option<std::net::IpAddr>, Failure> {
    let allow = args.docker.allow_loopback;
    if let Some(text) = &args.docker.host_ip {
        return hostip::validate(text, allow).map(Some).map_err(Failure::usage);
    }
    if !hostip::in_host_network() {
        return if args.docker.internal { Ok(None) } else { Err(Failure::usage(hostip::HostIpError::NotHostNetwork)) };
    }
    let towards = resolve(etcd).await;
    match hostip::host_ip(None, towards, allow) {
        Ok(address) => Ok(Some(address)),
        Err(_) if args.docker.internal => Ok(None),
        Err(e) => Err(Failure::usage(e)),
    }
}

/// The address of one of etcd's servers; asks until there is an answer.
async fn resolve(etcd: &EtcdConfig) -> SocketAddr {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        for endpoint in &etcd.endpoints {
            match tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await.map(|mut found| found.next()) {
                Ok(Some(address)) => return address,
                Ok(None) => {}
                Err(error) if backoff.failures() == 0 => {
                    warn!(host = %endpoint.host, %error, "Looking up etcd's address (to work out HOST_IP) failed; trying again.");
                }
                Err(_) => {}
            }
        }
        sleep(backoff.next_delay()).await;
    }
}

/// What Docker says of itself; asks until it answers.
async fn ask(docker: &Docker) -> Info {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    loop {
        match docker.info().await {
            Ok(about) => return about,
            Err(e) => {
                if backoff.failures() == 0 {
                    warn!(error = %Chain(&e), "Docker does not answer; trying again.");
                }
                sleep(backoff.next_delay()).await;
            }
        }
    }
}

/// What tells this host from another one of the same name.
fn machine_id(about: &Info) -> Result<String, Failure> {
    if !about.id.is_empty() {
        return Ok(about.id.clone());
    }
    let unseen = "Docker has no engine ID, and the host's /etc/machine-id cannot be seen from a container; \
                  mount it (-v /etc/machine-id:/etc/machine-id:ro)";
    let path = Path::new("/etc/machine-id");
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        _ => Err(Failure::usage(unseen)),
    }
}
