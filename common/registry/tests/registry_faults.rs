//! What only a registry does to its watcher: leases that end, compaction, restored snapshots, many keys, long silence.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use agent::watch::{Inlet, Observation, Watcher, channel};
use model::Prefix;
use registry::store::etcd::{EtcdConfig, EtcdStore, Timeouts};
use registry::store::{Fault, LeaseId, Op, Operation, Revision, Store};
use registry::{DepartureCause, RegistryWatcher, Snapshot};
use testing::etcd::{Etcd, binaries};
use testing::fake::{Cut, FakeStore};
use testing::watch_contract::pools;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use DepartureCause::{Expiry, Orderly};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A running watcher.
struct Running {
    inlet: Inlet<Snapshot>,
    cancel: CancellationToken,
    run: JoinHandle<()>,
}

impl Running {
    fn start<S: Store>(store: S) -> Self {
        let ((out, inlet), cancel) = (channel(), CancellationToken::new());
        let (watcher, token) = (RegistryWatcher::new(store, Prefix::default()), cancel.clone());
        let run = tokio::spawn(async move { watcher.run(out, token).await.unwrap() });
        Self { inlet, cancel, run }
    }

    async fn until(&mut self, what: &str, fits: impl Fn(&Observation<Snapshot>) -> bool) -> Snapshot {
        let found = timeout(secs(30), self.inlet.wait_for(fits)).await.map(|found| found.unwrap().clone());
        let seen = found.unwrap_or_else(|_| panic!("not {what}: {:?}", self.inlet.borrow()));
        (**seen.snapshot().expect(what)).clone()
    }

    /// Waits until it is synced with this many backends of `web`.
    async fn sees(&mut self, count: usize) -> Snapshot {
        let size = |snapshot: &Snapshot| pools(snapshot).get("web").map_or(0, |pool| pool.len());
        self.until(&format!("{count} backends of web"), |seen| {
            seen.standing() == "synced" && seen.snapshot().is_some_and(|s| size(s) == count)
        })
        .await
    }

    async fn turns_stale(&mut self) {
        self.until("stale", |seen| seen.standing() == "stale").await;
    }

    async fn end(self) {
        self.cancel.cancel();
        timeout(secs(1), self.run).await.unwrap().unwrap();
    }
}

fn cause(snapshot: &Snapshot, id: &str) -> Option<DepartureCause> {
    snapshot.departed.get(&("web".parse().unwrap(), id.parse().unwrap())).map(|departure| departure.cause)
}

fn backend(id: &str, lease: Option<LeaseId>) -> Op {
    Op::put(format!("/backends/web/{id}"), format!("host-{id}:80").into_bytes(), lease)
}

fn deletion(id: &str) -> Op {
    Op::delete(format!("/backends/web/{id}"))
}

/// An agent of that name: a lease, its registrar key, and a backend for each id.
async fn agent<S: Store>(store: &S, node: &str, ids: &[&str]) -> LeaseId {
    let lease = store.grant(secs(600)).await.unwrap().id;
    let mut ops = vec![Op::put(format!("/registrars/{node}"), *b"{}", Some(lease))];
    ops.extend(ids.iter().map(|id| backend(id, Some(lease))));
    store.put_all(ops).await.unwrap();
    lease
}

async fn departures_are_told_apart<S: Store>(store: S) {
    let lease = agent(&store, "h1", &["a1", "a2", "a3"]).await;
    agent(&store, "h2", &["b1"]).await;
    let mut watching = Running::start(store.clone());
    watching.sees(4).await;
    store.put_all(vec![deletion("a1")]).await.unwrap();
    let snapshot = watching.sees(3).await;
    assert_eq!(cause(&snapshot, "a1"), Some(Orderly), "its agent lives");
    let draining = br#"{"host":"host-a2","port":80,"status":"draining"}"#;
    store.put_all(vec![Op::put("/backends/web/a2", *draining, Some(lease))]).await.unwrap();
    store.revoke(lease).await.unwrap();
    let snapshot = watching.sees(1).await;
    assert_eq!(cause(&snapshot, "a2"), Some(Orderly), "it was draining");
    assert_eq!(cause(&snapshot, "a3"), Some(Expiry), "its registrar went in the same revision");
    assert_eq!(cause(&snapshot, "b1"), None);
    store.put_all(vec![backend("a3", None)]).await.unwrap();
    assert_eq!(cause(&watching.sees(2).await, "a3"), None, "it is back");
    store.put_all(vec![deletion("a3")]).await.unwrap();
    assert_eq!(cause(&watching.sees(1).await, "a3"), Some(Orderly), "a key without a lease cannot expire");
    let stranger = store.grant(secs(600)).await.unwrap().id;
    store.put_all(vec![backend("c1", Some(stranger)), backend("c2", Some(stranger))]).await.unwrap();
    watching.sees(3).await;
    store.put_all(vec![deletion("c1")]).await.unwrap();
    assert_eq!(cause(&watching.sees(2).await, "c1"), Some(Orderly), "its lease lives, and was never an agent's");
    store.revoke(stranger).await.unwrap();
    assert_eq!(cause(&watching.sees(1).await, "c2"), Some(Expiry), "its lease ended");
    store.put_all(vec![Op::delete("/registrars/h2"), deletion("b1")]).await.unwrap();
    assert_eq!(
        cause(&watching.sees(0).await, "b1"),
        Some(Expiry),
        "the registrar was wiped with it, though its lease lives"
    );
    watching.end().await;
}

#[tokio::test(start_paused = true)]
async fn departures_are_told_apart_over_the_fake() {
    departures_are_told_apart(FakeStore::new()).await;
}

#[tokio::test]
async fn departures_are_told_apart_over_etcd() {
    for binary in binaries() {
        departures_are_told_apart(Etcd::start_with(&binary, &[]).store()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_compaction_while_cut_off_costs_one_listing_and_no_knowledge() {
    let store = FakeStore::new();
    let way = store.peer();
    let lease = agent(&store, "h1", &["a1", "a2"]).await;
    agent(&store, "h2", &["b1", "b2"]).await;
    let mut watching = Running::start(way.clone());
    watching.sees(4).await;
    assert_eq!(way.counts().lists, 1);
    for how in [Cut::Refused, Cut::Silent] {
        way.cut(how);
        watching.turns_stale().await;
        way.heal();
        watching.sees(4).await;
    }
    assert_eq!(way.counts().lists, 1, "a cut is no reason to list");
    way.cut(Cut::Refused);
    watching.turns_stale().await;
    store.expire(lease);
    store.put_all(vec![deletion("b1"), backend("c1", None)]).await.unwrap();
    store.compact(Revision(i64::MAX));
    way.heal();
    let snapshot = watching.sees(2).await;
    assert_eq!(
        ["a1", "a2", "b1", "b2"].map(|id| cause(&snapshot, id)),
        [Some(Expiry), Some(Expiry), Some(Orderly), None]
    );
    assert_eq!(way.counts().lists, 3, "one of the backends, one of the registrars");
    watching.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_restored_or_wiped_store_misses_has_expired() {
    for other_cluster in [false, true] {
        let store = FakeStore::new();
        let empty = store.snapshot();
        agent(&store, "h1", &["a1"]).await;
        let backup = store.snapshot();
        store.put_all(vec![backend("a2", None)]).await.unwrap();
        agent(&store, "h2", &["b1"]).await;
        let mut watching = Running::start(store.clone());
        watching.sees(3).await;
        store.restore(backup, other_cluster);
        let snapshot = watching.sees(1).await;
        assert_eq!(["a1", "a2", "b1"].map(|id| cause(&snapshot, id)), [None, Some(Expiry), Some(Expiry)]);
        store.restore(empty, other_cluster);
        let snapshot = watching.sees(0).await;
        assert_eq!(cause(&snapshot, "a1"), Some(Expiry));
        agent(&store, "h1", &["a1"]).await;
        assert_eq!(cause(&watching.sees(1).await, "a1"), None);
        watching.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_ended_watch_resumes_without_a_listing_and_nothing_is_lost() {
    let store = FakeStore::new();
    agent(&store, "h1", &["a1", "a2", "a3"]).await;
    let way = store.peer();
    let mut watching = Running::start(way.clone());
    watching.sees(3).await;
    sleep(secs(1)).await; // the watch is open
    way.cancel_watches(Fault::Ended("by the server".into()));
    store.put("/backends/web/x", *b"h:1");
    watching.sees(4).await;
    assert_eq!((way.counts().lists, way.counts().watches), (1, 2));
    // The question who answers for a deleted key fails: the deletion is read again, not forgotten.
    way.fail_next(Operation::List, Fault::Timeout { endpoint: "fake".into(), after: secs(2) });
    store.put_all(vec![deletion("a1")]).await.unwrap();
    assert_eq!(cause(&watching.sees(3).await, "a1"), Some(Orderly));
    sleep(secs(1)).await;
    way.cancel_watches(Fault::Compacted { at: Revision(0) });
    watching.turns_stale().await;
    store.put_all(vec![deletion("a2")]).await.unwrap();
    assert_eq!(cause(&watching.sees(2).await, "a2"), Some(Orderly));
    watching.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_silence_costs_nothing() {
    let store = FakeStore::new();
    agent(&store, "h1", &["a1"]).await;
    let way = store.peer();
    let mut watching = Running::start(way.clone());
    watching.sees(1).await;
    watching.inlet.mark_unchanged();
    let before = way.counts();
    sleep(secs(30)).await;
    let after = way.counts();
    assert_eq!((after.lists, after.watches), (before.lists, 1), "the watch is open, and nobody lists");
    assert!(!watching.inlet.has_changed().unwrap(), "no news of an unchanged registry");
    watching.end().await;
}

#[tokio::test]
async fn twenty_thousand_keys_come_whole() {
    let etcd = Etcd::start();
    let store = etcd.store();
    let ops = (0..20_000).map(|n| {
        let (service, id) = (n % 100, n / 100);
        Op::put(format!("/backends/s{service}/{id}"), format!("10.0.{service}.{id}:80").into_bytes(), None)
    });
    store.put_all(ops.collect()).await.unwrap();
    let begin = Instant::now();
    let mut watching = Running::start(etcd.store());
    let snapshot = watching.until("a first snapshot", |seen| seen.snapshot().is_some()).await;
    println!("20,000 keys listed in {:?}", begin.elapsed());
    assert_eq!(snapshot.services.len(), 100);
    assert!(snapshot.services.values().all(|pool| pool.len() == 200));
    store.put_all(vec![Op::delete("/backends/s7/7")]).await.unwrap();
    watching.until("one less", |seen| seen.snapshot().is_some_and(|s| s.services["s7"].len() == 199)).await;
    watching.end().await;
}

/// A store that loses patience sooner than by default.
fn hasty(etcd: &Etcd) -> EtcdStore {
    let ms = Duration::from_millis;
    let timeouts = Timeouts { call: ms(400), probe: ms(300), idle: ms(900), ..Timeouts::default() };
    EtcdStore::new(EtcdConfig { timeouts, ..EtcdConfig::new(vec![etcd.endpoint()]) })
}

#[tokio::test]
async fn etcd_killed_frozen_compacted_and_set_back() {
    for binary in binaries() {
        let mut etcd = Etcd::start_with(&binary, &[]);
        let store = hasty(&etcd);
        agent(&store, "h1", &["a1"]).await;
        etcd.back_up();
        agent(&store, "h2", &["b1", "b2"]).await;
        let mut watching = Running::start(hasty(&etcd));
        watching.sees(3).await;
        etcd.kill();
        watching.turns_stale().await;
        etcd.restart();
        watching.sees(3).await;
        etcd.freeze();
        watching.turns_stale().await;
        etcd.thaw();
        watching.sees(3).await;
        let at = store.put_all(vec![deletion("b1")]).await.unwrap().unwrap();
        etcd.operator().await.compact(at.revision.0, None).await.unwrap();
        assert_eq!(cause(&watching.sees(2).await, "b1"), Some(Orderly));
        etcd.set_back();
        let snapshot = watching.sees(1).await;
        assert_eq!([cause(&snapshot, "a1"), cause(&snapshot, "b2")], [None, Some(Expiry)]);
        watching.end().await;
    }
}
