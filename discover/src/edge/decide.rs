//! Who gets which host and path, and what the others are told. Decided for each host alone, from the claims to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use model::{HostPattern, PathPrefix, Route, ServiceName};

use super::claims::{Claim, Origin};
use super::settings::{EdgeSettings, Ownership};
use super::{Place, Way, of_host};
use crate::seniority::Seniority;

/// The most segments of a path that can be stripped: HAProxy has one rule for each number.
pub const MOST_STRIPPED: usize = 8;

/// What happens at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The service that answers; of several the first, whose word counts.
    pub service: ServiceName,
    /// Services that answer together with it, by name.
    pub with: Vec<ServiceName>,
    /// By what right.
    pub origin: Origin,
    /// What is done on the way.
    pub route: Route,
}

/// A claim that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    pub place: Place,
    pub service: ServiceName,
    pub why: Why,
}

/// `PLACE (SERVICE): WHY`.
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.place, self.service, self.why)
    }
}

/// Why a claim came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Another service has this very place.
    Taken(ServiceName),
    /// Who was there first, perhaps another registration of the same service, says otherwise what the backend is to see of the path.
    Differs(ServiceName),
    /// The config gives the host to others (`edge.hosts`).
    NotOwner,
    /// Another service holds the whole host (`edge.ownership: host`).
    HostHeld(ServiceName),
    /// A shorter path of higher priority takes all of its requests.
    Shadowed {
        /// The shorter path.
        by: PathPrefix,
        service: ServiceName,
    },
    /// More segments than can be stripped.
    TooDeep,
    /// Nowhere is TLS passed through.
    NoSni,
    /// TLS of this name ends here, for the routes of another service that were there before.
    EndsHere(ServiceName),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(service) => write!(f, "it is service {service}'s"),
            Self::Differs(service) => write!(
                f,
                "a registration of service {service}, which was first, says otherwise whether the path is stripped: give both the same, or this one serves when that one is gone"
            ),
            Self::NotOwner => f.write_str("edge.hosts gives the host to other services"),
            Self::HostHeld(service) => write!(f, "service {service} holds the whole host (edge.ownership: host)"),
            Self::Shadowed { by, service } => {
                write!(f, "{by} of service {service} has a higher priority and takes all of its requests")
            }
            Self::TooDeep => write!(f, "no more than {MOST_STRIPPED} segments of a path can be stripped"),
            Self::NoSni => f.write_str("no TLS is passed through here (--edge-sni)"),
            Self::EndsHere(service) => write!(
                f,
                "it ends here, for the routes of service {service} that came first; edge.hosts can give the host to both"
            ),
        }
    }
}

/// What becomes of all claims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// What happens where.
    pub rules: BTreeMap<Place, Rule>,
    /// What came to nothing, sorted.
    pub lost: BTreeSet<Lost>,
}

impl Routing {
    /// Puts what was decided of these hosts alone in the place of what was decided of them before. Returns whether that is anything
    /// else; only then a routing that others hold is copied.
    pub fn replace(this: &mut Arc<Self>, hosts: &BTreeSet<HostPattern>, decided: Self) -> bool {
        let same_rules = hosts.iter().all(|host| of_host(&this.rules, host).eq(of_host(&decided.rules, host)));
        if same_rules && this.lost.iter().filter(|lost| hosts.contains(&lost.place.host)).eq(&decided.lost) {
            return false;
        }
        let this = Arc::make_mut(this);
        for host in hosts {
            let old: Vec<Place> = of_host(&this.rules, host).map(|(place, _)| place.clone()).collect();
            old.iter().for_each(|place| _ = this.rules.remove(place));
        }
        this.lost.retain(|lost| !hosts.contains(&lost.place.host));
        this.rules.extend(decided.rules);
        this.lost.extend(decided.lost);
        true
    }
}

/// Decides about all claims, or all of some hosts: no claim to one matters to another. `before` tells whose each place was: who has one keeps it (see [`Seniority`]).
pub fn decide<'a>(
    claims: impl IntoIterator<Item = &'a Claim>,
    settings: &EdgeSettings,
    before: impl Fn(&Place) -> Option<ServiceName>,
) -> Routing {
    let mut by_host: BTreeMap<&HostPattern, Vec<&Claim>> = BTreeMap::new();
    for claim in claims {
        by_host.entry(&claim.place.host).or_default().push(claim);
    }
    let mut routing = Routing::default();
    for (_, claims) in by_host {
        one_host(claims, settings, &before, &mut routing);
    }
    routing
}

/// Where a claim stands: the lowest comes first. The config, then registrations, then names; among them the most senior.
type Rank<'a> = (Origin, Seniority<'a>);
/// A claim and its standing.
type Ranked<'a> = (Rank<'a>, &'a Claim);

fn one_host<'a>(
    claims: Vec<&'a Claim>,
    settings: &EdgeSettings,
    before: &impl Fn(&Place) -> Option<ServiceName>,
    routing: &mut Routing,
) {
    let mut lose = |claim: &Claim, why| {
        routing.lost.insert(Lost { place: claim.place.clone(), service: claim.service.clone(), why });
    };
    let contested = claims.len() > 1;
    let mut ranked: Vec<Ranked<'a>> = Vec::with_capacity(claims.len());
    for claim in claims {
        let is_deep = || claim.place.path.as_str().matches('/').count() > MOST_STRIPPED;
        if claim.origin != Origin::Config && !settings.owners.allow(&claim.place.host, &claim.service) {
            lose(claim, Why::NotOwner);
        } else if claim.place.way == Way::Sni && settings.sni_port.is_none() {
            lose(claim, Why::NoSni);
        } else if claim.route.strip_prefix && is_deep() {
            lose(claim, Why::TooDeep);
        } else {
            let has = !contested || before(&claim.place).is_some_and(|service| service == claim.service);
            ranked.push(((claim.origin, Seniority::new(has, claim.created, claim.service.as_str())), claim));
        }
    }
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    if settings.ownership == Some(Ownership::Host)
        && let Some(holder) = ranked.first().map(|(_, first)| &first.service)
    {
        ranked.retain(|(_, claim)| {
            let shares = || settings.share(&claim.place.host, holder, &claim.service);
            let stays = claim.service == *holder || claim.origin == Origin::Config || shares();
            if !stays {
                lose(claim, Why::HostHeld(holder.clone()));
            }
            stays
        });
    }
    let mut winners: BTreeMap<(Way, &PathPrefix), Ranked<'a>> = BTreeMap::new();
    let mut with: BTreeMap<(Way, &PathPrefix), BTreeMap<&ServiceName, &Claim>> = BTreeMap::new();
    for (rank, claim) in ranked {
        let at = (claim.place.way, &claim.place.path);
        let Some((_, winner)) = winners.get(&at) else {
            winners.insert(at, (rank, claim));
            continue;
        };
        let agrees = winner.route.strip_prefix == claim.route.strip_prefix;
        let shared =
            winner.origin == claim.origin && settings.share(&claim.place.host, &winner.service, &claim.service);
        match shared && agrees {
            // A service may well ask twice, by a registration and by its name.
            _ if winner.service == claim.service => {}
            true => _ = with.entry(at).or_default().insert(&claim.service, claim),
            false if shared => lose(claim, Why::Differs(winner.service.clone())),
            false => lose(claim, Why::Taken(winner.service.clone())),
        }
    }
    for ((way, path), (rank, claim)) in &winners {
        if claim.differing.is_some() {
            lose(claim, Why::Differs(claim.service.clone()));
        }
        let with: Vec<&Claim> = with.remove(&(*way, *path)).unwrap_or_default().into_values().collect();
        let mut all_lose =
            |why: Why| [&[*claim][..], &with].concat().into_iter().for_each(|claim| lose(claim, why.clone()));
        if *way == Way::Sni
            && let Some(service) = ends_here(rank, claim, &winners, settings)
        {
            all_lose(Why::EndsHere(service));
            continue;
        }
        let requests = winners.iter().filter(|((other, _), _)| *way == Way::Http && other == way);
        let above = requests.filter(|((_, other), _)| other != path && other.covers(path.as_str()));
        // Nobody's word takes a path away from who comes before.
        let shadow = above.map(|(_, other)| other).find(|(other_rank, other)| {
            // Who had its place before keeps it, however old the other's claim is: else the next decision, or a restart, would take it away.
            let before = if rank.1.newcomer { other_rank < rank } else { other_rank.0 < rank.0 };
            let entitled = other.service == claim.service || before;
            entitled && other.priority() > claim.priority() && claim.origin != Origin::Config
        });
        if let Some((_, other)) = shadow {
            all_lose(Why::Shadowed { by: other.place.path.clone(), service: other.service.clone() });
            continue;
        }
        let with = with.iter().map(|claim| claim.service.clone()).collect();
        let rule = Rule { service: claim.service.clone(), with, origin: claim.origin, route: claim.route.clone() };
        routing.rules.insert(claim.place.clone(), rule);
    }
}

/// Where both come to one port, TLS of a host goes either way. Who has routes for it is not to lose them over TLS to who comes later,
/// unless the operator has given the host to both.
fn ends_here(
    (origin, seniority): &Rank<'_>,
    claim: &Claim,
    winners: &BTreeMap<(Way, &PathPrefix), Ranked<'_>>,
    settings: &EdgeSettings,
) -> Option<ServiceName> {
    let given = *origin == Origin::Config || settings.owners.name(&claim.place.host, &claim.service);
    if given || !settings.shares_port() {
        return None;
    }
    let routes = winners.iter().filter(|((way, _), _)| *way == Way::Http).map(|(_, ranked)| ranked);
    let mut others = routes.filter(|(_, other)| other.service != claim.service);
    // Of equals, routes come before TLS that was not passed through before.
    let is_first = |other: &Rank<'_>| {
        let equal = (other.0, other.1.newcomer, other.1.created) == (*origin, seniority.newcomer, seniority.created);
        other.0 < *origin || (other.0 == *origin && other.1.is_senior_to(seniority)) || (equal && seniority.newcomer)
    };
    others.find(|(other, _)| is_first(other)).map(|(_, other)| other.service.clone())
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
