//! The configured services with the sections that a registry holds for them. A section counts whole or not at all; what
//! was taken stays until another one comes, as in Synapse.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::ServiceName;
use registry::GeneratorConfigs;
use tracing::{info, warn};

use crate::edge::sections::is_reserved;
use crate::synapse::types::{Haproxy, Service};
use crate::synapse::{Config, spelled, with_registry_sections};

/// The services of a config, each with what counts for it now.
#[derive(Debug)]
pub struct Sections {
    own: Vec<Arc<Service>>,
    places: HashMap<ServiceName, usize>,
    haproxy: Option<Arc<Haproxy>>,
    /// What the registry last said, whether it was taken or not.
    told: GeneratorConfigs,
    now: Arc<[Arc<Service>]>,
    refused: Arc<BTreeMap<ServiceName, String>>,
}

impl Sections {
    /// The services as the config has them.
    pub fn new(config: &Config) -> Self {
        let own = config.services.clone();
        let places = own.iter().enumerate().map(|(n, s)| (s.name.clone(), n)).collect();
        let now = own.clone().into();
        let (haproxy, told, refused) = (config.haproxy.clone(), GeneratorConfigs::new(), Arc::default());
        Self { own, places, haproxy, told, now, refused }
    }

    /// Takes what the registry says. Costs nothing where it says what it said before.
    pub fn hear(&mut self, configs: &GeneratorConfigs) {
        for (name, config) in configs {
            let Some(&at) = self.places.get(name) else { continue };
            if self.told.get(name).is_some_and(|was| Arc::ptr_eq(was, config) || was == config) {
                continue;
            }
            self.told.insert(name.clone(), config.clone());
            let allowed = self.haproxy.as_deref().map(|h| h.allow_registry_options.as_slice()).unwrap_or_default();
            let taken = with_registry_sections(&self.own[at], config, allowed).map_err(|e| e.to_string());
            match taken.and_then(|service| self.fits(at, &service).map(|()| service)) {
                Ok(service) => {
                    info!(service = %name, "Sections of this service are taken from the registry.");
                    Arc::make_mut(&mut self.refused).remove(name);
                    let mut now = self.now.to_vec();
                    now[at] = Arc::new(service);
                    self.now = now.into();
                }
                Err(problems) => {
                    warn!(service = %name, %problems, "Sections from the registry are refused; those before stay.");
                    Arc::make_mut(&mut self.refused).insert(name.clone(), problems);
                }
            }
        }
    }

    /// Two sections of one name, or two frontends at one place, would take the others down with them.
    fn fits(&self, at: usize, new: &Service) -> Result<(), String> {
        let Some(top) = self.haproxy.as_deref().filter(|_| !new.haproxy.disabled) else { return Ok(()) };
        let section = new.haproxy_section();
        let titles = top.extra_sections.iter().filter_map(|(title, _)| title.split_whitespace().nth(1));
        let ours = is_reserved(section) || section == "shared-frontend" || section.ends_with(":frontend");
        if section != new.name.as_str() && (ours || titles.into_iter().any(|title| title == section)) {
            return Err(format!("section {section} is not a service's"));
        }
        let places = |service: &Service| service.haproxy.bind_place(top).map_or_else(Vec::new, |place| spelled(&place));
        let own = places(new);
        let others = self.now.iter().enumerate().filter(|(n, s)| *n != at && !s.haproxy.disabled);
        for (_, other) in others {
            if other.haproxy_section() == section || other.name.as_str() == section {
                return Err(format!("section {section} is service {}'s already", other.name));
            }
            if places(other).iter().any(|place| own.contains(place)) {
                let place = new.haproxy.bind_place(top).unwrap_or_default();
                return Err(format!("{place} is where service {} listens already", other.name));
            }
        }
        Ok(())
    }

    /// The services as they count now: the same ones as long as nothing changed.
    pub fn now(&self) -> &Arc<[Arc<Service>]> {
        &self.now
    }

    /// Services whose sections from the registry are refused, and why.
    pub fn refused(&self) -> &Arc<BTreeMap<ServiceName, String>> {
        &self.refused
    }
}
