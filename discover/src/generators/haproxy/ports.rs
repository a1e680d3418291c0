//! Which service listens on which port: decided from names alone, so that it is the same at every start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use common::model::{Port, ServiceMap, ServiceName, Transport};

use super::settings::HaproxySettings;

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
    /// Another program listens there: HAProxy could not bind it.
    Taken(Port),
}

impl fmt::Display for Unlisted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPort => f.write_str("no port: neither a service_port in its registrations nor a `port` key"),
            Self::UdpOnly => f.write_str("UDP only, which HAProxy does not balance"),
            Self::Clash { port, winner } => write!(f, "port {port} belongs to service {winner}, the lower name"),
            Self::NotAllowed(port) => write!(f, "port {port} is outside --service-ports"),
            Self::Reserved(port) => write!(f, "port {port} is used by discover itself"),
            Self::Taken(port) => write!(f, "port {port} is taken by another program on this host"),
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
    /// Another program listens on the stats page's port: there is none for now.
    pub stats_taken: bool,
    /// Another program listens where the edge should: it listens nowhere for now.
    pub edge_taken: bool,
}

/// Gives each service its port; of two that want one port the lower name has it.
pub fn assign(services: &ServiceMap, settings: &HaproxySettings, taken: &BTreeSet<Port>) -> Ports {
    let stats_taken = settings.stats_port.is_some_and(|port| taken.contains(&port));
    let mut ports = Ports { stats_taken, ..Ports::default() };
    if settings.service_ports.is_none() {
        return ports; // as the operator wants it: nothing to be told of any service
    }
    let mut owners: BTreeMap<Port, ServiceName> = BTreeMap::new();
    for (service, pool) in services {
        let tcp = || pool.backends().iter().filter(|b| b.transport == Transport::Tcp);
        let wanted = match tcp().find_map(|b| b.service_port) {
            None if tcp().next().is_none() && !pool.is_empty() => Err(Unlisted::UdpOnly),
            None => Err(Unlisted::NoPort),
            Some(port) if !settings.service_ports.contains(port) => Err(Unlisted::NotAllowed(port)),
            Some(port) if settings.stats_port == Some(port) || settings.reserved.contains(&port) => {
                Err(Unlisted::Reserved(port))
            }
            Some(port) if taken.contains(&port) => Err(Unlisted::Taken(port)),
            Some(port) => match owners.get(&port) {
                Some(winner) => Err(Unlisted::Clash { port, winner: winner.clone() }),
                None => Ok(port),
            },
        };
        match wanted {
            Ok(port) => {
                owners.insert(port, service.clone());
                ports.listed.insert(service.clone(), port);
            }
            Err(reason) => {
                ports.unlisted.insert(service.clone(), reason);
            }
        }
    }
    ports
}
