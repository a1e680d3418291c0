//! Sessions with real ZooKeeper servers: what is asked, watched, shared, lost and begun anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use testing::gate::{Gate, Way};
use testing::zookeeper::ZooKeeperServer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use zookeeper::{Auth, Mailbox, NodeKind, Sessions, State, Target, ZkError, ZkFault, ZkPath, ZooKeeper};

const PATIENCE: Duration = Duration::from_secs(30);

fn path(text: &str) -> ZkPath {
    text.parse().unwrap()
}

fn target(hosts: &str) -> Target {
    Target::parse([hosts]).unwrap().with_session_timeout(Duration::from_millis(1500))
}

fn auth(text: &str) -> Option<Auth> {
    Some(text.parse().unwrap())
}

/// The epoch and the session of the next connection that fits.
async fn connected(zk: &ZooKeeper, fits: impl Fn(u64, i64) -> bool) -> (u64, i64) {
    let mut state = zk.state();
    let found = state.wait_for(|s| matches!(s, State::Connected { epoch, session } if fits(*epoch, *session)));
    match timeout(PATIENCE, found).await.expect("not connected in time").unwrap().clone() {
        State::Connected { epoch, session } => (epoch, session),
        other => panic!("{other:?}"),
    }
}

/// Asks until there is an answer.
async fn answered<T, F: Future<Output = Result<T, ZkError>>>(ask: impl Fn() -> F) -> T {
    let asked = async {
        loop {
            match ask().await {
                Ok(answer) => return answer,
                Err(_) => sleep(Duration::from_millis(20)).await, // until the deadline
            }
        }
    };
    timeout(PATIENCE, asked).await.expect("no answer in time")
}

fn fault<T: std::fmt::Debug>(answer: Result<T, ZkError>) -> ZkFault {
    answer.unwrap_err().fault
}

#[tokio::test]
async fn nodes_are_made_read_watched_and_removed() {
    let server = ZooKeeperServer::start();
    let zk = server.client();
    nodes(&zk).await;
    watches(&server, &zk).await;
    chroots_and_users(&server, &zk).await;
    many_at_once(&zk).await;
    shared(&server).await;
    drop(zk);
}

async fn nodes(zk: &ZooKeeper) {
    let web = path("/services/web");
    assert_eq!(zk.children(&web, false).await.unwrap(), None);
    zk.create_all(&web).await.unwrap();
    zk.create_all(&web).await.unwrap();
    let make = |name: &str, kind| {
        let at = web.child(name).unwrap();
        async move { zk.create(&at, b"data", kind).await }
    };
    let made = make("a_", NodeKind::EphemeralSequential).await.unwrap();
    assert_eq!(made.as_str(), "/services/web/a_0000000000");
    let kept = make("b_", NodeKind::PersistentSequential).await.unwrap();
    assert_eq!(kept.as_str(), "/services/web/b_0000000001");
    make("c", NodeKind::Persistent).await.unwrap();
    assert_eq!(fault(make("c", NodeKind::Ephemeral).await), ZkFault::NodeExists);
    let (data, stat) = zk.data(&made, false).await.unwrap().unwrap();
    let State::Connected { session, .. } = *zk.state().borrow() else { panic!("not connected") };
    assert_eq!((data, stat.owner), (b"data".to_vec(), session));
    assert_eq!(zk.data(&kept, false).await.unwrap().unwrap().1.owner, 0);
    let (mut names, stat) = zk.children(&web, false).await.unwrap().unwrap();
    names.sort();
    assert_eq!((names, stat.children), (vec!["a_0000000000".into(), "b_0000000001".into(), "c".into()], 3));
    assert_eq!(fault(zk.create(&made.child("x").unwrap(), b"", NodeKind::Persistent).await), ZkFault::ParentEphemeral);
    assert_eq!(fault(zk.delete(&web).await), ZkFault::NotEmpty);
    assert_eq!(fault(zk.set(&path("/nowhere"), b"").await), ZkFault::NoNode);
    assert_eq!([zk.delete(&made).await.unwrap(), zk.delete(&made).await.unwrap()], [true, false]);
    let error = zk.create(&path("/no/where"), b"", NodeKind::Persistent).await.unwrap_err();
    assert_eq!(agent::telemetry::Chain(&error).to_string(), "creating node /no/where: no such node");
}

/// The next paths that have changed.
async fn news(mailbox: &Mailbox) -> Vec<String> {
    timeout(PATIENCE, mailbox.changed()).await.expect("nothing is told");
    mailbox.take().into_iter().collect()
}

async fn watches(server: &ZooKeeperServer, zk: &ZooKeeper) {
    let (base, late) = (path("/watched"), path("/watched/late"));
    zk.create_all(&base).await.unwrap();
    let other = server.client();
    let (mine, theirs) = (zk.mailbox(&[&base]), zk.mailbox(&[&path("/elsewhere")]));
    zk.children(&base, true).await.unwrap();
    assert_eq!(zk.exists(&late, true).await.unwrap(), None);
    other.create(&late, b"1", NodeKind::Persistent).await.unwrap();
    let mut told = news(&mine).await;
    while told.len() < 2 {
        told.extend(news(&mine).await);
    }
    told.sort();
    assert_eq!(told, ["/watched", "/watched/late"]);
    zk.data(&late, true).await.unwrap();
    other.set(&late, b"2").await.unwrap();
    assert_eq!(news(&mine).await, ["/watched/late"]);
    // It told once; nobody asked to be told again.
    other.set(&late, b"3").await.unwrap();
    zk.data(&late, false).await.unwrap();
    assert!(timeout(Duration::from_millis(100), mine.changed()).await.is_err());
    assert!(timeout(Duration::from_millis(1), theirs.changed()).await.is_err());
}

async fn chroots_and_users(server: &ZooKeeperServer, zk: &ZooKeeper) {
    let hosts = format!("{}/deep/root", server.address());
    let rooted = ZooKeeper::new(target(&hosts));
    let node = path("/a/b");
    rooted.create_all(&node).await.unwrap();
    assert!(zk.exists(&path("/deep/root/a/b"), false).await.unwrap().is_some());
    let mailbox = rooted.mailbox(&[&node]);
    rooted.children(&node, true).await.unwrap();
    zk.create(&path("/deep/root/a/b/c"), b"", NodeKind::Persistent).await.unwrap();
    assert_eq!(news(&mailbox).await, ["/a/b"]);

    let user = ZooKeeper::new(target(&server.address().to_string()).with_auth(auth("digest:nerve:secret")));
    let owned = path("/owned");
    user.create(&owned, b"1", NodeKind::Persistent).await.unwrap();
    user.set(&owned, b"2").await.unwrap();
    assert_eq!(zk.data(&owned, false).await.unwrap().unwrap().0, b"2");
    assert_eq!(fault(zk.set(&owned, b"3").await), ZkFault::Denied);
    let other = ZooKeeper::new(target(&server.address().to_string()).with_auth(auth("nerve:wrong")));
    assert_eq!(fault(other.create(&path("/owned/x"), b"", NodeKind::Persistent).await), ZkFault::Denied);
}

async fn many_at_once(zk: &ZooKeeper) {
    let big = path("/big");
    zk.create(&big, &[b'x'; 100_000], NodeKind::Persistent).await.unwrap();
    let reads = (0..3000).map(|_| {
        let (zk, big) = (zk.clone(), big.clone());
        async move { zk.data(&big, false).await.unwrap().unwrap().0.len() }
    });
    let mut tasks = tokio::task::JoinSet::new();
    reads.for_each(|read| drop(tasks.spawn(read)));
    assert!(tasks.join_all().await.into_iter().all(|len| len == 100_000));
    // One that gives up takes nobody else's answer away.
    let given_up = timeout(Duration::ZERO, zk.data(&big, false)).await;
    drop(given_up);
    assert!(zk.exists(&path("/nowhere"), false).await.unwrap().is_none());
}

async fn shared(server: &ZooKeeperServer) {
    let before = server.figure("zk_num_alive_connections");
    let (sessions, hosts) = (Sessions::default(), server.address().to_string());
    let all: Vec<ZooKeeper> = (0..50).map(|_| sessions.get(&target(&hosts))).collect();
    for zk in &all {
        assert!(zk.exists(&path("/"), false).await.unwrap().is_some());
    }
    let other = sessions.get(&target(&format!("{hosts}/x")));
    other.exists(&path("/"), false).await.unwrap();
    assert_eq!(server.figure("zk_num_alive_connections"), before + 2);
    all[0].close().await.unwrap();
    assert!(matches!(fault(all[1].exists(&path("/"), false).await), ZkFault::NotConnected(_)));
}

#[tokio::test]
async fn what_is_lost_is_begun_anew() {
    let mut server = ZooKeeperServer::start();
    let (gate, address) = Gate::tcp(server.address()).await;
    let zk = ZooKeeper::new(target(&address.to_string()));
    let operator = server.client();
    let mine = zk.create(&path("/mine"), b"", NodeKind::Ephemeral).await.unwrap();
    let (epoch, session) = connected(&zk, |_, _| true).await;

    // Cut: the session goes on, what was asked meanwhile fails at once.
    gate.set(Way::Closed);
    let mut state = zk.state();
    let lost = timeout(PATIENCE, state.wait_for(|s| matches!(s, State::Connecting { error: Some(_) }))).await;
    drop(lost.expect("the loss is not told").unwrap());
    let refused = fault(zk.exists(&mine, false).await);
    assert!(matches!(&refused, ZkFault::NotConnected(why) if why.contains(&address.to_string())), "{refused}");
    gate.set(Way::Open);
    let (after, same) = connected(&zk, |now, _| now > epoch).await;
    assert_eq!(same, session);
    assert!(operator.exists(&mine, false).await.unwrap().is_some());

    // Silent: that is noticed, and by then the session has run out.
    gate.set(Way::Silent);
    let asked = timeout(PATIENCE, zk.exists(&mine, false)).await.expect("a silent server holds a call for ever");
    assert!(matches!(fault(asked), ZkFault::Silent { .. }));
    let gone = async {
        while operator.exists(&mine, false).await.unwrap().is_some() {
            sleep(Duration::from_millis(20)).await; // until the deadline
        }
    };
    timeout(PATIENCE, gone).await.expect("an ephemeral node outlives its session");
    gate.set(Way::Open);
    let (after, second) = connected(&zk, |now, id| now > after && id != session).await;

    // Ended by somebody else.
    server.expire(second);
    let (after, _) = connected(&zk, |now, id| now > after && id != second).await;

    // Restarted: the session is in its data, but may have run out meanwhile.
    server.restart();
    let (after, fourth) = connected(&zk, |now, _| now > after).await;

    let root = ZkPath::root();
    // Wiped: what we saw is newer than all that the server knows, and it must take us nevertheless.
    server.wipe();
    answered(|| zk.exists(&root, false)).await;
    connected(&zk, |now, id| now > after && id != fourth).await;
}

#[tokio::test]
async fn an_ensemble_of_three_outlives_one_of_them() {
    let mut servers = ZooKeeperServer::ensemble(3);
    let hosts: Vec<String> = servers.iter().map(|s| s.address().to_string()).collect();
    let zk = ZooKeeper::new(target(&hosts.join(",")).with_session_timeout(Duration::from_secs(8)));
    let mine = zk.create(&path("/mine"), b"", NodeKind::Ephemeral).await.unwrap();
    let (epoch, session) = connected(&zk, |_, _| true).await;
    let told = format!("{session:#x}");
    let at = servers.iter().position(|s| s.four_letters("cons").unwrap().contains(&told)).unwrap();
    servers[at].kill();
    let (epoch, same) = connected(&zk, |now, _| now > epoch).await;
    assert_eq!(same, session, "the session moves to another server");
    answered(|| zk.exists(&mine, false)).await.expect("its node is still there");
    let root = ZkPath::root();
    // Without a majority nobody serves; with one again, all goes on.
    let left = servers[(at + 1) % 3].four_letters("cons").unwrap().contains(&told);
    let other = if left { (at + 1) % 3 } else { (at + 2) % 3 };
    servers[other].kill();
    let mut state = zk.state();
    let lost = timeout(PATIENCE, state.wait_for(|s| matches!(s, State::Connecting { .. }))).await;
    drop(lost.expect("the loss is not told").unwrap());
    servers[at].restart();
    connected(&zk, |now, _| now > epoch).await;
    answered(|| zk.set(&root, b"again")).await;
}

#[tokio::test]
async fn whoever_is_no_zookeeper_is_told_from_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let rubbish: [&'static [u8]; 4] =
        [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x00\x24aaaa", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"];
    let serve = tokio::spawn(async move {
        for answer in rubbish.iter().cycle() {
            let (mut stream, _) = listener.accept().await.unwrap();
            drop(stream.write_all(answer).await);
        }
    });
    let zk = ZooKeeper::new(target(&address.to_string()));
    for _ in 0..20 {
        let refused = fault(zk.exists(&path("/"), false).await);
        assert!(matches!(refused, ZkFault::NotConnected(_)), "{refused}");
        sleep(Duration::from_millis(10)).await; // between two attempts
    }
    serve.abort();
    // Nobody there at all.
    let refused = fault(ZooKeeper::new(target("127.0.0.1:1")).exists(&path("/"), false).await).to_string();
    assert!(refused.contains("127.0.0.1:1"), "{refused}");
}
