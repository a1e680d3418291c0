//! What the services ask of the edge, and what came of it. Pure, and decided anew only for the hosts for which somebody asks for
//! something else: one change beside ten thousand places costs what it changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;
use model::{HostPattern, Mode, ServiceMap, ServiceName};

use crate::edge::claims::{Asks, Claim, of_config, of_service};
use crate::edge::{EdgeSettings, Place, Routing, Upstream, decide, of_host, upstreams};
use crate::generators::haproxy::file::layout::Layout;

/// The claims of all services, the routing made of them, and who serves where.
#[derive(Debug, Default)]
pub struct Asking {
    asked: HashMap<ServiceName, Asks>,
    /// Who asks for anything under a host.
    askers: HashMap<HostPattern, BTreeSet<ServiceName>>,
    routing: Arc<Routing>,
    upstreams: Arc<[Upstream]>,
}

impl Asking {
    /// What happens where, and what came to nothing.
    pub fn routing(&self) -> &Arc<Routing> {
        &self.routing
    }

    /// Who serves where.
    pub fn upstreams(&self) -> &Arc<[Upstream]> {
        &self.upstreams
    }

    /// Decides anew about the hosts for which somebody asks otherwise than before; tells whether any service is another one at all.
    pub fn route(
        &mut self,
        services: &ServiceMap,
        running: &Layout,
        settings: &EdgeSettings,
        default_mode: Mode,
        is_first: bool,
    ) -> bool {
        let (mut hosts, mut other) = (BTreeSet::new(), is_first);
        for (service, pool) in services {
            let before = self.asked.get(service);
            if before.is_some_and(|asks| asks.pool().is_some_and(|was| Arc::ptr_eq(was, pool))) {
                continue;
            }
            other = true;
            let asks = of_service(service, pool, settings, default_mode, before);
            hosts.extend(self.take(service, asks));
        }
        if self.asked.len() > services.len() {
            let gone: Vec<ServiceName> = self.asked.keys().filter(|s| !services.contains_key(*s)).cloned().collect();
            for service in gone {
                other = true;
                hosts.extend(self.take(&service, Asks::default()));
                self.asked.remove(&service);
            }
        }
        let before = |place: &Place| running.rules.as_ref().and_then(|rules| rules.service_at(place));
        let own: Vec<Claim> = of_config(settings).collect();
        if is_first {
            let all = own.iter().chain(self.asked.values().flat_map(|asks| asks.claims.values()));
            self.routing = Arc::new(decide(all, settings, before));
        } else if !hosts.is_empty() {
            let own = own.iter().filter(|claim| hosts.contains(&claim.place.host));
            let asked = hosts.iter().flat_map(|host| {
                let askers = self.askers.get(host).into_iter().flatten();
                let asks = askers.filter_map(|service| self.asked.get(service));
                asks.flat_map(|asks| of_host(&asks.claims, host).map(|(_, claim)| claim))
            });
            let decided = decide(own.chain(asked), settings, before);
            Routing::replace(&mut self.routing, &hosts, decided);
        }
        if other {
            self.upstreams = upstreams(&self.routing, |service| self.asked.get(service)).into();
        }
        other
    }

    /// Takes over what a service asks for. Returns the hosts for which it asks otherwise than before.
    fn take(&mut self, service: &ServiceName, asks: Asks) -> BTreeSet<HostPattern> {
        let none = Asks::default();
        let hosts = asks.differ_in(self.asked.get(service).unwrap_or(&none));
        for host in &hosts {
            if of_host(&asks.claims, host).next().is_some() {
                self.askers.entry(host.clone()).or_default().insert(service.clone());
            } else if let Some(askers) = self.askers.get_mut(host) {
                askers.remove(service);
                if askers.is_empty() {
                    self.askers.remove(host);
                }
            }
        }
        self.asked.insert(service.clone(), asks);
        hosts
    }
}

#[cfg(test)]
#[path = "asking_tests.rs"]
mod tests;
