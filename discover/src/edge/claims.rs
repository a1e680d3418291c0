//! What one service asks for: by its registrations' routes, by its name, by the config.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;
use model::{Backend, BackendId, HostPattern, Mode, PathPrefix, Pool, Route, ServiceName, Status, Transport};

use super::Place;
use super::settings::EdgeSettings;
use crate::seniority::mode;

/// Who asks. The first comes before the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The operator, in the config.
    Config,
    Registration,
    /// The service's name and `--edge-suffix`.
    Name,
}

/// What one service asks for at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub place: Place,
    pub service: ServiceName,
    /// By what right.
    pub origin: Origin,
    /// The store's revision when the oldest registration that asks for it was created, where that is known.
    pub created: Option<u64>,
    /// What is to be done there.
    pub route: Route,
    /// One of perhaps several registrations that ask for the same place with another word on what the backend is to see of the path:
    /// they do not serve it as long as this claim's word counts.
    pub differing: Option<BackendId>,
}

impl Claim {
    /// Of two paths that match a request the one with the higher number counts; unset, it is as long as what it matches, as
    /// with Traefik.
    pub fn priority(&self) -> i64 {
        let length = self.place.host.as_str().len() + self.place.path.as_str().len();
        self.route.priority.map_or_else(|| i64::try_from(length).unwrap_or(i64::MAX), i64::from)
    }
}

/// Whether the edge could speak to this service at all, and in which mode its clients speak.
pub fn speaks_http(pool: &Pool, default_mode: Mode) -> bool {
    let tcp = || pool.backends().iter().filter(|b| b.transport == Transport::Tcp);
    let routed = tcp().any(|b| !b.routes.is_empty());
    tcp().next().is_some() && (routed || mode(pool, default_mode, None) == Mode::Http)
}

/// What a service asks for by its registrations and its name, and which of them do.
#[derive(Debug, Default)]
pub struct Asks {
    /// The claims, each place once.
    pub claims: BTreeMap<Place, Claim>,
    /// The registrations that claim a place, as a number of `pools`.
    claimants: HashMap<Place, usize>,
    /// First the whole pool, then parts of it, each once.
    pools: Vec<Arc<Pool>>,
}

impl Asks {
    /// The whole pool.
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        self.pools.first()
    }

    /// The hosts under which `self` and `other` do not ask for the same.
    pub fn differ_in(&self, other: &Self) -> BTreeSet<HostPattern> {
        let missing = |one: &Self, other: &Self| -> Vec<HostPattern> {
            let differs = one.claims.iter().filter(|(place, claim)| other.claims.get(place) != Some(claim));
            differs.map(|(place, _)| place.host.clone()).collect()
        };
        [missing(self, other), missing(other, self)].concat().into_iter().collect()
    }

    /// The registrations that claim a place, and a number that places have in common which the same ones claim.
    pub fn claimants(&self, place: &Place) -> Option<(usize, &Arc<Pool>)> {
        let number = *self.claimants.get(place)?;
        Some((number, self.pools.get(number)?))
    }

    /// The whole pool, with its number.
    pub fn whole(&self) -> Option<(usize, &Arc<Pool>)> {
        self.pool().map(|pool| (0, pool))
    }
}

/// One registration that claims a place.
struct Asking<'a> {
    route: Route,
    backend: &'a Backend,
    /// Its number in the pool.
    at: u32,
}

/// What a service asks for by its registrations and its name. Of several registrations that claim one place the oldest one's word
/// counts, and one that takes clients comes before one that is on its way out. `before` gives what was found the last time: equal
/// parts of the pool are the very same.
pub fn of_service(
    service: &ServiceName,
    pool: &Arc<Pool>,
    settings: &EdgeSettings,
    default_mode: Mode,
    before: Option<&Asks>,
) -> Asks {
    let mut asked: BTreeMap<Place, Vec<Asking<'_>>> = BTreeMap::new();
    let tcp = || (0u32..).zip(pool.backends()).filter(|(_, b)| b.transport == Transport::Tcp);
    for (at, backend) in tcp() {
        for route in &*backend.routes {
            let place = Place::http(route.host.clone(), route.path.clone());
            asked.entry(place).or_default().push(Asking { route: route.clone(), backend, at });
        }
        for name in &*backend.sni {
            let route = Route::new(name.clone(), PathPrefix::root());
            asked.entry(Place::sni(name.clone())).or_default().push(Asking { route, backend, at });
        }
    }
    let every: Vec<u32> = tcp().map(|(at, _)| at).collect();
    let mut asks = Asks { pools: vec![pool.clone()], ..Asks::default() };
    let mut known: HashMap<Vec<u32>, usize> = HashMap::from_iter([(every, 0)]);
    for (place, asking) in asked {
        let age = |asking: &&Asking<'_>| {
            (asking.backend.status == Status::Draining, asking.backend.created.unwrap_or(u64::MAX))
        };
        let Some(first) = asking.iter().min_by_key(age) else { continue };
        let agrees = |asking: &&Asking<'_>| asking.route.strip_prefix == first.route.strip_prefix;
        let members: Vec<u32> = asking.iter().filter(agrees).map(|asking| asking.at).collect();
        let number = *known.entry(members).or_insert_with_key(|members| {
            let part = Pool::new(members.iter().filter_map(|at| pool.backends().get(*at as usize).cloned()));
            let same = before.and_then(|before| before.claimants(&place)).filter(|(_, was)| ***was == part);
            asks.pools.push(same.map_or_else(|| Arc::new(part), |(_, was)| was.clone()));
            asks.pools.len() - 1
        });
        let claim = Claim {
            service: service.clone(),
            origin: Origin::Registration,
            created: asking.iter().filter_map(|asking| asking.backend.created).min(),
            route: first.route.clone(),
            differing: asking.iter().find(|asking| !agrees(asking)).map(|asking| asking.backend.id.clone()),
            place: place.clone(),
        };
        asks.claimants.insert(place.clone(), number);
        asks.claims.insert(place, claim);
    }
    if !settings.suffixes.is_empty() && speaks_http(pool, default_mode) {
        let created = pool.backends().iter().filter_map(|b| b.created).min();
        for suffix in &settings.suffixes {
            // A name that is no host name (`a:80`) has none.
            let Ok(host) = format!("{service}.{suffix}").parse() else { continue };
            let (place, origin) = (Place::http(host, PathPrefix::root()), Origin::Name);
            let route = Route::new(place.host.clone(), place.path.clone());
            let claim =
                Claim { place: place.clone(), service: service.clone(), origin, created, route, differing: None };
            asks.claims.entry(place.clone()).or_insert(claim);
            // The name is the service's: all of it answers, whatever its registrations claim.
            asks.claimants.insert(place, 0);
        }
    }
    asks
}

/// What the config asks for.
pub fn of_config(settings: &EdgeSettings) -> impl Iterator<Item = Claim> {
    settings.rules.iter().map(|rule| Claim {
        place: Place { way: rule.way, host: rule.route.host.clone(), path: rule.route.path.clone() },
        service: rule.service.clone(),
        origin: Origin::Config,
        created: None,
        route: rule.route.clone(),
        differing: None,
    })
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
