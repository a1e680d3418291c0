//! What one service asks for: by its registrations' routes, by its name, by the config.

use std::collections::BTreeMap;

use model::{Mode, PathPrefix, Pool, Route, ServiceName, Transport};

use super::settings::EdgeSettings;
use super::{Place, Way};
use crate::seniority::mode;

/// Who asks. The first comes before the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The operator, in the config.
    Config,
    /// A registration.
    Registration,
    /// The service's name and `--edge-suffix`.
    Name,
}

/// What one service asks for at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where.
    pub place: Place,
    /// Who.
    pub service: ServiceName,
    /// By what right.
    pub origin: Origin,
    /// The store's revision when the oldest registration that asks for it was created, where that is known.
    pub created: Option<u64>,
    /// What is to be done there.
    pub route: Route,
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

/// What a service asks for by its registrations and its name: each place once, the oldest registration's word counts.
pub fn of_service(
    service: &ServiceName,
    pool: &Pool,
    settings: &EdgeSettings,
    default_mode: Mode,
) -> BTreeMap<Place, Claim> {
    let mut claims: BTreeMap<Place, Claim> = BTreeMap::new();
    let mut add = |way, origin, created, route: &Route| {
        let place = Place { way, host: route.host.clone(), path: route.path.clone() };
        let new = || Claim { place: place.clone(), service: service.clone(), origin, created, route: route.clone() };
        claims.entry(place.clone()).or_insert_with(new);
    };
    let mut oldest_first: Vec<_> = pool.backends().iter().filter(|b| b.transport == Transport::Tcp).collect();
    oldest_first.sort_by_key(|b| b.created.unwrap_or(u64::MAX));
    for backend in oldest_first {
        backend.routes.iter().for_each(|route| add(Way::Http, Origin::Registration, backend.created, route));
        for name in &*backend.sni {
            let route = Route::new(name.clone(), PathPrefix::root());
            add(Way::Sni, Origin::Registration, backend.created, &route);
        }
    }
    if !settings.suffixes.is_empty() && speaks_http(pool, default_mode) {
        let created = pool.backends().iter().filter_map(|b| b.created).min();
        for suffix in &settings.suffixes {
            // A name that is no host name (`a:80`) has none.
            if let Ok(host) = format!("{service}.{suffix}").parse() {
                add(Way::Http, Origin::Name, created, &Route::new(host, PathPrefix::root()));
            }
        }
    }
    claims
}

/// What the config asks for.
pub fn of_config(settings: &EdgeSettings) -> impl Iterator<Item = Claim> {
    settings.rules.iter().map(|rule| Claim {
        place: Place { way: rule.way, host: rule.route.host.clone(), path: rule.route.path.clone() },
        service: rule.service.clone(),
        origin: Origin::Config,
        created: None,
        route: rule.route.clone(),
    })
}
