//! What was decided about a container's port, and why.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::check_spec::CheckSpec;
use super::container::{ContainerId, State};
use super::settings::HealthPolicy;
use crate::{Backend, BackendId, Port, ServiceName, Transport};

/// What becomes of one port of one container; a container without a port has one decision, too.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// Which container.
    pub container: ContainerId,
    /// Its name, without the leading slash.
    pub name: Arc<str>,
    /// The port inside the container; `None`: the decision is about the container as a whole.
    pub port: Option<(Port, Transport)>,
    /// Registered, or why not.
    pub outcome: Outcome,
    /// The rule behind each part of the outcome, in the order in which they were applied; for people.
    pub trail: Vec<String>,
    /// What the owner should mend although it changed nothing: unknown labels, addresses that few can reach.
    pub warnings: Vec<String>,
}

impl Decision {
    /// What is to be registered, if anything is.
    pub fn candidate(&self) -> Option<&Candidate> {
        match &self.outcome {
            Outcome::Register(candidate) => Some(candidate),
            Outcome::Skip(_) => None,
        }
    }
}

/// Registered, or why not.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// To be registered, as soon as its checks agree.
    Register(Box<Candidate>),
    /// Left out.
    Skip(Skip),
}

/// A backend to be, and what is needed to find out when it is ready.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// The service it belongs to.
    pub service: ServiceName,
    /// What is to be published. Its status is `up`, or `down` where the HEALTHCHECK fails and the policy says so.
    pub backend: Backend,
    /// The container's own address and port, for readiness and checks; `None`: it has no address of its own.
    pub dial: Option<SocketAddr>,
    /// The container has the host's network: `dial` is the host itself.
    pub host_network: bool,
    /// All must pass; empty: none was asked for.
    pub checks: Vec<CheckSpec>,
    /// The container has a HEALTHCHECK that counts (its policy is not `ignore`).
    pub docker_health: bool,
    /// What an unhealthy container means.
    pub health_policy: HealthPolicy,
    /// How a stop is announced (label `register.drain`).
    pub drain: Drain,
    /// For how long after it becomes ready its weight grows (label `register.warmup`).
    pub warmup: Option<Duration>,
    /// The container, by name or id, that drains once this one is ready (label `register.replaces`).
    pub replaces: Option<Arc<str>>,
    /// The signal that asks the container to stop.
    pub stop_signal: i32,
    /// How long Docker waits after it.
    pub stop_timeout: Duration,
}

/// How a stop is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Drain {
    /// Draining until the container ends, with its stop timeout as the deadline.
    #[default]
    UntilStopped,
    /// Not at all: the key goes at once (`register.drain=off`).
    Off,
    /// Draining for this long (`register.drain=30s`).
    For(Duration),
}

/// Why a port is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// The container does not run.
    Stopped(State),
    /// The container is paused.
    Paused,
    /// A container filter of the agent leaves it out.
    Filtered(String),
    /// A label or variable asks for it.
    Ignored {
        /// Its name.
        by: String,
    },
    /// The agent registers only what is named by label, and this is not.
    NotExplicit,
    /// No port is exposed, published or given by label.
    NoPort,
    /// `register.port` lists other ports.
    NotListed,
    /// The port is exposed but not published.
    NotPublished,
    /// The HEALTHCHECK has not passed yet.
    HealthStarting,
    /// The HEALTHCHECK fails.
    Unhealthy,
    /// Published on a loopback address only, or HOST_IP is one.
    LoopbackOnly,
    /// The container has more ports than are registered without a label that names them.
    TooManyPorts {
        /// How many are registered.
        most: usize,
        /// How many are left out.
        ports: usize,
        /// The lowest of those.
        first: Port,
        /// The highest.
        last: Port,
    },
    /// UDP ports on the host's network that no label names.
    UdpOnHostNetwork {
        /// How many.
        ports: usize,
        /// The lowest.
        first: Port,
        /// The highest.
        last: Port,
    },
    /// No rule gave an address.
    NoAddress(String),
    /// It is published on every address of the host, and none of them is known.
    HostIpMissing,
    /// A label or variable holds what it cannot mean.
    BadLabel {
        /// The label or variable.
        label: String,
        /// Its value, cut short.
        value: String,
        /// What it may be.
        accepted: String,
    },
    /// No service name can be made of what was given.
    BadName {
        /// Where it came from.
        from: String,
        /// What is wrong.
        why: String,
    },
    /// Another container shares its network and is not known.
    NetworkOwnerMissing(String),
    /// It is on the network of this container, and says of none of its ports that it is its own.
    NoPortOfItsOwn(String),
    /// This container, on the same network, has the port.
    OfAnother(String),
    /// This container, on the same network, exposes the port as well.
    Contested(String),
    /// A label or variable restricts who may reach the container, in a way that cannot be kept here.
    Restricted {
        /// Its name.
        by: String,
        /// What it asks for.
        what: &'static str,
    },
    /// An older container has this name within the service.
    SameId {
        /// The service.
        service: ServiceName,
        /// The id.
        id: BackendId,
        /// Who has it.
        holder: ContainerId,
    },
    /// An older registration of the service has this address.
    SameAddress {
        /// The service.
        service: ServiceName,
        /// `host:port`.
        address: String,
        /// Who has it.
        holder: ContainerId,
    },
}

impl Skip {
    /// The word used in logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stopped(_) => "stopped",
            Self::Paused => "paused",
            Self::Filtered(_) => "filtered",
            Self::Ignored { .. } => "ignored",
            Self::NotExplicit => "not_explicit",
            Self::NoPort => "no_port",
            Self::NotListed => "not_listed",
            Self::NotPublished => "not_published",
            Self::HealthStarting => "health_starting",
            Self::Unhealthy => "unhealthy",
            Self::LoopbackOnly => "loopback_only",
            Self::TooManyPorts { .. } => "too_many_ports",
            Self::UdpOnHostNetwork { .. } => "udp_on_host_network",
            Self::NoAddress(_) => "no_address",
            Self::HostIpMissing => "host_ip_missing",
            Self::BadLabel { .. } => "bad_label",
            Self::BadName { .. } => "bad_name",
            Self::NetworkOwnerMissing(_) => "network_owner_missing",
            Self::NoPortOfItsOwn(_) => "no_port_of_its_own",
            Self::OfAnother(_) => "of_another",
            Self::Contested(_) => "contested",
            Self::Restricted { .. } => "restricted",
            Self::SameId { .. } => "same_id",
            Self::SameAddress { .. } => "same_address",
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(state) => write!(f, "not running ({})", format!("{state:?}").to_lowercase()),
            Self::Paused => f.write_str("paused"),
            Self::Filtered(filter) => write!(f, "left out by the filter {filter}"),
            Self::Ignored { by } => write!(f, "ignored, as {by} asks"),
            Self::NotExplicit => {
                f.write_str("not named by label (register.service or SERVICE_NAME), and --explicit is set")
            }
            Self::NoPort => f.write_str("no port is exposed, published, or given by the label register.port"),
            Self::NotListed => f.write_str("not among the ports that the label register.port lists"),
            Self::NotPublished => f.write_str(
                "exposed but not published (publish it, name it in the label register.port, or run with --internal)",
            ),
            Self::HealthStarting => f.write_str("its HEALTHCHECK has not passed yet"),
            Self::Unhealthy => f.write_str("its HEALTHCHECK fails"),
            Self::LoopbackOnly => {
                f.write_str("reachable on a loopback address only (--allow-loopback publishes it all the same)")
            }
            Self::TooManyPorts { most, ports, first, last } => write!(
                f,
                "{ports} more ports, {first} to {last}, are left out: of ports that no label names the lowest {most} are \
                 registered (--max-ports); the label register.port lists those that are meant"
            ),
            Self::UdpOnHostNetwork { ports, first, last } => write!(
                f,
                "UDP on the host's network ({ports} ports, {first} to {last}) is registered by label only: name those that are \
                 meant in the label register.port, such as {first}/udp"
            ),
            Self::NoAddress(why) => write!(f, "no address: {why}"),
            Self::HostIpMissing => {
                f.write_str("published on every address of the host, and HOST_IP (the address to publish) is not known")
            }
            Self::BadLabel { label, value, accepted } => write!(f, "{label}={value:?} is not {accepted}"),
            Self::BadName { from, why } => write!(f, "no service name from {from}: {why}"),
            Self::NetworkOwnerMissing(owner) => {
                write!(f, "it uses the network of container {owner}, which is not known")
            }
            Self::NoPortOfItsOwn(owner) => write!(
                f,
                "it is on the network of container {owner} and exposes no port itself; the label register.port names the ports that it \
                 listens on"
            ),
            Self::OfAnother(other) => write!(
                f,
                "container {other}, on the same network, has this port; the label register.port says which ports a container listens on"
            ),
            Self::Contested(other) => write!(
                f,
                "container {other}, on the same network, exposes this port as well, and only one of them can listen on it; the label \
                 register.port says which"
            ),
            Self::Restricted { by, what } => write!(
                f,
                "{by} lets only {what} reach it, which is not kept here: it would be open to everybody. Remove it to publish the container"
            ),
            Self::SameId { service, id, holder } => {
                write!(f, "the older container {holder} is {id} of {service} already")
            }
            Self::SameAddress { service, address, holder } => {
                write!(f, "container {holder} is {address} of {service} already")
            }
        }
    }
}
