//! Which pools have a server that works, and what of that has changed. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};

use model::{ServiceMap, ServiceName};

use crate::generators::haproxy::file::places::{EdgePlaces, Places};
use crate::haproxy::api::stats::StatRow;

/// What was known of the pools at the last look.
#[derive(Debug, Default)]
pub struct Pools {
    /// Whether each section has a server that can take a request.
    working: HashMap<String, bool>,
    /// Services without one.
    lost: BTreeSet<ServiceName>,
}

/// What has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PoolChanges {
    /// Services whose last backend that works is lost.
    pub lost: Vec<ServiceName>,
    /// Services that have one again.
    pub back: Vec<ServiceName>,
}

impl Pools {
    /// Services without a backend that can take a request.
    pub fn lost(&self) -> &BTreeSet<ServiceName> {
        &self.lost
    }

    /// Takes in what HAProxy says of its sections. A pool without a backend, seen for the first time, has lost nothing.
    pub fn look(
        &mut self,
        rows: &[StatRow],
        services: &ServiceMap,
        places: &Places,
        edge: &EdgePlaces<'_>,
    ) -> PoolChanges {
        let mut changed: BTreeSet<ServiceName> = BTreeSet::new();
        let known = self.working.len();
        for row in rows {
            let works = row.usable > 0;
            let before = self.working.get_mut(&row.section);
            if before.as_deref() == Some(&works) {
                continue;
            }
            let mut of: Vec<ServiceName> = edge.services_of(&row.section).cloned().collect();
            if of.is_empty() {
                of.extend(places.service_of(&row.section));
            }
            let has_backends = |service: &ServiceName| services.get(service).is_some_and(|pool| !pool.is_empty());
            let is_news = before.is_some() || works;
            changed.extend(of.into_iter().filter(|service| is_news || has_backends(service)));
            match before {
                Some(before) => *before = works,
                None => _ = self.working.insert(row.section.clone(), works),
            }
        }
        if known != rows.len() || self.working.len() != rows.len() {
            let there: HashSet<&str> = rows.iter().map(|row| &*row.section).collect();
            self.working.retain(|section, _| there.contains(&**section));
            self.lost.retain(|service| services.contains_key(service));
        }
        let mut changes = PoolChanges::default();
        for service in changed {
            let own = places.sections(&service, services.get(&service).map(|pool| &**pool));
            let is_working = |section: &str| self.working.get(section) == Some(&true);
            match own.iter().any(|section| is_working(section)) || edge.sections(&service).any(is_working) {
                true if self.lost.remove(&service) => changes.back.push(service),
                false if self.lost.insert(service.clone()) => changes.lost.push(service),
                _ => {}
            }
        }
        changes
    }
}

#[cfg(test)]
#[path = "pools_tests.rs"]
mod tests;
