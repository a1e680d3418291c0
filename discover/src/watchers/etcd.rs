//! `method: etcd`, of Synapse's forks: one service's registrations below a path, at any depth.

use model::Prefix;
use registry::RegistryWatcher;
use registry::store::etcd::{Endpoint, EtcdConfig, EtcdStore, parse_endpoints};
use serde::Deserialize;

use super::{BoxWatcher, Context, Fault, Faults, Method, MethodInput};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    hosts: Vec<String>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<String>,
}

/// Where the registrations of one service lie.
#[derive(Debug, Clone)]
pub struct Etcd {
    /// The servers; none given: those of the command line and the environment.
    endpoints: Vec<Endpoint>,
    path: Prefix,
}

impl Method for Etcd {
    fn read(asked: &MethodInput<'_>) -> Result<Self, Faults> {
        let keys: Keys = asked.keys()?;
        let mut faults = Faults::default();
        let prefix =
            |path: String| Prefix::of_service(&path, asked.about.service.clone()).map_err(|e| Fault::new("path", e));
        let path = faults.take(keys.path.ok_or_else(|| Fault::new("path", "is required")).and_then(prefix));
        let hosts: Vec<String> = keys.hosts.into_iter().chain(keys.host).collect();
        let endpoints = match hosts.is_empty() {
            true => Some(Vec::new()),
            false => {
                faults.take(parse_endpoints(&hosts.join(","), keys.port, false).map_err(|e| Fault::new("hosts", e)))
            }
        };
        let (Some(path), Some(endpoints)) = (path, endpoints) else { return Err(faults) };
        Ok(Self { endpoints, path })
    }

    /// Services of the same servers share one connection.
    fn watcher(&self, context: &mut Context) -> BoxWatcher {
        let base = context.etcd.clone();
        let store = context.shared(&self.servers().join(","), || {
            let endpoints = if self.endpoints.is_empty() { base.endpoints.clone() } else { self.endpoints.clone() };
            EtcdStore::new(EtcdConfig { endpoints, ..base })
        });
        Box::new(RegistryWatcher::new(store, self.path.clone()).with_owners(context.owners.clone()))
    }

    fn servers(&self) -> Vec<String> {
        self.endpoints.iter().map(ToString::to_string).collect()
    }
}
