//! What a service's config makes of its discovered backends: default servers, port override, the last ones kept, label
//! filters, leader election. Pure; a pool that did not change stays the same one.

use std::collections::HashSet;
use std::sync::Arc;

use common::model::{Backend, InOrder, Pool, Port, ServiceMap, ServiceName};
use common::registry::GeneratorConfigs;
use foldhash::fast::RandomState;
use serde_json::{Map, Value};
use tracing::warn;

use super::{Desired, Sections};
use crate::config::types::{LabelFilter, Service};
use crate::config::{Config, registration};

/// Every configured service with what counts for it now.
#[derive(Debug)]
pub struct Policies {
    /// In order of name, as maps of services are.
    all: Vec<Policy>,
    /// What counts, of all of them.
    output: ServiceMap,
    sections: Sections,
}

#[derive(Debug)]
struct Policy {
    /// The service's, at hand.
    name: ServiceName,
    service: Arc<Service>,
    defaults: Vec<Arc<Backend>>,
    /// The last answer.
    input: Option<Arc<Pool>>,
    /// What became of it, before filters and election.
    chosen: Arc<Pool>,
    /// What counts.
    output: Arc<Pool>,
}

impl Policies {
    /// The policies of this config's services. Before any answer their default servers count.
    pub fn new(config: &Config) -> Self {
        let mut all: Vec<Policy> = config.services.iter().map(|s| Policy::new(s.clone())).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let output = all.iter().map(|p| (p.name.clone(), p.output.clone())).collect();
        Self { all, output, sections: Sections::new(config) }
    }

    /// What counts, given what discovery says. A service that is missing was never answered for.
    pub fn apply(&mut self, services: &ServiceMap) -> ServiceMap {
        let mut answers = InOrder::of(services);
        for policy in &mut self.all {
            if let Some(pool) = answers.find(&policy.name)
                && policy.input.as_ref().is_none_or(|was| !Arc::ptr_eq(was, pool))
            {
                policy.answer(pool);
                policy.input = Some(pool.clone());
                policy.settle();
                self.output.insert(policy.name.clone(), policy.output.clone());
            }
        }
        self.output.clone()
    }

    /// Makes what is desired of what discovery says, and of what a registry says to the generators.
    pub fn apply_to(&mut self, desired: &mut Desired, configs: &GeneratorConfigs) {
        desired.services = self.apply(&desired.services);
        self.sections.hear(configs);
        desired.configured = self.sections.now().clone();
        desired.refused = self.sections.refused().clone();
    }
}

impl Policy {
    fn new(service: Arc<Service>) -> Self {
        let port = service.backend_port_override;
        let read = |map| registration::read(map, port).ok().map(Arc::new); // they were tried when the config was read
        let defaults: Vec<Arc<Backend>> = service.default_servers.iter().filter_map(read).collect();
        let chosen: Arc<Pool> = Arc::new(defaults.iter().cloned().collect());
        let name = service.name.clone();
        let mut policy = Self { name, service, defaults, input: None, chosen, output: Arc::default() };
        policy.settle();
        policy
    }

    /// Discovery has answered.
    fn answer(&mut self, pool: &Arc<Pool>) {
        let service = &self.service;
        let kept = self.defaults.iter().filter(|_| service.keep_default_servers);
        let plain = service.backend_port_override.is_none() && !service.keep_default_servers;
        let new: Arc<Pool> = match plain && first_of_each(pool.backends()).all(|first| first) {
            true => pool.clone(),
            false => {
                let all = pool.backends().iter().chain(kept).map(|b| at_port(b, service.backend_port_override));
                let all: Vec<Arc<Backend>> = all.collect();
                let firsts = all.iter().zip(first_of_each(&all)).filter(|(_, first)| *first);
                Arc::new(firsts.map(|(b, _)| b.clone()).collect())
            }
        };
        if *new == *self.chosen {
            return; // another order is no change
        }
        self.chosen = match (new.is_empty(), self.defaults.is_empty()) {
            (false, _) => new,
            (true, false) => Arc::new(self.defaults.iter().cloned().collect()),
            (true, true) if service.use_previous_backends => {
                let kept = self.chosen.len();
                warn!(service = %service.name, kept, "Discovery answers that there is none; the previous backends stay.");
                return;
            }
            (true, true) => new,
        };
    }

    /// Filters and election, read from what was chosen.
    fn settle(&mut self) {
        let filtered = self.service.discovery.filters().next().is_some();
        if !filtered && !self.service.leader_election {
            self.output = self.chosen.clone();
            return;
        }
        let passing = |b: &&Arc<Backend>| passes(self.service.discovery.filters(), b);
        let mut left: Vec<Arc<Backend>> = self.chosen.backends().iter().filter(passing).cloned().collect();
        if self.service.leader_election {
            // Without an id on every one there is no leader: all of them count.
            let leader = left.iter().min_by_key(|b| sequence(b)).filter(|_| left.iter().all(|b| sequence(b).is_some()));
            match leader.cloned() {
                Some(leader) => left = vec![leader],
                None => warn!(service = %self.service.name, "No leader: not all backends have an id."),
            }
        }
        let output: Pool = left.into_iter().collect();
        if output != *self.output {
            self.output = Arc::new(output);
        }
    }
}

/// Of each backend whether it is the first with its host, port and name: further ones do not count.
fn first_of_each(backends: &[Arc<Backend>]) -> impl Iterator<Item = bool> {
    let mut seen = HashSet::with_capacity_and_hasher(backends.len(), RandomState::default());
    backends.iter().map(move |b| seen.insert((&b.host, b.port, &b.name)))
}

/// The number that orders leaders. A key's last part is one where its writer numbers its keys (Nerve's in-order keys).
fn sequence(backend: &Backend) -> Option<u64> {
    let of_key = || backend.id.as_str().rsplit([':', '_']).next()?.parse().ok();
    backend.sequence.or_else(|| if backend.raw.is_none() { of_key() } else { None })
}

/// The backend at another port, in its raw form too.
fn at_port(backend: &Arc<Backend>, port: Option<u16>) -> Arc<Backend> {
    let Some(port) = port.and_then(Port::new).filter(|port| *port != backend.port) else { return backend.clone() };
    let raw = backend.raw.as_deref().and_then(|raw| serde_json::from_str::<Map<String, Value>>(raw).ok());
    let raw = raw.map(|mut raw| {
        raw.insert("port".to_owned(), port.get().into());
        Arc::from(Value::Object(raw).to_string())
    });
    Arc::new(Backend { port, raw, ..(**backend).clone() })
}

/// Whether a backend passes all of these filters.
pub fn passes<'a>(mut filters: impl Iterator<Item = &'a LabelFilter>, backend: &Backend) -> bool {
    filters.all(|filter| matches(filter, backend))
}

fn matches(filter: &LabelFilter, backend: &Backend) -> bool {
    let equal = match (backend.labels.get(&filter.label), &filter.value) {
        (None, value) => value.is_null(),
        (Some(label), Value::String(value)) => label == value,
        (Some(label), value) => {
            let text = value.to_string();
            text == *label
        }
    };
    match filter.condition.as_str() {
        "equals" => equal,
        "not-equals" => !equal,
        _ => false,
    }
}
