//! Which endpoints a store of etcd uses: each address of a name, and the members that the cluster itself names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use registry::store::etcd::{EtcdConfig, EtcdStore, parse_endpoints};
use registry::store::{Op, Store};
use testing::etcd::Etcd;
use testing::gate::Gate;
use testing::{free_port, in_own_mounts};
use tokio::net::TcpListener;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(15);

/// What stands in for /etc/hosts, in the copy of a test that has one of its own.
const HOSTS: &str = "TEST_HOSTS";

/// Runs this very test again where /etc/hosts says `hosts`; true in the copy.
fn with_hosts(hosts: &str, test: &str) -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), hosts).unwrap();
    let Some(file) = in_own_mounts(test, HOSTS, file.path()) else { return false };
    let mounted = Command::new("mount").arg("--bind").arg(file).arg("/etc/hosts").status().unwrap();
    assert!(mounted.success(), "mounting over /etc/hosts");
    true
}

#[tokio::test]
async fn of_a_name_with_two_addresses_the_one_that_answers_is_found() {
    let hosts = "127.0.0.1 localhost\n127.0.0.2 twofold\n127.0.0.3 twofold\n";
    if !with_hosts(hosts, "of_a_name_with_two_addresses_the_one_that_answers_is_found") {
        return;
    }
    let etcd = Etcd::start();
    let behind: SocketAddr = etcd.endpoint().authority().parse().unwrap();
    let [one, other] = [2, 3].map(|last| Ipv4Addr::new(127, 0, 0, last));
    for (silent, serving) in [(one, other), (other, one)] {
        let port = free_port();
        // It accepts, by its backlog, and never says a word.
        let _silent = TcpListener::bind((silent, port)).await.unwrap();
        let _serving = Gate::tcp_at((serving, port).into(), behind).await;
        let endpoints = parse_endpoints(&format!("twofold:{port}"), None, false).unwrap();
        let store = EtcdStore::new(EtcdConfig::new(endpoints));
        let put = store.put_all(vec![Op::put("/k", *b"v", None)]);
        timeout(PATIENCE, put).await.expect("an address answers").unwrap();
    }
}

#[tokio::test]
async fn when_every_member_that_was_given_has_gone_those_that_the_cluster_named_are_used() {
    let mut nodes = Etcd::cluster(3);
    let given = nodes[0].endpoint();
    let store = EtcdStore::new(EtcdConfig { discover_members: true, ..EtcdConfig::new(vec![given.clone()]) });
    let alone = EtcdStore::new(EtcdConfig::new(vec![given]));
    store.position("/").await.unwrap();
    alone.position("/").await.unwrap();
    drop(nodes.remove(0));
    let put = async { while store.put_all(vec![Op::put("/k", *b"v", None)]).await.is_err() {} };
    timeout(PATIENCE, put).await.expect("the others serve");
    alone.position("/").await.expect_err("nobody else is known to it");
}
