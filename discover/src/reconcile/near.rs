//! Near first: which backends of a pool get the requests, by what their labels say of their place. Pure.
//!
//! A pool falls into tiers: those that have the first preferred label, those of the others that have the second, and so on; the rest is the last tier.
//! Requests go to the first tier in which enough backends can take one, and to those before it. A later tier stays in HAProxy with the least weight, so that HAProxy
//! itself sends requests there the moment nothing else is up. All of it is weights, which HAProxy changes without a reload.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use model::{Backend, BackendId, Pattern, Pool, ServiceMap, ServiceName, Status, Weight};

/// HAProxy's greatest weight: what the nearest tier gets for each 1 of a later one.
const MOST: u16 = 256;

/// Backends that HAProxy finds down.
pub type FoundDown = HashSet<(ServiceName, BackendId)>;

/// A label whose value says that a backend is near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    label: String,
    value: String,
}

impl FromStr for Preference {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (label, value) = text
            .split_once('=')
            .filter(|(label, value)| !label.is_empty() && !value.is_empty())
            .ok_or("not LABEL=VALUE")?;
        Ok(Self { label: label.to_owned(), value: value.to_owned() })
    }
}

impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.label, self.value)
    }
}

impl Preference {
    fn holds(&self, backend: &Backend) -> bool {
        backend.labels.get(&self.label) == Some(&self.value)
    }
}

/// What is near, and when farther backends are asked as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NearSettings {
    /// The tiers, the nearest first; none sends requests to all backends alike.
    pub prefer: Vec<Preference>,
    /// The share of a tier, in percent, that has to be able to take requests; with less the next tier is asked as well.
    pub least: u8,
    /// For which services.
    pub services: Vec<Pattern>,
}

/// What became of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nearness {
    /// Requests go to backends up to this tier.
    Near(String),
    /// Too few of the nearest tier can take requests: farther ones are asked as well. For people.
    Spills(String),
}

/// Weighs pools, and remembers what came of it: a pool that did not change is not weighed again.
#[derive(Debug, Default)]
pub struct Near {
    settings: NearSettings,
    found_down: Arc<FoundDown>,
    weighed: BTreeMap<ServiceName, Weighed>,
}

#[derive(Debug)]
struct Weighed {
    pool: Arc<Pool>,
    output: Arc<Pool>,
    nearness: Option<Nearness>,
}

impl Near {
    /// By these settings.
    pub fn new(settings: NearSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Whether nothing is preferred.
    pub fn is_off(&self) -> bool {
        self.settings.prefer.is_empty()
    }

    /// Takes note of what HAProxy finds.
    pub fn hear(&mut self, found_down: &Arc<FoundDown>) {
        if !Arc::ptr_eq(&self.found_down, found_down) {
            let news: HashSet<&ServiceName> =
                self.found_down.symmetric_difference(found_down).map(|(service, _)| service).collect();
            self.weighed.retain(|service, _| !news.contains(service));
            self.found_down = found_down.clone();
        }
    }

    /// Gives each pool the weights that its tiers ask for. A pool that has one tier stays the same.
    pub fn weigh(&mut self, services: &mut ServiceMap) -> BTreeMap<ServiceName, Nearness> {
        if self.is_off() {
            return BTreeMap::new();
        }
        self.weighed.retain(|service, _| services.contains_key(service));
        let mut all = BTreeMap::new();
        for (service, pool) in services.iter_mut() {
            let known = self.weighed.get(service).filter(|weighed| Arc::ptr_eq(&weighed.pool, pool));
            if known.is_none() {
                let weighed = self.weigh_one(service, pool);
                self.weighed.insert(service.clone(), weighed);
            }
            if let Some(weighed) = self.weighed.get(service) {
                *pool = weighed.output.clone();
                all.extend(weighed.nearness.clone().map(|nearness| (service.clone(), nearness)));
            }
        }
        all
    }

    fn weigh_one(&self, service: &ServiceName, pool: &Arc<Pool>) -> Weighed {
        let same = |nearness| Weighed { pool: pool.clone(), output: pool.clone(), nearness };
        let NearSettings { prefer, services, .. } = &self.settings;
        if !services.is_empty() && !services.iter().any(|pattern| pattern.covers(service.as_str())) {
            return same(None);
        }
        let tier = |b: &Arc<Backend>| prefer.iter().position(|p| p.holds(b)).unwrap_or(prefer.len());
        let tiers: Vec<usize> = pool.backends().iter().map(tier).collect();
        let Some(nearest) = tiers.iter().min().copied().filter(|nearest| tiers.iter().any(|tier| tier != nearest))
        else {
            return same(None);
        };
        let able =
            |b: &Arc<Backend>| b.status == Status::Up && !self.found_down.contains(&(service.clone(), b.id.clone()));
        let count = |of: usize| {
            let there = pool.backends().iter().zip(&tiers).filter(|(_, tier)| **tier == of).map(|(b, _)| b);
            there.fold((0, 0), |(up, all), b| (up + usize::from(able(b)), all + 1))
        };
        let name = |tier: usize| prefer.get(tier).map_or_else(|| "the rest".to_owned(), ToString::to_string);
        let suffices = |of: &usize| {
            let (up, all) = count(*of);
            all > 0 && up * 100 >= all * usize::from(self.settings.least).max(1)
        };
        let last = (nearest..=prefer.len()).find(suffices).unwrap_or(prefer.len());
        let nearness = if last == nearest {
            Nearness::Near(name(nearest))
        } else {
            let (up, all) = count(nearest);
            Nearness::Spills(format!(
                "{up} of {all} with {} can take requests, so that others are asked as well (--prefer-min)",
                name(nearest)
            ))
        };
        if tiers.iter().all(|tier| *tier <= last) {
            return same(Some(nearness));
        }
        let own = |b: &Backend| b.weight.map_or(1, Weight::get);
        let scale = MOST / pool.backends().iter().map(|b| own(b)).max().unwrap_or(1).max(1);
        let weighed = pool.backends().iter().zip(&tiers).map(|(backend, tier)| {
            let weight = if *tier <= last { own(backend) * scale } else { own(backend).min(1) };
            Arc::new(Backend { weight: Weight::try_from(u32::from(weight)).ok(), ..(**backend).clone() })
        });
        Weighed { pool: pool.clone(), output: Arc::new(weighed.collect()), nearness: Some(nearness) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(id: &str, labels: &[(&str, &str)], weight: Option<u32>) -> Arc<Backend> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let weight = weight.and_then(|weight| Weight::try_from(weight).ok());
        let plain = Backend::new(id.parse().unwrap(), "10.0.0.1".parse().unwrap(), 80.try_into().unwrap());
        Arc::new(Backend { labels: Arc::new(labels), weight, ..plain })
    }

    fn near(least: u8) -> Near {
        let prefer = ["node=h1", "zone=a"].map(|text| text.parse().unwrap()).into();
        Near::new(NearSettings { prefer, least, services: vec!["web*".into()] })
    }

    /// The weights that these get, by id, and whether requests spill.
    fn weigh(near: &mut Near, service: &str, pool: &[Arc<Backend>]) -> (Vec<u16>, Option<bool>) {
        let name: ServiceName = service.parse().unwrap();
        let mut services: ServiceMap =
            [(name.clone(), Arc::new(Pool::new(pool.iter().cloned())))].into_iter().collect();
        let nearness = near.weigh(&mut services).remove(&name);
        let weights = services[&name].backends().iter().map(|b| b.weight.map_or(1, Weight::get)).collect();
        (weights, nearness.map(|nearness| matches!(nearness, Nearness::Spills(_))))
    }

    #[test]
    fn requests_go_to_the_nearest_tier_that_has_enough() {
        let [here, zone, zone2, far] = [
            ("h", &[("node", "h1"), ("zone", "a")][..]),
            ("z", &[("zone", "a")]),
            ("y", &[("zone", "a")]),
            ("f", &[("zone", "b")]),
        ]
        .map(|(id, labels)| backend(id, labels, None));
        let all = [here.clone(), zone.clone(), zone2.clone(), far.clone()];
        assert_eq!(weigh(&mut near(50), "web", &all), (vec![256, 1, 1, 1], Some(false)));
        assert_eq!(weigh(&mut near(50), "other", &all), (vec![1; 4], None), "not one of --prefer-services");
        assert_eq!(weigh(&mut near(50), "web", &all[1..]), (vec![256, 256, 1], Some(false)), "the zone is the nearest");
        assert_eq!(weigh(&mut near(50), "web", &all[3..]), (vec![1], None), "one tier alone");
        // The host's own drains: the zone is asked. Half of the zone is enough, less is not.
        let draining = |b: &Arc<Backend>| Arc::new(Backend { status: Status::Draining, ..(**b).clone() });
        assert_eq!(
            weigh(&mut near(50), "web", &[draining(&here), zone.clone(), zone2.clone(), far.clone()]),
            (vec![256, 256, 256, 1], Some(true))
        );
        let half = [draining(&zone), zone2.clone(), far.clone()];
        assert_eq!(weigh(&mut near(50), "web", &half), (vec![256, 256, 1], Some(false)));
        assert_eq!(weigh(&mut near(51), "web", &half), (vec![1; 3], Some(true)));
        assert_eq!(weigh(&mut near(0), "web", &[draining(&zone), far]), (vec![1, 1], Some(true)), "none can take any");
    }

    #[test]
    fn weights_of_their_own_keep_their_ratio_and_nothing_stays_nothing() {
        let pool =
            [("a", Some(2)), ("b", Some(1)), ("c", Some(0))].map(|(id, weight)| backend(id, &[("zone", "a")], weight));
        let far = [("d", Some(100)), ("e", Some(0))].map(|(id, weight)| backend(id, &[], weight));
        let all: Vec<_> = pool.into_iter().chain(far).collect();
        assert_eq!(weigh(&mut near(50), "web", &all).0, [4, 2, 0, 1, 0]);
    }

    #[test]
    fn what_haproxy_finds_down_counts_and_what_did_not_change_stays_the_same() {
        let mut near = near(50);
        let name: ServiceName = "web".parse().unwrap();
        let pool = Arc::new(Pool::new([backend("a", &[("zone", "a")], None), backend("b", &[], None)]));
        let weigh = |near: &mut Near| {
            let mut services: ServiceMap = [(name.clone(), pool.clone())].into_iter().collect();
            near.weigh(&mut services);
            services[&name].clone()
        };
        let before = weigh(&mut near);
        assert!(Arc::ptr_eq(&before, &weigh(&mut near)));
        near.hear(&Arc::new([(name.clone(), "a".parse().unwrap())].into_iter().collect()));
        assert!(Arc::ptr_eq(&pool, &weigh(&mut near)), "both are asked");
        near.hear(&Arc::default());
        assert_eq!(before, weigh(&mut near));
    }
}
