//! `register plan` and `explain`: one look at Docker, nothing written. Also how every command finds Docker and decides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::console::{has_colours, painted};
use agent::hostip;
use agent::telemetry::Chain;
use containers::checks::{AnyCheck, Check, Outcome, TcpCheck};
use containers::docker::{Docker, DockerError, Endpoint, Scope, own_ids};
use containers::readiness::Why;
use model::desired::{
    Candidate, CheckSpec, ContainerId, ContainerMap, Decision, NetworkChoice, Settings, State, decide,
};
use model::{NodeName, Port, Transport};
use serde_json::{Map, Value, json};

use super::{Failure, host, print};
use crate::cli::{DockerArgs, ExplainArgs};

/// How long `explain` waits for a container's port.
const DIAL: Duration = Duration::from_secs(1);

/// Docker, where the flags and the environment say it is.
///
/// # Errors
/// A `DOCKER_HOST` that cannot be meant.
pub fn docker(args: &DockerArgs) -> Result<(Endpoint, Docker), Failure> {
    let get = |name: &str| match name {
        "DOCKER_HOST" => args.docker_host.clone(),
        _ => std::env::var(name).ok(),
    };
    let endpoint = Endpoint::from_env(get).map_err(Failure::usage)?;
    let docker = Docker::new(&endpoint).map_err(Failure::usage)?;
    Ok((endpoint, docker))
}

/// What the flags say about containers; `host_ip` and `node` as worked out.
pub fn settings(args: &DockerArgs, host_ip: Option<std::net::IpAddr>, node: &NodeName) -> Settings {
    Settings {
        host_ip,
        allow_loopback: args.allow_loopback,
        no_address_labels: args.no_address_labels,
        max_ports: args.max_ports,
        internal: args.internal,
        networks: NetworkChoice { name: args.network.clone(), own_ids: own_ids() },
        family: args.family,
        explicit: args.explicit,
        service_from: args.service_from.clone(),
        health: args.health,
        filters: args.filter.clone(),
        node: Some(node.as_str().into()),
        zone: args.zone.as_ref().map(|zone| zone.as_str().into()),
    }
}

/// The node's name: as given, else the host's as Docker tells it.
///
/// # Errors
/// A host name that cannot stand in a key.
pub fn node_name(given: Option<&NodeName>, docker_says: &str) -> Result<NodeName, Failure> {
    match given {
        Some(node) => Ok(node.clone()),
        None => docker_says
            .parse()
            .map_err(|e| Failure::usage(format!("Docker's name for this host cannot be used, set NODE_NAME: {e}"))),
    }
}

/// What Docker runs now, and what is decided about it.
struct Seen {
    docker: Docker,
    containers: ContainerMap,
    decisions: Vec<Decision>,
    undescribed: Vec<Undescribed>,
}

/// A container that Docker cannot describe, or describes in a way that cannot be read.
struct Undescribed {
    id: ContainerId,
    name: Option<String>,
    why: String,
}

impl Undescribed {
    fn line(&self) -> String {
        let name = self.name.as_deref().unwrap_or("without a name");
        format!("{} {}: left out: {}\n", self.id.short(), plain(name), plain(&self.why))
    }
}

/// Looks once.
async fn look(args: &DockerArgs) -> Result<Seen, Failure> {
    let (_, docker) = docker(args)?;
    let info = host::about(&docker, args.node_name.is_some()).await.map_err(Failure::runtime)?;
    let node = node_name(args.node_name.as_ref(), &info.name)?;
    let given = args.host_ip.as_deref().map(|text| hostip::validate(text, args.allow_loopback));
    let settings = settings(args, given.transpose().map_err(Failure::usage)?, &node);
    let (mut containers, mut undescribed) = (ContainerMap::new(), Vec::new());
    for listed in docker.list(Scope::All).await.map_err(Failure::runtime)? {
        match (docker.inspect_named(&listed.id).await, listed.id.parse::<ContainerId>()) {
            (Ok(Some(container)), _) => drop(containers.insert(container.id.clone(), Arc::new(container))),
            // Gone since the listing: nothing to say about it.
            (Ok(None), _) => {}
            // Docker itself has gone since.
            (Err(e @ DockerError::Transport { .. }), _) => return Err(Failure::runtime(e)),
            (Err(e), Ok(id)) => {
                undescribed.push(Undescribed { id, name: listed.name, why: format!("not described: {}", Chain(&e)) });
            }
            (Err(e), Err(_)) => return Err(Failure::runtime(e)),
        }
    }
    let decisions = decide(&containers, &settings);
    Ok(Seen { docker, containers, decisions, undescribed })
}

/// Prints what would be registered, as JSON: `registrations` by service, `skipped` with reasons, and `warnings`: what was not
/// understood of those that are registered, such as routes that were left out.
///
/// # Errors
/// Wrong flags; Docker does not answer.
pub async fn plan(args: &DockerArgs) -> Result<(), Failure> {
    let Seen { containers, decisions, undescribed, .. } = look(args).await?;
    let mut services: Map<String, Value> = Map::new();
    let (mut skipped, mut warnings) = (Vec::new(), Vec::new());
    for decision in &decisions {
        let running = containers.get(&decision.container).is_some_and(|c| c.state == State::Running);
        let port = decision.port.map(|(port, transport)| format!("{port}/{transport}"));
        let about = |key: &str, value: Value| json!({ "container": decision.name, "id": decision.container.short(), "port": port, key: value });
        if running && !decision.warnings.is_empty() {
            warnings.push(about("warnings", json!(decision.warnings)));
        }
        match decision.candidate() {
            Some(candidate) => {
                let entry = services.entry(candidate.service.to_string()).or_insert_with(|| json!([]));
                if let Some(backends) = entry.as_array_mut() {
                    backends.push(json!(candidate.backend));
                }
            }
            None if running => skipped.push(about("reason", json!(reason(decision)))),
            None => {}
        }
    }
    skipped.extend(
        undescribed
            .iter()
            .map(|of| json!({ "container": of.name, "id": of.id.short(), "port": null, "reason": of.why })),
    );
    services.sort_keys();
    print(&format!("{:#}\n", json!({ "registrations": services, "skipped": skipped, "warnings": warnings })))
}

fn reason(decision: &Decision) -> Option<String> {
    match &decision.outcome {
        model::desired::Outcome::Skip(skip) => Some(skip.to_string()),
        model::desired::Outcome::Register(_) => None,
    }
}

/// Prints which rule decided what.
///
/// # Errors
/// Wrong flags; Docker does not answer; a container that does not exist.
pub async fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let Seen { docker, containers, decisions, undescribed } = look(&args.docker).await?;
    let mut text = String::new();
    let mut meant: Vec<&Decision> = Vec::new();
    if args.containers.is_empty() {
        let running = |d: &&Decision| containers.get(&d.container).is_some_and(|c| c.state == State::Running);
        meant.extend(decisions.iter().filter(running));
        text.extend(undescribed.iter().map(Undescribed::line));
    }
    for wanted in &args.containers {
        let fits = |d: &&Decision| *d.name == **wanted || d.container.as_str().starts_with(wanted.as_str());
        let (before, told) = (meant.len(), text.len());
        meant.extend(decisions.iter().filter(fits));
        let fits = |of: &&Undescribed| of.name.as_ref() == Some(wanted) || of.id.as_str().starts_with(wanted.as_str());
        text.extend(undescribed.iter().filter(fits).map(Undescribed::line));
        if (meant.len(), text.len()) == (before, told) {
            return Err(Failure::runtime(format!("there is no container {wanted:?}")));
        }
    }
    for decision in meant {
        text.push_str(&format!("{decision}\n"));
        if let Some(candidate) = decision.candidate() {
            let ready = ready(&docker, &decision.container, candidate).await;
            text.push_str(&format!("    ready: {}\n", plain(&ready)));
        }
    }
    print(&if has_colours() { painted(&text) } else { text })
}

/// Whether the candidate would be published now, as a running agent with `--ready tcp` finds it.
async fn ready(docker: &Docker, container: &ContainerId, candidate: &Candidate) -> String {
    let mut tried = Vec::new();
    for spec in &candidate.checks {
        tried.push(try_once(docker, container, candidate, spec).await);
    }
    match candidate.dial {
        _ if !tried.is_empty() => format!("once its checks pass: {}", tried.join("; ")),
        _ if candidate.docker_health => Why::DockerHealth.text(),
        _ if candidate.backend.transport == Transport::Udp => Why::Udp.text(),
        None => Why::NoAddress.text(),
        Some(address) => match TcpCheck::new(address).attempt(DIAL).await {
            Outcome::Pass => format!("yes, {address} accepts a connection"),
            Outcome::Fail(e) => format!("not yet: {}", Chain(&e)),
            Outcome::Unreachable(e) => Why::Unreachable(Chain(&e).to_string()).text(),
        },
    }
}

/// A text without control characters: a server's words go to a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// What one try of a check comes to.
async fn try_once(docker: &Docker, container: &ContainerId, candidate: &Candidate, spec: &CheckSpec) -> String {
    let name = spec.kind.as_str();
    let to = candidate.dial.map(|own| SocketAddr::new(own.ip(), spec.port.map_or(own.port(), Port::get)));
    let Some(check) = AnyCheck::new(&spec.kind, to, container, Some(docker)) else {
        return format!("{name} (Docker runs it)");
    };
    match check.attempt(spec.timeout).await {
        Outcome::Pass => format!("{name} passes"),
        Outcome::Fail(e) => format!("{name} fails: {}", Chain(&e)),
        Outcome::Unreachable(e) => format!("{name} cannot be tried from here: {}", Chain(&e)),
    }
}
