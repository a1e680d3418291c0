//! Pools and the map of services, with the difference between two of them.

use std::collections::{BTreeMap, HashSet, btree_map};
use std::iter::Peekable;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Backend, ServiceName};

/// The backends of one service, in the order in which they were discovered.
///
/// Two pools are equal when they hold the same backends, in whatever order: an order that merely arrived differently
/// is no change, so it causes no write and no reload.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    backends: Vec<Arc<Backend>>,
}

impl Pool {
    /// A pool of these backends; of two with one id the first stays.
    pub fn new(backends: impl IntoIterator<Item = Arc<Backend>>) -> Self {
        let mut backends: Vec<Arc<Backend>> = backends.into_iter().collect();
        let first: Vec<bool> = {
            let mut seen = HashSet::with_capacity_and_hasher(backends.len(), RandomState::default());
            backends.iter().map(|b| seen.insert(b.id.as_str())).collect()
        };
        if first.contains(&false) {
            let mut first = first.into_iter();
            backends.retain(|_| first.next().unwrap_or_default());
        }
        Self { backends }
    }

    /// The backends in discovery order.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// How many backends there are.
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// References sorted by id: what two pools are compared by.
    fn sorted(&self) -> Vec<&Backend> {
        let mut all: Vec<&Backend> = self.backends.iter().map(|b| &**b).collect();
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

impl PartialEq for Pool {
    fn eq(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        // Where both have the same id at the same place, that one backend decides; an id is there only once.
        for (a, b) in self.backends.iter().zip(&other.backends).filter(|(a, b)| !Arc::ptr_eq(a, b)) {
            match a.id == b.id {
                true if **a != **b => return false,
                true => {}
                false => return self.sorted() == other.sorted(),
            }
        }
        true
    }
}

impl Eq for Pool {}

impl FromIterator<Arc<Backend>> for Pool {
    fn from_iter<I: IntoIterator<Item = Arc<Backend>>>(backends: I) -> Self {
        Self::new(backends)
    }
}

/// Every service with its pool. An empty pool is not a missing one: the source answered that there is none.
pub type ServiceMap = BTreeMap<ServiceName, Arc<Pool>>;

/// Finds services in a map, asked for in order of their names: side by side, so that each costs one comparison and none
/// a search from the top.
#[derive(Debug)]
pub struct InOrder<'a>(Peekable<btree_map::Iter<'a, ServiceName, Arc<Pool>>>);

impl<'a> InOrder<'a> {
    /// Begins before the first service.
    pub fn of(services: &'a ServiceMap) -> Self {
        Self(services.iter().peekable())
    }

    /// The pool of `service`, which must not come before one that was asked for already.
    pub fn find(&mut self, service: &ServiceName) -> Option<&'a Arc<Pool>> {
        // Mostly it is the very same name, which need not even be read.
        if let Some((_, pool)) = self.0.next_if(|(name, _)| std::ptr::eq(name.as_str(), service.as_str())) {
            return Some(pool);
        }
        while self.0.next_if(|(name, _)| *name < service).is_some() {}
        self.0.next_if(|(name, _)| *name == service).map(|(_, pool)| pool)
    }
}

/// One step from one [`ServiceMap`] to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The service is new, or its pool differs.
    Set(ServiceName, Arc<Pool>),
    /// The service is gone.
    Remove(ServiceName),
}

/// What leads from `old` to `new`, in order of service name; empty when they are equal. Costs a pointer comparison for
/// each pool that both share.
pub fn diff(old: &ServiceMap, new: &ServiceMap) -> Vec<Change> {
    let removed = old.keys().filter(|name| !new.contains_key(*name)).map(|name| Change::Remove(name.clone()));
    let set = new
        .iter()
        .filter(|(name, pool)| !old.get(*name).is_some_and(|was| Arc::ptr_eq(was, pool) || was == *pool))
        .map(|(name, pool)| Change::Set(name.clone(), pool.clone()));
    removed.chain(set).collect()
}

/// Applies `changes` to `map`: `replay(a, diff(&a, &b)) == b`.
pub fn replay(mut map: ServiceMap, changes: Vec<Change>) -> ServiceMap {
    for change in changes {
        match change {
            Change::Set(name, pool) => map.insert(name, pool),
            Change::Remove(name) => map.remove(&name),
        };
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backend(id: u8, port: u16) -> Arc<Backend> {
        let id = format!("b{id}").parse().unwrap();
        Arc::new(Backend::new(id, "127.0.0.1".parse().unwrap(), port.max(1).try_into().unwrap()))
    }

    prop_compose! {
        fn any_map()(raw in prop::collection::btree_map(0u8..8, prop::collection::vec((0u8..6, 1u16..4), 0..6), 0..8)) -> ServiceMap {
            raw.into_iter()
                .map(|(s, pool)| (format!("s{s}").parse().unwrap(), Arc::new(pool.into_iter().map(|(i, p)| backend(i, p)).collect())))
                .collect()
        }
    }

    #[test]
    fn order_is_no_difference_but_content_is() {
        let (a, b, c) = (backend(1, 1), backend(2, 2), backend(2, 3));
        assert_eq!(Pool::new([a.clone(), b.clone()]), Pool::new([b, a.clone()]));
        assert_ne!(Pool::new([a.clone(), backend(2, 2)]), Pool::new([a, c]));
    }

    #[test]
    fn services_are_found_in_order_and_missing_ones_are_not() {
        let map: ServiceMap = ["b", "d", "e"].map(|n| (n.parse().unwrap(), Arc::default())).into();
        let mut in_order = InOrder::of(&map);
        let found = ["a", "b", "c", "e", "f"].map(|n| in_order.find(&n.parse().unwrap()).is_some());
        assert_eq!(found, [false, true, false, true, false]);
    }

    proptest! {
        #[test]
        fn replaying_the_diff_reaches_the_new_map(old in any_map(), new in any_map()) {
            prop_assert_eq!(replay(old.clone(), diff(&old, &new)), new.clone());
            prop_assert!(diff(&new, &new.clone()).is_empty());
        }
    }
}
