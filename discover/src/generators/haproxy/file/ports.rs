//! Which service listens on which port. A service keeps the port that it has; else the oldest claim counts, then the lowest name. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use model::{Backend, BackendId, Pool, Port, ServiceMap, ServiceName, Transport};

use super::settings::HaproxySettings;
use super::tenants::Tenants;
use crate::haproxy::process::ports::BindReason;
use crate::seniority::Seniority;

/// Why a service has no section of its own, though it has backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlisted {
    /// No registration says on which port clients expect it.
    NoPort,
    /// Datagrams only.
    UdpOnly,
    /// Another service has the port.
    Clash {
        /// The port.
        port: Port,
        /// Who has it.
        winner: ServiceName,
    },
    /// The operator does not allow the port.
    NotAllowed(Port),
    /// discover itself, its stats page or its edge listens there.
    Reserved(Port),
    /// The system does not let it be opened.
    Closed(Port, BindReason),
    /// A container of this host publishes it, whether it runs or not.
    Published {
        /// The port.
        port: Port,
        /// The container's name.
        container: Arc<str>,
    },
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
        }
    }
}

impl Unlisted {
    /// Who has the port that the service asks for.
    pub fn winner(&self) -> Option<&ServiceName> {
        match self {
            Self::Clash { winner, .. } => Some(winner),
            _ => None,
        }
    }

    /// The port that the service asks for and another has.
    pub fn wanted_in_vain(&self) -> Option<Port> {
        match self {
            Self::Clash { port, .. } => Some(*port),
            _ => None,
        }
    }
}

/// What of a service's registrations does not count, where they name its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disputed {
    /// One asks for another port than the one that counts.
    Other {
        /// The port that counts.
        counts: Port,
        /// Who asks for another; one of perhaps several.
        backend: BackendId,
        /// Which.
        asked: Port,
    },
    /// None names a port any more: the last one counts.
    Last(Port),
}

impl fmt::Display for Disputed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other { counts, backend, asked } => write!(
                f,
                "backend {backend} asks for port {asked}; port {counts} counts, which was first, until no backend asks for it"
            ),
            Self::Last(port) => write!(f, "no registration names a port any more; the last one, {port}, counts"),
        }
    }
}

/// The port of each service that gets a section, and the reason for each one that does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// Ports by service.
    pub listed: BTreeMap<ServiceName, Port>,
    /// Reasons by service.
    pub unlisted: BTreeMap<ServiceName, Unlisted>,
    /// Of services whose registrations do not agree on their port, what does not count.
    pub disputed: BTreeMap<ServiceName, Disputed>,
    /// Another program listens on the stats page's port: there is none for now.
    pub stats_taken: bool,
    /// Another program listens where the edge should: it listens nowhere for now.
    pub edge_taken: bool,
}

/// Why nobody can listen on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shut {
    /// The system refuses it, for that reason.
    Refused(BindReason),
    /// The container of that name publishes it, whether it runs or not.
    Container(Arc<str>),
}

/// What is known beside the registrations.
#[derive(Debug)]
pub struct Standing<'a> {
    /// Who has which port.
    pub tenants: &'a Tenants,
    /// Services without a backend that is registered and of whose held ones none works: they yield.
    pub absent: &'a BTreeSet<ServiceName>,
    /// Ports on which nobody can listen.
    pub shut: &'a BTreeMap<Port, Shut>,
}

/// Gives each service its port. Of several that ask for one, those with a backend that is registered or works come first; among
/// them [`Seniority`] decides.
pub fn assign(services: &ServiceMap, settings: &HaproxySettings, standing: &Standing<'_>) -> Ports {
    let stats_taken =
        settings.stats_port.is_some_and(|port| matches!(standing.shut.get(&port), Some(Shut::Refused(_))));
    let mut ports = Ports { stats_taken, ..Ports::default() };
    if settings.service_ports.is_none() {
        return ports; // as the operator wants it: nothing to be told of any service
    }
    let mut winners: BTreeMap<Port, ((bool, Seniority<'_>), &ServiceName)> = BTreeMap::new();
    let mut asking: Vec<(&ServiceName, Port)> = Vec::with_capacity(services.len());
    for (service, pool) in services {
        let has = standing.tenants.port_of(service);
        let wish = match wish(pool, has) {
            Ok(wish) => wish,
            Err(reason) => {
                ports.unlisted.insert(service.clone(), reason);
                continue;
            }
        };
        if let Some(disputed) = wish.disputed {
            ports.disputed.insert(service.clone(), disputed);
        }
        let port = wish.port;
        let refused = match standing.shut.get(&port) {
            _ if !settings.service_ports.contains(port) => Unlisted::NotAllowed(port),
            _ if settings.stats_port == Some(port) || settings.reserved.contains(&port) => Unlisted::Reserved(port),
            Some(Shut::Refused(reason)) => Unlisted::Closed(port, *reason),
            Some(Shut::Container(container)) => Unlisted::Published { port, container: container.clone() },
            None => {
                asking.push((service, port));
                let seniority = Seniority::new(has == Some(port), wish.created, service.as_str());
                let rank = (standing.absent.contains(service), seniority);
                match winners.entry(port) {
                    Entry::Vacant(first) => _ = first.insert((rank, service)),
                    Entry::Occupied(mut winner) if rank < winner.get().0 => _ = winner.insert((rank, service)),
                    Entry::Occupied(_) => {}
                }
                continue;
            }
        };
        ports.unlisted.insert(service.clone(), refused);
    }
    for (service, port) in asking {
        let winner = standing.tenants.awaited(port).or(winners.get(&port).map(|(_, winner)| *winner));
        match winner.filter(|winner| *winner != service) {
            None => _ = ports.listed.insert(service.clone(), port),
            Some(winner) => {
                ports.unlisted.insert(service.clone(), Unlisted::Clash { port, winner: winner.clone() });
            }
        }
    }
    ports
}

/// The same where nothing is known but the registrations.
pub fn assign_anew(services: &ServiceMap, settings: &HaproxySettings) -> Ports {
    let (tenants, absent, shut) = (Tenants::default(), BTreeSet::new(), BTreeMap::new());
    assign(services, settings, &Standing { tenants: &tenants, absent: &absent, shut: &shut })
}

/// The port that a service asks for.
struct Wish {
    port: Port,
    /// When the oldest registration that asks for it was created.
    created: Option<u64>,
    disputed: Option<Disputed>,
}

/// Of two backends of a service the lower one's wish counts: whether it asks for another port than the service has, its age, its id.
type Rank<'a> = (bool, Option<u64>, &'a BackendId);

/// What the backends of a service ask for: the port that it `has`, as long as one of them does, else what the oldest one asks for.
/// A backend that names none asks for the port that its service has: such a one lost its `port` key, which is no wish.
fn wish(pool: &Pool, has: Option<Port>) -> Result<Wish, Unlisted> {
    let asks = |backend: &Backend| backend.service_port.or(has);
    let mut first: Option<(Rank<'_>, Port)> = None;
    let mut other: Option<(&BackendId, Port)> = None;
    let (mut tcp, mut named) = (false, false);
    for backend in pool.backends().iter().filter(|b| b.transport == Transport::Tcp) {
        tcp = true;
        let Some(port) = asks(backend) else { continue };
        named |= backend.service_port == Some(port);
        let rank = (Some(port) != has, Some(backend.created.unwrap_or(u64::MAX)), &backend.id);
        let loser = match first {
            None => {
                first = Some((rank, port));
                continue;
            }
            Some((before, counts)) if rank < before => {
                first = Some((rank, port));
                (before.2, counts)
            }
            Some(_) => (&backend.id, port),
        };
        other = other.filter(|(_, asked)| first.is_some_and(|(_, counts)| *asked != counts)).or(Some(loser));
    }
    let Some(((_, created, _), port)) = first else {
        return Err(if tcp || pool.is_empty() { Unlisted::NoPort } else { Unlisted::UdpOnly });
    };
    let other = other.filter(|(_, asked)| *asked != port);
    let disputed = match other {
        Some((backend, asked)) => Some(Disputed::Other { counts: port, backend: backend.clone(), asked }),
        None => (!named).then_some(Disputed::Last(port)),
    };
    Ok(Wish { port, created, disputed })
}

#[cfg(test)]
#[path = "ports_tests.rs"]
mod tests;
