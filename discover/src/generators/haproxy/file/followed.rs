//! Pools that change while everything else about the ports stays: the usual change, and the one that must not cost a look at every other
//! service. Pure.

use std::sync::Arc;

use containers::docker::PublishedPorts;
use model::{Pool, ServiceMap, ServiceName};

use super::ports::{Ports, ServicePort, Share, tcp};

/// What the ports were chosen from.
#[derive(Debug, Default)]
pub struct Followed {
    services: ServiceMap,
    /// What the containers of this host publish.
    published: Option<Arc<PublishedPorts>>,
}

impl Followed {
    pub fn chosen_from(services: &ServiceMap, published: Option<Arc<PublishedPorts>>) -> Self {
        Self { services: services.clone(), published }
    }

    /// The service ports whose pools have changed, where nothing else can have: the same services, the same published ports, and each
    /// changed pool is all of its service's one port in `ports` and asks for that port alone, with every backend. Who has a port keeps it, so
    /// nobody else gets or loses one by that.
    pub fn changes(
        &self,
        ports: &Ports,
        services: &ServiceMap,
        published: Option<&Arc<PublishedPorts>>,
    ) -> Option<Vec<(ServicePort, Arc<Pool>)>> {
        let same = self.published.as_ref().map(Arc::as_ptr) == published.map(Arc::as_ptr);
        if !same || self.services.len() != services.len() {
            return None;
        }
        let mut changes = Vec::new();
        for ((was, before), (is, pool)) in self.services.iter().zip(services) {
            if was != is {
                return None;
            }
            if !Arc::ptr_eq(before, pool) {
                changes.push((only_port(ports, is, pool)?, pool.clone()));
            }
        }
        Some(changes)
    }

    /// This pool is taken over.
    pub fn take(&mut self, service: &ServiceName, pool: &Arc<Pool>) {
        self.services.insert(service.clone(), pool.clone());
    }
}

/// The one port of a service that all of `pool` asks for, if that is so and there is nothing to be told of it.
fn only_port(ports: &Ports, service: &ServiceName, pool: &Pool) -> Option<ServicePort> {
    let mut listed = ports.listed.range(ServicePort::all_of(service));
    let (at, behind) = listed.next()?;
    let alone = listed.next().is_none() && behind.share == Share::Whole && !behind.apart;
    let quiet =
        !ports.notes.contains_key(service) && ports.refused.range(ServicePort::all_of(service)).next().is_none();
    let asks = tcp(pool).next().is_some() && tcp(pool).all(|backend| backend.service_port == Some(at.port));
    (alone && quiet && asks).then(|| at.clone())
}
