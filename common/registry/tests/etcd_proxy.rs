//! `etcd grpc-proxy` in between, with and without a namespace: it passes on no signs of life of a watch, and is used quietly.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use model::Prefix;
use registry::store::etcd::{EtcdConfig, EtcdStore, Timeouts, parse_endpoints};
use registry::store::{KeepAlive, Op, Store};
use registry::{Followed, Follower};
use testing::etcd::{Etcd, binaries};
use testing::free_port;
use testing::process::Daemon;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy before `etcd`, and a store that uses it.
fn proxy(binary: &Path, etcd: &Etcd, namespace: &str, directory: &Path) -> (Daemon, EtcdStore) {
    let listen = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(binary);
    command.args(["grpc-proxy", "start", "--endpoints", &etcd.endpoint().authority()]);
    command.args(["--listen-addr", &listen, "--namespace", namespace]).env_remove("ETCD_HOST");
    let daemon = Daemon::start(&mut command, &directory.join("log"));
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(&listen).is_err() {
        assert!(Instant::now() < deadline, "the proxy does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    let ms = Duration::from_millis;
    let timeouts = Timeouts { call: ms(500), probe: ms(200), idle: ms(300), ..Timeouts::default() };
    let config = EtcdConfig { timeouts, ..EtcdConfig::new(parse_endpoints(&listen, None, false).unwrap()) };
    (daemon, EtcdStore::new(config))
}

#[tokio::test]
async fn through_etcds_own_proxy_a_quiet_registry_makes_no_error_and_a_change_arrives() {
    for (binary, namespace) in binaries().iter().flat_map(|binary| [(binary, ""), (binary, "/ns")]) {
        let etcd = Etcd::start_with(binary, &[]);
        let directory = tempfile::tempdir().unwrap();
        let (_proxy, store) = proxy(binary, &etcd, namespace, directory.path());
        let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
        store.put_all(vec![Op::put("/backends/web/a", *b"h:1", Some(lease))]).await.unwrap();
        store.keep_alive(lease).await.unwrap().beat().await.unwrap();

        let mut follower = Follower::new(store.clone(), Prefix::default());
        let steps = async {
            let mut steps = 0;
            while steps < 8 {
                follower.step().await.unwrap();
                steps += 1;
            }
        };
        timeout(PATIENCE, steps).await.expect("it goes on while nothing happens");
        store.put_all(vec![Op::put("/backends/web/b", *b"h:2", Some(lease))]).await.unwrap();
        let arrives = async { while follower.step().await.unwrap() != Followed::Changed {} };
        timeout(PATIENCE, arrives).await.expect("a change arrives");
        assert_eq!(follower.snapshot().services["web"].backends().len(), 2);
        store.keep_alive(lease).await.unwrap().beat().await.unwrap();
    }
}
