//! What every store owes its callers: one suite, run against the fake and against real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use registry::store::etcd::{EtcdConfig, EtcdStore, Timeouts};
use registry::store::{
    Change, Compare, Entry, Fault, KeepAlive, Key, KeyWatch, LeaseId, Op, Position, Revision, Store, StoreError,
    WatchStream,
};
use testing::etcd::{Etcd, binaries};
use testing::fake::FakeStore;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(15);

/// What the suite needs of a store besides its interface.
trait Bench: Sync {
    type Store: Store;
    fn store(&self) -> Self::Store;
    fn compact(&self, at: Revision) -> impl Future<Output = ()> + Send;
}

impl Bench for FakeStore {
    type Store = Self;

    fn store(&self) -> Self {
        self.clone()
    }

    async fn compact(&self, at: Revision) {
        FakeStore::compact(self, at);
    }
}

impl Bench for Etcd {
    type Store = EtcdStore;

    fn store(&self) -> EtcdStore {
        let timeouts = Timeouts { probe: Duration::from_secs(1), ..Timeouts::default() };
        EtcdStore::new(EtcdConfig { timeouts, ..EtcdConfig::new(vec![self.endpoint()]) })
    }

    async fn compact(&self, at: Revision) {
        self.operator().await.compact(at.0, None).await.unwrap();
    }
}

fn put(key: &str, value: &str) -> Op {
    Op::put(key, value.as_bytes(), None)
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| &*entry.key).collect()
}

async fn write<S: Store>(store: &S, op: Op) -> Position {
    store.put_all(vec![op]).await.unwrap().unwrap()
}

/// The next `count` changes of a watch.
async fn changes<W: WatchStream>(watch: &mut W, count: usize) -> Vec<Change> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(timeout(DEADLINE, watch.next()).await.expect("no change came").unwrap().changes);
    }
    all
}

/// The error with which a watch ends.
async fn end<W: WatchStream>(watch: &mut W) -> StoreError {
    let wait = async {
        loop {
            if let Err(error) = watch.next().await {
                return error;
            }
        }
    };
    timeout(DEADLINE, wait).await.expect("the watch did not end")
}

async fn lists_in_order_of_creation<B: Bench>(bench: &B) {
    let store = bench.store();
    assert_eq!(store.put_all(Vec::new()).await.unwrap(), None);
    for key in ["/order/b", "/order/a", "/order/c", "/orderly"] {
        write(&store, put(key, "1")).await;
    }
    let last = write(&store, put("/order/b", "2")).await;
    let listing = store.list("/order/").await.unwrap();
    assert_eq!(keys(&listing.entries), ["/order/b", "/order/a", "/order/c"]);
    assert_eq!(listing.at, last);
    let first = &listing.entries[0];
    assert_eq!((&*first.value, first.modified, first.lease), (&b"2"[..], last.revision, None));
    assert!(first.created < first.modified);
    assert_eq!(store.get("/order/b").await.unwrap().as_ref(), Some(first));
    assert_eq!(store.get("/order/").await.unwrap(), None);
    assert!(store.list("/order/none/").await.unwrap().entries.is_empty());
    assert!(store.list("").await.unwrap().entries.len() >= 4);
    let before = store.list_at("/order/", Revision(last.revision.0 - 1)).await.unwrap();
    assert_eq!((&*before.entries[0].value, before.at.revision.0), (&b"1"[..], last.revision.0 - 1));
    let future = store.list_at("/order/", Revision(last.revision.0 + 1000)).await.unwrap_err();
    assert!(matches!(future.fault, Fault::Rewound { .. }), "{future:?}");
}

async fn watches_from_a_listing_without_a_gap<B: Bench>(bench: &B) {
    let store = bench.store();
    write(&store, put("/gap/old", "1")).await;
    let at = store.list("/gap/").await.unwrap().at;
    write(&store, put("/gap/between", "1")).await;
    write(&store, put("/gapless", "1")).await;
    let mut watch = store.watch("/gap/", at).await.unwrap();
    write(&store, put("/gap/after", "1")).await;
    write(&store, Op::delete("/gap/none")).await;
    let gone = write(&store, Op::delete("/gap/old")).await.revision;
    let seen = changes(&mut watch, 3).await;
    assert_eq!(seen.iter().map(|c| &**c.key()).collect::<Vec<_>>(), ["/gap/between", "/gap/after", "/gap/old"]);
    assert_eq!(seen[2], Change::Delete { key: "/gap/old".into(), revision: gone });
    assert!(seen.is_sorted_by_key(Change::revision));
    // All that one transaction did comes in one batch.
    store.put_all((0..100).map(|n| put(&format!("/gap/{n}"), "1")).collect()).await.unwrap();
    let batch = loop {
        let batch = timeout(DEADLINE, watch.next()).await.unwrap().unwrap();
        if !batch.changes.is_empty() {
            break batch;
        }
    };
    assert_eq!(batch.changes.len(), 100);
    assert_eq!(batch.at.revision, batch.changes[99].revision());
    drop(watch);
    write(&store, put("/gap/later", "1")).await;
    let mut resumed = store.watch("/gap/", batch.at).await.unwrap();
    assert_eq!(&**changes(&mut resumed, 1).await[0].key(), "/gap/later");
}

async fn a_dropped_wait_loses_nothing<B: Bench>(bench: &B) {
    let store = bench.store();
    let mut watch = store.watch("/drop/", store.position("/drop/").await.unwrap()).await.unwrap();
    for n in 0..20 {
        write(&store, put("/drop/k", &n.to_string())).await;
        drop(timeout(Duration::ZERO, watch.next()).await.map(|batch| assert!(batch.unwrap().changes.len() <= n + 1)));
    }
    write(&store, put("/drop/last", "1")).await;
    let is_last = |change: &Change| &**change.key() == "/drop/last"; // it may come with others before it
    while !changes(&mut watch, 1).await.iter().any(is_last) {}
}

async fn a_lease_takes_its_keys_at_one_revision<B: Bench>(bench: &B) {
    let store = bench.store();
    let lease = store.grant(Duration::from_millis(1500)).await.unwrap();
    assert!(lease.ttl >= Duration::from_secs(2));
    let ops = (0..300).map(|n| Op::put(format!("/lease/{n}"), *b"1", Some(lease.id))).collect();
    let at = store.put_all(ops).await.unwrap().unwrap();
    let listed = store.list("/lease/").await.unwrap();
    assert_eq!((listed.entries.len(), listed.entries[0].lease), (300, Some(lease.id)));
    let mut hanging = store.lease_keys(lease.id).await.unwrap();
    hanging.sort();
    assert!(hanging.len() == 300 && &*hanging[0] == "/lease/0", "{hanging:?}");
    let mut keeper = store.keep_alive(lease.id).await.unwrap();
    assert_eq!(keeper.beat().await.unwrap(), lease.ttl);
    assert!(store.time_to_live(lease.id).await.unwrap().unwrap() <= lease.ttl);
    let mut watch = store.watch("/lease/", at).await.unwrap();
    let gone = changes(&mut watch, 300).await;
    assert_eq!(gone.len(), 300);
    assert!(gone.iter().all(|c| matches!(c, Change::Delete { .. }) && c.revision() == gone[0].revision()));
    assert!(keeper.beat().await.unwrap_err().is_lease_lost());
    assert!(keeper.beat().await.unwrap_err().is_lease_lost(), "it stays lost");
    assert_eq!(store.keep_alive(lease.id).await.err().unwrap().fault, Fault::LeaseLost(lease.id));
    assert_eq!(store.time_to_live(lease.id).await.unwrap(), None);
    assert!(store.lease_keys(lease.id).await.unwrap().is_empty());
    let late = store.txn(Vec::new(), vec![Op::put("/lease/late", *b"1", Some(lease.id))]).await.unwrap_err();
    assert_eq!(late.fault, Fault::LeaseLost(lease.id));
    store.revoke(lease.id).await.unwrap();
    assert_eq!(store.time_to_live(LeaseId(0x7777)).await.unwrap(), None);
    // What lived when they went can still be read.
    let then = store.list_at("/lease/", Revision(gone[0].revision().0 - 1)).await.unwrap();
    assert!(then.entries.len() == 300 && then.entries.iter().all(|entry| entry.lease == Some(lease.id)));
}

async fn beats_keep_a_lease_and_revoking_ends_it<B: Bench>(bench: &B) {
    let store = bench.store();
    let lease = store.grant(Duration::from_secs(3)).await.unwrap();
    write(&store, Op::put("/kept/k", *b"1", Some(lease.id))).await;
    let mut keeper = store.keep_alive(lease.id).await.unwrap();
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(300)).await; // longer than the lease lives without a beat, all together
        keeper.beat().await.unwrap();
    }
    assert!(store.get("/kept/k").await.unwrap().is_some());
    store.revoke(lease.id).await.unwrap();
    assert_eq!(store.get("/kept/k").await.unwrap(), None);
}

async fn transactions_compare_and_swap<B: Bench>(bench: &B) {
    let store = bench.store();
    let key = "/cas/k";
    let absent = || vec![Compare::Absent(key.into())];
    let first = store.txn(absent(), vec![put(key, "1")]).await.unwrap();
    assert!(first.succeeded);
    let second = store.txn(absent(), vec![put(key, "2")]).await.unwrap();
    assert!(!second.succeeded);
    assert_eq!(second.at, first.at, "nothing was written");
    let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
    let at = |revision| vec![Compare::ModifiedAt(key.into(), revision)];
    let swap = || vec![Op::put(key, *b"3", Some(lease))];
    let third = store.txn(at(first.at.revision), swap()).await.unwrap();
    assert!(third.succeeded && !store.txn(at(first.at.revision), swap()).await.unwrap().succeeded);
    let held = |lease| vec![Compare::LeaseIs(key.into(), lease)];
    assert!(!store.txn(held(LeaseId(7)), vec![Op::delete(key)]).await.unwrap().succeeded);
    assert!(store.txn(held(lease), vec![Op::delete(key)]).await.unwrap().succeeded);
    assert!(!store.txn(held(lease), vec![put(key, "4")]).await.unwrap().succeeded);
    store.revoke(lease).await.unwrap();
}

async fn a_transaction_that_does_nothing_tells_how_its_keys_stand<B: Bench>(bench: &B) {
    let store = bench.store();
    let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
    let (free, mine, gone): (Key, Key, Key) = ("/found/free".into(), "/found/mine".into(), "/found/gone".into());
    let first = write(&store, Op::put("/found/free", *b"1", None)).await.revision;
    let second = write(&store, Op::put("/found/mine", *b"1", Some(lease))).await.revision;
    let third = write(&store, Op::put("/found/mine", *b"2", Some(lease))).await.revision;
    let when = vec![
        Compare::LeaseIs(free.clone(), lease),
        Compare::LeaseIs(mine.clone(), lease),
        Compare::LeaseIs(gone.clone(), lease),
        Compare::ModifiedAt(mine.clone(), third),
    ];
    let ops = || vec![Op::delete(free.clone()), Op::put(gone.clone(), *b"1", None)];
    let refused = store.txn(when, ops()).await.unwrap();
    let bare = |key: &Key, lease, created, modified| Entry {
        key: key.clone(),
        value: Vec::new().into(),
        lease,
        created,
        modified,
    };
    let expected = [bare(&free, None, first, first), bare(&mine, Some(lease), second, third)];
    assert_eq!((refused.succeeded, refused.at.revision, &refused.found[..]), (false, third, &expected[..]));
    // Conditions without operations only look.
    let intact = store.txn(vec![Compare::ModifiedAt(mine.clone(), third)], Vec::new()).await.unwrap();
    assert_eq!((intact.succeeded, intact.found.len(), intact.at.revision), (true, 0, third));
    assert!(store.txn(vec![Compare::Absent(gone.clone())], ops()).await.unwrap().found.is_empty());
    store.revoke(lease).await.unwrap();
}

async fn single_keys_are_watched_and_their_neighbours_are_not<B: Bench>(bench: &B) {
    let store = bench.store();
    let at = write(&store, put("/keys/a", "1")).await;
    write(&store, put("/keys/a", "between")).await;
    let mut watch = store.watch_keys();
    assert!(timeout(Duration::from_millis(10), watch.next()).await.is_err(), "no keys, no news");
    watch.add(vec![("/keys/a".into(), at), ("/keys/none".into(), at)]).await.unwrap();
    assert_eq!(&**changes(&mut watch, 1).await[0].key(), "/keys/a");
    write(&store, put("/keys/ab", "1")).await; // it begins as `a` does
    write(&store, put("/keys/b", "early")).await;
    let gone = write(&store, Op::delete("/keys/a")).await.revision;
    assert_eq!(changes(&mut watch, 1).await, [Change::Delete { key: "/keys/a".into(), revision: gone }]);
    watch.add(vec![("/keys/a".into(), at), ("/keys/b".into(), at)]).await.unwrap(); // the first is known
    assert!(watch.has("/keys/b") && !watch.has("/keys/ab"));
    assert_eq!(&**changes(&mut watch, 1).await[0].key(), "/keys/b");
    watch.forget("/keys/b");
    write(&store, put("/keys/b", "late")).await;
    write(&store, put("/keys/none", "1")).await;
    assert_eq!(&**changes(&mut watch, 1).await[0].key(), "/keys/none");
    // Thousands, which are all changed at once.
    let many: Vec<String> = (0..2000).map(|n| format!("/keys/many/{n:04}")).collect();
    let written = store.put_all(many.iter().map(|key| put(key, "1")).collect()).await.unwrap().unwrap();
    watch.add(many.iter().map(|key| (Key::from(key.as_str()), written)).collect()).await.unwrap();
    store.put_all(many.iter().map(|key| Op::delete(key.as_str())).collect()).await.unwrap();
    let mut seen: Vec<String> = changes(&mut watch, 2000).await.iter().map(|c| c.key().to_string()).collect();
    seen.sort();
    assert_eq!(seen, many);
}

async fn many_operations_go_in_few_transactions<B: Bench>(bench: &B) {
    let store = bench.store();
    let before = store.position("/many/").await.unwrap();
    let mut ops: Vec<_> = (0..5000).map(|n| put(&format!("/many/{n}"), "1")).collect();
    ops.push(put("/many/0", "2"));
    ops.push(Op::delete("/many/1"));
    let after = store.put_all(ops).await.unwrap().unwrap();
    assert_eq!(after.revision.0 - before.revision.0, 40, "5000 / 128, and one for the key that came twice");
    // More than one page, in the right order.
    let listing = store.list("/many/").await.unwrap();
    assert_eq!(listing.entries.len(), 4999);
    assert!(listing.entries.is_sorted_by_key(|entry| (entry.created, entry.key.clone())));
    let too_many = (0..129).map(|n| put(&format!("/many/{n}"), "1")).collect();
    let refused = store.txn(Vec::new(), too_many).await.unwrap_err();
    assert!(matches!(refused.fault, Fault::Refused { .. }) && !refused.is_retryable(), "{refused:?}");
    let twice = store.txn(Vec::new(), vec![put("/many/x", "1"), put("/many/x", "2")]).await.unwrap_err();
    assert!(matches!(twice.fault, Fault::Refused { .. }), "{twice:?}");
    assert!(store.get("/many/x").await.unwrap().is_none());
}

async fn large_backlogs_arrive_whole<B: Bench>(bench: &B) {
    let store = bench.store();
    let at = store.position("/large/").await.unwrap();
    let big = vec![b'x'; 700_000];
    for n in 0..14 {
        write(&store, Op::put(format!("/large/{n}"), big.clone(), None)).await;
    }
    let mut watch = store.watch("/large/", at).await.unwrap();
    assert_eq!(changes(&mut watch, 14).await.len(), 14);
    assert_eq!(store.list("/large/").await.unwrap().entries.len(), 14);
    store.put_all((0..14).map(|n| Op::delete(format!("/large/{n}"))).collect()).await.unwrap();
}

async fn other_pasts_are_refused<B: Bench>(bench: &B) {
    let store = bench.store();
    let now = store.position("/past/").await.unwrap();
    let ahead = Position { revision: Revision(now.revision.0 + 50), ..now };
    let error = store.watch("/past/", ahead).await.err().unwrap();
    assert!(matches!(error.fault, Fault::Rewound { .. }) && error.needs_list(), "{error:?}");
    let elsewhere = Position { cluster: now.cluster + 1, ..now };
    let error = store.watch("/past/", elsewhere).await.err().unwrap();
    assert!(matches!(error.fault, Fault::ClusterChanged { .. }) && error.needs_list(), "{error:?}");
}

async fn a_compacted_revision_asks_for_a_listing<B: Bench>(bench: &B) {
    let store = bench.store();
    let old = write(&store, put("/compact/k", "1")).await;
    let mut last = old;
    for n in 0..10 {
        last = write(&store, put("/compact/k", &n.to_string())).await;
    }
    bench.compact(last.revision).await;
    let error = match store.watch("/compact/", old).await {
        Ok(mut watch) => end(&mut watch).await,
        Err(error) => error,
    };
    assert_eq!(error.fault, Fault::Compacted { at: last.revision });
    assert!(error.needs_list());
    let error = store.list_at("/compact/", old.revision).await.unwrap_err();
    assert!(matches!(error.fault, Fault::Compacted { .. }), "{error:?}");
    assert_eq!(store.list_at("/compact/", last.revision).await.unwrap().entries.len(), 1);
    let mut watch = store.watch("/compact/", store.list("/compact/").await.unwrap().at).await.unwrap();
    write(&store, put("/compact/k", "new")).await;
    assert_eq!(changes(&mut watch, 1).await.len(), 1);
}

async fn a_deletion_at_the_compacted_revision_is_not_passed_over<B: Bench>(bench: &B) {
    let store = bench.store();
    let known = write(&store, put("/tombstone/k", "1")).await;
    let gone = write(&store, Op::delete("/tombstone/k")).await;
    bench.compact(gone.revision).await;
    let error = match store.watch("/tombstone/", known).await {
        Ok(mut watch) => end(&mut watch).await,
        Err(error) => error,
    };
    assert!(matches!(error.fault, Fault::Compacted { .. }), "{error:?}");
}

async fn a_quiet_watch_says_that_it_lives<B: Bench>(bench: &B) {
    let store = bench.store();
    let at = store.position("/quiet/").await.unwrap();
    let mut watch = store.watch("/quiet/", at).await.unwrap();
    // At its beginning, and from time to time.
    for _ in 0..2 {
        let batch = timeout(DEADLINE, watch.next()).await.expect("no sign of life").unwrap();
        assert!(batch.changes.is_empty() && batch.at.cluster == at.cluster && batch.at.revision >= at.revision);
    }
}

async fn keeps_the_contract<B: Bench>(bench: &B) {
    lists_in_order_of_creation(bench).await;
    watches_from_a_listing_without_a_gap(bench).await;
    a_dropped_wait_loses_nothing(bench).await;
    a_lease_takes_its_keys_at_one_revision(bench).await;
    beats_keep_a_lease_and_revoking_ends_it(bench).await;
    transactions_compare_and_swap(bench).await;
    a_transaction_that_does_nothing_tells_how_its_keys_stand(bench).await;
    single_keys_are_watched_and_their_neighbours_are_not(bench).await;
    many_operations_go_in_few_transactions(bench).await;
    large_backlogs_arrive_whole(bench).await;
    other_pasts_are_refused(bench).await;
    a_compacted_revision_asks_for_a_listing(bench).await;
    a_deletion_at_the_compacted_revision_is_not_passed_over(bench).await;
    a_quiet_watch_says_that_it_lives(bench).await;
}

#[tokio::test(start_paused = true)]
async fn the_fake_keeps_the_contract() {
    keeps_the_contract(&FakeStore::new()).await;
}

#[tokio::test]
async fn etcd_keeps_the_contract() {
    for binary in binaries() {
        keeps_the_contract(&Etcd::start_with(&binary, &[])).await;
    }
}
