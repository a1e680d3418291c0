//! Which section of the edge holds which service. Pure.
//!
//! A service keeps its section for as long as it is routed, over restarts of discover and reloads, too: sticky cookies belong to the
//! section. Whole sections without a service are spare: a new service takes one, and nothing in HAProxy's structure changes. Where
//! HAProxy can make plain sections, a service that is content with one gets one made, and it goes with the service.

use std::collections::{BTreeMap, BTreeSet};

use model::ServiceName;

use super::frontend::Kind;

/// The sections, by number, and who has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// The section of each service.
    pub of: BTreeMap<ServiceName, u32>,
    /// All sections, those without a service among them.
    pub all: BTreeMap<u32, Kind>,
}

impl Slots {
    /// Gives each of `services` a section that does for it: the one it holds, else the lowest of those that run and are free, else
    /// a new one. With `adds` HAProxy makes plain sections, and whole ones are left to those who need them.
    pub fn assign(
        services: &BTreeMap<&ServiceName, Kind>,
        held: &BTreeMap<ServiceName, u32>,
        running: &BTreeMap<u32, Kind>,
        adds: bool,
    ) -> Self {
        let mut slots = Self { of: BTreeMap::new(), all: running.clone() };
        let mut taken: BTreeSet<u32> = BTreeSet::new();
        let new = |need: Kind| if adds { need } else { Kind::Whole };
        let mut come = Vec::new();
        for (service, need) in services {
            let does = |number: &&u32| running.get(number).is_none_or(|kind| kind >= need);
            match held.get(*service).filter(does) {
                Some(number) if taken.insert(*number) => {
                    slots.all.entry(*number).or_insert(new(*need));
                    slots.of.insert((*service).clone(), *number);
                }
                _ => come.push((*service, new(*need))),
            }
        }
        for (service, kind) in come {
            let free = slots.all.iter().find(|(number, has)| **has == kind && !taken.contains(number));
            let free = free.map(|(number, _)| *number);
            // There are fewer numbers taken than there are numbers.
            let Some(number) = free.or_else(|| (1..).find(|number| !slots.all.contains_key(number))) else { continue };
            taken.insert(number);
            slots.all.insert(number, kind);
            slots.of.insert(service.clone(), number);
        }
        slots
    }

    /// The spare sections.
    pub fn spares(&self) -> impl Iterator<Item = u32> {
        let taken: BTreeSet<u32> = self.of.values().copied().collect();
        let whole = self.all.iter().filter(|(_, kind)| **kind == Kind::Whole);
        whole.map(|(number, _)| *number).filter(move |number| !taken.contains(number))
    }

    /// How many sections are spare.
    pub fn spare(&self) -> usize {
        self.spares().count()
    }

    /// How many sections are plain.
    pub fn plain(&self) -> usize {
        self.all.values().filter(|kind| **kind == Kind::Plain).count()
    }

    /// The same without the plain sections that have no service, but for those that `stays` says.
    #[must_use]
    pub fn without_idle(mut self, stays: impl Fn(u32) -> bool) -> Self {
        let taken: BTreeSet<u32> = self.of.values().copied().collect();
        self.all.retain(|number, kind| *kind == Kind::Whole || taken.contains(number) || stays(*number));
        self
    }

    /// The same with `spare` spare sections, no fewer and no more: for when HAProxy loads its structure anew anyway.
    #[must_use]
    pub fn refilled(mut self, spare: usize) -> Self {
        let taken: BTreeSet<u32> = self.of.values().copied().collect();
        let free = (1..).filter(|number| !taken.contains(number)).take(spare);
        self.all.retain(|number, _| taken.contains(number));
        self.all.extend(free.map(|number| (number, Kind::Whole)));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(of: &[&str]) -> Vec<ServiceName> {
        of.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn all(services: &[ServiceName], kind: Kind) -> BTreeMap<&ServiceName, Kind> {
        services.iter().map(|service| (service, kind)).collect()
    }

    #[test]
    fn a_service_keeps_its_section_and_a_new_one_takes_a_spare_one() {
        let (held, running) = ([("b".parse().unwrap(), 2)].into(), (1..=3).map(|n| (n, Kind::Whole)).collect());
        let services = names(&["a", "b", "c", "d"]);
        let slots = Slots::assign(&all(&services[..3], Kind::Plain), &held, &running, false);
        assert_eq!(slots.of.values().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((slots.all.len(), slots.spare()), (3, 0), "no change of the structure");
        let more = Slots::assign(&all(&services, Kind::Plain), &slots.of, &running, false);
        assert_eq!((more.of[&services[3]], more.all[&4]), (4, Kind::Whole));
        let refilled = more.refilled(2);
        assert_eq!((refilled.all.len(), refilled.spare()), (6, 2));
    }

    #[test]
    fn where_haproxy_makes_sections_the_spare_ones_are_left_to_sticky_services() {
        let running = (1..=2).map(|n| (n, Kind::Whole)).collect();
        let services = names(&["plain", "sticky"]);
        let needs = [(&services[0], Kind::Plain), (&services[1], Kind::Whole)].into();
        let slots = Slots::assign(&needs, &BTreeMap::new(), &running, true);
        assert_eq!((slots.of[&services[0]], slots.of[&services[1]], slots.spare()), (3, 1, 1));
        assert_eq!(slots.all[&3], Kind::Plain);
        // A plain service that becomes sticky moves; its section is free for the next one, or goes.
        let needs = all(&services, Kind::Whole);
        let moved = Slots::assign(&needs, &slots.of, &slots.all, true);
        assert_eq!((moved.of[&services[0]], moved.of[&services[1]], moved.all.len()), (2, 1, 3));
        assert_eq!(moved.clone().without_idle(|number| number == 3), moved, "its servers are still there");
        assert_eq!(moved.clone().without_idle(|_| false).all.len(), 2);
        let new = names(&["new"]);
        assert_eq!(Slots::assign(&all(&new, Kind::Plain), &BTreeMap::new(), &moved.all, true).of[&new[0]], 3);
        // One that needs no stickiness any more stays where it is.
        assert_eq!(Slots::assign(&all(&services, Kind::Plain), &moved.of, &moved.all, true).of, moved.of);
    }

    proptest! {
        #[test]
        fn no_two_services_share_a_section_and_equal_input_changes_nothing(
            services in prop::collection::btree_map("[a-h]", any::<bool>(), 0..6), held in prop::collection::btree_map("[a-h]", 1u32..5, 0..5),
            running in prop::collection::btree_map(1u32..6, any::<bool>(), 0..6), adds in any::<bool>(),
        ) {
            let kind = |whole: bool| if whole { Kind::Whole } else { Kind::Plain };
            let services: Vec<(ServiceName, Kind)> = services.iter().map(|(s, whole)| (s.parse().unwrap(), kind(*whole))).collect();
            let needs: BTreeMap<&ServiceName, Kind> = services.iter().map(|(s, kind)| (s, *kind)).collect();
            let held = held.into_iter().map(|(s, n)| (s.parse().unwrap(), n)).collect();
            let running: BTreeMap<u32, Kind> = running.into_iter().map(|(n, whole)| (n, kind(whole || !adds))).collect();
            let slots = Slots::assign(&needs, &held, &running, adds);
            let numbers: BTreeSet<u32> = slots.of.values().copied().collect();
            prop_assert_eq!((numbers.len(), slots.of.len()), (needs.len(), needs.len()));
            prop_assert!(needs.iter().all(|(service, need)| slots.all[&slots.of[*service]] >= *need));
            prop_assert!(running.iter().all(|(number, kind)| slots.all.get(number) == Some(kind)));
            prop_assert!(adds || slots.all.values().all(|kind| *kind == Kind::Whole));
            prop_assert_eq!(&Slots::assign(&needs, &slots.of, &slots.all, adds), &slots);
            let refilled = slots.clone().refilled(3);
            prop_assert_eq!((&refilled.of, refilled.spare()), (&slots.of, 3));
            prop_assert!(slots.of.values().all(|number| refilled.all[number] == slots.all[number]));
        }
    }
}
