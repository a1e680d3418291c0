//! Who listens on which port, and why somebody does not: what [`super::assign`] comes to. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use model::{Backend, BackendId, Pool, Port, ServiceName, Transport};

use super::names::{port_section_name, section_name};
use crate::haproxy::process::ports::BindReason;

/// A port on which clients expect a service. Each has a section of its own, with the registrations that ask for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    pub service: ServiceName,
    pub port: Port,
}

impl ServicePort {
    /// All ports that a service can have.
    pub fn all_of(service: &ServiceName) -> RangeInclusive<Self> {
        let at = |port| Self { service: service.clone(), port };
        at(Port::MIN)..=at(Port::MAX)
    }
}

/// The pool behind a service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortPool {
    /// All backends of the service.
    pub all: Arc<Pool>,
    /// Which of them are behind this port.
    pub share: Share,
    /// Another port of the service has the section that is called as the service; this one's name has the port in it.
    pub apart: bool,
}

/// Which backends of a service are behind one of its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    Whole,
    /// Those that ask for it, and these: they name no port, or ask for one in vain and stay where they are.
    Part(BTreeSet<BackendId>),
}

impl Share {
    /// Whether a backend is behind `port`, if this is its share.
    pub fn has(&self, port: Port, backend: &Backend) -> bool {
        match self {
            Self::Whole => true,
            Self::Part(also) => backend.service_port == Some(port) || also.contains(&backend.id),
        }
    }
}

impl PortPool {
    /// The name of the section of the service port `at`, whose pool this is.
    pub fn section(&self, at: &ServicePort) -> Arc<str> {
        if self.apart { port_section_name(&at.service, at.port) } else { section_name(&at.service) }
    }

    /// The backends behind `port`, which is this pool's.
    pub fn behind(&self, port: Port) -> Arc<Pool> {
        match &self.share {
            Share::Whole => self.all.clone(),
            share => Arc::new(self.all.backends().iter().filter(|b| share.has(port, b)).cloned().collect()),
        }
    }
}

/// The backends that HAProxy can balance.
pub(super) fn tcp(pool: &Pool) -> impl Iterator<Item = &Backend> + Clone {
    pool.backends().iter().map(|b| &**b).filter(|b| b.transport == Transport::Tcp)
}

/// Why a service does not listen, though it has backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlisted {
    /// No registration says on which port clients expect it.
    NoPort,
    /// Datagrams only.
    UdpOnly,
    /// Another service has the port.
    Clash { port: Port, winner: ServiceName },
    /// The operator does not allow the port.
    NotAllowed(Port),
    /// discover itself, its stats page or its edge listens there.
    Reserved(Port),
    /// The system does not let it be opened.
    Closed(Port, BindReason),
    /// A container of this host publishes it, whether it runs or not.
    Published {
        port: Port,
        /// The container's name.
        container: Arc<str>,
    },
    /// The service has as many ports as one may have.
    TooMany(Port, usize),
}

impl fmt::Display for Unlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPort => f.write_str("no port: neither a service_port in its registrations nor a `port` key"),
            Self::UdpOnly => f.write_str("UDP only, which HAProxy does not balance"),
            Self::Clash { port, winner } => write!(
                f,
                "port {port} belongs to service {winner}, which was first: it is free when that one goes, or give one of them another port"
            ),
            Self::NotAllowed(port) => write!(f, "port {port} is outside --service-ports"),
            Self::Reserved(port) => write!(f, "port {port} is used by discover itself"),
            Self::Closed(port, reason) => write!(f, "port {port} cannot be opened: {reason}"),
            Self::Published { port, container } => write!(
                f,
                "port {port} is published by container {container} of this host, which would not start again; remove the container, or publish another port"
            ),
            Self::TooMany(port, most) => write!(
                f,
                "port {port} is one too many: a service has at most {most} ports; give some of its containers a name of their own"
            ),
        }
    }
}

impl Unlisted {
    /// The service port that has what another asks for.
    pub fn winner(&self) -> Option<ServicePort> {
        match self {
            Self::Clash { port, winner } => Some(ServicePort { service: winner.clone(), port: *port }),
            _ => None,
        }
    }
}

/// The note about a service whose registrations ask for more than one port, or for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortNote {
    /// They ask for several.
    Several {
        /// Those on which the service listens.
        ports: Vec<Port>,
        /// Who asks for another port than the oldest registration; one of perhaps several.
        backend: BackendId,
        asked: Port,
    },
    /// One asks for a port in vain.
    Waits {
        /// Who asks; one of perhaps several.
        backend: BackendId,
        /// Why in vain.
        why: Unlisted,
        /// Where it serves meanwhile.
        stays: Option<Port>,
    },
    /// None names this port any more: it was the last one.
    Last(Port),
}

impl PortNote {
    /// Whether both say the same of the same ports, of whichever backend.
    pub fn same_kind(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Several { ports, .. }, Self::Several { ports: others, .. }) => ports == others,
            (Self::Waits { why, stays, .. }, Self::Waits { why: other, stays: at, .. }) => why == other && stays == at,
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for PortNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Several { ports, backend, asked } => {
                let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
                let ports = ports.join(", ");
                write!(
                    f,
                    "backend {backend} asks for port {asked}, others for another: ports {ports} are served, each by the backends that ask for it"
                )
            }
            Self::Waits { backend, why, stays: Some(port) } => {
                write!(f, "{why}; backend {backend} waits for it and serves on port {port} until then")
            }
            Self::Waits { backend, why, stays: None } => {
                write!(f, "{why}; backend {backend} waits for it and serves on no port until then")
            }
            Self::Last(port) => write!(f, "no registration names a port any more; the last one, {port}, counts"),
        }
    }
}

/// The service ports that get a section, and the reason for each one that does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// The pools behind the service ports on which HAProxy is to listen.
    pub listed: BTreeMap<ServicePort, PortPool>,
    /// Why services have no section at all.
    pub unlisted: BTreeMap<ServiceName, Unlisted>,
    /// Why service ports that are asked for have no section.
    pub refused: BTreeMap<ServicePort, Unlisted>,
    /// What services are told beside that.
    pub notes: BTreeMap<ServiceName, Vec<PortNote>>,
    /// Another program listens on the stats page's port: there is none for now.
    pub stats_taken: bool,
    /// Another program listens where the edge should: it listens nowhere for now.
    pub edge_taken: bool,
}

impl Ports {
    /// Whether the same services listen on the same ports for the same reasons, whatever their pools.
    pub fn same_places(&self, other: &Self) -> bool {
        let places = |ports: &Self| (ports.stats_taken, ports.edge_taken, ports.listed.len());
        places(self) == places(other)
            && self.listed.keys().eq(other.listed.keys())
            && self.unlisted == other.unlisted
            && self.refused == other.refused
            && self.notes == other.notes
    }

    /// Why a service is not in the file, in words: one reason for each port that it asks for.
    pub fn why_unlisted(&self, service: &ServiceName, reason: &Unlisted) -> String {
        let refused = self.refused.iter().filter(|(at, _)| at.service == *service).map(|(_, why)| why.to_string());
        let refused: Vec<String> = refused.collect();
        if refused.is_empty() { reason.to_string() } else { refused.join("; ") }
    }
}
