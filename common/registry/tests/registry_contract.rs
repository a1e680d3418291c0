//! The registry's watcher passes the suite that every watcher passes, over the fake and over real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use agent::watch::{Observation, Outlet, Watcher, channel};
use model::Prefix;
use registry::store::etcd::{Endpoint, EtcdConfig, EtcdStore, Timeouts};
use registry::store::{Op, Revision, Store};
use registry::{RegistryError, RegistryWatcher, Snapshot};
use testing::etcd::{Etcd, binaries};
use testing::fake::{Cut, FakeStore};
use testing::gate::{Gate, Way};
use testing::watch_contract::{Breakage, History, Rig, keeps_the_contract};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Puts for all of `backends`, each at an address that it never had, and the history with them in it.
fn puts(history: &mut History, count: &mut u16, backends: &[(&str, &str)]) -> Vec<Op> {
    let named: Vec<_> = backends.iter().map(|(service, name)| (*service, host(name), next(count))).collect();
    history.record(|pools| {
        for (service, host, port) in &named {
            let pool = pools.entry((*service).to_owned()).or_default();
            pool.retain(|address| !address.starts_with(&format!("{host}:")));
            pool.insert(format!("{host}:{port}"));
        }
    });
    let put = |(service, host, port): &(&str, String, u16)| {
        Op::put(format!("/backends/{service}/{host}"), format!("{host}:{port}").into_bytes(), None)
    };
    named.iter().map(put).collect()
}

fn removal(history: &mut History, service: &str, name: &str) -> Op {
    let host = host(name);
    history.record(|pools| {
        let pool = pools.entry(service.to_owned()).or_default();
        pool.retain(|address| !address.starts_with(&format!("{host}:")));
    });
    Op::delete(format!("/backends/{service}/{host}"))
}

fn host(name: &str) -> String {
    format!("host-{name}")
}

fn next(count: &mut u16) -> u16 {
    *count += 1;
    *count
}

/// The fake, whose watcher has a way of its own.
#[derive(Default)]
struct FakeRig {
    store: FakeStore,
    watchers_way: Option<FakeStore>,
    history: History,
    count: u16,
}

impl FakeRig {
    fn new() -> Self {
        let store = FakeStore::new();
        Self { watchers_way: Some(store.peer()), store, ..Self::default() }
    }

    fn way(&self) -> &FakeStore {
        self.watchers_way.as_ref().unwrap()
    }
}

impl Rig for FakeRig {
    type Watcher = RegistryWatcher<FakeStore>;

    fn watcher(&self) -> Self::Watcher {
        RegistryWatcher::new(self.way().clone(), Prefix::default())
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        let ops = puts(&mut self.history, &mut self.count, backends);
        self.store.put_all(ops).await.unwrap();
    }

    async fn remove(&mut self, service: &str, name: &str) {
        let op = removal(&mut self.history, service, name);
        self.store.put_all(vec![op]).await.unwrap();
    }

    async fn break_off(&mut self, how: Breakage) {
        self.way().cut(match how {
            Breakage::Fail => Cut::Refused,
            Breakage::Hang => Cut::Silent,
        });
    }

    async fn mend(&mut self) {
        self.way().heal();
    }

    fn history(&self) -> &History {
        &self.history
    }
}

/// Every breakage is also a compaction: whoever was cut off must list again.
struct CompactingRig(FakeRig);

impl Rig for CompactingRig {
    type Watcher = RegistryWatcher<FakeStore>;

    fn watcher(&self) -> Self::Watcher {
        self.0.watcher()
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        self.0.put(backends).await;
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.0.remove(service, name).await;
    }

    async fn break_off(&mut self, how: Breakage) {
        self.0.break_off(how).await;
    }

    async fn mend(&mut self) {
        self.0.store.compact(Revision(i64::MAX));
        self.0.mend().await;
    }

    fn history(&self) -> &History {
        self.0.history()
    }
}

/// How a watcher breaks the contract.
#[derive(Clone, Copy)]
enum Fault {
    SendsParts,
    EmptiesOnFailure,
    IgnoresItsCancellation,
    Chatters,
    GivesUp,
}

/// A watcher that would be right but for one fault.
struct Faulty(RegistryWatcher<FakeStore>, Fault);

impl Watcher<Snapshot> for Faulty {
    type Error = RegistryError;

    async fn run(self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), RegistryError> {
        let Self(right, fault) = self;
        let (inner, mut inlet) = channel();
        tokio::spawn(right.run(inner, cancel.clone()));
        loop {
            let news = tokio::select! {
                () = cancel.cancelled() => break,
                news = inlet.changed() => news,
                () = sleep(Duration::from_secs(10)), if matches!(fault, Fault::Chatters) => {
                    if let Observation::Synced { snapshot } = out.current() {
                        out.publish(snapshot);
                    }
                    continue;
                }
            };
            let seen = inlet.borrow_and_update().clone();
            match (seen, fault) {
                _ if news.is_err() => break,
                (Observation::Synced { snapshot }, _) => {
                    if matches!(fault, Fault::SendsParts) && snapshot.services.len() > 1 {
                        let mut part = (*snapshot).clone();
                        part.services.pop_first();
                        out.publish(Arc::new(part));
                        tokio::task::yield_now().await;
                    }
                    out.publish(snapshot);
                }
                (Observation::Stale { .. }, Fault::EmptiesOnFailure) => out.publish(Arc::default()),
                (Observation::Stale { error, .. }, Fault::GivesUp) => {
                    out.mark_stale(&std::io::Error::other(error.to_string()));
                    cancel.cancelled().await;
                }
                (Observation::Stale { error, .. } | Observation::Pending { error: Some(error) }, _) => {
                    out.mark_stale(&std::io::Error::other(error.to_string()));
                }
                (Observation::Pending { error: None }, _) => {}
            }
        }
        if matches!(fault, Fault::IgnoresItsCancellation) {
            sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    }
}

struct FaultyRig(FakeRig, Fault);

impl Rig for FaultyRig {
    type Watcher = Faulty;

    fn watcher(&self) -> Faulty {
        Faulty(self.0.watcher(), self.1)
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        self.0.put(backends).await;
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.0.remove(service, name).await;
    }

    async fn break_off(&mut self, how: Breakage) {
        self.0.break_off(how).await;
    }

    async fn mend(&mut self) {
        self.0.mend().await;
    }

    fn history(&self) -> &History {
        self.0.history()
    }
}

/// Real etcd, whose watcher comes by way of a gate.
struct EtcdRig {
    _etcd: Etcd,
    direct: EtcdStore,
    gate: Gate,
    watchers: EtcdConfig,
    history: History,
    count: u16,
}

impl EtcdRig {
    async fn new(etcd: Etcd) -> Self {
        let (gate, address) = Gate::tcp(([127, 0, 0, 1], etcd.endpoint().port).into()).await;
        let endpoint = Endpoint { https: false, host: address.ip().to_string(), port: address.port() };
        let direct = etcd.store();
        // Sooner out of patience than by default: the suite waits for it many times.
        let ms = Duration::from_millis;
        let timeouts = Timeouts { call: ms(400), probe: ms(300), idle: ms(900), ..Timeouts::default() };
        let watchers = EtcdConfig { timeouts, ..EtcdConfig::new(vec![endpoint]) };
        Self { _etcd: etcd, direct, gate, watchers, history: History::default(), count: 0 }
    }
}

impl Rig for EtcdRig {
    type Watcher = RegistryWatcher<EtcdStore>;

    fn watcher(&self) -> Self::Watcher {
        RegistryWatcher::new(EtcdStore::new(self.watchers.clone()), Prefix::default())
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        let ops = puts(&mut self.history, &mut self.count, backends);
        self.direct.put_all(ops).await.unwrap();
    }

    async fn remove(&mut self, service: &str, name: &str) {
        let op = removal(&mut self.history, service, name);
        self.direct.put_all(vec![op]).await.unwrap();
    }

    async fn break_off(&mut self, how: Breakage) {
        self.gate.set(match how {
            Breakage::Fail => Way::Closed,
            Breakage::Hang => Way::Silent,
        });
    }

    async fn mend(&mut self) {
        self.gate.set(Way::Open);
    }

    fn history(&self) -> &History {
        &self.history
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(2) // longer than the period of the store's signs of life
    }
}

#[tokio::test(start_paused = true)]
async fn keeps_the_contract_over_the_fake() {
    keeps_the_contract(&mut FakeRig::new()).await;
}

#[tokio::test(start_paused = true)]
async fn keeps_the_contract_over_a_fake_that_compacts() {
    keeps_the_contract(&mut CompactingRig(FakeRig::new())).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the first send is not complete")]
async fn the_suite_finds_parts() {
    keeps_the_contract(&mut FaultyRig(FakeRig::new(), Fault::SendsParts)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "stale: not within")]
async fn the_suite_finds_emptied_pools() {
    keeps_the_contract(&mut FaultyRig(FakeRig::new(), Fault::EmptiesOnFailure)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "after its cancellation")]
async fn the_suite_finds_deaf_watchers() {
    keeps_the_contract(&mut FaultyRig(FakeRig::new(), Fault::IgnoresItsCancellation)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "news of an unchanged source")]
async fn the_suite_finds_chatter() {
    keeps_the_contract(&mut FaultyRig(FakeRig::new(), Fault::Chatters)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "synced with")]
async fn the_suite_finds_who_gives_up() {
    keeps_the_contract(&mut FaultyRig(FakeRig::new(), Fault::GivesUp)).await;
}

#[tokio::test]
async fn keeps_the_contract_over_etcd() {
    let check = async |binary: std::path::PathBuf| {
        keeps_the_contract(&mut EtcdRig::new(Etcd::start_with(&binary, &[])).await).await;
    };
    futures_util::future::join_all(binaries().into_iter().map(check)).await;
}
