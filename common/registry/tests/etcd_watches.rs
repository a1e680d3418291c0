//! All watches of one etcd store share one stream, and what happens to one of them is no matter of the others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use etcd_client::{CompactionOptions, Permission, PermissionType};
use registry::store::etcd::{Credentials, EtcdConfig, EtcdStore, EtcdWatch, Timeouts};
use registry::store::{Fault, Op, Store, StoreError, WatchStream};
use testing::etcd::{Etcd, binaries};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

async fn until(what: &str, fits: impl Fn() -> bool) {
    let wait = async {
        while !fits() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("not {what}"));
}

async fn write(store: &EtcdStore, key: &str, value: &[u8]) {
    store.put_all(vec![Op::put(key, value, None)]).await.unwrap();
}

/// Waits until this key has changed so often, and nothing else has.
async fn sees(watch: &mut EtcdWatch, key: &str, times: usize) {
    let mut seen = 0;
    while seen < times {
        let batch = timeout(DEADLINE, watch.next()).await.expect("nothing comes").unwrap();
        assert!(batch.changes.iter().all(|change| &**change.key() == key), "{batch:?}");
        seen += batch.changes.len();
    }
    assert_eq!(seen, times);
}

/// Waits until the watch is over.
async fn end(watch: &mut EtcdWatch) -> StoreError {
    let wait = async {
        loop {
            if let Err(error) = watch.next().await {
                return error;
            }
        }
    };
    timeout(DEADLINE, wait).await.expect("the watch does not end")
}

#[tokio::test]
async fn watches_of_one_store_share_one_stream_and_each_gets_its_own() {
    const STREAMS: &str = "etcd_debugging_mvcc_watch_stream_total";
    const WATCHES: &str = "etcd_debugging_mvcc_watcher_total";
    for binary in binaries() {
        let etcd = Etcd::start_with(&binary, &[]);
        let store = etcd.store();
        write(&store, "/s/0/k", b"old").await;
        let at = store.list("/s/").await.unwrap().at;
        let opened = (0..50).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.watch(&format!("/s/{n}/"), at).await.unwrap() })
        });
        let mut watches = Vec::new();
        for one in opened.collect::<Vec<_>>() {
            watches.push(one.await.unwrap());
        }
        assert_eq!((etcd.figure(STREAMS), etcd.figure(WATCHES)), (1, 50), "{}", binary.display());
        for n in 0..50 {
            write(&store, &format!("/s/{n}/k"), b"new").await;
        }
        for (n, watch) in watches.iter_mut().enumerate() {
            sees(watch, &format!("/s/{n}/k"), 1).await;
        }
        // One that is dropped is given back, and the others go on.
        watches.truncate(10);
        until("given back", || etcd.figure(WATCHES) == 10).await;
        write(&store, "/s/7/l", b"new").await;
        sees(&mut watches[7], "/s/7/l", 1).await;
        let joined = store.watch("/s/", at).await.unwrap();
        assert_eq!((etcd.figure(STREAMS), etcd.figure(WATCHES)), (1, 11));
        drop((watches, joined));
        until("closed", || etcd.figure(STREAMS) == 0).await;
        // And one that comes later finds no stream, and opens one.
        let mut late = store.watch("/s/9/", at).await.unwrap();
        sees(&mut late, "/s/9/k", 1).await;
    }
}

#[tokio::test]
async fn a_watch_that_is_not_read_or_is_compacted_ends_alone() {
    let etcd = Etcd::start();
    let ms = Duration::from_millis;
    let timeouts = Timeouts { call: ms(800), ..Timeouts::default() };
    let store = EtcdStore::new(EtcdConfig { timeouts, ..EtcdConfig::new(vec![etcd.endpoint()]) });
    write(&store, "/k", b"0").await;
    let at = store.list("/").await.unwrap().at;
    let (mut lazy, mut brisk) = (store.watch("/lazy/", at).await.unwrap(), store.watch("/brisk/", at).await.unwrap());
    for n in 0..40 {
        write(&store, "/lazy/k", &[n]).await;
        write(&store, "/brisk/k", &[n]).await;
    }
    sees(&mut brisk, "/brisk/k", 40).await;
    // What waited for it is still there, in order; then it is told, and may resume where it was.
    let (mut seen, mut last) = (0, at);
    let why = loop {
        match timeout(DEADLINE, lazy.next()).await.unwrap() {
            Ok(batch) => (seen, last) = (seen + batch.changes.len(), batch.at),
            Err(error) => break error,
        }
    };
    assert!(why.is_retryable() && !why.needs_list() && why.to_string().contains("/lazy/"), "{why:?}");
    assert!(why.fault.to_string().contains("too slowly") && seen < 40, "{seen}: {why:?}");
    let mut resumed = store.watch("/lazy/", last).await.unwrap();
    while seen < 40 {
        seen += timeout(DEADLINE, resumed.next()).await.unwrap().unwrap().changes.len();
    }
    assert_eq!(seen, 40);

    let mut operator = etcd.operator().await;
    let now = store.position("/").await.unwrap();
    operator.compact(now.revision.0, Some(CompactionOptions::new().with_physical())).await.unwrap();
    let error = match store.watch("/old/", at).await {
        Ok(mut watch) => end(&mut watch).await,
        Err(error) => error,
    };
    assert!(matches!(error.fault, Fault::Compacted { .. }), "{error:?}");
    write(&store, "/brisk/k", b"still").await;
    sees(&mut brisk, "/brisk/k", 1).await;
    assert_eq!(etcd.figure("etcd_debugging_mvcc_watch_stream_total"), 1);
}

#[tokio::test]
async fn a_watch_without_rights_harms_no_other_and_new_rights_are_taken_up() {
    for binary in binaries() {
        let etcd = Etcd::start_with(&binary, &[]);
        let mut operator = etcd.operator().await;
        for user in ["root", "agent"] {
            operator.user_add(user, "right", None).await.unwrap();
            operator.role_add(user).await.unwrap();
            operator.user_grant_role(user, user).await.unwrap();
        }
        let right = |prefix: &str| Permission::new(PermissionType::Readwrite, prefix).with_prefix();
        operator.role_grant_permission("agent", right("/mine/")).await.unwrap();
        operator.auth_enable().await.unwrap();
        let as_user = |user: &str| {
            let credentials = Some(Credentials { user: user.into(), password: "right".into() });
            EtcdStore::new(EtcdConfig { credentials, ..EtcdConfig::new(vec![etcd.endpoint()]) })
        };
        let (agent, root) = (as_user("agent"), as_user("root"));
        let at = agent.list("/mine/").await.unwrap().at;
        let mut mine = agent.watch("/mine/", at).await.unwrap();
        for _ in 0..3 {
            let error = agent.watch("/theirs/", at).await.err().unwrap();
            assert!(matches!(error.fault, Fault::Denied { .. }), "{error:?}");
        }
        let connected = etcd_client::ConnectOptions::new().with_user("root", "right");
        let mut rooted = etcd_client::Client::connect([etcd.endpoint().authority()], Some(connected)).await.unwrap();
        rooted.role_grant_permission("agent", right("/theirs/")).await.unwrap();
        // The first stream was opened with the rights of then.
        let mut theirs = agent.watch("/theirs/", at).await.unwrap();
        write(&root, "/theirs/k", b"1").await;
        write(&root, "/mine/k", b"1").await;
        sees(&mut theirs, "/theirs/k", 1).await;
        sees(&mut mine, "/mine/k", 1).await;
    }
}

/// etcd's count of reads that it has answered.
const READS: &str =
    r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#;

#[tokio::test]
async fn a_quiet_watch_costs_one_read_for_each_probe() {
    let etcd = Etcd::start();
    let (probe, idle) = (Duration::from_millis(500), Duration::from_millis(700));
    let timeouts = Timeouts { probe, idle, ..Timeouts::default() };
    let store = EtcdStore::new(EtcdConfig { timeouts, ..EtcdConfig::new(vec![etcd.endpoint()]) });
    let _watch = store.watch("/quiet/", store.position("/quiet/").await.unwrap()).await.unwrap();
    let (before, begun) = (etcd.figure(READS), Instant::now());
    until("probed four times", || etcd.figure(READS) >= before + 4).await;
    assert!(begun.elapsed() >= probe * 3, "four reads in {:?}", begun.elapsed());
    assert!(Timeouts::default().probe >= Duration::from_secs(30), "four requests a minute");
}
