//! `method: etcd`, of Synapse's forks, over a real etcd behind a gate.

use registry::store::etcd::{EtcdConfig, EtcdStore, Timeouts};
use registry::store::{Key, Op, Store};
use serde_json::json;
use testing::etcd::Etcd;
use testing::gate::{Gate, Way};
use testing::watch_contract::{Breakage, Rig, keeps_the_contract};

use super::*;

const PATH: &str = "/nerve/services/web";

fn registration(address: &str) -> Vec<u8> {
    let (host, port) = address.rsplit_once(':').unwrap();
    json!({"host": host, "port": port.parse::<u16>().unwrap(), "name": "i-1"}).to_string().into_bytes()
}

struct EtcdRig {
    _etcd: Etcd,
    operator: EtcdStore,
    gate: Gate,
    discovery: Value,
    named: Named,
}

impl EtcdRig {
    /// As Nerve's reporter lays it out: a directory of the host, a number in it.
    fn key(service: &str, name: &str) -> Key {
        format!("{PATH}/{service}-{name}/00000000000000000001").into()
    }
}

impl Rig for EtcdRig {
    type Watcher = Boxed;

    fn watcher(&self) -> Boxed {
        let ms = Duration::from_millis;
        // It pings no more often than etcd allows.
        let timeouts = Timeouts { call: ms(800), probe: ms(300), idle: ms(900), ..Timeouts::default() };
        let mut context = Context::new(EtcdConfig { timeouts, ..EtcdConfig::new(Vec::new()) });
        Boxed(method(self.discovery.clone()).watcher(&mut context))
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        self.named.put(backends, |n| format!("10.0.{}.{}:80", n / 250, n % 250 + 1));
        let put = |(service, name): &(&str, &str)| {
            let address = &self.named.at[&((*service).to_owned(), (*name).to_owned())];
            Op::put(Self::key(service, name), registration(address), None)
        };
        self.operator.put_all(backends.iter().map(put).collect()).await.unwrap();
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.named.remove(service, name);
        self.operator.put_all(vec![Op::delete(Self::key(service, name))]).await.unwrap();
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

    fn quiet(&self) -> Duration {
        Duration::from_secs(2)
    }
}

#[tokio::test]
async fn etcd_keeps_the_contract() {
    let etcd = Etcd::start();
    let (gate, address) = Gate::tcp(([127, 0, 0, 1], etcd.endpoint().port).into()).await;
    let discovery = json!({"method": "etcd", "hosts": [address.to_string()], "path": PATH});
    let operator = etcd.store();
    keeps_the_contract(&mut EtcdRig { _etcd: etcd, operator, gate, discovery, named: Named::default() }).await;
}

#[tokio::test]
async fn etcd_services_share_a_stream_and_a_bad_registration_of_one_harms_no_other() {
    let etcd = Etcd::start();
    let store = etcd.store();
    let paths: Vec<String> = (0..20).map(|n| format!("/nerve/services/s{n}")).collect();
    let put = |path: &String, n: usize| Op::put(format!("{path}/i-1/1"), registration(&format!("10.0.0.{n}:80")), None);
    store.put_all(paths.iter().enumerate().map(|(n, path)| put(path, n + 1)).collect()).await.unwrap();
    let mut shared = Context::new(EtcdConfig::new(Vec::new()));
    let endpoint = etcd.endpoint();
    let discovery =
        |path: &String| json!({"method": "etcd", "host": endpoint.host, "port": endpoint.port, "path": path});
    let mut watchers: Vec<Running> =
        paths.iter().map(|path| Running::boxed(method(discovery(path)).watcher(&mut shared))).collect();
    for (n, watching) in watchers.iter_mut().enumerate() {
        watching.until_web(&[&format!("10.0.0.{}:80", n + 1)]).await;
    }
    let open = async {
        while etcd.figure("etcd_debugging_mvcc_watcher_total") < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await; // until the deadline
        }
    };
    timeout(DEADLINE, open).await.expect("not all are watched");
    assert_eq!(etcd.figure("etcd_debugging_mvcc_watch_stream_total"), 1);
    store.put_all(vec![Op::put(format!("{}/i-1/1", paths[3]), *b"{rubbish", None), put(&paths[4], 44)]).await.unwrap();
    watchers[4].until_web(&["10.0.0.44:80"]).await;
    let snapshot = watchers[3].until("one left out", |s| s.quarantined.len() == 1).await;
    assert!(left_out(&snapshot)[0].starts_with("/nerve/services/s3/i-1/1: "), "{snapshot:?}");
    // A service that ends gives its watch back, and the others keep theirs.
    watchers.remove(7).end().await;
    store.put_all(vec![put(&paths[8], 88)]).await.unwrap();
    watchers[7].until_web(&["10.0.0.88:80"]).await;
    for watching in watchers {
        watching.end().await;
    }
}
