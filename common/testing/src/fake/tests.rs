use super::*;
use registry::store::{Change, KeepAlive, WatchStream};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_on_time_and_takes_its_keys_at_one_revision() {
    let store = FakeStore::new();
    let start = Instant::now();
    let lease = store.grant(secs(9)).await.unwrap().id;
    store.put_all(vec![Op::put("/a/1", *b"x", Some(lease)), Op::put("/a/2", *b"y", Some(lease))]).await.unwrap();
    store.put("/a/3", *b"stays");
    let mut watch = store.watch("/a/", store.position("/a/").await.unwrap()).await.unwrap();
    let batch = loop {
        let batch = watch.next().await.unwrap();
        if !batch.changes.is_empty() {
            break batch;
        }
    };
    assert_eq!(start.elapsed(), secs(9));
    let revision = batch.at.revision;
    let gone = ["/a/1", "/a/2"].map(|key| Change::Delete { key: key.into(), revision });
    assert_eq!(batch.changes, gone);
    assert_eq!(store.entries("/a/").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn beats_keep_a_lease_and_a_cut_way_loses_it() {
    let store = FakeStore::new();
    let lease = store.grant(secs(3)).await.unwrap();
    let mut keeper = store.keep_alive(lease.id).await.unwrap();
    for _ in 0..5 {
        sleep(secs(2)).await;
        assert_eq!(keeper.beat().await.unwrap(), secs(3));
    }
    store.cut(Cut::Silent);
    let start = Instant::now();
    assert!(matches!(keeper.beat().await.unwrap_err().fault, Fault::Timeout { .. }));
    assert_eq!(start.elapsed(), CALL_TIMEOUT);
    sleep(secs(2)).await;
    store.heal();
    assert!(keeper.beat().await.unwrap_err().is_lease_lost());
    assert!(store.leases().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_found_out_and_a_peer_is_not_concerned() {
    let store = FakeStore::new();
    let peer = store.peer();
    let at = store.position("/").await.unwrap();
    let (mut mine, mut theirs) = (store.watch("/", at).await.unwrap(), peer.watch("/", at).await.unwrap());
    store.cut(Cut::Silent);
    store.put("/k", *b"v");
    assert_eq!(theirs.next().await.unwrap().changes.len(), 1);
    assert!(matches!(mine.next().await.unwrap_err().fault, Fault::Idle(_)));
    store.cut(Cut::Refused);
    assert!(matches!(store.list("/").await.unwrap_err().fault, Fault::Unavailable { .. }));
    assert_eq!((peer.counts().lists, store.counts().lists), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_restored_snapshot_ends_watches_and_refuses_old_positions() {
    let store = FakeStore::new();
    store.put("/k", *b"old");
    let snapshot = store.snapshot();
    store.put("/k", *b"new");
    let at = store.position("/").await.unwrap();
    let mut watch = store.watch("/", at).await.unwrap();
    store.restore(snapshot.clone(), false);
    assert!(watch.next().await.unwrap_err().needs_list());
    assert!(matches!(store.watch("/", at).await.unwrap_err().fault, Fault::Rewound { .. }));
    assert_eq!(&*store.entries("/")[0].value, b"old");
    store.restore(snapshot, true);
    assert!(matches!(store.watch("/", at).await.unwrap_err().fault, Fault::ClusterChanged { .. }));
}

#[tokio::test(start_paused = true)]
async fn scripted_faults_come_in_order_and_once() {
    let store = FakeStore::new();
    let denied = Fault::Denied { endpoint: "fake".into() };
    store.fail_next(Operation::List, denied.clone());
    store.fail_next(Operation::List, link::refused());
    assert!(store.get("/k").await.is_ok());
    let first = store.list("/").await.unwrap_err();
    assert_eq!((first.to_string(), first.fault.clone()), ("listing /".to_owned(), denied));
    assert!(first.is_fatal());
    assert!(store.list("/").await.unwrap_err().is_retryable());
    assert!(store.list("/").await.is_ok());
    let mut watch = store.watch("/", store.position("/").await.unwrap()).await.unwrap();
    store.cancel_watches(Fault::Ended("test".into()));
    assert_eq!(watch.next().await.unwrap_err().fault, Fault::Ended("test".into()));
    assert_eq!(watch.next().await.unwrap_err().fault, Fault::Ended("test".into()));
    assert_eq!(store.counts().writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn time_passes_for_leases_while_nobody_looks() {
    let store = FakeStore::new();
    let lease = store.grant(Duration::from_millis(1500)).await.unwrap();
    assert_eq!(lease.ttl, secs(2));
    assert_eq!(store.time_to_live(lease.id).await.unwrap(), Some(secs(2)));
    sleep(secs(2)).await;
    assert_eq!(store.time_to_live(lease.id).await.unwrap(), None);
    store.revoke(lease.id).await.unwrap();
}
