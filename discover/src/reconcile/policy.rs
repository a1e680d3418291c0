//! What a service's config makes of its discovered backends: default servers, port override, the last ones kept, label
//! filters, leader election. Pure; a pool that did not change stays the same one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use model::{Backend, InOrder, Pool, Port, ServiceMap, ServiceName};
use registry::GeneratorConfigs;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::warn;

use super::{Desired, Sections};
use crate::synapse::types::{LabelFilter, Service};
use crate::synapse::{Config, registration};

/// Every configured service with what counts for it now.
#[derive(Debug)]
pub struct Policies {
    /// In order of name, as maps of services are.
    all: Vec<Policy>,
    /// What counts, of all of them.
    output: ServiceMap,
    /// Since when previous backends stand in for none, by service.
    previous: BTreeMap<ServiceName, Instant>,
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
        Self { all, output, previous: BTreeMap::new(), sections: Sections::new(config) }
    }

    /// Goes on from what was routed before: it counts until discovery answers, and is what an empty answer keeps.
    pub fn beginning_with(mut self, routed: &ServiceMap) -> Self {
        let mut routed = InOrder::of(routed);
        for policy in &mut self.all {
            let Some(pool) = routed.find(&policy.name).filter(|_| policy.defaults.is_empty()) else { continue };
            (policy.chosen, policy.output) = (pool.clone(), pool.clone());
            self.output.insert(policy.name.clone(), pool.clone());
        }
        self
    }

    /// What counts, given what discovery says `now`. A service that is missing was never answered for.
    pub fn apply(&mut self, services: &ServiceMap, now: Instant) -> &ServiceMap {
        let mut answers = InOrder::of(services);
        for policy in &mut self.all {
            if let Some(pool) = answers.find(&policy.name)
                && policy.input.as_ref().is_none_or(|was| !Arc::ptr_eq(was, pool))
            {
                match policy.answer(pool) {
                    Answered::Taken => _ = self.previous.remove(&policy.name),
                    Answered::PreviousStay => _ = self.previous.entry(policy.name.clone()).or_insert(now),
                }
                policy.input = Some(pool.clone());
                policy.settle();
                self.output.insert(policy.name.clone(), policy.output.clone());
            }
        }
        &self.output
    }

    /// Makes what is desired `now` of what discovery says, and of what a registry says to the generators.
    pub fn apply_to(&mut self, desired: &mut Desired, configs: &GeneratorConfigs, now: Instant) {
        desired.services = self.apply(&desired.services, now).clone();
        desired.previous = self.previous.clone();
        self.sections.hear(configs);
        desired.configured = self.sections.now().clone();
        desired.refused = self.sections.refused().clone();
    }
}

/// What became of an answer.
enum Answered {
    Taken,
    /// It was that there is none, and the previous backends stay.
    PreviousStay,
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
    fn answer(&mut self, pool: &Arc<Pool>) -> Answered {
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
            return Answered::Taken; // another order is no change
        }
        self.chosen = match (new.is_empty(), self.defaults.is_empty()) {
            (false, _) => new,
            (true, false) => Arc::new(self.defaults.iter().cloned().collect()),
            (true, true) if service.use_previous_backends => {
                let kept = self.chosen.len();
                warn!(service = %service.name, kept, "Discovery answers that there is none; the previous backends stay.");
                return Answered::PreviousStay;
            }
            (true, true) => new,
        };
        Answered::Taken
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
            let ranks: Option<Vec<Rank>> = left.iter().map(|b| rank(b)).collect();
            let leader = ranks.and_then(|ranks| ranks.into_iter().zip(&left).min_by(|a, b| a.0.cmp(&b.0)));
            match leader.map(|(_, leader)| leader.clone()) {
                Some(leader) => left = vec![leader],
                None if left.is_empty() => {}
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

/// What orders leaders: a registration's `id` as it came, numbers by their size and texts by their letters.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Number(i64),
    Text(String),
}

fn rank(backend: &Backend) -> Option<Rank> {
    let number = |n: u64| i64::try_from(n).ok().map(Rank::Number);
    match backend.raw.as_deref().and_then(|raw| serde_json::from_str::<Value>(raw).ok()) {
        Some(raw) => match &raw["id"] {
            Value::Number(n) => n.as_i64().map(Rank::Number),
            Value::String(text) => Some(Rank::Text(text.clone())),
            _ => backend.sequence.and_then(number),
        },
        None => {
            // A key's last part is a number where its writer numbers its keys (Nerve's in-order keys).
            let of_key = || backend.id.as_str().rsplit([':', '_']).next()?.parse().ok();
            backend.sequence.or_else(of_key).and_then(number)
        }
    }
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
