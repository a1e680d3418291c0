//! What the etcd store makes of real faults: dead, frozen, restarted and replaced servers, wrong ports, and auth.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use etcd_client::{Permission, PermissionType};
use registry::store::etcd::{Credentials, Endpoint, EtcdConfig, EtcdStore, Timeouts};
use registry::store::{Compare, Fault, KeepAlive, Op, Store, StoreError, WatchStream};
use testing::etcd::{Etcd, binaries};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);

fn local(port: u16) -> Endpoint {
    Endpoint { https: false, host: "127.0.0.1".into(), port }
}

/// An endpoint that refuses connections for as long as its socket lives: bound, and so taken, but not listening.
fn refusing() -> (TcpSocket, Endpoint) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, local(port))
}

/// A store that loses patience sooner than by default, but pings no more often than etcd allows.
fn hasty(endpoints: Vec<Endpoint>) -> EtcdStore {
    let ms = Duration::from_millis;
    let timeouts = Timeouts { call: ms(800), probe: ms(300), idle: ms(900), ..Timeouts::default() };
    EtcdStore::new(EtcdConfig { timeouts, ..EtcdConfig::new(endpoints) })
}

fn put(key: &str) -> Vec<Op> {
    vec![Op::put(key, *b"1", None)]
}

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

/// Waits for a change of `key`.
async fn sees<W: WatchStream>(watch: &mut W, key: &str) {
    let wait = async { while watch.next().await.unwrap().changes.iter().all(|change| &**change.key() != key) {} };
    timeout(DEADLINE, wait).await.expect("the change did not come");
}

#[tokio::test]
async fn refused_endpoints_cost_no_call() {
    let etcd = Etcd::start();
    for turn in 0..8 {
        let [(_one, one), (_two, two)] = [refusing(), refusing()];
        let store = EtcdStore::new(EtcdConfig::new(vec![one, etcd.endpoint(), two]));
        let begun = Instant::now();
        for n in 0..20 {
            store.put_all(put(&format!("/k/{turn}/{n}"))).await.unwrap();
        }
        // Conditions are no obstacle: a refused connection surely did nothing.
        let key = format!("/cas/{turn}");
        let swapped = store.txn(vec![Compare::Absent(key.as_str().into())], put(&key)).await.unwrap();
        assert!(swapped.succeeded);
        let lease = store.grant(Duration::from_secs(5)).await.unwrap().id;
        store.keep_alive(lease).await.unwrap().beat().await.unwrap();
        let mut watch = store.watch("/k/", store.position("/k/").await.unwrap()).await.unwrap();
        store.put_all(put("/k/last")).await.unwrap();
        sees(&mut watch, "/k/last").await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn nobody_there_is_told_quickly_and_is_no_reason_to_give_up() {
    let (_socket, nobody) = refusing();
    let error = hasty(vec![nobody.clone()]).list("/").await.unwrap_err();
    assert!(error.is_retryable() && !error.needs_list(), "{error:?}");
    let Fault::Unavailable { endpoint, why } = &error.fault else { panic!("{error:?}") };
    assert_eq!(*endpoint, nobody.to_string());
    assert!(why.contains("refused"), "{why}");
    let none = hasty(Vec::new()).list("/").await.unwrap_err();
    assert!(matches!(none.fault, Fault::BadConfig(_)), "{none:?}");
}

#[tokio::test]
async fn a_frozen_server_is_found_out_and_used_again_after_it() {
    let etcd = Etcd::start();
    let store = hasty(vec![etcd.endpoint()]);
    store.put_all(put("/k")).await.unwrap();
    let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
    let mut keeper = store.keep_alive(lease).await.unwrap();
    let mut watch = store.watch("/", store.list("/").await.unwrap().at).await.unwrap();
    etcd.freeze();
    let begun = Instant::now();
    let (listed, beat, ended) = tokio::join!(store.list("/"), keeper.beat(), end(&mut watch));
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    for error in [listed.unwrap_err(), beat.unwrap_err(), ended] {
        assert!(error.is_retryable(), "{error:?}");
    }
    etcd.thaw();
    // It elects itself again first.
    while let Err(error) = keeper.beat().await {
        assert!(error.is_retryable() && begun.elapsed() < DEADLINE, "{error:?}");
    }
    assert_eq!(store.list("/").await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn default_timeouts_bound_a_frozen_server_too() {
    let etcd = Etcd::start();
    let store = etcd.store();
    let mut watch = store.watch("/", store.position("/").await.unwrap()).await.unwrap();
    let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
    let mut keeper = store.keep_alive(lease).await.unwrap();
    etcd.freeze();
    let begun = Instant::now();
    let ended = async {
        end(&mut watch).await;
        begun.elapsed()
    };
    let beaten = async {
        let (beat, opened) = (keeper.beat().await, begun.elapsed());
        assert!(beat.unwrap_err().is_retryable() && opened < Duration::from_secs(6), "{opened:?}");
        assert!(store.keep_alive(lease).await.unwrap_err().is_retryable());
        begun.elapsed()
    };
    let (ended, beaten) = tokio::join!(ended, beaten);
    assert!(ended < Duration::from_secs(15), "{ended:?}");
    assert!(beaten < Duration::from_secs(11), "{beaten:?} for both, of a lease that has 10 s");
}

#[tokio::test]
async fn a_restarted_server_is_listed_and_watched_again() {
    let mut etcd = Etcd::start();
    let store = hasty(vec![etcd.endpoint()]);
    store.put_all(put("/k/1")).await.unwrap();
    let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
    let mut keeper = store.keep_alive(lease).await.unwrap();
    let at = store.list("/k/").await.unwrap().at;
    let mut watch = store.watch("/k/", at).await.unwrap();
    etcd.kill();
    let error = end(&mut watch).await;
    assert!(error.is_retryable() && !error.needs_list(), "{error:?}");
    assert!(keeper.beat().await.unwrap_err().is_retryable());
    etcd.restart();
    keeper.beat().await.unwrap();
    let listing = store.list("/k/").await.unwrap();
    assert_eq!((listing.at, listing.entries.len()), (at, 1));
    let mut watch = store.watch("/k/", at).await.unwrap();
    store.put_all(put("/k/2")).await.unwrap();
    sees(&mut watch, "/k/2").await;
}

#[tokio::test]
async fn a_server_set_back_to_a_backup_is_found_out() {
    let mut etcd = Etcd::start();
    let store = hasty(vec![etcd.endpoint()]);
    store.put_all(put("/k/1")).await.unwrap();
    etcd.back_up();
    store.put_all(put("/k/2")).await.unwrap();
    let at = store.list("/k/").await.unwrap().at;
    etcd.set_back();
    let error = store.watch("/k/", at).await.err().unwrap();
    assert!(matches!(error.fault, Fault::Rewound { .. }) && error.needs_list(), "{error:?}");
    assert_eq!(store.list("/k/").await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_cluster_outlives_each_of_its_members() {
    let mut nodes = Etcd::cluster(3);
    let store = EtcdStore::new(EtcdConfig {
        timeouts: Timeouts { call: Duration::from_secs(1), ..Timeouts::default() },
        ..EtcdConfig::new(nodes.iter().map(Etcd::endpoint).collect())
    });
    let lease = store.grant(Duration::from_secs(10)).await.unwrap().id;
    store.put_all(vec![Op::put("/k/leased", *b"1", Some(lease))]).await.unwrap();
    let mut keeper = store.keep_alive(lease).await.unwrap();
    for (n, node) in nodes.iter_mut().enumerate() {
        let mut watch = store.watch("/k/", store.list("/k/").await.unwrap().at).await.unwrap();
        if n == 0 {
            node.freeze();
        } else {
            node.kill();
        }
        let begun = Instant::now();
        let key = format!("/k/{n}");
        while let Err(error) = store.put_all(put(&key)).await {
            assert!(error.is_retryable() && begun.elapsed() < DEADLINE, "{error:?}");
        }
        while let Err(error) = keeper.beat().await {
            assert!(error.is_retryable() && begun.elapsed() < DEADLINE, "{error:?}");
        }
        // Either this watch brings the change, or it ends and the next one resumes where it was.
        let seen = async {
            let mut at = None;
            loop {
                match watch.next().await {
                    Ok(batch) if batch.changes.iter().any(|change| *change.key() == key.as_str().into()) => return,
                    Ok(batch) => at = Some(batch.at),
                    Err(error) => {
                        assert!(error.is_retryable(), "{error:?}");
                        let listing = store.list("/k/").await;
                        if listing.is_ok_and(|l| l.entries.iter().any(|entry| *entry.key == key)) {
                            return;
                        }
                        if let Some(at) = at
                            && let Ok(next) = store.watch("/k/", at).await
                        {
                            watch = next;
                        }
                    }
                }
            }
        };
        timeout(DEADLINE, seen).await.expect("the change was not seen");
        if n == 0 {
            node.thaw();
        } else {
            node.restart();
        }
    }
    assert!(store.get("/k/leased").await.unwrap().is_some());
}

/// Serves `answer` to whatever comes, and closes.
async fn impostor(answer: &'static [u8]) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            drop(stream.read(&mut request).await);
            drop(stream.write_all(answer).await);
        }
    };
    (port, tokio::spawn(serve))
}

#[tokio::test]
async fn what_is_no_etcd_v3_is_named() {
    let v2 = b"HTTP/1.1 200 OK\r\n\r\n{\"etcdserver\":\"2.3.7\",\"etcdcluster\":\"2.3.0\"}";
    for (answer, said) in [
        (&v2[..], "it is etcd 2.3.7, which has the v2 API only"),
        (b"HTTP/1.1 404 Not Found\r\nServer: some/1.0\r\n\r\n", "it is an HTTP server (some/1.0), not etcd"),
    ] {
        let (port, server) = impostor(answer).await;
        let store = hasty(vec![local(port)]);
        let at = registry::store::Position::default();
        for error in [store.list("/").await.err().unwrap(), store.watch("/", at).await.err().unwrap()] {
            assert!(error.is_fatal(), "{error:?}");
            let want = format!("http://127.0.0.1:{port} does not speak etcd's v3 API: {said}");
            assert_eq!(error.fault.to_string(), want);
        }
        // It does not spoil the endpoints beside it.
        let etcd = Etcd::start();
        hasty(vec![local(port), etcd.endpoint()]).list("/").await.unwrap();
        server.abort();
    }
    let (port, server) = impostor(b"-ERR unknown command\r\n").await;
    assert!(hasty(vec![local(port)]).list("/").await.unwrap_err().is_retryable());
    server.abort();
}

fn as_user(etcd: &Etcd, user: &str, password: &str) -> EtcdStore {
    let credentials = Some(Credentials { user: user.into(), password: password.into() });
    EtcdStore::new(EtcdConfig { credentials, ..EtcdConfig::new(vec![etcd.endpoint()]) })
}

#[tokio::test]
async fn auth_is_obeyed_and_its_errors_are_clear() {
    for binary in binaries() {
        let mut etcd = Etcd::start_with(&binary, &[]);
        let mut operator = etcd.operator().await;
        as_user(&etcd, "agent", "right").list("/").await.expect("a password that nobody asks for does no harm");
        let early = as_user(&etcd, "agent", "right");
        early.list("/mine/").await.unwrap();
        for user in ["root", "agent"] {
            operator.user_add(user, "right", None).await.unwrap();
            operator.role_add(user).await.unwrap();
            operator.user_grant_role(user, user).await.unwrap();
        }
        let mine = Permission::new(PermissionType::Readwrite, "/mine/").with_prefix();
        operator.role_grant_permission("agent", mine).await.unwrap();
        operator.auth_enable().await.unwrap();

        let agent = as_user(&etcd, "agent", "right");
        agent.put_all(put("/mine/k")).await.unwrap();
        let at = agent.list("/mine/").await.unwrap().at;
        let mut watch = agent.watch("/mine/", at).await.unwrap();
        agent.put_all(put("/mine/l")).await.unwrap();
        sees(&mut watch, "/mine/l").await;
        let lease = agent.grant(Duration::from_secs(60)).await.unwrap().id;
        agent.put_all(vec![Op::put("/mine/leased", *b"1", Some(lease))]).await.unwrap();
        agent.keep_alive(lease).await.unwrap().beat().await.unwrap();

        for error in [
            agent.list("/other/").await.err().unwrap(),
            agent.get("/other/k").await.err().unwrap(),
            agent.watch("/other/", at).await.err().unwrap(),
            agent.txn(Vec::new(), put("/other/k")).await.err().unwrap(),
            agent.position("/other/").await.err().unwrap(),
        ] {
            assert!(matches!(error.fault, Fault::Denied { .. }) && error.is_fatal(), "{error:?}");
        }
        for wrong in [as_user(&etcd, "agent", "wrong"), as_user(&etcd, "nobody", "right"), etcd.store()] {
            for error in [wrong.list("/mine/").await.err().unwrap(), wrong.watch("/mine/", at).await.err().unwrap()] {
                assert!(matches!(error.fault, Fault::Unauthenticated { .. }) && error.is_fatal(), "{error:?}");
            }
        }
        // The connection from before auth was enabled learns that a password is wanted now.
        early.list("/mine/").await.unwrap();

        // A restart forgets all tokens.
        etcd.restart();
        let mut watch = agent.watch("/mine/", at).await.unwrap();
        sees(&mut watch, "/mine/l").await;
        agent.put_all(put("/mine/m")).await.unwrap();
        sees(&mut watch, "/mine/m").await;

        // Switched off again: a token that nobody knows any more is dropped, even for what may not be sent twice.
        let root = Some(etcd_client::ConnectOptions::new().with_user("root", "right"));
        let mut root = etcd_client::Client::connect([etcd.endpoint().authority()], root).await.unwrap();
        root.auth_disable().await.unwrap();
        let absent = vec![Compare::Absent("/mine/n".into())];
        assert!(agent.txn(absent, put("/mine/n")).await.unwrap().succeeded);
        let mut watch = agent.watch("/mine/", at).await.unwrap();
        sees(&mut watch, "/mine/l").await;
    }
}
