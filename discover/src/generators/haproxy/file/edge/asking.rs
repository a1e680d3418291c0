//! What the services ask of the edge, and what came of it. Pure, and decided anew only where somebody asks for something else.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Mode, ServiceMap, ServiceName};

use crate::edge::claims::{Asks, Claim, of_config, of_service};
use crate::edge::{EdgeSettings, Place, Routing, Upstream, decide, upstreams};
use crate::generators::haproxy::file::layout::Layout;

/// The claims of all services, the routing made of them, and who serves where.
#[derive(Debug, Default)]
pub struct Asking {
    asked: HashMap<ServiceName, Asks>,
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

    /// Decides anew where a service asks for something else than before; tells whether any service is another one at all.
    pub fn route(
        &mut self,
        services: &ServiceMap,
        running: &Layout,
        settings: &EdgeSettings,
        default_mode: Mode,
        is_first: bool,
    ) -> bool {
        let (mut changed, mut other) = (is_first, is_first);
        for (service, pool) in services {
            let before = self.asked.get(service);
            if before.is_some_and(|asks| asks.pool().is_some_and(|was| Arc::ptr_eq(was, pool))) {
                continue;
            }
            other = true;
            let asks = of_service(service, pool, settings, default_mode, before);
            changed |= before.map_or(!asks.claims.is_empty(), |before| before.claims != asks.claims);
            self.asked.insert(service.clone(), asks);
        }
        if self.asked.len() > services.len() {
            self.asked.retain(|service, asks| {
                let stays = services.contains_key(service);
                changed |= !stays && !asks.claims.is_empty();
                other |= !stays;
                stays
            });
        }
        if changed {
            let before = |place: &Place| running.rules.as_ref().and_then(|rules| rules.service_at(place));
            let own: Vec<Claim> = of_config(settings).collect();
            let all = own.iter().chain(self.asked.values().flat_map(|asks| asks.claims.values()));
            let routing = decide(all, settings, before);
            if routing != *self.routing {
                self.routing = Arc::new(routing);
            }
        }
        if other {
            self.upstreams = upstreams(&self.routing, |service| self.asked.get(service)).into();
        }
        other
    }
}
