//! Services as sections in Synapse's way. Pure, and cached: a service whose inputs did not change costs a look at them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::{InOrder, Pool, ServiceMap, ServiceName};
use serde_json::Value;

use super::ids::Ids;
use super::order::Shuffle;
use super::prepare::{self, Prepared, prepare};
use super::section::{Quarantined, Turn};
use super::state::State;
use crate::generators::haproxy::file::layout::{Layout, Section};
use crate::haproxy::api::version::Capabilities;
use crate::names::Resolved;
use crate::synapse::Config;
use crate::synapse::types::{Haproxy, Service};

/// Composes the file from a config of Synapse's.
#[derive(Debug)]
pub struct SynapseComposer {
    top: Arc<Haproxy>,
    shuffle: Shuffle,
    /// In the config's order, which is the file's.
    services: Vec<Entry>,
    /// Their places in order of name, as maps of services are.
    by_name: Vec<(ServiceName, usize)>,
    /// The services as they were last taken.
    configured: Arc<[Arc<Service>]>,
    header: Arc<str>,
    footer: Arc<str>,
    /// HAProxy lets a frontend and its backend have one name, as Synapse writes them.
    shared_names: bool,
    /// What is remembered, where that is wanted.
    state: Option<State>,
    state_changed: bool,
    renders: u64,
}

#[derive(Debug)]
struct Entry {
    service: Arc<Service>,
    prepared: Prepared,
    ids: Ids,
    cached: Option<Cached>,
}

#[derive(Debug)]
struct Cached {
    pool: Option<Arc<Pool>>,
    generation: u64,
    /// Until when nothing that is remembered is forgotten, in seconds since 1970.
    until: u64,
    section: Arc<Section>,
    quarantined: Vec<Quarantined>,
}

impl Cached {
    fn is_of(&self, pool: Option<&Arc<Pool>>, generation: u64, now: u64) -> bool {
        let same_pool = match (&self.pool, pool) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same_pool && self.generation == generation && now < self.until
    }
}

impl SynapseComposer {
    /// A composer for this config; `None` where it has no haproxy section. `state` is what a state file remembers.
    pub fn new(config: &Config, state: Option<State>) -> Option<Self> {
        let top = config.haproxy.clone()?;
        let shuffle = Shuffle::new(top.server_order_seed.unwrap_or_else(seed_of_this_host));
        let header: Arc<str> = prepare::header(&top).into();
        let services = config.services.iter().map(|service| {
            let prepared = prepare(service, &top, &header);
            Entry { service: service.clone(), prepared, ids: Ids::default(), cached: None }
        });
        let services: Vec<Entry> = services.collect();
        let names = services.iter().enumerate().map(|(n, e)| (e.service.name.clone(), n));
        let mut by_name: Vec<(ServiceName, usize)> = names.collect();
        by_name.sort();
        let (configured, footer) = (Arc::default(), "".into());
        let (shared_names, state_changed, renders) = (true, false, 0);
        let mut composer = Self {
            top,
            shuffle,
            services,
            by_name,
            configured,
            header,
            footer,
            shared_names,
            state,
            state_changed,
            renders,
        };
        composer.footer = composer.make_footer();
        Some(composer)
    }

    fn make_footer(&self) -> Arc<str> {
        let enabled = self.services.iter().filter(|e| !e.prepared.haproxy.disabled);
        prepare::footer(&self.top, enabled.map(|e| &e.prepared)).into()
    }

    /// What the config has that is left out or only HAProxy can judge.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.services.iter().flat_map(|e| &e.prepared.warnings).map(String::as_str)
    }

    /// What stands before the services' sections.
    pub fn header(&self) -> &str {
        &self.header
    }

    pub fn sections(&self) -> BTreeMap<ServiceName, Arc<str>> {
        let enabled = self.services.iter().filter(|entry| !entry.prepared.haproxy.disabled);
        enabled.map(|entry| (entry.service.name.clone(), entry.prepared.section.clone())).collect()
    }

    /// Sections rendered anew since the start.
    pub fn renders(&self) -> u64 {
        self.renders
    }

    /// Composes for a HAProxy that can do this; without a word about it, as Synapse does.
    pub fn suit(&mut self, can: &Capabilities) {
        if self.shared_names != can.shared_names {
            self.shared_names = can.shared_names;
            self.services.iter_mut().for_each(|entry| entry.cached = None);
        }
    }

    /// Takes the services as they count now, sections from a registry among them; they are those of the config, in its
    /// order. Costs nothing as long as they are the same.
    pub fn take(&mut self, configured: &Arc<[Arc<Service>]>) {
        if Arc::ptr_eq(&self.configured, configured) {
            return;
        }
        for (entry, service) in self.services.iter_mut().zip(configured.iter()) {
            if !Arc::ptr_eq(&entry.service, service) {
                entry.prepared = prepare(service, &self.top, &self.header);
                (entry.service, entry.cached) = (service.clone(), None);
            }
        }
        self.configured = configured.clone();
        self.footer = self.make_footer();
    }

    /// The layout of these services at `now`, in seconds since 1970. `names` gives the addresses of host names; without it
    /// they are taken as they are.
    pub fn compose(&mut self, services: &ServiceMap, names: Option<&Resolved>, now: u64) -> Layout {
        let generation = names.map_or(0, Resolved::generation);
        let mut pools = vec![None; self.services.len()];
        let mut in_order = InOrder::of(services);
        for (name, n) in &self.by_name {
            pools[*n] = in_order.find(name);
        }
        let mut sections = Vec::with_capacity(self.services.len());
        for (entry, pool) in self.services.iter_mut().zip(pools).filter(|(e, _)| !e.prepared.haproxy.disabled) {
            if let Some(cached) = entry.cached.as_ref().filter(|c| c.is_of(pool, generation, now)) {
                sections.push(cached.section.clone());
                continue;
            }
            self.renders += 1;
            let name = entry.service.name.clone();
            let mut turn = Turn::new(&self.top, &self.shuffle, names, self.shared_names, now, self.state.as_mut());
            let section = turn.section(&name, &entry.prepared, &mut entry.ids, pool.map(|p| &**p));
            let quarantined = turn.quarantined();
            let section = match entry.cached.take() {
                Some(old) if *old.section == section => old.section,
                _ => {
                    self.state_changed = true;
                    Arc::new(section)
                }
            };
            let until = self.state.as_ref().and_then(|s| s.next_end(&name)).unwrap_or(u64::MAX);
            sections.push(section.clone());
            entry.cached = Some(Cached { pool: pool.cloned(), generation, until, section, quarantined });
        }
        Layout { header: self.header.clone(), sections, footer: self.footer.clone(), rules: None }
    }

    /// Takes over the ids of a file that was written before a restart, so that the restart changes nothing.
    pub fn remember_ids(&mut self, layout: &Layout) {
        let sections: HashMap<&str, &Section> = layout.sections.iter().map(|s| (&*s.name, &**s)).collect();
        for entry in &mut self.services {
            let Some(section) = sections.get(&*entry.prepared.section) else { continue };
            entry.ids.remember(section.servers.iter().filter_map(|s| {
                let id = id_of(&s.params)?;
                Some((s.name.clone(), id))
            }));
        }
    }

    /// What the last turn left out.
    pub fn quarantined(&self) -> impl Iterator<Item = &Quarantined> {
        self.services.iter().filter_map(|e| e.cached.as_ref()).flat_map(|c| &c.quarantined)
    }

    /// The state file's path and text, if what is remembered has changed since the last time.
    pub fn changed_state(&mut self, now: u64) -> Option<(std::path::PathBuf, String)> {
        let changed = std::mem::take(&mut self.state_changed);
        let path = self.state.as_ref()?.path.clone().filter(|_| changed)?;
        Some((path, self.state_text(now)?))
    }

    /// The state file's text.
    pub fn state_text(&self, now: u64) -> Option<String> {
        let order: Vec<ServiceName> = self.services.iter().map(|e| e.service.name.clone()).collect();
        let raw = |service: &ServiceName| {
            let entry = self.services.iter().find(|e| e.service.name == *service);
            entry.map_or(Value::Null, |e| e.service.raw["haproxy"].clone())
        };
        Some(self.state.as_ref()?.render(&order, &raw, now))
    }
}

/// The number behind the word `id`.
fn id_of(params: &str) -> Option<u32> {
    params.split_ascii_whitespace().skip_while(|w| *w != "id").nth(1)?.parse().ok()
}

/// The same at every start of this host, another one on the next: so a fleet's clients do not all begin with one server.
fn seed_of_this_host() -> i64 {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let sum = crate::generators::haproxy::file::server::checksum(name.as_encoded_bytes());
    i64::try_from(sum % 2000).unwrap_or_default()
}
