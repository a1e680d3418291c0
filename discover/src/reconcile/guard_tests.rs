//! What is held, for how long, and what ends it.

use registry::Departure;
use registry::store::Revision;

use super::*;

struct World {
    guard: Guard,
    live: BTreeSet<u16>,
    departed: HashMap<(ServiceName, BackendId), Departure>,
    now: Instant,
}

impl World {
    fn new(live: std::ops::Range<u16>) -> Self {
        let now = Instant::now();
        let guard = Guard::new(GuardSettings::default(), Memory::default(), now);
        let mut world = Self { guard, live: live.collect(), departed: HashMap::new(), now };
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
        let merged = Merged { services: services.into_iter().collect(), departed, ..Merged::default() };
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
async fn one_that_was_believed_to_be_gone_is_better_than_nobody() {
    let mut world = World::new(0..2);
    world.go([0], DepartureCause::Expiry);
    assert_eq!(world.routed(), [1]);
    world.after(60).go([1], DepartureCause::Orderly);
    assert_eq!(world.routed(), [0], "the other one was stopped");
    assert!(world.after(540).routed().is_empty(), "but not for ever");
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
    let backend =
        |id: &str| Arc::new(Backend::new(id.parse().unwrap(), "127.0.0.1".parse().unwrap(), 80.try_into().unwrap()));
    let services = |pool: Pool| ServiceMap::from([(World::service(), Arc::new(pool))]);
    let now = Instant::now();
    let told = services([backend("old")].into_iter().collect());
    let mut guard = Guard::new(GuardSettings::default(), Memory { told, ..Memory::default() }, now);
    let gone = guard.judge(&Merged::default(), now);
    assert_eq!(gone.held[&World::service()].len(), 1, "what went while nobody watched is held");
    let merged = Merged { services: services([backend("new")].into_iter().collect()), ..Merged::default() };
    let desired = guard.judge(&merged, now);
    assert!(desired.held.is_empty());
    assert_eq!(desired.services[&World::service()].len(), 1);
}

impl World {
    /// Another guard that knows what this one would have written down.
    fn restart(&mut self) -> &mut Self {
        let memory = self.guard.memory(self.now);
        let json = memory.to_base(None, Duration::from_secs(1_000_000)).unwrap();
        let memory = Memory::from_base(&json, &[], Duration::from_secs(1_000_000)).unwrap();
        self.guard = Guard::new(GuardSettings::default(), memory, self.now);
        self
    }
}

#[tokio::test]
async fn what_expired_while_discover_was_down_is_held() {
    let mut world = World::new(0..4);
    world.restart().go(0..4, DepartureCause::Expiry);
    world.departed.clear(); // nobody saw it go
    assert_eq!(world.after(60).routed(), [0, 1, 2, 3]);
    assert_eq!(world.after(540).routed(), [0, 1, 2, 3]);
    assert!(world.after(60).routed().is_empty(), "but not for ever");
}

#[tokio::test]
async fn a_restart_prolongs_no_hold_and_ends_none() {
    let mut world = World::new(0..2);
    world.go(0..2, DepartureCause::Expiry);
    assert_eq!(world.routed(), [0, 1]);
    for _ in 0..5 {
        assert_eq!(world.after(100).restart().routed(), [0, 1]);
    }
    assert_eq!(world.guard.next_due(), Some(world.now + Duration::from_secs(100)));
    assert!(world.after(100).restart().routed().is_empty());
}

#[tokio::test]
async fn what_was_released_stays_so_after_a_restart() {
    let mut world = World::new(0..2);
    world.go(0..2, DepartureCause::Expiry);
    world.routed();
    let version = world.guard.version();
    world.guard.release(&World::service());
    assert!(world.guard.version() > version);
    assert!(world.restart().routed().is_empty());
}

#[tokio::test]
async fn what_is_remembered_changes_only_with_what_happens() {
    let mut world = World::new(0..3);
    let departed = vec![Arc::new(HashMap::new())];
    let merged = Merged { services: world.guard.last.clone(), departed, ..Merged::default() };
    let version = world.guard.version();
    world.guard.judge(&merged, world.now);
    assert_eq!(world.guard.version(), version);
    world.live.remove(&0);
    world.routed();
    assert!(world.guard.version() > version);
}
