//! Persistent nodes in a real ZooKeeper that is away at the wrong moments.

use testing::gate::{Gate, Way};
use testing::zookeeper::ZooKeeperServer;
use zookeeper::ZooKeeper;

use super::*;

/// How many nodes each of the two services has.
async fn nodes(zk: &ZooKeeper) -> [usize; 2] {
    let count = async |path: &str| {
        zk.children(&path.parse().unwrap(), false).await.unwrap().map_or(0, |(names, _)| names.len())
    };
    [count("/nerve/kept").await, count("/nerve/counted").await]
}

async fn until_nodes(zk: &ZooKeeper, expected: [usize; 2], agent: &Agent) {
    let start = Instant::now();
    while nodes(zk).await != expected {
        assert!(start.elapsed() < DEADLINE, "{:?}; log:\n{}", nodes(zk).await, agent.log());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn persistent_nodes_go_once_zookeeper_has_confirmed_it() {
    let host = Host::new();
    let server = ZooKeeperServer::start();
    let zk = server.client();
    let (gate, address) = Gate::tcp(server.address()).await;
    let (listener, port) = listen();
    let service = |path: &str, kind: &str| {
        json!({
            "host": "127.0.0.1", "port": port, "check_interval": 0.05, "checks": [{"type": "tcp", "timeout": 1}],
            "reporter_type": "zookeeper", "zk_hosts": [address.to_string()], "zk_path": path, "node_type": kind,
        })
    };
    let services = json!({
        "kept": service("/nerve/kept", "persistent"), "counted": service("/nerve/counted", "persistent_sequential"),
    });
    host.write(&json!({"instance_id": "i-1", "services": services}));
    let mut agent = host.run(&["--admin", "off"]);
    until_nodes(&zk, [1, 1], &agent).await;

    // The service dies while ZooKeeper is away.
    gate.set(Way::Closed);
    drop(listener);
    agent.says("Down.").await;
    assert_eq!(nodes(&zk).await, [1, 1]);
    gate.set(Way::Open);
    until_nodes(&zk, [0, 0], &agent).await;

    // It dies while the agent is away.
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    until_nodes(&zk, [1, 1], &agent).await;
    agent.signal(Signal::SIGKILL);
    agent.end().await;
    drop(listener);
    let mut agent = host.run(&["--admin", "off"]);
    until_nodes(&zk, [0, 0], &agent).await;
    agent.signal(Signal::SIGTERM);
    assert!(agent.end().await.success());

    // The agent withdraws everything while ZooKeeper is away: it says what stays. The next one removes it, and says so.
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let mut agent = host.run(&["--admin", "off", "--on-exit", "drain"]);
    until_nodes(&zk, [1, 1], &agent).await;
    gate.set(Way::Closed);
    agent.signal(Signal::SIGTERM);
    assert!(agent.end().await.success());
    let log = agent.log();
    assert!(log.contains("has not confirmed") && log.contains("/nerve/kept of kept"), "{log}");
    assert!(!log.contains("Everything is removed"), "{log}");
    gate.set(Way::Open);
    let mut agent = host.run(&["--admin", "off", "--on-exit", "drain"]);
    agent.says("Up.").await;
    agent.says("Publishing there.").await;
    agent.signal(Signal::SIGTERM);
    assert!(agent.end().await.success());
    let log = agent.log();
    assert!(log.contains("Everything is removed from ZooKeeper."), "{log}");
    assert_eq!(nodes(&zk).await, [0, 0], "{log}");
    drop(listener);
}
