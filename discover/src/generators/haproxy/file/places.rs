//! Under which names HAProxy has services and their backends, whichever way the file is composed. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Backend, Pool, ServiceName, Transport};

use super::names::{owner_of, port_section_name, section_name, server_name, server_name_in};
use super::synapse::server::Name;
use crate::edge::sections::section_number;

/// In which sections services are, apart from those of the edge.
#[derive(Debug, Clone)]
pub enum Places {
    /// docker-discover's way: a section's name tells the service.
    Native,
    /// Synapse's: the section of each service that has one.
    Synapse(Arc<BTreeMap<ServiceName, Arc<str>>>),
}

/// In which sections of the edge services are: of each way the sections by service.
#[derive(Debug, Clone, Default)]
pub struct EdgePlaces<'a>(pub Vec<&'a BTreeMap<ServiceName, BTreeSet<String>>>);

impl EdgePlaces<'_> {
    pub fn sections(&self, service: &ServiceName) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|sections| sections.get(service)).flatten().map(String::as_str)
    }

    /// The services that have a part in a section; none where it is not the edge's.
    pub fn services_of(&self, section: &str) -> impl Iterator<Item = &ServiceName> {
        let maps = section_number(section).map(|_| self.0.iter()).into_iter().flatten();
        maps.flat_map(|sections| sections.iter()).filter(|(_, of)| of.contains(section)).map(|(service, _)| service)
    }
}

impl Places {
    /// The sections that a service with this pool may have of its own.
    pub fn sections(&self, service: &ServiceName, pool: Option<&Pool>) -> BTreeSet<Arc<str>> {
        match self {
            Self::Native => {
                let ports = pool.iter().flat_map(|pool| pool.backends()).filter_map(|backend| backend.service_port);
                let further = ports.map(|port| port_section_name(service, port));
                std::iter::once(section_name(service)).chain(further).collect()
            }
            Self::Synapse(sections) => sections.get(service).cloned().into_iter().collect(),
        }
    }

    /// Whether a service with this pool asks for a section of its own.
    pub fn is_asked_for(&self, service: &ServiceName, pool: &Pool) -> bool {
        match self {
            Self::Native => {
                let mut tcp = pool.backends().iter().filter(|b| b.transport == Transport::Tcp);
                tcp.any(|b| b.service_port.is_some())
            }
            Self::Synapse(sections) => sections.contains_key(service),
        }
    }

    /// The service whose own section is called so.
    pub fn service_of(&self, section: &str) -> Option<ServiceName> {
        match self {
            Self::Native => owner_of(section).map(|(service, _)| service),
            Self::Synapse(sections) => {
                sections.iter().find(|(_, name)| ***name == *section).map(|(service, _)| service.clone())
            }
        }
    }

    /// A backend's name in its service's own section.
    pub fn server(&self, backend: &Backend) -> Arc<str> {
        match self {
            Self::Native => server_name(backend.id.as_str()),
            Self::Synapse(_) => Name::of(backend, backend.port.get(), &mut String::new()).text,
        }
    }

    /// A backend's possible names in a section of the edge; the first that is there is its own.
    pub fn servers_at_the_edge(service: &ServiceName, backend: &Backend) -> [Arc<str>; 2] {
        [server_name_in(service, backend.id.as_str()), server_name(backend.id.as_str())]
    }
}
