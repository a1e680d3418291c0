//! The registry's keys as services: incremental, and tolerant of one bad key among many.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value};

use super::gather::{Gathered, LastPort, gather};
use super::known::{Known, Quarantined, Said};
use super::owners::Owners;
use super::told::Told;
use crate::store::{Batch, Change, Entry, Key, LeaseId, Listing, Revision};
use model::{Backend, BackendId, Decoded, ParsedKey, Prefix, ServiceMap, ServiceName, decode};

/// How many departures are remembered; the oldest are forgotten first.
const MOST_DEPARTURES: usize = 10_000;
/// How many bad keys are kept with their reasons; the rest is only counted.
const MOST_QUARANTINED: usize = 1_000;

/// All that one source knows at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Every service with its pool.
    pub services: ServiceMap,
    /// The store's version, where the source has one; 0 otherwise.
    pub revision: i64,
    /// Registrations that were left out, with the reason, by key.
    pub quarantined: Arc<BTreeMap<Key, Quarantined>>,
    /// Backends that were here and went, and how.
    pub departed: Arc<HashMap<(ServiceName, BackendId), Departure>>,
    /// What the source holds for the generators beside a service's backends.
    pub generator_configs: GeneratorConfigs,
}

/// Config for generators that comes from a registry (Synapse's `generator_config_path`): by service, an object of
/// generator → section, as it came. Nobody has judged it yet.
pub type GeneratorConfigs = BTreeMap<ServiceName, Arc<Map<String, Value>>>;

/// How a backend went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Deliberately, or not.
    pub cause: DepartureCause,
    pub revision: Revision,
}

/// Whether somebody meant a backend to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DepartureCause {
    /// It was draining, or its agent was alive when it took the key away.
    Orderly,
    /// Its agent's key went too, or nobody answers for it: a lease ran out, or the store was wiped.
    Expiry,
}

/// The registry's keys under one prefix, kept as pools.
#[derive(Debug)]
pub struct Table {
    prefix: Prefix,
    known: HashMap<Key, Known>,
    /// Keys of each service in discovery order: creation revision, then key.
    services: BTreeMap<ServiceName, BTreeSet<(Revision, Key)>>,
    ports: HashMap<ServiceName, LastPort>,
    /// Keys whose id belongs to another key of the service.
    shadowed: BTreeMap<ServiceName, BTreeSet<Key>>,
    owners: Owners,
    snapshot: Snapshot,
    told: Told,
}

impl Table {
    /// An empty table for keys under `prefix`.
    pub fn new(prefix: Prefix) -> Self {
        Self {
            prefix,
            known: HashMap::new(),
            services: BTreeMap::new(),
            ports: HashMap::new(),
            shadowed: BTreeMap::new(),
            owners: Owners::default(),
            snapshot: Snapshot::default(),
            told: Told::default(),
        }
    }

    /// Of services that the operator's table names, only registrations from their nodes are taken in.
    #[must_use]
    pub fn with_owners(mut self, owners: Owners) -> Self {
        self.owners = owners;
        self
    }

    /// What the table holds now. Cheap: pools are shared.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// The revision up to which everything is known.
    pub fn revision(&self) -> Revision {
        Revision(self.snapshot.revision)
    }

    /// The leases of the undrained backends that `batch` takes away.
    pub fn leases_taken(&self, batch: &Batch) -> HashSet<LeaseId> {
        let gone = batch.changes.iter().filter_map(|change| match change {
            Change::Put(_) => None,
            Change::Delete { key, .. } => self.known.get(key),
        });
        gone.filter(|known| known.is_undrained()).filter_map(|known| known.lease).collect()
    }

    /// The leases of the undrained backends that are known and that `listing` misses.
    pub fn leases_missing(&self, listing: &Listing) -> HashSet<LeaseId> {
        if self.known.is_empty() {
            return HashSet::new();
        }
        let listed: HashSet<&str> = listing.entries.iter().map(|e| &*e.key).collect();
        let gone = self.known.iter().filter(|(key, known)| known.is_undrained() && !listed.contains(&***key));
        gone.filter_map(|(_, known)| known.lease).collect()
    }

    /// Takes in what a watch brought. A key that went away under one of the leases in `orderly`, or without a lease, did not expire.
    pub fn apply(&mut self, batch: &Batch, orderly: &HashSet<LeaseId>) {
        let mut dirty = BTreeSet::new();
        for change in &batch.changes {
            match change {
                Change::Put(entry) => self.put(entry, &mut dirty),
                Change::Delete { key, revision } => self.delete(key, *revision, Some(orderly), &mut dirty),
            }
        }
        self.settle(dirty, batch.at.revision);
    }

    /// Replaces everything by a listing, as after a compaction; what is missing in it has departed. `anew` says that the
    /// listing's revisions do not continue those known (another cluster, a restored snapshot).
    pub fn replace(&mut self, listing: &Listing, orderly: &HashSet<LeaseId>, anew: bool) {
        let mut dirty = BTreeSet::new();
        let listed: HashSet<&str> = listing.entries.iter().map(|e| &*e.key).collect();
        let gone: Vec<Key> = self.known.keys().filter(|key| !listed.contains(&***key)).cloned().collect();
        for key in gone {
            // What another cluster or an older snapshot misses, nobody took away.
            self.delete(&key, listing.at.revision, (!anew).then_some(orderly), &mut dirty);
        }
        Arc::make_mut(&mut self.snapshot.quarantined).retain(|key, _| listed.contains(&**key));
        for (service, last) in self.ports.iter_mut().filter(|(_, last)| !listed.contains(&*last.key)) {
            last.gone = true;
            dirty.insert(service.clone());
        }
        let changed = |table: &Self, entry: &Entry| {
            table.known.get(&entry.key).is_none_or(|k| (k.created, k.modified) != (entry.created, entry.modified))
        };
        for entry in &listing.entries {
            if anew || changed(self, entry) {
                self.put(entry, &mut dirty);
            }
        }
        self.settle(dirty, listing.at.revision);
    }

    fn put(&mut self, entry: &Entry, dirty: &mut BTreeSet<ServiceName>) {
        let read = self.read(entry);
        self.unlink(&entry.key, dirty);
        match read {
            Ok(known) => {
                match &known.said {
                    Said::Portless(..) => {}
                    Said::Backend(backend) if backend.left_out.is_some() => {
                        let reason = backend.left_out.as_deref().unwrap_or_default().to_owned();
                        self.quarantine(entry.key.clone(), Quarantined { reason, revision: entry.modified });
                    }
                    _ => self.release(&entry.key),
                }
                if let Some(place) = known.place()
                    && self.snapshot.departed.contains_key(&place)
                {
                    Arc::make_mut(&mut self.snapshot.departed).remove(&place);
                }
                dirty.insert(known.service.clone());
                let keys = self.services.entry(known.service.clone()).or_default();
                keys.insert((known.created, entry.key.clone()));
                self.known.insert(entry.key.clone(), known);
            }
            Err(mut reason) => {
                if entry.key.ends_with("/port")
                    && let Some(last) = self.ports.values_mut().find(|last| last.key == entry.key)
                {
                    last.gone = false;
                    reason = format!("{reason}; the last good one, {}, counts while backends live", last.port);
                }
                self.quarantine(entry.key.clone(), Quarantined { reason, revision: entry.modified });
            }
        }
    }

    fn read(&self, entry: &Entry) -> Result<Known, String> {
        let known = |service, said| Known {
            service,
            created: entry.created,
            modified: entry.modified,
            lease: entry.lease,
            said,
        };
        let parsed = self.prefix.parse(&entry.key).map_err(|e| e.to_string())?;
        let (ParsedKey::ServicePort { service, node } | ParsedKey::Backend { service, node, .. }) = &parsed;
        self.owners.check(service, node.as_ref()).map_err(|e| e.to_string())?;
        match parsed {
            ParsedKey::ServicePort { service, .. } => {
                let port = std::str::from_utf8(&entry.value).ok().and_then(|t| t.trim().parse().ok());
                let port = port.ok_or("service port is not between 1 and 65535")?;
                Ok(known(service, Said::ServicePort(port)))
            }
            ParsedKey::Backend { service, id, .. } => match decode(&id, &entry.value).map_err(|e| e.to_string())? {
                Decoded::Backend(backend) => {
                    let created = u64::try_from(entry.created.0).ok();
                    Ok(known(service, Said::Backend(Arc::new(Backend { created, ..*backend }))))
                }
                Decoded::Portless(host) => Ok(known(service, Said::Portless(id, host))),
            },
        }
    }

    fn quarantine(&mut self, key: Key, why: Quarantined) {
        if self.snapshot.quarantined.get(&key).is_none_or(|q| q.revision != why.revision) {
            self.told.bad(&key, &why, Instant::now());
        }
        let all = Arc::make_mut(&mut self.snapshot.quarantined);
        if all.len() < MOST_QUARANTINED || all.contains_key(&key) {
            all.insert(key, why);
        }
    }

    /// Takes a key out of the quarantine, if it is there.
    fn release(&mut self, key: &Key) {
        if self.snapshot.quarantined.contains_key(key) {
            Arc::make_mut(&mut self.snapshot.quarantined).remove(key);
        }
    }

    fn delete(
        &mut self,
        key: &Key,
        revision: Revision,
        orderly: Option<&HashSet<LeaseId>>,
        dirty: &mut BTreeSet<ServiceName>,
    ) {
        self.release(key);
        if key.ends_with("/port")
            && let Some((service, last)) = self.ports.iter_mut().find(|(_, last)| last.key == *key)
        {
            last.gone = true;
            dirty.insert(service.clone());
        }
        let Some(known) = self.unlink(key, dirty) else { return };
        let Some(place) = known.place() else { return };
        let under = |leases: &HashSet<LeaseId>| known.lease.is_none_or(|lease| leases.contains(&lease));
        let cause = if !known.is_undrained() || orderly.is_some_and(under) {
            DepartureCause::Orderly
        } else {
            DepartureCause::Expiry
        };
        let departed = Arc::make_mut(&mut self.snapshot.departed);
        departed.insert(place, Departure { cause, revision });
        if departed.len() > MOST_DEPARTURES {
            let mut ages: Vec<Revision> = departed.values().map(|d| d.revision).collect();
            let middle = ages.len() / 2;
            let (_, median, _) = ages.select_nth_unstable(middle);
            let median = *median;
            departed.retain(|_, d| d.revision > median);
        }
    }

    fn unlink(&mut self, key: &Key, dirty: &mut BTreeSet<ServiceName>) -> Option<Known> {
        let known = self.known.remove(key)?;
        if let Some(keys) = self.services.get_mut(&known.service) {
            keys.remove(&(known.created, key.clone()));
        }
        dirty.insert(known.service.clone());
        Some(known)
    }

    /// Builds the pools of the services that changed.
    fn settle(&mut self, dirty: BTreeSet<ServiceName>, revision: Revision) {
        self.snapshot.revision = revision.0;
        for service in dirty {
            let Some(gathered) = self.gather(&service) else {
                self.services.remove(&service);
                self.snapshot.services.remove(&service);
                self.shadowed.remove(&service);
                if let Some(last) = self.ports.remove(&service).filter(|last| last.gone) {
                    self.release(&last.key);
                }
                continue;
            };
            self.show(&service, &gathered, revision);
            self.snapshot.services.insert(service, Arc::new(gathered.pool));
        }
    }

    /// What a service's keys come to, if there are any.
    fn gather(&mut self, service: &ServiceName) -> Option<Gathered> {
        let keys = self.services.get(service).filter(|keys| !keys.is_empty())?;
        let all: Vec<(&Key, &Known)> = keys.iter().filter_map(|(_, key)| self.known.get_key_value(key)).collect();
        let named = all.iter().find_map(|(key, known)| match known.said {
            Said::ServicePort(port) => Some(LastPort { key: (*key).clone(), port, gone: false }),
            _ => None,
        });
        if let Some(named) = named {
            self.ports.insert(service.clone(), named);
        }
        Some(gather(&all, self.ports.get(service).map(|last| last.port)))
    }

    /// Shows what of a service's keys does not count, and no longer what does.
    fn show(&mut self, service: &ServiceName, gathered: &Gathered, revision: Revision) {
        for (key, revision) in &gathered.portless {
            let reason = "port is missing, and the service's own port is not known".to_owned();
            self.quarantine(key.clone(), Quarantined { reason, revision: *revision });
        }
        let shadowed: BTreeSet<Key> = gathered.shadowed.iter().map(|(key, ..)| key.clone()).collect();
        let before = self.shadowed.remove(service).unwrap_or_default();
        let now_fine: Vec<Key> = match self.services.get(service).filter(|_| !self.snapshot.quarantined.is_empty()) {
            Some(keys) => keys.iter().map(|(_, key)| key.clone()).filter(|key| self.counts_now(key, &before)).collect(),
            None => Vec::new(),
        };
        for key in now_fine.iter().filter(|key| !shadowed.contains(*key)) {
            if !gathered.portless.iter().any(|(portless, _)| portless == key) {
                self.release(key);
            }
        }
        for (key, revision, owner) in &gathered.shadowed {
            let reason = format!(
                "its id belongs to {owner}, which is older or alone under a lease: end one of the two, or give one another id"
            );
            self.quarantine(key.clone(), Quarantined { reason, revision: *revision });
        }
        if !shadowed.is_empty() {
            self.shadowed.insert(service.clone(), shadowed);
        }
        let Some(last) = self.ports.get(service).filter(|last| last.gone) else { return };
        let (key, port) = (last.key.clone(), last.port);
        match gathered.takes_port {
            false => {
                self.ports.remove(service);
                self.release(&key);
            }
            true if self.snapshot.quarantined.contains_key(&key) => {}
            true => {
                let reason = format!("the key is gone; the last good port, {port}, counts while backends live");
                self.quarantine(key, Quarantined { reason, revision });
            }
        }
        self.told.settle(self.snapshot.quarantined.len());
    }

    /// Whether a key may have been left out for what other keys say: for want of the service's port, or as another's id.
    fn counts_now(&self, key: &Key, shadowed_before: &BTreeSet<Key>) -> bool {
        self.snapshot.quarantined.contains_key(key)
            && self.known.get(key).is_some_and(|known| match &known.said {
                Said::Portless(..) => true,
                Said::Backend(backend) => backend.left_out.is_none() && shadowed_before.contains(key),
                Said::ServicePort(_) => false,
            })
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "keeping_tests.rs"]
mod keeping;
