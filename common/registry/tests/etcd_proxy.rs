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

/// A proxy before `etcd`, and a store that uses it, by `timeouts`.
fn proxy(binary: &Path, etcd: &Etcd, namespace: &str, directory: &Path, timeouts: Timeouts) -> (Daemon, EtcdStore) {
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
    let config = EtcdConfig { timeouts, ..EtcdConfig::new(parse_endpoints(&listen, None, false).unwrap()) };
    (daemon, EtcdStore::new(config))
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test]
async fn through_etcds_own_proxy_a_quiet_registry_makes_no_error_and_a_change_arrives() {
    let timeouts = Timeouts { call: ms(500), probe: ms(200), idle: ms(300), ..Timeouts::default() };
    for (binary, namespace) in binaries().iter().flat_map(|binary| [(binary, ""), (binary, "/ns")]) {
        let etcd = Etcd::start_with(binary, &[]);
        let directory = tempfile::tempdir().unwrap();
        let (_proxy, store) = proxy(binary, &etcd, namespace, directory.path(), timeouts);
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

#[tokio::test]
async fn a_proxy_that_ends_connections_for_their_pings_is_pinged_rarely() {
    // Each proxy bears fewer pings than this: 3.5's one in 5 s, 3.4's one in 5 minutes.
    let timeouts = Timeouts { ping_interval: ms(100), ..Timeouts::default() };
    for binary in &binaries() {
        let etcd = Etcd::start_with(binary, &[]);
        let directory = tempfile::tempdir().unwrap();
        let (_proxy, store) = proxy(binary, &etcd, "", directory.path(), timeouts);
        let mut follower = Follower::new(store, Prefix::default());
        // A connection that lives so long has outlived four pings many times over.
        let (deadline, mut since, mut ends) = (Instant::now() + PATIENCE * 2, Instant::now(), 0);
        while since.elapsed() < timeouts.ping_interval * 30 {
            assert!(Instant::now() < deadline, "{} still fails, after {ends} times", binary.display());
            if let Ok(Err(error)) = timeout(timeouts.ping_interval, follower.step()).await {
                follower.failed(&error);
                (since, ends) = (Instant::now(), ends + 1);
            }
        }
        assert!(ends > 0, "{} bears the pings: the test shows nothing", binary.display());
    }
}
