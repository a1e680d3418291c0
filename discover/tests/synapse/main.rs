//! Every key of Synapse's config, by what it does. The table of keys names the test of each.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy excuses only functions marked as tests"
)]

mod composing;
mod edge;
mod generators;
mod judged;
mod keys;
mod owners;
mod policies;
mod reading;
mod registry;
mod safety;
mod table;

use std::path::Path;
use std::sync::Arc;

use ::registry::GeneratorConfigs;
use discover::addresses::AddressArgs;
use discover::generators::haproxy::file::synapse::SynapseComposer;
use discover::generators::haproxy::file::synapse::state::State;
use discover::reconcile::{Desired, Policies};
use discover::synapse::load::load_with;
use discover::synapse::types::Service;
use discover::synapse::{Config, ConfigError, LoadedConfig};
use model::ServiceMap;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Reads a config that is given as a value.
fn load(config: &Value) -> Result<LoadedConfig, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    load_in(dir.path(), config)
}

fn load_in(dir: &Path, config: &Value) -> Result<LoadedConfig, ConfigError> {
    let path = dir.join("synapse.json");
    std::fs::write(&path, config.to_string()).unwrap();
    load_with(&path, &|_| None)
}

/// A config with one service `s` and the least that haproxy needs; both are merged with what is given.
fn config_of(top: Value, service: Value) -> Value {
    let mut haproxy = json!({"global": ["maxconn 9"], "defaults": ["mode http"], "do_writes": false, "do_socket": false, "do_reloads": false});
    let mut own = json!({"discovery": {"method": "base"}});
    for (to, from) in [(&mut haproxy, top), (&mut own, service)] {
        to.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
    }
    json!({"haproxy": haproxy, "services": {"s": own}})
}

fn config(top: Value, service: Value) -> Config {
    load(&config_of(top, service)).unwrap().config
}

/// Rounds of one process, in memory.
struct World {
    config: Config,
    policies: Policies,
    composer: SynapseComposer,
    configs: GeneratorConfigs,
    now: u64,
}

impl World {
    fn new(config: Config, state: Option<State>) -> Self {
        let policies = Policies::new(&config);
        let composer = SynapseComposer::new(&config, state).unwrap();
        Self { config, policies, composer, configs: GeneratorConfigs::new(), now: 1000 }
    }

    fn of(top: Value, service: Value) -> Self {
        Self::new(config(top, service), None)
    }

    /// One answer for service `s`; gives the whole file.
    fn file(&mut self, backends: Option<Value>) -> String {
        let desired = self.desired(backends);
        self.composer.take(&desired.configured);
        self.composer.compose(&desired.services, None, self.now).render()
    }

    /// One answer for every service; gives what is desired then.
    fn desired(&mut self, backends: Option<Value>) -> Desired {
        let mut desired = Desired { services: self.answers(backends), ..Desired::default() };
        self.policies.apply_to(&mut desired, &self.configs, Instant::now());
        desired
    }

    fn services(&mut self, backends: Option<Value>) -> ServiceMap {
        self.desired(backends).services
    }

    fn answers(&self, backends: Option<Value>) -> ServiceMap {
        let Some(list) = backends else { return ServiceMap::new() };
        let answer = |service: &Arc<Service>| {
            let port = service.backend_port_override;
            let read = |b: &Value| discover::synapse::registration::read(b.as_object().unwrap(), port).ok();
            let pool = list.as_array().unwrap().iter().filter_map(read).map(Arc::new).collect();
            (service.name.clone(), Arc::new(pool))
        };
        self.config.services.iter().map(answer).collect()
    }

    /// What a registry holds for the generators of service `s`, from now on.
    fn hears(&mut self, sections: Value) {
        let sections = Arc::new(sections.as_object().unwrap().clone());
        self.configs.insert("s".parse().unwrap(), sections);
    }

    /// One round; gives the server lines, without `server`.
    fn servers(&mut self, backends: Value) -> Vec<String> {
        servers(&self.file(Some(backends)))
    }

    fn quarantined(&self) -> Vec<String> {
        self.composer.quarantined().map(|q| format!("{}: {}", q.server, q.reason)).collect()
    }
}

/// The server lines of a file, without `server`.
fn servers(file: &str) -> Vec<String> {
    file.lines().filter_map(|l| l.strip_prefix("\tserver ")).map(str::to_owned).collect()
}

/// A file without comments and empty lines.
fn bare(file: &str) -> Vec<&str> {
    file.lines().map(str::trim_end).filter(|l| !l.is_empty() && !l.trim_start().starts_with('#')).collect()
}

/// Backends at 10.0.0.N:80, in discovery order.
fn hosts(numbers: &[u8]) -> Value {
    numbers.iter().map(|n| json!({"host": format!("10.0.0.{n}"), "port": 80})).collect()
}
