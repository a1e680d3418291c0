//! The guard against mass expiry: when many registrations run out at once, the agents were cut off, not the backends.
//!
//! A deletion that somebody meant is never held. An expiry that takes the last backend of a pool, or more than half of
//! it (and at least two), is held for a bounded time, visibly; HAProxy's own checks take out what is really dead. A smaller
//! one is believed, but not forgotten: should the others go, too, those that ran out are better than nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use model::{Backend, BackendId, Host, InOrder, Pool, Port, ServiceMap, ServiceName, Status};
use registry::DepartureCause;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Desired, Held, Memory, Merged};

/// How the guard judges.
#[derive(Debug, Clone)]
pub struct GuardSettings {
    /// How long a backend is held at most; zero turns the guard off.
    pub hold: Duration,
    /// The share of a pool, in percent, above which its expiries are held.
    pub threshold_percent: u8,
}

impl Default for GuardSettings {
    fn default() -> Self {
        Self { hold: Duration::from_secs(600), threshold_percent: 50 }
    }
}

/// Remembers what expired, and decides what is held.
#[derive(Debug)]
pub struct Guard {
    settings: GuardSettings,
    /// The pools as the sources last told them: what is missing next time has gone.
    last: ServiceMap,
    /// What expired within the hold time, whether held or not.
    expired: BTreeMap<ServiceName, BTreeMap<BackendId, Expired>>,
    /// Services whose expiries are held now.
    holding: BTreeSet<ServiceName>,
    /// Pools with held backends in them, kept so that an unchanged pool stays the same one.
    padded: HashMap<ServiceName, Arc<Pool>>,
    /// Whether `last` was told by the sources, and not carried over from before a restart.
    told: bool,
    /// Grows whenever what must be remembered changes.
    version: u64,
}

#[derive(Debug, Clone)]
struct Expired {
    backend: Arc<Backend>,
    at: Instant,
}

impl Guard {
    /// A guard that goes on where an earlier one stood, as far as that is known: with what was told before a restart,
    /// and with what it held, which is held no longer for that.
    pub fn new(settings: GuardSettings, memory: Memory, now: Instant) -> Self {
        let hold = settings.hold;
        let expired = |(service, all): (ServiceName, Vec<(Arc<Backend>, Duration)>)| {
            let young = all.into_iter().filter(|(_, ago)| *ago < hold);
            // A clock of the machine may begin at its start, so that there is no such moment: then the hold begins anew.
            let one = |(backend, ago): (Arc<Backend>, Duration)| {
                (backend.id.clone(), Expired { backend, at: now.checked_sub(ago).unwrap_or(now) })
            };
            (service, young.map(one).collect())
        };
        let mut expired: BTreeMap<ServiceName, BTreeMap<BackendId, Expired>> =
            memory.expired.into_iter().map(expired).collect();
        expired.retain(|_, all| !all.is_empty());
        Self {
            settings,
            last: memory.told,
            expired,
            holding: memory.holding,
            padded: HashMap::new(),
            told: false,
            version: 0,
        }
    }

    /// What an heir of this guard must know.
    pub fn memory(&self, now: Instant) -> Memory {
        let ago = |e: &Expired| (e.backend.clone(), now.saturating_duration_since(e.at));
        let expired = self.expired.iter().map(|(s, all)| (s.clone(), all.values().map(ago).collect())).collect();
        Memory { told: self.last.clone(), expired, holding: self.holding.clone(), ..Memory::default() }
    }

    /// Grows whenever [`memory`](Self::memory) changes otherwise than by its age.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What ought to run, given what the sources say now.
    pub fn judge(&mut self, merged: &Merged, now: Instant) -> Desired {
        let mut desired = Desired { services: merged.services.clone(), ..Desired::default() };
        let changed = self.last.len() != merged.services.len()
            || self.last.iter().zip(&merged.services).any(|(a, b)| a.0 != b.0 || !Arc::ptr_eq(a.1, b.1));
        if changed || !self.told {
            self.version += 1;
        }
        if self.settings.hold.is_zero() {
            self.last = merged.services.clone();
            self.told = true;
            return desired;
        }
        let touched = self.note_departures(merged, now);
        self.forget(&merged.services, now);
        for service in self.expired.keys().cloned().collect::<Vec<_>>() {
            self.decide(&service, touched.contains(&service), &merged.services);
        }
        self.holding.retain(|service| self.expired.contains_key(service));
        self.padded.retain(|service, _| self.holding.contains(service));
        for service in &self.holding {
            let Some(expired) = self.expired.get(service) else { continue };
            let live = merged.services.get(service);
            let pool = pad(&mut self.padded, service, live, expired);
            desired.services.insert(service.clone(), pool);
            let held = |e: &Expired| Held { since: e.at, until: e.at + self.settings.hold };
            desired.held.insert(service.clone(), expired.iter().map(|(id, e)| (id.clone(), held(e))).collect());
        }
        self.last = merged.services.clone();
        self.told = true;
        desired
    }

    /// When a hold ends by itself.
    pub fn next_due(&self) -> Option<Instant> {
        let held = self.holding.iter().filter_map(|s| self.expired.get(s)).flat_map(BTreeMap::values);
        held.map(|e| e.at + self.settings.hold).min()
    }

    /// Ends the hold on a service: the operator knows better. Tells how many backends that lets go.
    pub fn release(&mut self, service: &ServiceName) -> usize {
        self.holding.remove(service);
        let released = self.expired.remove(service).map_or(0, |e| e.len());
        self.version += 1;
        if released > 0 {
            warn!(%service, released, "Hold ended by the operator.");
        }
        released
    }

    /// Finds what went since the last time; gives the services in which something expired.
    fn note_departures(&mut self, merged: &Merged, now: Instant) -> BTreeSet<ServiceName> {
        let mut touched = BTreeSet::new();
        let mut live = InOrder::of(&merged.services);
        for (service, was) in &self.last {
            let is = live.find(service);
            if is.is_some_and(|is| Arc::ptr_eq(is, was)) {
                continue;
            }
            let left: BTreeSet<&BackendId> =
                is.map(|p| p.backends().iter().map(|b| &b.id).collect()).unwrap_or_default();
            for backend in was.backends().iter().filter(|b| !left.contains(&b.id)) {
                // A source that does not tell causes (Docker, a file) knows what it says. But of what went while we
                // did not watch nobody can say that it was meant.
                let unsaid = if self.told { DepartureCause::Orderly } else { DepartureCause::Expiry };
                let cause = merged.departure(service, &backend.id).map_or(unsaid, |d| d.cause);
                if cause == DepartureCause::Orderly || backend.status != Status::Up {
                    continue;
                }
                self.version += 1;
                let expired = Expired { backend: backend.clone(), at: now };
                self.expired.entry(service.clone()).or_default().entry(backend.id.clone()).or_insert(expired);
                touched.insert(service.clone());
            }
        }
        touched
    }

    /// Drops what came back, under its id or at its address, and what has been held long enough.
    fn forget(&mut self, services: &ServiceMap, now: Instant) {
        let hold = self.settings.hold;
        self.expired.retain(|service, expired| {
            let live = services.get(service).map(|p| p.backends()).unwrap_or_default();
            let ids: BTreeSet<&BackendId> = live.iter().map(|b| &b.id).collect();
            let places: BTreeSet<(&Host, Port)> = live.iter().map(|b| (&b.host, b.port)).collect();
            let before = expired.len();
            expired.retain(|id, e| {
                !ids.contains(id) && !places.contains(&(&e.backend.host, e.backend.port)) && now < e.at + hold
            });
            if expired.is_empty() && self.holding.contains(service) {
                info!(%service, backends = before, "Hold ended.");
            }
            !expired.is_empty()
        });
    }

    /// Whether to hold what expired of a service; `just_now`: some of it did.
    fn decide(&mut self, service: &ServiceName, just_now: bool, services: &ServiceMap) {
        let Some(expired) = self.expired.get(service) else { return };
        let up = |p: &Arc<Pool>| p.backends().iter().filter(|b| b.status == Status::Up).count();
        let live = services.get(service).map_or(0, up);
        let gone = expired.len();
        let above = gone >= 2 && gone * 100 > (live + gone) * usize::from(self.settings.threshold_percent);
        if (live == 0 || (just_now && above)) && self.holding.insert(service.clone()) {
            let hold_s = self.settings.hold.as_secs();
            warn!(%service, expired = gone, live, hold_s, "Registrations ran out together; keeping these backends under HAProxy's checks.");
        }
    }
}

/// The live pool and what is held, as one pool that stays the same as long as neither changes.
fn pad(
    padded: &mut HashMap<ServiceName, Arc<Pool>>,
    service: &ServiceName,
    live: Option<&Arc<Pool>>,
    expired: &BTreeMap<BackendId, Expired>,
) -> Arc<Pool> {
    let live = live.map(|p| p.backends()).unwrap_or_default().iter().cloned();
    let pool: Pool = live.chain(expired.values().map(|e| e.backend.clone())).collect();
    match padded.get(service) {
        Some(same) if **same == pool => same.clone(),
        _ => {
            let pool = Arc::new(pool);
            padded.insert(service.clone(), pool.clone());
            pool
        }
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
