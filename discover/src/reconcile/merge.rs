//! Several sources as one map of services.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use agent::watch::{Inlet, Observation};
use model::{BackendId, Pool, ServiceMap, ServiceName};
use registry::{Departure, GeneratorConfigs, Snapshot};

/// One source of pools.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name in status, logs and metrics.
    pub name: Arc<str>,
    /// Whether nothing may be written before it has answered once.
    pub required: bool,
    /// The one service that it is about: once it has answered, not to name this service is to say that it has no backend.
    pub answers_for: Option<ServiceName>,
    /// What it knows.
    pub inlet: Inlet<Snapshot>,
}

/// What all sources together say.
#[derive(Debug, Clone, Default)]
pub struct Merged {
    /// Every service; of one that several sources know, the pools one after the other.
    pub services: ServiceMap,
    /// How backends went that are no more.
    pub departed: Vec<Arc<HashMap<(ServiceName, BackendId), Departure>>>,
    /// Required sources that have not answered yet.
    pub pending: Vec<Arc<str>>,
    /// Config for generators; of a service that several sources configure, the first one's.
    pub generator_configs: GeneratorConfigs,
}

impl Merged {
    /// How a backend went, if its source knows.
    pub fn departure(&self, service: &ServiceName, id: &BackendId) -> Option<Departure> {
        let place = (service.clone(), id.clone());
        self.departed.iter().find_map(|d| d.get(&place)).copied()
    }
}

/// One allocation for every service without backends: it compares as unchanged.
static EMPTY: LazyLock<Arc<Pool>> = LazyLock::new(Arc::default);

/// Merges observations, in the order of their sources. A stale source counts with its last snapshot: it empties nothing.
pub fn merge<'a>(observations: impl IntoIterator<Item = (&'a Source, Observation<Snapshot>)>) -> Merged {
    let mut merged = Merged::default();
    let mut known: Vec<(&Source, Arc<Snapshot>)> = Vec::new();
    for (source, observation) in observations {
        match observation.snapshot() {
            None if source.required => merged.pending.push(source.name.clone()),
            None => {}
            Some(snapshot) => {
                merged.departed.push(snapshot.departed.clone());
                for (service, config) in snapshot.generator_configs.iter().filter(|(_, config)| !config.is_empty()) {
                    merged.generator_configs.entry(service.clone()).or_insert_with(|| config.clone());
                }
                known.push((source, snapshot.clone()));
            }
        }
    }
    let says_all =
        |source: &Source, said: &Snapshot| source.answers_for.as_ref().is_none_or(|s| said.services.contains_key(s));
    merged.services = match &known[..] {
        [(source, snapshot)] if says_all(source, snapshot) => snapshot.services.clone(),
        _ => all_of(&known),
    };
    merged
}

fn all_of(known: &[(&Source, Arc<Snapshot>)]) -> ServiceMap {
    let mut pools: BTreeMap<ServiceName, Vec<Arc<Pool>>> = BTreeMap::new();
    for (source, snapshot) in known {
        for (service, pool) in &snapshot.services {
            pools.entry(service.clone()).or_default().push(pool.clone());
        }
        if let Some(service) = &source.answers_for {
            pools.entry(service.clone()).or_default();
        }
    }
    pools.into_iter().map(|(service, pools)| (service, join(pools))).collect()
}

fn join(mut pools: Vec<Arc<Pool>>) -> Arc<Pool> {
    match pools.len() {
        0 => EMPTY.clone(),
        1 => pools.remove(0),
        _ => Arc::new(pools.iter().flat_map(|p| p.backends().iter().cloned()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use agent::watch::channel;

    use super::*;

    #[test]
    fn a_source_about_one_service_that_does_not_name_it_says_that_it_is_empty() {
        let (out, inlet) = channel();
        let name: ServiceName = "web".parse().unwrap();
        let source = Source { name: "web".into(), required: true, answers_for: Some(name.clone()), inlet };
        let observed = |source: &Source| merge([(source, source.inlet.borrow().clone())]);
        assert!(!observed(&source).services.contains_key(&name), "silence is no answer");
        out.publish(Arc::new(Snapshot::default()));
        let first = observed(&source).services[&name].clone();
        assert!(first.is_empty() && Arc::ptr_eq(&first, &observed(&source).services[&name]), "and it is no news twice");
    }
}
