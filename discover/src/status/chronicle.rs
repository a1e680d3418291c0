//! What a turn, or HAProxy by itself, has changed, as changes of the history. No I/O.
//!
//! | `what` | it means | `reason` |
//! |---|---|---|
//! | `started` | discover began, with that many services and backends | |
//! | `registered` | a backend came | its status, where that is not `up` |
//! | `gone` | a backend went | `orderly`, `expired`, or nothing where the source does not tell |
//! | `up`, `draining`, `down` | its registration says so from now on | `registration` |
//! | `changed` | its address or weight changed | |
//! | `held`, `hold_ended` | the guard keeps backends of a service, or keeps none any more | |
//! | `server_up`, `server_down`, `server_draining`, `server_maint` | HAProxy says so of a backend | the check's result, `L4CON` |
//! | `out_of_service`, `in_service` | no backend of a service can take a request; one can again | |
//! | `left_out`, `taken_in` | a registration is left out; it is not any more | |
//! | `reload`, `reload_failed` | HAProxy was reloaded, or refused it | why it was reloaded |
//! | `source_away`, `source_back` | a source fails, and is current again (noted by the agent) | |
//! | `near`, `spills` | near backends of a service suffice again; farther ones are asked as well (`--prefer`) | |
//! | `more` | so many further changes of one turn are not named | |

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use agent::clock;
use agent::history::{Change, History};
use agent::watch::Observation;
use model::{Backend, BackendId, Pool, ServiceMap, ServiceName, Status};
use registry::{DepartureCause, Snapshot};
use serde_json::Value;
use tokio::time::Instant;

use super::services::View;
use crate::generators::haproxy::traffic::seen::{BackendState, SeenServer};
use crate::generators::haproxy::turn::status::{HaproxyStatus, ReloadRecord};
use crate::reconcile::{Desired, FoundDown, Nearness};

/// The most changes of one turn that are named: a registry that comes back whole is not to push out all that was before.
const MOST_OF_A_TURN: usize = 500;

/// Compares each turn with the one before.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    pub(super) history: History,
    last: Option<Last>,
    /// What HAProxy said of each backend, and what its registration said then.
    seen: HashMap<(ServiceName, BackendId), (BackendState, Status)>,
    /// Those of them that HAProxy finds down.
    pub(super) found_down: Arc<FoundDown>,
    /// Since when HAProxy has another number of servers that can take a request than was last looked at.
    pub(super) moved: Option<Instant>,
    /// The first news of what is not routed yet: a reload waits, or was refused.
    unrouted: Option<Instant>,
}

/// What was so after the last turn.
#[derive(Debug, Default)]
struct Last {
    services: ServiceMap,
    held: BTreeMap<ServiceName, usize>,
    near: BTreeMap<ServiceName, Nearness>,
    left_out: BTreeMap<String, String>,
    out_of_service: BTreeSet<ServiceName>,
    /// When the newest reload that was noted ended.
    reloaded: u64,
}

/// What is known at the end of a turn.
pub(super) struct TurnEnd<'a> {
    pub(super) desired: &'a Desired,
    pub(super) observations: &'a [Observation<Snapshot>],
    /// Whether it brought about what is desired.
    pub(super) ok: bool,
    pub(super) haproxy: Option<&'a HaproxyStatus>,
    /// Registrations that are left out: key and reason.
    pub(super) left_out: &'a [Value],
    /// The first news that this turn was for.
    pub(super) since: Option<Instant>,
}

impl Chronicle {
    /// Notes what this turn has changed. If backends came, went or changed, and that is routed now, tells when the first news of it came.
    pub(super) fn turned(&mut self, end: &TurnEnd<'_>) -> Option<Instant> {
        if self.last.is_none() && !end.ok {
            return None; // nothing is routed yet
        }
        let now = end.now(self.last.as_ref());
        let Some(last) = self.last.replace(now) else {
            let services = end.desired.services.len();
            let backends: usize = end.desired.services.values().map(|pool| pool.len()).sum();
            self.history.note(Change::new("started").with("why", format!("{services} services, {backends} backends")));
            return None;
        };
        let now = self.last.as_ref()?;
        let mut changes = if end.ok { end.of_pools(&last.services) } else { Vec::new() };
        // Who is new counts as up until HAProxy is seen to say otherwise.
        for at in new_ones(&last.services, &now.services) {
            self.seen.entry(at).or_insert((BackendState::Up, Status::Up));
        }
        if !changes.is_empty() && self.unrouted.is_none() {
            self.unrouted = end.since;
        }
        changes.extend(of_holds(&last.held, &now.held));
        changes.extend(of_near(&last.near, &now.near));
        changes.extend(of_left_out(&last.left_out, &now.left_out));
        let service = |what, service: &ServiceName| Change::new(what).with("service", service.as_str());
        changes.extend(now.out_of_service.difference(&last.out_of_service).map(|name| service("out_of_service", name)));
        changes.extend(last.out_of_service.difference(&now.out_of_service).map(|name| service("in_service", name)));
        changes.extend(end.reloads(last.reloaded));
        let more = changes.len().saturating_sub(MOST_OF_A_TURN);
        changes.into_iter().take(MOST_OF_A_TURN).for_each(|change| self.history.note(change));
        if more > 0 {
            self.history.note(Change::new("more").with("why", format!("{more} further changes of this turn")));
        }
        if end.is_routed() { self.unrouted.take() } else { None }
    }

    /// Notes what HAProxy says otherwise than before, where that is not its registration's doing; tells whether there was anything, or others are down.
    pub(super) fn looked(&mut self, services: &ServiceMap, view: &View) -> bool {
        let mut seen = HashMap::with_capacity(self.seen.len());
        let mut changed = false;
        for (name, pool) in services {
            for (backend, state) in pool.backends().iter().zip(view.service(name, pool).states) {
                let at = (name.clone(), backend.id.clone());
                let was = self.seen.get(&at).copied();
                let server = view.server(name, pool, backend);
                if server.is_none() {
                    seen.extend(was.map(|was| (at, was))); // HAProxy says nothing of who waits for its reload
                    continue;
                }
                if was.is_some_and(|was| was.0 != state && was.1 == backend.status) {
                    self.history.note(of_server(name, backend, state, server.as_deref()));
                    changed = true;
                }
                seen.insert(at, (state, backend.status));
            }
        }
        let down = |seen: &(&(ServiceName, BackendId), &(BackendState, Status))| seen.1.0 == BackendState::Down;
        let down: FoundDown = seen.iter().filter(down).map(|(at, _)| at.clone()).collect();
        if down != *self.found_down {
            self.found_down = Arc::new(down);
            changed = true; // also where the registration has changed meanwhile, which is not HAProxy's news
        }
        self.seen = seen;
        changed
    }
}

/// Backends that are up and were not there before.
fn new_ones(before: &ServiceMap, now: &ServiceMap) -> Vec<(ServiceName, BackendId)> {
    let mut new = Vec::new();
    for (name, pool) in now {
        let before = before.get(name);
        if before.is_some_and(|before| Arc::ptr_eq(before, pool)) {
            continue;
        }
        let known: HashSet<_> = before.iter().flat_map(|pool| pool.backends()).map(|backend| &backend.id).collect();
        let ups = pool.backends().iter().filter(|backend| backend.status == Status::Up && !known.contains(&backend.id));
        new.extend(ups.map(|backend| (name.clone(), backend.id.clone())));
    }
    new
}

impl TurnEnd<'_> {
    /// Whether HAProxy has what is desired: no reload waits, and none was refused.
    fn is_routed(&self) -> bool {
        self.ok && self.haproxy.is_none_or(|haproxy| haproxy.error.is_none() && haproxy.waiting.is_none())
    }

    fn took(&self) -> Option<Duration> {
        self.since.filter(|_| self.is_routed()).map(|since| since.elapsed())
    }

    fn now(&self, last: Option<&Last>) -> Last {
        let reloaded = last.map_or(0, |last| last.reloaded);
        let texts = |row: &Value| Some((row["key"].as_str()?.to_owned(), row["reason"].as_str()?.to_owned()));
        Last {
            services: match last {
                Some(last) if !self.ok => last.services.clone(),
                _ => self.desired.services.clone(),
            },
            held: self.desired.held.iter().map(|(service, held)| (service.clone(), held.len())).collect(),
            near: self.desired.near.clone(),
            left_out: self.left_out.iter().filter_map(texts).collect(),
            out_of_service: self.haproxy.map(|haproxy| haproxy.out_of_service.clone()).unwrap_or_default(),
            reloaded: self.haproxy.and_then(|h| h.reloads.front()).map_or(reloaded, |reload| reload.at_unix_ms),
        }
    }

    fn of_pools(&self, before: &ServiceMap) -> Vec<Change> {
        let (empty, now) = (Arc::new(Pool::default()), &self.desired.services);
        if before.len() == now.len() && before.iter().zip(now).all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(a.1, b.1)) {
            return Vec::new(); // most turns
        }
        let names: BTreeSet<&ServiceName> = before.keys().chain(now.keys()).collect();
        let mut changes = Vec::new();
        for name in names {
            let [was, is] = [before, now].map(|all| all.get(name).unwrap_or(&empty));
            if !Arc::ptr_eq(was, is) {
                self.of_pool(name, was, is, &mut changes);
            }
        }
        changes
    }

    fn of_pool(&self, name: &ServiceName, was: &Pool, is: &Pool, changes: &mut Vec<Change>) {
        let by_id = |pool: &Pool| -> BTreeMap<BackendId, Arc<Backend>> {
            pool.backends().iter().map(|backend| (backend.id.clone(), backend.clone())).collect()
        };
        let (was, is) = (by_id(was), by_id(is));
        for (id, backend) in &is {
            let change = match was.get(id) {
                None => {
                    let odd = (backend.status != Status::Up).then(|| backend.status.as_str());
                    Some(of_backend("registered", name, backend).with("reason", odd))
                }
                Some(old) => of_change(name, old, backend, self.desired.near.contains_key(name)),
            };
            changes.extend(change.map(|change| change.took(self.took())));
        }
        for (id, backend) in was.iter().filter(|(id, _)| !is.contains_key(*id)) {
            let departed = self.observations.iter().filter_map(Observation::snapshot);
            let cause = departed.filter_map(|s| s.departed.get(&(name.clone(), id.clone()))).map(|d| d.cause).next();
            let reason = cause.map(|cause| match cause {
                DepartureCause::Orderly => "orderly",
                DepartureCause::Expiry => "expired",
            });
            changes.push(of_backend("gone", name, backend).with("reason", reason).took(self.took()));
        }
    }

    fn reloads(&self, noted: u64) -> impl Iterator<Item = Change> {
        let reloads = self.haproxy.into_iter().flat_map(|haproxy| haproxy.reloads.iter());
        let reloads: Vec<_> = reloads.collect();
        // The newest stands first. One that is refused again in the same words, but for numbers, is no news.
        let news = |n: usize| !reloads.get(n + 1).is_some_and(|before| is_refused_again(before, reloads[n]));
        let new: Vec<_> = (0..reloads.len()).filter(|n| reloads[*n].at_unix_ms > noted && news(*n)).collect();
        new.into_iter().rev().map(move |n| reloads[n]).map(|reload| {
            let what = if reload.error.is_some() { "reload_failed" } else { "reload" };
            Change::at(what, reload.at_unix_ms).with("reason", &*reload.reasons).with("why", reload.error.clone())
        })
    }
}

fn is_refused_again(before: &ReloadRecord, now: &ReloadRecord) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    match (&before.error, &now.error) {
        (Some(a), Some(b)) => before.reasons == now.reasons && words(a) == words(b),
        _ => false,
    }
}

fn of_backend(what: &'static str, service: &ServiceName, backend: &Backend) -> Change {
    at_backend(Change::new(what), service, backend)
}

fn at_backend(change: Change, service: &ServiceName, backend: &Backend) -> Change {
    let change = change.with("service", service.as_str()).with("backend", backend.id.as_str());
    change.with("name", backend.name.as_deref()).with("address", backend.address())
}

/// What of a registration changed, if anything that people look at. Weights of a pool that is `weighed` are not the registration's.
fn of_change(service: &ServiceName, was: &Backend, is: &Backend, weighed: bool) -> Option<Change> {
    if was.status != is.status {
        return Some(of_backend(is.status.as_str(), service, is).with("reason", "registration"));
    }
    let weight = |b: &Backend| b.weight.map_or(1, |weight| weight.get());
    let mut news = Vec::new();
    if was.address() != is.address() {
        news.push(format!("address {} → {}", was.address(), is.address()));
    }
    if was.weight != is.weight && !weighed {
        news.push(format!("weight {} → {}", weight(was), weight(is)));
    }
    if was.service_port != is.service_port {
        news.push("service port".to_owned());
    }
    if was.routes != is.routes || was.sni != is.sni {
        news.push("routes".to_owned());
    }
    (!news.is_empty()).then(|| of_backend("changed", service, is).with("why", news.join(", ")))
}

fn of_holds(was: &BTreeMap<ServiceName, usize>, is: &BTreeMap<ServiceName, usize>) -> Vec<Change> {
    let change = |what, service: &ServiceName, held: usize| {
        Change::new(what).with("service", service.as_str()).with("why", format!("{held} backends"))
    };
    let begun = is.iter().filter(|(service, held)| was.get(*service) != Some(held));
    let ended = was.iter().filter(|(service, _)| !is.contains_key(*service));
    let begun = begun.map(|(service, held)| change("held", service, *held));
    begun.chain(ended.map(|(service, held)| change("hold_ended", service, *held))).collect()
}

/// Only what was known before can have changed.
fn of_near(was: &BTreeMap<ServiceName, Nearness>, is: &BTreeMap<ServiceName, Nearness>) -> Vec<Change> {
    let news = is.iter().filter(|(service, now)| was.get(*service).is_some_and(|before| before != *now));
    let change = |(service, now): (&ServiceName, &Nearness)| {
        let (what, why) = match now {
            Nearness::Near(place) => ("near", place),
            Nearness::Spills(why) => ("spills", why),
        };
        Change::new(what).with("service", service.as_str()).with("why", &**why)
    };
    news.map(change).collect()
}

fn of_left_out(was: &BTreeMap<String, String>, is: &BTreeMap<String, String>) -> Vec<Change> {
    let news = is.iter().filter(|(key, why)| was.get(*key) != Some(why));
    let back = was.keys().filter(|key| !is.contains_key(*key));
    let news = news.map(|(key, why)| Change::new("left_out").with("backend", &**key).with("why", &**why));
    news.chain(back.map(|key| Change::new("taken_in").with("backend", &**key))).collect()
}

/// Of a server that HAProxy itself has in another state; its own clock tells since when.
fn of_server(service: &ServiceName, backend: &Backend, state: BackendState, server: Option<&SeenServer>) -> Change {
    let what = match state {
        BackendState::Up => "server_up",
        BackendState::Down => "server_down",
        BackendState::Draining => "server_draining",
        BackendState::Maint => "server_maint",
    };
    let ago = server.and_then(|server| server.since).unwrap_or_default();
    let at = clock::now().saturating_sub(ago);
    let change = at_backend(Change::at(what, clock::millis(at)), service, backend);
    let Some(server) = server else { return change.with("why", "HAProxy has no such server") };
    let said = if server.said.is_empty() { &server.status } else { &server.said };
    change.with("reason", server.check.trim_start_matches("* ")).with("why", &**said)
}

#[cfg(test)]
#[path = "chronicle_tests.rs"]
mod tests;
