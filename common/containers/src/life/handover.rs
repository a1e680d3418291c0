//! Blue and green: a container may name the one that it replaces (label `register.replaces`). No I/O, no clock.
//!
//! The old one drains while the new one serves, in each service that both are in, and takes clients again should the new
//! one fail, stop, or drain itself: what is decided follows from what is, so no order of events leaves a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::drain::{Cause, Draining};
use model::ServiceName;
use model::desired::{Candidate, ContainerId, Decision};

/// The drain of a container that was replaced.
const REPLACED: Draining = Draining { cause: Cause::Replaced, deadline: None, withdraw: false, overdue: false };

/// Who is replaced, and where.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Handovers(BTreeSet<(ContainerId, ServiceName)>);

/// The containers by their names.
#[derive(Debug, Default)]
pub struct Names {
    names: BTreeMap<ContainerId, Arc<str>>,
    named: BTreeSet<(Arc<str>, ContainerId)>,
}

impl Names {
    /// What this container is called now; `None`: it is gone.
    pub fn set(&mut self, container: &ContainerId, name: Option<&Arc<str>>) {
        if let Some(old) = self.names.remove(container) {
            self.named.remove(&(old, container.clone()));
        }
        if let Some(name) = name {
            self.names.insert(container.clone(), name.clone());
            self.named.insert((name.clone(), container.clone()));
        }
    }

    /// Another container than `but`, by its name, its id or the beginning of that.
    fn find(&self, wanted: &str, but: &ContainerId) -> Option<&ContainerId> {
        let from = (Arc::<str>::from(wanted), ContainerId::lowest());
        let mut by_name = self.named.range(from..).take_while(|(name, _)| **name == *wanted).map(|(_, id)| id);
        let by_id = self.names.range::<str, _>((Bound::Included(wanted), Bound::Unbounded)).map(|(id, _)| id);
        let by_id = by_id.take_while(|id| wanted.len() >= 12 && id.as_str().starts_with(wanted));
        by_name.find(|id| *id != but).or_else(|| by_id.into_iter().find(|id| *id != but))
    }
}

impl Handovers {
    /// Works it out from the decisions about those that name others. `serves`: whether a candidate takes clients, or would if
    /// nobody replaced it; with a registry, only once that holds it.
    pub fn new(replacers: &[Arc<Decision>], names: &Names, serves: impl Fn(&Decision, &Candidate) -> bool) -> Self {
        let of = |d: &Arc<Decision>| {
            let old = names.find(d.candidate()?.replaces.as_deref()?, &d.container)?;
            Some((d.container.clone(), old.clone()))
        };
        let targets: BTreeMap<ContainerId, ContainerId> = replacers.iter().filter_map(of).collect();
        let mut replaced = BTreeSet::new();
        for decision in replacers {
            let (Some(candidate), Some(old)) = (decision.candidate(), targets.get(&decision.container)) else {
                continue;
            };
            if serves(decision, candidate) && !goes_round(&targets, &decision.container) {
                replaced.insert((old.clone(), candidate.service.clone()));
            }
        }
        Self(replaced)
    }

    /// The containers for which the two say something else.
    pub fn differences<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = &'a ContainerId> {
        self.0.symmetric_difference(&newer.0).map(|(container, _)| container)
    }

    /// How `container` drains in `service` because it is replaced there.
    pub fn get(&self, container: &ContainerId, service: &ServiceName) -> Option<&'static Draining> {
        let key = (container.clone(), service.clone());
        (!self.0.is_empty() && self.0.contains(&key)).then_some(&REPLACED)
    }
}

/// Whether containers replace each other in a circle: then none does, as otherwise all would drain.
fn goes_round(targets: &BTreeMap<ContainerId, ContainerId>, from: &ContainerId) -> bool {
    let mut seen = BTreeSet::new();
    let mut at = from;
    while let Some(next) = targets.get(at) {
        if !seen.insert(at) {
            return true;
        }
        at = next;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::desired::{ContainerMap, Settings, decide};
    use testing::containers;

    /// Containers a, b, c … of one service; `pairs` says who replaces whom.
    fn replaced(pairs: &[(usize, &str)], serving: &[&str]) -> Vec<String> {
        let mut map = ContainerMap::new();
        for n in 0..4_usize {
            let mut container = containers::running(u8::try_from(n).unwrap(), 8000);
            container.name = ["a", "b", "c", "d"][n].into();
            let ports = &mut container.ports[0];
            ports.published[0].port = model::Port::new(8000 + u16::try_from(n).unwrap()).unwrap();
            for (_, whom) in pairs.iter().filter(|(who, _)| *who == n) {
                container.labels.insert("register.replaces".into(), (*whom).into());
            }
            map.insert(container.id.clone(), Arc::new(container));
        }
        let settings = Settings { allow_loopback: true, ..Settings::default() };
        let decisions: Vec<_> = decide(&map, &settings).into_iter().map(Arc::new).collect();
        let mut names = Names::default();
        decisions.iter().for_each(|d| names.set(&d.container, Some(&d.name)));
        let handovers = Handovers::new(&decisions, &names, |d, _| serving.contains(&&*d.name));
        let drains = |d: &&Arc<Decision>| handovers.get(&d.container, &d.candidate().unwrap().service).is_some();
        decisions.iter().filter(drains).map(|d| d.name.to_string()).collect()
    }

    #[test]
    fn the_old_one_drains_while_the_new_one_serves() {
        assert_eq!(replaced(&[(1, "a")], &["a", "b"]), ["a"]);
        assert!(replaced(&[(1, "a")], &["a"]).is_empty());
        assert_eq!(replaced(&[(1, &"00".repeat(6))], &["b"]), ["a"], "by id");
        assert!(replaced(&[(1, "00")], &["b"]).is_empty(), "two digits are no id");
    }

    #[test]
    fn a_chain_hands_over_and_a_circle_does_not() {
        assert_eq!(replaced(&[(1, "a"), (2, "b")], &["a", "b", "c"]), ["a", "b"]);
        for circle in [&[(0, "a")][..], &[(0, "b"), (1, "a")], &[(0, "b"), (1, "c"), (2, "a"), (3, "a")]] {
            assert!(replaced(circle, &["a", "b", "c", "d"]).is_empty(), "{circle:?}");
        }
    }
}
