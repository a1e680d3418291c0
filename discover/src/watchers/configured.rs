//! The watchers that a config asks for, one for each service.

use std::collections::HashMap;
use std::sync::Arc;

use common::model::{Prefix, ServiceName};
use common::registry::RegistryWatcher;
use common::store::etcd::{Endpoint, EtcdConfig, EtcdStore, parse_endpoints};

use super::AnyWatcher;
use crate::config::Config;
use crate::config::types::Service;

/// One service's watcher, not started.
#[derive(Debug, Clone)]
pub struct Configured {
    /// The service.
    pub service: ServiceName,
    /// What kind of watcher.
    pub kind: Kind,
}

/// The kinds of watchers, with what they need.
#[derive(Debug, Clone)]
pub enum Kind {
    /// None.
    Base,
    /// Registrations below a path in etcd.
    Etcd {
        /// The servers; none given: those of the command line and the environment.
        endpoints: Vec<Endpoint>,
        /// The path.
        path: Prefix,
    },
}

/// What is wrong with the services' `discovery`: everything at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfiguredError(pub Vec<String>);

/// The known methods.
const METHODS: &str = "etcd, base";

/// The watchers that a config asks for.
///
/// # Errors
/// [`ConfiguredError`] with the key path of each problem.
pub fn configured(config: &Config) -> Result<Vec<Configured>, ConfiguredError> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for service in &config.services {
        match kind(service) {
            Ok(kind) => good.push(Configured { service: service.name.clone(), kind }),
            Err((key, why)) => bad.push(format!("services.{}.discovery.{key}: {why}", service.name)),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(ConfiguredError(bad)) }
}

fn kind(service: &Service) -> Result<Kind, (&'static str, String)> {
    let discovery = &service.discovery;
    match discovery.method.as_str() {
        "base" => Ok(Kind::Base),
        "etcd" => {
            let path = discovery.path.as_deref().ok_or(("path", "is required".to_owned()))?;
            let path = Prefix::of_service(path, service.name.clone()).map_err(|e| ("path", e.to_string()))?;
            let hosts: Vec<&str> = discovery.hosts.iter().chain(&discovery.host).map(String::as_str).collect();
            let endpoints = match hosts.is_empty() {
                true => Vec::new(),
                false => {
                    parse_endpoints(&hosts.join(","), discovery.port, false).map_err(|e| ("hosts", e.to_string()))?
                }
            };
            Ok(Kind::Etcd { endpoints, path })
        }
        other => Err(("method", format!("{other:?} is not known yet; known are {METHODS}"))),
    }
}

impl Configured {
    /// The servers as URLs, for messages and tests.
    pub fn servers(&self) -> Vec<String> {
        match &self.kind {
            Kind::Base => Vec::new(),
            Kind::Etcd { endpoints, .. } => endpoints.iter().map(ToString::to_string).collect(),
        }
    }

    /// The watcher. Services of the same servers share one connection, kept in `stores`.
    pub fn watcher(&self, base: &EtcdConfig, stores: &mut HashMap<Vec<String>, EtcdStore>) -> AnyWatcher {
        match &self.kind {
            Kind::Base => AnyWatcher::Base,
            Kind::Etcd { endpoints, path } => {
                let store = stores.entry(self.servers()).or_insert_with(|| {
                    let endpoints = if endpoints.is_empty() { base.endpoints.clone() } else { endpoints.clone() };
                    EtcdStore::new(EtcdConfig { endpoints, ..base.clone() })
                });
                AnyWatcher::Etcd(Box::new(RegistryWatcher::new(store.clone(), path.clone())))
            }
        }
    }

    /// The name of its source in status and metrics.
    pub fn source_name(&self) -> Arc<str> {
        self.service.as_str().into()
    }
}
