//! What the services ask of the edge, and what came of it. Pure, and decided anew only where somebody asks for something else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::{Mode, Pool, ServiceMap, ServiceName};

use crate::edge::claims::{Claim, of_config, of_service};
use crate::edge::{EdgeSettings, Place, Routing, decide};
use crate::generators::haproxy::file::layout::Layout;

/// The claims of all services, and the routing made of them.
#[derive(Debug, Default)]
pub struct Asking {
    asked: HashMap<ServiceName, Asked>,
    routing: Arc<Routing>,
}

/// What one service asks for.
#[derive(Debug)]
struct Asked {
    pool: Arc<Pool>,
    claims: BTreeMap<Place, Claim>,
}

impl Asking {
    /// What happens where, and what came to nothing.
    pub fn routing(&self) -> &Arc<Routing> {
        &self.routing
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
        let (mut changed, mut other) = (is_first, false);
        for (service, pool) in services {
            let asked = self.asked.get_mut(service);
            if asked.as_ref().is_some_and(|asked| Arc::ptr_eq(&asked.pool, pool)) {
                continue;
            }
            other = true;
            let claims = of_service(service, pool, settings, default_mode);
            match asked {
                Some(asked) if asked.claims == claims => asked.pool = pool.clone(),
                _ => {
                    changed |= !claims.is_empty() || asked.is_some_and(|asked| !asked.claims.is_empty());
                    self.asked.insert(service.clone(), Asked { pool: pool.clone(), claims });
                }
            }
        }
        if self.asked.len() > services.len() {
            self.asked.retain(|service, asked| {
                let stays = services.contains_key(service);
                changed |= !stays && !asked.claims.is_empty();
                other |= !stays;
                stays
            });
        }
        if !changed {
            return other;
        }
        let before = |place: &Place| running.rules.as_ref().and_then(|rules| rules.service_at(place));
        let own: Vec<Claim> = of_config(settings).collect();
        let all = own.iter().chain(self.asked.values().flat_map(|asked| asked.claims.values()));
        let routing = decide(all, settings, before);
        if routing != *self.routing {
            self.routing = Arc::new(routing);
        }
        true
    }
}
