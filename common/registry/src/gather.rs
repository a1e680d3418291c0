//! The keys of one service as its pool: which key an id belongs to, and which port stands in where a backend names none. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::known::{Known, Said};
use crate::store::{Key, Revision};
use model::{Backend, Pool, Port};

/// The last good `port` key of a service: it counts for as long as there are backends.
#[derive(Debug)]
pub(super) struct LastPort {
    pub(super) key: Key,
    pub(super) port: Port,
    /// The key is no more.
    pub(super) gone: bool,
}

/// What the keys of a service come to.
pub(super) struct Gathered {
    pub(super) pool: Pool,
    /// Keys of backends without a port of their own, if the service has none either.
    pub(super) portless: Vec<(Key, Revision)>,
    /// Keys whose id belongs to another one of the service: that one, and theirs.
    pub(super) shadowed: Vec<(Key, Revision, Key)>,
    /// Whether a backend takes the service's port for its own.
    pub(super) takes_port: bool,
}

/// Which of two keys with one id has it: one under a lease before one that nobody answers for, then the older. Never the layout.
fn standing<'a>((key, known): &(&'a Key, &'a Known)) -> (bool, Revision, &'a Key) {
    (known.lease.is_none(), known.created, key)
}

/// Gathers the keys of one service, which are in order of their creation.
pub(super) fn gather(all: &[(&Key, &Known)], service_port: Option<Port>) -> Gathered {
    let places = || all.iter().filter_map(|entry| Some((entry, entry.1.said.id()?)));
    let mut owners: HashMap<&str, &(&Key, &Known)> = HashMap::with_capacity(all.len());
    for (entry, id) in places() {
        let owner = owners.entry(id.as_str()).or_insert(entry);
        if standing(entry) < standing(owner) {
            *owner = entry;
        }
    }
    let (mut shadowed, mut portless, mut takes_port) = (Vec::new(), Vec::new(), false);
    let mut backends = Vec::with_capacity(all.len());
    for ((key, known), id) in places() {
        if let Some((owner, _)) = owners.get(id.as_str()).filter(|(owner, _)| owner != key) {
            shadowed.push(((*key).clone(), known.modified, (*owner).clone()));
            continue;
        }
        let backend = match (&known.said, service_port) {
            (Said::ServicePort(_), _) => continue,
            (Said::Portless(..), None) => {
                portless.push(((*key).clone(), known.modified));
                continue;
            }
            (Said::Backend(backend), Some(_)) if backend.service_port.is_none() => {
                takes_port = true;
                Arc::new(Backend { service_port, ..(**backend).clone() })
            }
            (Said::Backend(backend), _) => backend.clone(),
            (Said::Portless(id, host), Some(port)) => {
                takes_port = true;
                let created = u64::try_from(known.created.0).ok();
                Arc::new(Backend { service_port, created, ..Backend::new(id.clone(), host.clone(), port) })
            }
        };
        backends.push(backend);
    }
    Gathered { pool: Pool::new(backends), portless, shadowed, takes_port }
}
