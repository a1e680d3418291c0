//! The contract's suite over ZooKeeper, watched and polled.

use ::zookeeper::Target;
use discover::watchers::About;
use discover::watchers::poll::{Pace, Polled};
use discover::watchers::zookeeper::{Decode, Nodes, SessionOwners, ZkSettings};
use testing::gate::{Gate, Way};
use testing::watch_contract::{Breakage, Order, Rig, keeps_the_contract};

use super::*;

struct ZkRig {
    _server: ZooKeeperServer,
    gate: Gate,
    target: Target,
    operator: ZooKeeper,
    path: ZkPath,
    named: Named,
    nodes: BTreeMap<(String, String), ZkPath>,
    watch: bool,
}

impl ZkRig {
    async fn new(watch: bool) -> Self {
        let (server, operator) = operated().await;
        let (gate, address) = Gate::tcp(server.address()).await;
        let target = Target::parse([&*address.to_string()]).unwrap();
        let (named, nodes) = (Named::default(), BTreeMap::new());
        let target = target.with_session_timeout(Duration::from_millis(1500));
        Self { _server: server, gate, target, operator, path: path(PATH), named, nodes, watch }
    }
}

impl Rig for ZkRig {
    type Watcher = Polled<Nodes>;

    fn watcher(&self) -> Self::Watcher {
        let about = About { service: "web".parse().unwrap(), port: None, source: "web".into() };
        let settings = ZkSettings {
            about,
            target: self.target.clone(),
            path: self.path.clone(),
            config: None,
            decode: Decode::Nerve,
            watch: self.watch,
            at_most_every: Duration::ZERO,
        };
        let nodes = Nodes::new(settings, ZooKeeper::new(self.target.clone()), SessionOwners::default());
        let every = if self.watch { 300.0 } else { 0.1 };
        Polled::new(nodes, "web".into(), Pace::every(Some(every), 0).with_patience(Duration::from_secs(5)))
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        self.named.put(backends, |n| format!("10.0.{}.{}:80", n / 250, n % 250 + 1));
        for (service, name) in backends {
            let named = ((*service).to_owned(), (*name).to_owned());
            let data = registration(&self.named.at[&named]);
            match self.nodes.get(&named) {
                Some(node) => drop(self.operator.set(node, data.as_bytes()).await.unwrap()),
                None => {
                    let at = self.path.child(&child::plain(name)).unwrap();
                    let made = self.operator.create(&at, data.as_bytes(), NodeKind::EphemeralSequential).await.unwrap();
                    self.nodes.insert(named, made);
                }
            }
        }
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.named.remove(service, name);
        if let Some(node) = self.nodes.remove(&(service.to_owned(), name.to_owned())) {
            self.operator.delete(&node).await.unwrap();
        }
    }

    async fn break_off(&mut self, how: Breakage) {
        self.gate.set(if how == Breakage::Fail { Way::Closed } else { Way::Silent });
    }

    async fn mend(&mut self) {
        self.gate.set(Way::Open);
    }

    fn history(&self) -> &History {
        &self.named.history
    }

    fn order(&self) -> Order {
        Order::EachBackend
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(2)
    }
}

#[tokio::test]
async fn zookeeper_keeps_the_contract() {
    keeps_the_contract(&mut ZkRig::new(true).await).await;
}

#[tokio::test]
async fn zookeeper_poll_keeps_the_contract() {
    keeps_the_contract(&mut ZkRig::new(false).await).await;
}
