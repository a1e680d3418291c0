//! Which section of the edge serves which place. Pure.
//!
//! A place keeps its section for as long as it is routed, over restarts of discover and reloads, too: sticky cookies belong to the
//! section. Places with one upstream share a section. A place moves into another only where nobody but its own upstream's
//! servers run, so no request ever meets a registration that does not claim its place.
//!
//! Whole sections without a place are spare: a new place takes one, and nothing in HAProxy's structure changes. Where HAProxy can
//! make plain sections, an upstream that is content with one gets one made, and it goes with the upstream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _, HashSet};

use super::frontend::Kind;
use crate::edge::Place;

/// The sections of one way, by number, and which places they serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// The section of each place: of ten thousand places each one is looked up at every change. Copies share it.
    pub of: Arc<HashMap<Place, u32>>,
    /// All sections, those without a place among them.
    pub all: BTreeMap<u32, Kind>,
}

/// What one upstream needs.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    pub places: &'a [Place],
    /// A section that does.
    pub kind: Kind,
}

/// What runs in a section, as an upstream sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    Nothing,
    /// Some of its own servers.
    Some,
    /// Exactly its own servers.
    All,
    /// A server that is not its own.
    Foreign,
}

impl Slots {
    /// Gives each place of `needs` a section that does: the one it holds, else another one of its upstream, else the lowest of those
    /// that are free, else a new one. `waiting` are places that have nobody now: they keep what they hold, unless it is somebody's.
    /// `running` are the sections that run, and `runs` tells what is in one, to the upstream of that number or to nobody. With
    /// `adds` HAProxy makes plain sections, and whole ones are left to those who need them.
    pub fn assign<'a>(
        needs: &[Need<'a>],
        waiting: impl Iterator<Item = &'a Place>,
        held: &HashMap<Place, u32>,
        running: &BTreeMap<u32, Kind>,
        runs: impl Fn(u32, Option<usize>) -> Runs,
        adds: bool,
    ) -> Self {
        let (mut of, mut all) = (HashMap::with_capacity(held.len()), running.clone());
        let mut numbers: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); needs.len()];
        let mut owners: HashMap<u32, Option<usize>> = HashMap::new();
        let new = |need: Kind| if adds { need } else { Kind::Whole };
        let mut come = Vec::new();
        for (upstream, need) in needs.iter().enumerate() {
            let does = |number: &&u32| running.get(number).is_none_or(|kind| *kind >= need.kind);
            for place in need.places {
                match held.get(place).filter(does) {
                    Some(number) if *owners.entry(*number).or_insert(Some(upstream)) == Some(upstream) => {
                        all.entry(*number).or_insert(new(need.kind));
                        of.insert(place.clone(), *number);
                        numbers[upstream].insert(*number);
                    }
                    _ => come.push((upstream, new(need.kind), place)),
                }
            }
        }
        for place in waiting {
            let Some(number) = held.get(place) else { continue };
            if owners.entry(*number).or_insert(None).is_none() {
                all.entry(*number).or_insert(new(Kind::Plain));
                of.insert(place.clone(), *number);
            }
        }
        let is_free = |number: &u32| !owners.contains_key(number) && runs(*number, None) == Runs::Nothing;
        let free: Vec<(u32, Kind)> = if come.is_empty() {
            Vec::new()
        } else {
            running.iter().map(|(n, k)| (*n, *k)).filter(|(n, _)| is_free(n)).collect()
        };
        let of_kind = |wanted: Kind| free.iter().filter(move |(_, kind)| *kind == wanted).map(|(number, _)| *number);
        let (mut plain, mut whole) = (of_kind(Kind::Plain), of_kind(Kind::Whole));
        let taken: BTreeSet<u32> = all.keys().chain(owners.keys()).copied().collect();
        let mut unused = (1..).filter(|number| !taken.contains(number));
        for (upstream, kind, place) in come {
            let own = numbers[upstream].iter().find(|number| runs(**number, Some(upstream)) != Runs::Foreign).copied();
            let free = || if kind == Kind::Plain { plain.next() } else { whole.next() };
            // There are fewer numbers taken than there are numbers.
            let Some(number) = own.or_else(free).or_else(|| unused.next()) else { continue };
            numbers[upstream].insert(number);
            all.entry(number).or_insert(kind);
            of.insert(place.clone(), number);
        }
        for (upstream, need) in needs.iter().enumerate().filter(|(upstream, _)| numbers[*upstream].len() > 1) {
            join(&mut of, need, |number| runs(number, Some(upstream)) == Runs::All);
        }
        Self { of: of.into(), all }
    }

    /// The sections that serve a place.
    fn taken(&self) -> HashSet<u32> {
        self.of.values().copied().collect()
    }

    /// The spare sections.
    pub fn spares(&self) -> impl Iterator<Item = u32> {
        let taken = self.taken();
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

    /// The same without the plain sections that serve no place, but for those that `stays` says.
    #[must_use]
    pub fn without_idle(mut self, stays: impl Fn(u32) -> bool) -> Self {
        let taken = self.taken();
        self.all.retain(|number, kind| *kind == Kind::Whole || taken.contains(number) || stays(*number));
        self
    }

    /// The same with `spare` spare sections, no fewer and no more: for when HAProxy loads its structure anew anyway.
    #[must_use]
    pub fn refilled(mut self, spare: usize) -> Self {
        let taken = self.taken();
        let free = (1..).filter(|number| !taken.contains(number)).take(spare);
        self.all.retain(|number, _| taken.contains(number));
        self.all.extend(free.map(|number| (number, Kind::Whole)));
        self
    }
}

/// Brings the places of one upstream together in the lowest of its sections that are `settled`: equal servers run in each.
/// A sticky client would lose its backend, so what may be sticky stays.
fn join(of: &mut HashMap<Place, u32>, need: &Need<'_>, settled: impl Fn(u32) -> bool) {
    if need.kind == Kind::Whole {
        return;
    }
    let numbers: BTreeSet<u32> = need.places.iter().filter_map(|place| of.get(place).copied()).collect();
    let settled: BTreeSet<u32> = numbers.into_iter().filter(|number| settled(*number)).collect();
    let Some(first) = settled.first() else { return };
    for place in need.places {
        if let Some(number) = of.get_mut(place).filter(|number| settled.contains(number)) {
            *number = *first;
        }
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
