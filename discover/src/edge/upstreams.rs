//! Who serves a place: the registrations that claim it. Places that the very same registrations serve have one upstream. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use model::{Pool, ServiceName, Transport};

use super::claims::{Asks, Origin};
use super::{Place, Routing, Way};

/// The registrations behind one or several places.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Of each service those of its registrations that serve here; the service whose word counts comes first.
    pub members: Vec<(ServiceName, Arc<Pool>)>,
    /// Where, in order.
    pub places: Vec<Place>,
    /// Whether any of the places keeps a client at its backend.
    pub sticky: bool,
}

impl Upstream {
    /// What of a client is looked at.
    pub fn way(&self) -> Option<Way> {
        self.places.first().map(|place| place.way)
    }
}

/// A service, and the number of a part of its pool.
type Part<'a> = (&'a ServiceName, usize);

/// The upstreams of these rules, in order of their first places. A place whose services have no backend that could serve has none.
/// `asks` tells what a service asks for.
pub fn upstreams<'a>(routing: &Routing, asks: impl Fn(&ServiceName) -> Option<&'a Asks>) -> Vec<Upstream> {
    let mut known: BTreeMap<(Way, Vec<Part<'_>>), usize> = BTreeMap::new();
    // Most places have one service.
    let mut known_alone: HashMap<(Way, Part<'_>), usize> = HashMap::new();
    let mut found: Vec<Upstream> = Vec::new();
    for (place, rule) in &routing.rules {
        let serves = |service: &'_ ServiceName| {
            let asks = asks(service)?;
            // The operator means the service.
            let of = if rule.origin == Origin::Config { asks.whole() } else { asks.claimants(place) };
            of.filter(|(_, pool)| pool.backends().iter().any(|b| b.transport == Transport::Tcp))
        };
        let services = std::iter::once(&rule.service).chain(&rule.with);
        let members: Vec<_> = services.filter_map(|service| Some((service, serves(service)?))).collect();
        let new = || {
            let members = members.iter().map(|(service, (_, pool))| ((*service).clone(), (*pool).clone())).collect();
            found.push(Upstream { members, places: Vec::new(), sticky: false });
            found.len() - 1
        };
        let number = match &members[..] {
            [] => continue,
            [(service, (part, _))] => *known_alone.entry((place.way, (*service, *part))).or_insert_with(new),
            several => {
                let parts = several.iter().map(|(service, (part, _))| (*service, *part)).collect();
                *known.entry((place.way, parts)).or_insert_with(new)
            }
        };
        if let Some(upstream) = found.get_mut(number) {
            upstream.places.push(place.clone());
            upstream.sticky |= rule.route.sticky;
        }
    }
    found
}
