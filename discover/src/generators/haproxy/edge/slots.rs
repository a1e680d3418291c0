//! Which section of the edge holds which service. Pure.
//!
//! A service keeps its section for as long as it is routed, over restarts of discover and reloads, too: sticky cookies belong to the
//! section. Sections without a service are spare: a new service takes one, and nothing in HAProxy's structure changes.

use std::collections::{BTreeMap, BTreeSet};

use common::model::ServiceName;

/// The sections, by number, and who has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// The section of each service.
    pub of: BTreeMap<ServiceName, u32>,
    /// All sections, the spare ones among them.
    pub all: BTreeSet<u32>,
}

impl Slots {
    /// Gives each of `services` a section: the one it holds, else the lowest spare one of those that run, else a new one.
    pub fn assign<'a>(
        services: impl IntoIterator<Item = &'a ServiceName>,
        held: &BTreeMap<ServiceName, u32>,
        running: &BTreeSet<u32>,
    ) -> Self {
        let mut slots = Self { of: BTreeMap::new(), all: running.clone() };
        let mut taken: BTreeSet<u32> = BTreeSet::new();
        let (keep, come): (Vec<_>, Vec<_>) =
            services.into_iter().partition(|service| held.get(*service).is_some_and(|number| taken.insert(*number)));
        slots.of.extend(keep.into_iter().filter_map(|service| Some((service.clone(), *held.get(service)?))));
        for service in come {
            let spare = running.iter().copied().find(|number| !taken.contains(number));
            // There are fewer numbers taken than there are numbers.
            let Some(number) = spare.or_else(|| (1..).find(|number| !taken.contains(number))) else { continue };
            taken.insert(number);
            slots.of.insert(service.clone(), number);
        }
        slots.all.extend(taken);
        slots
    }

    /// How many sections are spare.
    pub fn spare(&self) -> usize {
        self.all.len() - self.of.len()
    }

    /// The same with `spare` spare sections, no fewer and no more: for when HAProxy loads its structure anew anyway.
    #[must_use]
    pub fn refilled(mut self, spare: usize) -> Self {
        let taken: BTreeSet<u32> = self.of.values().copied().collect();
        let free = (1..).filter(|number| !taken.contains(number)).take(spare);
        self.all = free.chain(taken.iter().copied()).collect();
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

    #[test]
    fn a_service_keeps_its_section_and_a_new_one_takes_a_spare_one() {
        let (held, running) = ([("b".parse().unwrap(), 2)].into(), (1..=3).collect());
        let slots = Slots::assign(&names(&["a", "b", "c"]), &held, &running);
        assert_eq!(slots.of.values().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((slots.all.len(), slots.spare()), (3, 0), "no change of the structure");
        let more = Slots::assign(&names(&["a", "b", "c", "d"]), &slots.of, &running);
        assert_eq!(more.of[&names(&["d"])[0]], 4);
        let refilled = more.refilled(2);
        assert_eq!((refilled.all.len(), refilled.spare()), (6, 2));
    }

    proptest! {
        #[test]
        fn no_two_services_share_a_section_and_equal_input_changes_nothing(
            services in prop::collection::btree_set("[a-h]", 0..6), held in prop::collection::btree_map("[a-h]", 1u32..5, 0..5),
            running in prop::collection::btree_set(1u32..6, 0..6),
        ) {
            let services: Vec<ServiceName> = services.iter().map(|s| s.parse().unwrap()).collect();
            let held = held.into_iter().map(|(s, n)| (s.parse().unwrap(), n)).collect();
            let slots = Slots::assign(&services, &held, &running);
            let numbers: BTreeSet<u32> = slots.of.values().copied().collect();
            prop_assert_eq!((numbers.len(), slots.of.len()), (services.len(), services.len()));
            prop_assert!(numbers.is_subset(&slots.all) && running.is_subset(&slots.all));
            prop_assert_eq!(&Slots::assign(&services, &slots.of, &slots.all), &slots);
            let refilled = slots.clone().refilled(3);
            prop_assert_eq!((&refilled.of, refilled.spare()), (&slots.of, 3));
        }
    }
}
