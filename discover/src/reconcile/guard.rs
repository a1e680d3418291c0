//! The guard against mass expiry: when many registrations run out at once, the agents were cut off, not the backends.
//!
//! A deletion that somebody meant is never held. An expiry that takes the last backend of a pool, or more than half of
//! it (and at least two), is held for a bounded time, visibly; HAProxy's own checks take out what is really dead.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use common::model::{Backend, BackendId, Host, Pool, Port, ServiceMap, ServiceName, Status};
use common::registry::DepartureCause;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Desired, Held, Merged};

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
}

#[derive(Debug, Clone)]
struct Expired {
    backend: Arc<Backend>,
    at: Instant,
}

impl Guard {
    /// A guard that begins with `last`, what was routed before a restart, if that is known.
    pub fn new(settings: GuardSettings, last: ServiceMap) -> Self {
        Self { settings, last, expired: BTreeMap::new(), holding: BTreeSet::new(), padded: HashMap::new(), told: false }
    }

    /// What ought to run, given what the sources say now.
    pub fn judge(&mut self, merged: &Merged, now: Instant) -> Desired {
        let mut desired = Desired { services: merged.services.clone(), ..Desired::default() };
        if self.settings.hold.is_zero() {
            return desired;
        }
        let touched = self.note_departures(merged, now);
        self.forget(&merged.services, now);
        for service in touched {
            self.decide(&service, &merged.services);
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
        if released > 0 {
            warn!(%service, released, "Hold ended by the operator.");
        }
        released
    }

    /// Finds what went since the last time; gives the services in which something expired.
    fn note_departures(&mut self, merged: &Merged, now: Instant) -> BTreeSet<ServiceName> {
        let mut touched = BTreeSet::new();
        for (service, was) in &self.last {
            let is = merged.services.get(service);
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

    fn decide(&mut self, service: &ServiceName, services: &ServiceMap) {
        let Some(expired) = self.expired.get(service) else { return };
        let up = |p: &Arc<Pool>| p.backends().iter().filter(|b| b.status == Status::Up).count();
        let live = services.get(service).map_or(0, up);
        let gone = expired.len();
        let above = gone >= 2 && gone * 100 > (live + gone) * usize::from(self.settings.threshold_percent);
        if (live == 0 || above) && self.holding.insert(service.clone()) {
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
mod tests {
    use super::*;
    use common::registry::Departure;
    use common::store::Revision;

    struct World {
        guard: Guard,
        live: BTreeSet<u16>,
        departed: HashMap<(ServiceName, BackendId), Departure>,
        now: Instant,
    }

    impl World {
        fn new(live: std::ops::Range<u16>) -> Self {
            let guard = Guard::new(GuardSettings::default(), ServiceMap::new());
            let mut world = Self { guard, live: live.collect(), departed: HashMap::new(), now: Instant::now() };
            world.routed();
            world
        }

        fn service() -> ServiceName {
            "web".parse().unwrap()
        }

        fn go(&mut self, ids: impl IntoIterator<Item = u16>, cause: DepartureCause) {
            for id in ids {
                self.live.remove(&id);
                let place = (Self::service(), format!("b{id}").parse().unwrap());
                self.departed.insert(place, Departure { cause, revision: Revision(1) });
            }
        }

        /// The ports that are routed now.
        fn routed(&mut self) -> Vec<u16> {
            let backend = |id: &u16| {
                let port = (1000 + id).try_into().unwrap();
                Arc::new(Backend::new(format!("b{id}").parse().unwrap(), "127.0.0.1".parse().unwrap(), port))
            };
            let pool: Pool = self.live.iter().map(backend).collect();
            let services = if pool.is_empty() { vec![] } else { vec![(Self::service(), Arc::new(pool))] };
            let departed = vec![Arc::new(self.departed.clone())];
            let merged = Merged { services: services.into_iter().collect(), departed, pending: vec![] };
            let desired = self.guard.judge(&merged, self.now);
            let pool = desired.services.get(&Self::service()).cloned().unwrap_or_default();
            let mut ports: Vec<u16> = pool.backends().iter().map(|b| b.port.get() - 1000).collect();
            ports.sort_unstable();
            ports
        }

        fn after(&mut self, seconds: u64) -> &mut Self {
            self.now += Duration::from_secs(seconds);
            self
        }
    }

    #[tokio::test]
    async fn what_somebody_meant_is_never_held() {
        let mut world = World::new(0..4);
        world.go(0..4, DepartureCause::Orderly);
        assert!(world.routed().is_empty());
    }

    #[tokio::test]
    async fn one_expiry_among_many_is_believed_and_most_of_a_pool_is_not() {
        let mut world = World::new(0..10);
        world.go([0], DepartureCause::Expiry);
        assert_eq!(world.routed().len(), 9);
        world.go(1..5, DepartureCause::Expiry);
        assert_eq!(world.routed().len(), 5, "half is not more than half");
        world.after(30).go([5], DepartureCause::Expiry);
        assert_eq!(world.routed().len(), 10, "one by one is a mass expiry too");
    }

    #[tokio::test]
    async fn the_last_backend_is_held_until_the_time_is_up() {
        let mut world = World::new(0..1);
        world.go([0], DepartureCause::Expiry);
        assert_eq!(world.routed(), [0]);
        assert_eq!(world.after(599).routed(), [0]);
        assert_eq!(world.guard.next_due(), Some(world.now + Duration::from_secs(1)));
        assert!(world.after(1).routed().is_empty());
    }

    #[tokio::test]
    async fn one_of_two_is_believed() {
        let mut world = World::new(0..2);
        world.go([0], DepartureCause::Expiry);
        assert_eq!(world.routed(), [1]);
    }

    #[tokio::test]
    async fn a_return_ends_the_hold_of_that_backend_and_release_of_all() {
        let mut world = World::new(0..3);
        world.go(0..3, DepartureCause::Expiry);
        assert_eq!(world.routed(), [0, 1, 2]);
        world.live.insert(1);
        assert_eq!(world.routed(), [0, 1, 2]);
        assert_eq!(world.guard.release(&World::service()), 2);
        assert_eq!(world.routed(), [1]);
    }

    #[tokio::test]
    async fn another_registration_at_the_same_address_ends_the_hold() {
        let backend = |id: &str| {
            Arc::new(Backend::new(id.parse().unwrap(), "127.0.0.1".parse().unwrap(), 80.try_into().unwrap()))
        };
        let services = |pool: Pool| ServiceMap::from([(World::service(), Arc::new(pool))]);
        let mut guard = Guard::new(GuardSettings::default(), services([backend("old")].into_iter().collect()));
        let now = Instant::now();
        let gone = guard.judge(&Merged::default(), now);
        assert_eq!(gone.held[&World::service()].len(), 1, "what went while nobody watched is held");
        let merged = Merged { services: services([backend("new")].into_iter().collect()), ..Merged::default() };
        let desired = guard.judge(&merged, now);
        assert!(desired.held.is_empty());
        assert_eq!(desired.services[&World::service()].len(), 1);
    }
}
