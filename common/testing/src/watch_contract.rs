//! What every watcher of pools owes its users: one suite, run against each watcher and its source.
//!
//! A [`Rig`] stands for the source. Whatever a watcher publishes is held against the [`History`] of what the source
//! really was: each snapshot must be one of its states, and time never runs backwards.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use agent::watch::{Inlet, Observation, Watcher, channel};
use registry::Snapshot;

/// How long a watcher may take to end after its cancellation.
const END_WITHIN: Duration = Duration::from_secs(1);

/// What clients see of a source: of each service, the addresses of its backends that are up. A service without any is
/// not in it.
pub type Pools = BTreeMap<String, BTreeSet<String>>;

/// Every state that a source was in, oldest first.
#[derive(Debug, Clone)]
pub struct History(Vec<Pools>);

impl Default for History {
    fn default() -> Self {
        Self(vec![Pools::new()])
    }
}

impl History {
    /// The state that the source is in.
    pub fn now(&self) -> &Pools {
        &self.0[self.0.len() - 1]
    }

    /// The source is about to take this step: call it before the source does, as a watcher may be quicker.
    pub fn record(&mut self, step: impl FnOnce(&mut Pools)) {
        let mut next = self.now().clone();
        step(&mut next);
        next.retain(|_, pool| !pool.is_empty());
        if next != *self.now() {
            self.0.push(next);
        }
    }

    /// Where in the history `seen` is, at `from` or later.
    fn find(&self, seen: &Pools, from: usize) -> Option<usize> {
        (from..self.0.len()).find(|at| self.0[*at] == *seen)
    }
}

/// How a source fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakage {
    /// It refuses, or hangs up.
    Fail,
    /// It says nothing any more.
    Hang,
}

/// In which order a source tells what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As it happened: each snapshot is a state that the source was in.
    Total,
    /// As it happened to each backend, but not between two of them (a source without revisions that asks about several at
    /// once): no backend is missing that was there all the time, none comes back, none is made up.
    EachBackend,
}

/// A source and a way to make watchers of it.
pub trait Rig {
    /// What is under test.
    type Watcher: Watcher<Snapshot>;

    /// A watcher of the source; nothing runs yet.
    fn watcher(&self) -> Self::Watcher;

    /// Adds a backend for each pair of service and name; where the service has a backend of that name, that one changes
    /// its address. All at once, where the source can. Works while the source is broken for its watchers.
    fn put(&mut self, backends: &[(&str, &str)]) -> impl Future<Output = ()>;

    /// Takes the backend away. Works while the source is broken for its watchers.
    fn remove(&mut self, service: &str, name: &str) -> impl Future<Output = ()>;

    /// Breaks the source for its watchers; what it holds stays.
    fn break_off(&mut self, how: Breakage) -> impl Future<Output = ()>;

    /// Ends a breakage.
    fn mend(&mut self) -> impl Future<Output = ()>;

    /// What the source was. No address may ever be used again.
    fn history(&self) -> &History;

    /// In which order it tells.
    fn order(&self) -> Order {
        Order::Total
    }

    /// How long anything may take to be noticed.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// For how long an unchanged source is listened to.
    fn quiet(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// What clients see of a snapshot.
pub fn pools(snapshot: &Snapshot) -> Pools {
    let up = |backend: &&Arc<model::Backend>| backend.status == model::Status::Up;
    let pools = snapshot.services.iter().map(|(service, pool)| {
        let addresses = pool.backends().iter().filter(up).map(|backend| backend.address());
        (service.to_string(), addresses.collect::<BTreeSet<_>>())
    });
    pools.filter(|(_, pool)| !pool.is_empty()).collect()
}

/// A running watcher, and all that it has said.
struct Watched {
    inlet: Inlet<Snapshot>,
    said: JoinHandle<Vec<Observation<Snapshot>>>,
    run: JoinHandle<bool>,
    cancel: CancellationToken,
    /// The history's length when it began.
    begun: usize,
    patience: Duration,
}

impl Watched {
    fn start<R: Rig>(rig: &R) -> Self {
        let (out, inlet) = channel();
        let cancel = CancellationToken::new();
        let mut listener = inlet.clone();
        let said = tokio::spawn(async move {
            let mut said = vec![listener.borrow_and_update().clone()];
            while listener.changed().await.is_ok() {
                said.push(listener.borrow_and_update().clone());
            }
            said
        });
        let (watcher, token) = (rig.watcher(), cancel.clone());
        let run = tokio::spawn(async move { watcher.run(out, token).await.is_ok() });
        Self { inlet, said, run, cancel, begun: rig.history().0.len() - 1, patience: rig.patience() }
    }

    /// Waits for an observation.
    async fn until(&mut self, what: &str, fits: impl Fn(&Observation<Snapshot>) -> bool) -> Observation<Snapshot> {
        let found = timeout(self.patience, self.inlet.wait_for(fits)).await;
        match found.map(|found| found.map(|seen| seen.clone())) {
            Ok(Ok(seen)) => seen,
            Ok(Err(_)) => panic!("{what}: the watcher ended"),
            Err(_) => panic!("{what}: not within {:?}; now {:?}", self.patience, self.inlet.borrow()),
        }
    }

    /// Waits until the watcher shows what the source is.
    async fn catches_up<R: Rig>(&mut self, rig: &R) -> Observation<Snapshot> {
        let truth = rig.history().now().clone();
        let fits = |seen: &Observation<Snapshot>| {
            matches!(seen, Observation::Synced { .. }) && seen.snapshot().is_some_and(|s| pools(s) == truth)
        };
        self.until(&format!("synced with {truth:?}"), fits).await
    }

    /// Waits until the watcher has noticed a failure after it was synced.
    async fn turns_stale(&mut self) -> Observation<Snapshot> {
        self.until("stale", |seen| matches!(seen, Observation::Stale { .. })).await
    }

    /// Cancels it, and holds everything that it said against the history.
    async fn end<R: Rig>(self, rig: &R, when: &str) {
        let begin = Instant::now();
        self.cancel.cancel();
        let ended = timeout(END_WITHIN, self.run).await;
        let ended = ended.unwrap_or_else(|_| panic!("{when}: still runs {:?} after its cancellation", begin.elapsed()));
        assert!(ended.expect("the watcher panicked"), "{when}: cancelled, and yet an error");
        let said = self.said.await.unwrap();
        is_steady(&said, when);
        match rig.order() {
            Order::Total => is_history(&said, rig.history(), self.begun, when),
            Order::EachBackend => is_history_of_each(&said, &rig.history().0[self.begun..], when),
        }
    }
}

/// Failures leave the snapshot as it was, and say why and since when.
fn is_steady(said: &[Observation<Snapshot>], when: &str) {
    let mut last: Option<&Observation<Snapshot>> = None;
    for seen in said {
        match seen {
            Observation::Pending { .. } => {
                assert!(last.is_none_or(|last| last.snapshot().is_none()), "{when}: pending after it was synced");
            }
            Observation::Synced { .. } => {}
            Observation::Stale { snapshot, since, error } => {
                // The listener may have missed the snapshot before, where there was one.
                if let Some(Observation::Stale { since: first, snapshot: before, .. }) = last {
                    assert_eq!(first, since, "{when}: the time of the first failure changed");
                    assert_eq!(pools(before), pools(snapshot), "{when}: a failure changed the snapshot");
                }
                assert!(!error.is_empty(), "{when}: stale for no reason");
            }
        }
        last = Some(seen);
    }
}

/// Every snapshot is a state that the source was in, in the order in which it was.
fn is_history(said: &[Observation<Snapshot>], history: &History, begun: usize, when: &str) {
    let mut at = begun;
    for state in said.iter().filter_map(|seen| seen.snapshot()).map(|snapshot| pools(snapshot)) {
        at = history.find(&state, at).unwrap_or_else(|| {
            panic!("{when}: {state:?} is no state that the source was in, at {at} or later: {history:#?}")
        });
    }
}

/// Of each backend, every snapshot says what it was, in the order in which it was.
fn is_history_of_each(said: &[Observation<Snapshot>], history: &[Pools], when: &str) {
    let has = |pools: &Pools, (service, address): &(String, String)| {
        pools.get(service).is_some_and(|pool| pool.contains(address))
    };
    let all_of = |pools: &Pools| -> Vec<(String, String)> {
        let each = |(service, pool): (&String, &BTreeSet<String>)| {
            pool.iter().map(|address| (service.clone(), address.clone())).collect::<Vec<_>>()
        };
        pools.iter().flat_map(each).collect()
    };
    let seen: Vec<Pools> = said.iter().filter_map(|seen| seen.snapshot()).map(|snapshot| pools(snapshot)).collect();
    let backends: BTreeSet<_> = history.iter().chain(&seen).flat_map(all_of).collect();
    let (first, last) = (&history[0], &history[history.len() - 1]);
    for backend in backends {
        assert!(history.iter().any(|state| has(state, &backend)), "{when}: {backend:?} never was: {seen:#?}");
        let shown: Vec<bool> = seen.iter().map(|state| has(state, &backend)).collect();
        let comings = shown.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        let goings = shown.windows(2).filter(|pair| pair[0] && !pair[1]).count();
        let (early, late) = (has(first, &backend), has(last, &backend));
        let may_come = usize::from(!early);
        assert!(comings <= may_come && goings <= usize::from(!late), "{when}: {backend:?} came and went: {seen:#?}");
        assert!(!(early && late) || shown.iter().all(|shown| *shown), "{when}: {backend:?} was missing: {seen:#?}");
    }
}

const BOTH: [Breakage; 2] = [Breakage::Fail, Breakage::Hang];

async fn the_first_send_is_complete<R: Rig>(rig: &mut R) {
    rig.put(&[("first", "a"), ("first", "b"), ("first", "c"), ("second", "a"), ("third", "a")]).await;
    let mut watched = Watched::start(rig);
    let first = watched.until("a first snapshot", |seen| seen.snapshot().is_some()).await;
    assert_eq!(pools(first.snapshot().unwrap()), *rig.history().now(), "the first send is not complete");
    assert_eq!(first.standing(), "synced");
    watched.end(rig, "first send").await;
}

async fn changes_arrive_and_none_is_partial<R: Rig>(rig: &mut R) {
    let mut watched = Watched::start(rig);
    watched.catches_up(rig).await;
    rig.put(&[("change", "a")]).await;
    watched.catches_up(rig).await;
    rig.put(&[("change", "a")]).await;
    watched.catches_up(rig).await;
    rig.put(&[("change", "b"), ("change", "c"), ("other", "a")]).await;
    rig.remove("change", "a").await;
    rig.put(&[("change", "b")]).await;
    rig.remove("other", "a").await;
    watched.catches_up(rig).await;
    for name in ["b", "c"] {
        rig.remove("change", name).await;
    }
    watched.catches_up(rig).await;
    watched.end(rig, "changes").await;
}

async fn a_failure_is_stale_and_ends_by_itself<R: Rig>(rig: &mut R) {
    rig.put(&[("kept", "a"), ("kept", "b"), ("gone", "a")]).await;
    let mut watched = Watched::start(rig);
    for how in BOTH {
        let before = pools(watched.catches_up(rig).await.snapshot().unwrap());
        let broken_at = Instant::now();
        rig.break_off(how).await;
        let stale = watched.turns_stale().await;
        assert_eq!(pools(stale.snapshot().unwrap()), before, "{how:?}");
        assert!(stale.error().is_some_and(|error| !error.is_empty()), "{how:?}");
        assert!(stale.stale_since().is_some_and(|since| since >= broken_at), "{how:?}");
        rig.put(&[("kept", "a"), ("kept", "c"), ("new", "a")]).await;
        rig.remove("gone", "a").await;
        rig.remove("kept", "b").await;
        sleep(rig.quiet() / 10).await;
        assert_eq!(pools(watched.inlet.borrow().snapshot().unwrap()), before, "{how:?}");
        rig.mend().await;
        watched.catches_up(rig).await;
        rig.put(&[("gone", "a"), ("kept", "b")]).await;
        rig.remove("new", "a").await;
        watched.catches_up(rig).await;
    }
    // Mended with nothing changed meanwhile: it is synced again all the same.
    rig.break_off(Breakage::Fail).await;
    watched.turns_stale().await;
    rig.mend().await;
    watched.catches_up(rig).await;
    watched.end(rig, "failures").await;
}

async fn a_source_that_is_broken_at_the_start_is_pending<R: Rig>(rig: &mut R) {
    for how in BOTH {
        rig.break_off(how).await;
        let mut watched = Watched::start(rig);
        watched.until("an error while pending", |seen| seen.error().is_some()).await;
        assert_eq!(watched.inlet.borrow().standing(), "pending", "{how:?}");
        rig.put(&[("late", "a")]).await;
        rig.mend().await;
        let first = watched.until("a first snapshot", |seen| seen.snapshot().is_some()).await;
        assert_eq!(pools(first.snapshot().unwrap()), *rig.history().now(), "{how:?}: the first send is not complete");
        watched.end(rig, "broken at the start").await;
    }
}

async fn short_breakages_lose_nothing<R: Rig>(rig: &mut R) {
    let mut watched = Watched::start(rig);
    watched.catches_up(rig).await;
    for turn in 0..6 {
        rig.put(&[("short", "a")]).await;
        rig.break_off(BOTH[turn % 2]).await;
        if turn % 3 == 0 {
            rig.remove("short", "a").await;
        }
        sleep(Duration::from_millis(20) * u32::try_from(turn).unwrap()).await;
        rig.put(&[("short", "b")]).await;
        rig.mend().await;
    }
    watched.catches_up(rig).await;
    watched.end(rig, "short breakages").await;
}

async fn it_ends_within_a_second<R: Rig>(rig: &mut R) {
    Watched::start(rig).end(rig, "at once").await;
    for how in BOTH {
        let mut watched = Watched::start(rig);
        watched.catches_up(rig).await;
        rig.break_off(how).await;
        let hanging = Watched::start(rig);
        sleep(Duration::from_millis(100)).await;
        hanging.end(rig, "broken from the start").await;
        watched.turns_stale().await;
        watched.end(rig, "stale").await;
        rig.mend().await;
        let mut watched = Watched::start(rig);
        watched.catches_up(rig).await;
        rig.break_off(how).await;
        sleep(Duration::from_millis(100)).await;
        watched.end(rig, "just broken").await;
        rig.mend().await;
    }
}

async fn an_unchanged_source_has_no_news<R: Rig>(rig: &mut R) {
    let mut watched = Watched::start(rig);
    watched.catches_up(rig).await;
    let seen = watched.inlet.borrow_and_update().snapshot().cloned();
    if let Ok(changed) = timeout(rig.quiet(), watched.inlet.changed()).await {
        changed.expect("the watcher ended");
        panic!("news of an unchanged source: {:?}, before {seen:?}", watched.inlet.borrow());
    }
    watched.end(rig, "quiet").await;
}

/// Runs the whole suite. The rig's source need not be empty, and is not emptied.
pub async fn keeps_the_contract<R: Rig>(rig: &mut R) {
    the_first_send_is_complete(rig).await;
    changes_arrive_and_none_is_partial(rig).await;
    a_failure_is_stale_and_ends_by_itself(rig).await;
    a_source_that_is_broken_at_the_start_is_pending(rig).await;
    short_breakages_lose_nothing(rig).await;
    it_ends_within_a_second(rig).await;
    an_unchanged_source_has_no_news(rig).await;
}
