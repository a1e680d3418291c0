//! Sessions that end, servers that restart or are wiped, an ensemble that loses a member.

use ::zookeeper::{State, Target};
use registry::DepartureCause;

use super::*;

#[tokio::test]
async fn zookeeper_watchers_share_a_session_and_outlive_its_end() {
    let (mut server, zk) = operated().await;
    let node = register(&zk, "10.0.0.1:80").await;
    let before = server.figure("zk_num_alive_connections");
    let mut shared = context();
    let mut watchers: Vec<Running> =
        (0..5).map(|_| Running::boxed(method(discovery(&server, json!({}))).watcher(&mut shared))).collect();
    for watching in &mut watchers {
        watching.until_web(&["10.0.0.1:80"]).await;
    }
    assert_eq!(server.figure("zk_num_alive_connections"), before + 1);
    // The session of all five ends: each reads again, and hears of the next change.
    let sessions = server.four_letters("cons").unwrap();
    let State::Connected { session: operators, .. } = *zk.state().borrow() else { panic!("not connected") };
    let theirs = sessions.split("sid=").filter_map(|part| part.strip_prefix("0x")?.split(',').next());
    let theirs = theirs.map(|id| i64::from_str_radix(id, 16).unwrap()).find(|id| *id != operators);
    server.expire(theirs.expect("no session of theirs"));
    register(&zk, "10.0.0.2:80").await;
    for watching in &mut watchers {
        watching.until_web(&["10.0.0.1:80", "10.0.0.2:80"]).await;
    }
    // The server restarts, and meanwhile nothing is forgotten.
    server.kill();
    for watching in &mut watchers {
        let seen = watching.until_seen("stale", |seen| matches!(seen, Observation::Stale { .. })).await;
        assert_eq!(web(seen.snapshot().unwrap()).len(), 2);
    }
    server.restart();
    for watching in &mut watchers {
        watching.until_seen("synced", |seen| matches!(seen, Observation::Synced { .. })).await;
    }
    // How a backend went: taken away while its session lives, or gone with it.
    let deleted = |s: &Snapshot, count: usize| web(s).len() == count;
    timeout(DEADLINE, async { while zk.delete(&node).await.is_err() {} }).await.unwrap();
    let snapshot = watchers[0].until("one taken away", |s| deleted(s, 1)).await;
    let causes: Vec<DepartureCause> = snapshot.departed.values().map(|d| d.cause).collect();
    assert_eq!(causes, [DepartureCause::Orderly]);
    zk.close().await.unwrap();
    let snapshot = watchers[0].until("all gone", |s| deleted(s, 0)).await;
    let causes = snapshot.departed.values().filter(|d| d.cause == DepartureCause::Expiry).count();
    assert_eq!(causes, 1);
    // Wiped: it is empty, and said so.
    server.wipe();
    let operator = server.client();
    operator.create_all(&path(PATH)).await.unwrap();
    register(&operator, "10.0.0.7:80").await;
    watchers[0].until_web(&["10.0.0.7:80"]).await;
    for watching in watchers {
        watching.end().await;
    }
}

#[tokio::test]
async fn zookeeper_ensemble_of_three_loses_one_and_nobody_notices() {
    let mut servers = ZooKeeperServer::ensemble(3);
    let hosts: Vec<String> = servers.iter().map(|s| s.address().to_string()).collect();
    let operator = ZooKeeper::new(Target::parse(hosts.iter().map(String::as_str)).unwrap());
    operator.create_all(&path(PATH)).await.unwrap();
    let node = register(&operator, "10.0.0.1:80").await;
    let mut watching = Running::of(json!({"method": "zookeeper", "hosts": hosts, "path": PATH}));
    watching.until_web(&["10.0.0.1:80"]).await;
    for (killed, server) in servers.iter_mut().enumerate() {
        server.kill();
        let address = format!("10.0.1.{killed}:80");
        let put = async {
            while operator.set(&node, registration(&address).as_bytes()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await; // until the deadline
            }
        };
        timeout(DEADLINE * 3, put).await.expect("two of three do not serve");
        let seen = watching.until_web(&[&address]).await;
        assert_eq!(seen.services["web"].len(), 1);
        server.restart();
    }
    watching.end().await;
    // Nobody there: pending, with the reason, and never an empty pool.
    drop(servers);
    let mut lonely = Running::of(json!({"method": "zookeeper", "hosts": hosts, "path": PATH}));
    let seen = lonely.until_seen("an error", |seen| seen.error().is_some()).await;
    assert!(seen.snapshot().is_none() && seen.error().unwrap().contains(&hosts[0]), "{seen:?}");
    lonely.end().await;
}
