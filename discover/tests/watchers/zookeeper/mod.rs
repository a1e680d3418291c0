//! `method: zookeeper` and its kin, over real servers.

mod contract;
mod faults;
mod keys;

use ::zookeeper::{NodeKind, ZkPath, ZooKeeper, child};
use testing::zookeeper::ZooKeeperServer;

use super::*;

const PATH: &str = "/nerve/services/web";

fn path(text: &str) -> ZkPath {
    text.parse().unwrap()
}

fn registration(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap();
    json!({"host": host, "port": port.parse::<u16>().unwrap(), "name": "i-1"}).to_string()
}

/// A server with the service's node, and a session of an operator.
async fn operated() -> (ZooKeeperServer, ZooKeeper) {
    let server = ZooKeeperServer::start();
    let operator = server.client();
    operator.create_all(&path(PATH)).await.unwrap();
    (server, operator)
}

/// Registers as Nerve does, and gives the node.
async fn register(zk: &ZooKeeper, address: &str) -> ZkPath {
    let at = path(PATH).child(&child::plain("i-1")).unwrap();
    zk.create(&at, registration(address).as_bytes(), NodeKind::EphemeralSequential).await.unwrap()
}

fn discovery(server: &ZooKeeperServer, more: Value) -> Value {
    let mut all = json!({"method": "zookeeper", "hosts": [server.address().to_string()], "path": PATH});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}
