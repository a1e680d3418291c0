//! Gives services their ports: who has one keeps it; else the oldest claim counts, then the lowest name. Pure.
//!
//! A backend that asks for a port which its service cannot have stays behind the port where it serves, until it can. This is no claim, but
//! it comes before newcomers' claims: so two services swap their ports, one after the other, and nobody is refused meanwhile.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{BackendId, Pool, Port, ServiceMap, ServiceName};

use super::ports::{PortNote, PortPool, Ports, ServicePort, Share, Unlisted, tcp};
use super::settings::HaproxySettings;
use super::tenants::Tenants;
use super::wishes::{HadPort, Wish, wishes};
use crate::haproxy::process::ports::BindReason;
use crate::seniority::Seniority;

/// The most ports of one service. Registry writers are untrusted, and each port is a section.
const MOST_PORTS: usize = 100;

/// Why nobody can listen on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shut {
    /// The system refuses it, for that reason.
    Refused(BindReason),
    /// The container of that name publishes it, whether it runs or not.
    Container(Arc<str>),
}

/// What is known beside the registrations.
#[derive(Debug)]
pub struct Standing<'a> {
    /// Who has which port.
    pub tenants: &'a Tenants,
    /// Service ports without a backend that is registered and of whose held ones none works: they yield.
    pub absent: &'a BTreeSet<ServicePort>,
    /// Ports on which nobody can listen.
    pub shut: &'a BTreeMap<Port, Shut>,
}

/// Gives each service its ports. Of several that ask for one, those with a backend that is registered or works come first; among
/// them [`Seniority`] decides.
pub fn assign(services: &ServiceMap, settings: &HaproxySettings, standing: &Standing<'_>) -> Ports {
    let stats_taken =
        settings.stats.port.is_some_and(|port| matches!(standing.shut.get(&port), Some(Shut::Refused(_))));
    let mut ports = Ports { stats_taken, ..Ports::default() };
    if settings.service_ports.is_none() {
        return ports; // as the operator wants it: nothing to be told of any service
    }
    let mut contest =
        Contest { settings, standing, asked: Vec::with_capacity(services.len()), winners: BTreeMap::new() };
    let mut tenants = standing.tenants.in_order();
    for (service, pool) in services {
        let has = tenants.find(service);
        match wishes(pool, &has) {
            Ok(wishes) => contest.enter(service, pool, wishes, &has),
            Err(reason) => _ = ports.unlisted.insert(service.clone(), reason),
        }
    }
    contest.decide();
    let stays = contest.stay();
    contest.fill(&mut ports, stays);
    name_apart(&mut ports.listed, standing.tenants);
    ports
}

/// The same where nothing is known but the registrations.
pub fn assign_anew(services: &ServiceMap, settings: &HaproxySettings) -> Ports {
    let (tenants, absent, shut) = (Tenants::default(), BTreeSet::new(), BTreeMap::new());
    assign(services, settings, &Standing { tenants: &tenants, absent: &absent, shut: &shut })
}

/// A service asks for a port.
struct Asked<'a> {
    at: ServicePort,
    pool: &'a Arc<Pool>,
    wish: Wish<'a>,
    /// The service asks for no other port.
    alone: bool,
    /// Why in vain.
    refused: Option<Unlisted>,
}

/// Backends that ask for another port in vain, by the service port behind which they stay.
type Stays<'a> = BTreeMap<ServicePort, (&'a Arc<Pool>, BTreeSet<BackendId>)>;

struct Contest<'a> {
    settings: &'a HaproxySettings,
    standing: &'a Standing<'a>,
    /// In order.
    asked: Vec<Asked<'a>>,
    /// The first of those that ask for a port, and its place in that list.
    winners: BTreeMap<Port, ((bool, Seniority<'a>), usize)>,
}

impl<'a> Contest<'a> {
    fn enter(
        &mut self,
        service: &'a ServiceName,
        pool: &'a Arc<Pool>,
        wishes: BTreeMap<Port, Wish<'a>>,
        has: &[HadPort<'_>],
    ) {
        let had = |port: Port| has.iter().any(|had| had.port == port);
        let alone = wishes.len() == 1;
        let beyond: BTreeSet<Port> = match wishes.len() > MOST_PORTS {
            false => BTreeSet::new(),
            true => {
                let mut all: Vec<_> = wishes.iter().collect();
                all.sort_by_key(|(port, wish)| (!had(**port), wish.oldest.created.unwrap_or(u64::MAX), **port));
                all.into_iter().skip(MOST_PORTS).map(|(port, _)| *port).collect()
            }
        };
        for (port, wish) in wishes {
            let at = ServicePort { service: service.clone(), port };
            let refused = match beyond.contains(&port) {
                true => Some(Unlisted::TooMany(port, MOST_PORTS)),
                false => self.shut(port),
            };
            if refused.is_none() {
                let seniority = Seniority::new(had(port), wish.oldest.created, service.as_str());
                let rank = (self.standing.absent.contains(&at), seniority);
                match self.winners.entry(port) {
                    Entry::Vacant(first) => _ = first.insert((rank, self.asked.len())),
                    Entry::Occupied(mut winner) if rank < winner.get().0 => _ = winner.insert((rank, self.asked.len())),
                    Entry::Occupied(_) => {}
                }
            }
            self.asked.push(Asked { at, pool, wish, alone, refused });
        }
    }

    /// Why nobody can have a port.
    fn shut(&self, port: Port) -> Option<Unlisted> {
        let settings = self.settings;
        match self.standing.shut.get(&port) {
            _ if !settings.service_ports.contains(port) => Some(Unlisted::NotAllowed(port)),
            _ if settings.stats.port == Some(port) || settings.reserved.contains(&port) => {
                Some(Unlisted::Reserved(port))
            }
            Some(Shut::Refused(reason)) => Some(Unlisted::Closed(port, *reason)),
            Some(Shut::Container(container)) => Some(Unlisted::Published { port, container: container.clone() }),
            None => None,
        }
    }

    /// Each port is its winner's.
    fn decide(&mut self) {
        for nth in 0..self.asked.len() {
            let at = &self.asked[nth].at;
            let first = || self.winners.get(&at.port).map(|(_, winner)| &self.asked[*winner].at.service);
            let winner = self.standing.tenants.awaited(at.port).or_else(first);
            let clash = winner.filter(|winner| **winner != at.service).cloned();
            if let (Some(winner), None) = (clash, &self.asked[nth].refused) {
                self.asked[nth].refused = Some(Unlisted::Clash { port: self.asked[nth].at.port, winner });
            }
        }
    }

    /// Finds out who stays where it serves, and takes those ports from newcomers: their backends may stay in turn.
    fn stay(&mut self) -> Stays<'a> {
        let mut stays = Stays::new();
        let mut in_vain: Vec<usize> = (0..self.asked.len()).filter(|nth| self.asked[*nth].refused.is_some()).collect();
        while let Some(nth) = in_vain.pop() {
            let Asked { at: ServicePort { service, port }, pool, .. } = &self.asked[nth];
            let (service, port, pool) = (service.clone(), *port, *pool);
            let waiting = || tcp(pool).filter(|b| b.service_port == Some(port));
            for (home, tenancy) in self.standing.tenants.ports_of(&service).filter(|(home, _)| *home != port) {
                let at = ServicePort { service: service.clone(), port: home };
                let ids = tenancy.among(home, waiting());
                if ids.is_empty() || !self.keeps(&at, &mut in_vain) {
                    continue;
                }
                stays.entry(at).or_insert((pool, BTreeSet::new())).1.extend(ids.into_iter().map(|b| b.id.clone()));
            }
        }
        stays
    }

    /// Whether a service that has a port keeps it for backends that wait for another. Whom it takes it from joins `in_vain`.
    fn keeps(&mut self, at: &ServicePort, in_vain: &mut Vec<usize>) -> bool {
        if let Ok(own) = self.asked.binary_search_by(|asked| asked.at.cmp(at)) {
            return self.asked[own].refused.is_none();
        }
        if self.shut(at.port).is_some() {
            return false;
        }
        let Some((_, other)) = self.winners.get(&at.port) else { return true };
        if self.standing.absent.contains(at) {
            return false;
        }
        let other = *other;
        if self.asked[other].refused.is_none() {
            self.asked[other].refused = Some(Unlisted::Clash { port: at.port, winner: at.service.clone() });
            in_vain.push(other);
        }
        true
    }

    /// Writes down what has come of it.
    fn fill(self, ports: &mut Ports, mut stays: Stays<'a>) {
        let home = |at: &ServicePort, id: &BackendId, stays: &Stays<'_>| {
            let mut homes = stays.range(ServicePort::all_of(&at.service));
            homes.find(|(_, (_, ids))| ids.contains(id)).map(|(home, _)| home.port)
        };
        let mut asked = self.asked.into_iter().peekable();
        while let Some(first) = asked.peek() {
            let service = first.at.service.clone();
            let mut of_service: Vec<Asked<'_>> = Vec::new();
            while let Some(next) = asked.next_if(|next| next.at.service == service) {
                of_service.push(next);
            }
            let mut notes = Vec::new();
            if let Some(several) = several(&of_service, self.standing.tenants) {
                notes.push(several);
            }
            let (mut serves, mut why_not) = (false, None);
            for Asked { at, pool, wish, alone, refused } in of_service {
                match refused {
                    None => {
                        if !wish.named {
                            notes.push(PortNote::Last(at.port));
                        }
                        let share = if alone { Share::Whole } else { Share::Part(wish.unnamed) };
                        ports.listed.insert(at, PortPool { all: pool.clone(), share, apart: false });
                        serves = true;
                    }
                    Some(why) => {
                        let id = &wish.oldest.id;
                        let stays = home(&at, id, &stays);
                        notes.push(PortNote::Waits { backend: id.clone(), why: why.clone(), stays });
                        serves |= stays.is_some();
                        why_not = why_not.or(Some(why.clone()));
                        ports.refused.insert(at, why);
                    }
                }
            }
            match why_not.filter(|_| !serves) {
                Some(why) => _ = ports.unlisted.insert(service, why),
                None if notes.is_empty() => {}
                None => _ = ports.notes.insert(service, notes),
            }
        }
        while let Some((at, (pool, ids))) = stays.pop_first() {
            let behind = ports.listed.entry(at).or_insert_with(|| PortPool {
                all: pool.clone(),
                share: Share::Part(BTreeSet::new()),
                apart: false,
            });
            if let Share::Part(also) = &mut behind.share {
                also.extend(ids);
            }
        }
    }
}

/// The note about a service that listens on several ports.
fn several(of_service: &[Asked<'_>], tenants: &Tenants) -> Option<PortNote> {
    let granted = || of_service.iter().filter(|asked| asked.refused.is_none());
    let age = |asked: &Asked<'_>| (asked.wish.oldest.created.unwrap_or(u64::MAX), asked.at.port);
    let first = granted().min_by_key(|a| (tenants.is_apart(&a.at), !tenants.has(&a.at), age(a)))?;
    let other = granted().find(|asked| asked.at.port != first.at.port)?;
    let ports = granted().map(|asked| asked.at.port).collect();
    Some(PortNote::Several { ports, backend: other.wish.oldest.id.clone(), asked: other.at.port })
}

/// Of the ports of one service the section of one alone is called as the service: that which is already, else the oldest's.
fn name_apart(listed: &mut BTreeMap<ServicePort, PortPool>, tenants: &Tenants) {
    let mut first: Option<(&ServicePort, &mut PortPool)> = None;
    for (at, pool) in listed.iter_mut() {
        if tenants.is_apart(at) {
            pool.apart = true;
            continue;
        }
        let this = (at, pool);
        let Some(before) = first.take_if(|(before, _)| before.service == at.service) else {
            first = Some(this);
            continue;
        };
        let swap = standing(this.0, this.1, tenants) < standing(before.0, before.1, tenants);
        let (holder, other) = if swap { (this, before) } else { (before, this) };
        other.1.apart = true;
        first = Some(holder);
    }
}

/// Whether a service port is new, and the age of its oldest backend.
fn standing(at: &ServicePort, pool: &PortPool, tenants: &Tenants) -> (bool, u64) {
    let oldest = tcp(&pool.all).filter(|b| pool.share.has(at.port, b)).filter_map(|b| b.created).min();
    (!tenants.has(at), oldest.unwrap_or(u64::MAX))
}

#[cfg(test)]
#[path = "assign_tests.rs"]
mod tests;
