//! What a source found of one service: registrations → a pool; one that cannot be read is left out alone, with the reason.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::{Backend, BackendId, Pool, ServiceMap, ServiceName};
use registry::store::Key;
use registry::{Departure, GeneratorConfigs};
use serde_json::{Map, Value};

use super::About;
use crate::synapse::registration;

/// How many that were left out are kept with their reasons.
const MOST_LEFT_OUT: usize = 1_000;

/// All that a source says at one moment: what is in it is all that there is.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Services with their pools.
    pub services: ServiceMap,
    /// What could not be read, with the reason.
    pub left_out: BTreeMap<Key, String>,
    /// The source's version, where it has one; 0 otherwise.
    pub revision: i64,
    /// Backends that were here and went, where the source knows how.
    pub departed: Arc<HashMap<(ServiceName, BackendId), Departure>>,
    /// What the source holds for the generators.
    pub generator_configs: GeneratorConfigs,
}

/// Gathers one service's backends, in discovery order.
#[derive(Debug)]
pub struct Findings {
    about: About,
    backends: Vec<Arc<Backend>>,
    left_out: BTreeMap<Key, String>,
}

impl Findings {
    /// None yet.
    pub fn new(about: &About) -> Self {
        Self { about: about.clone(), backends: Vec::new(), left_out: BTreeMap::new() }
    }

    /// Takes in a registration with Synapse's field names; one that is none is left out under the name `what`.
    pub fn registration(&mut self, what: &str, map: &Map<String, Value>) {
        match registration::read(map, self.about.port) {
            Ok(backend) => self.backends.push(Arc::new(backend)),
            Err(why) => self.left_out(what, why),
        }
    }

    /// Takes in a backend.
    pub fn backend(&mut self, backend: Arc<Backend>) {
        self.backends.push(backend);
    }

    /// Leaves out `what`.
    pub fn left_out(&mut self, what: &str, why: impl ToString) {
        if self.left_out.len() < MOST_LEFT_OUT {
            self.left_out.insert(Key::from(format!("{}: {what}", self.about.source)), why.to_string());
        }
    }

    /// The answer: the service's pool, though it be empty.
    pub fn answer(self) -> Answer {
        let pool = Arc::new(Pool::new(self.backends));
        let services = ServiceMap::from([(self.about.service, pool)]);
        Answer { services, left_out: self.left_out, ..Answer::default() }
    }
}
