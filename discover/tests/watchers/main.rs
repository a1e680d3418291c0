//! The watchers: each passes the contract suite over its own source, and does what its keys say. The table of keys names
//! the test of each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod aws;
mod aws_chain;
mod dns;
mod docker_hosts;
mod docker_local;
mod docker_rig;
mod etcd;
mod file;
mod marathon;
mod multi;
mod multi_contract;
mod seam;
mod zookeeper;

use std::collections::BTreeMap;
use std::time::Duration;

use agent::watch::{Inlet, Observation, Outlet, Watcher, channel};
use discover::synapse::types::Service;
use discover::watchers::{BoxWatcher, Configured, Context, configured};
use registry::Snapshot;
use serde_json::{Value, json};
use std::sync::Arc;
use testing::watch_contract::{History, pools};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);

/// A running watcher.
struct Running {
    inlet: Inlet<Snapshot>,
    cancel: CancellationToken,
    run: JoinHandle<()>,
}

impl Running {
    fn start(watcher: impl Watcher<Snapshot>) -> Self {
        Self::boxed(Box::new(watcher))
    }

    fn boxed(watcher: BoxWatcher) -> Self {
        let ((out, inlet), cancel) = (channel(), CancellationToken::new());
        let run = watcher.run(out, cancel.clone());
        let run = tokio::spawn(async move { run.await.unwrap() });
        Self { inlet, cancel, run }
    }

    /// The watcher of a service `web` with this discovery.
    fn of(discovery: Value) -> Self {
        Self::boxed(method(discovery).watcher(&mut context()))
    }

    async fn until(&mut self, what: &str, fits: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let seen = self.until_seen(what, |seen| seen.snapshot().is_some_and(|s| fits(s))).await;
        (**seen.snapshot().unwrap()).clone()
    }

    async fn until_seen(&mut self, what: &str, fits: impl Fn(&Observation<Snapshot>) -> bool) -> Observation<Snapshot> {
        let found = timeout(DEADLINE, self.inlet.wait_for(|seen| fits(seen))).await.map(|found| found.unwrap().clone());
        found.unwrap_or_else(|_| panic!("not {what}: {:?}", self.inlet.borrow()))
    }

    /// The addresses of `web`, once they are these.
    async fn until_web(&mut self, addresses: &[&str]) -> Snapshot {
        self.until(&format!("{addresses:?}"), |snapshot| web(snapshot) == addresses).await
    }

    async fn end(self) {
        self.cancel.cancel();
        timeout(Duration::from_secs(1), self.run).await.unwrap().unwrap();
    }
}

/// The addresses of `web`, sorted.
fn web(snapshot: &Snapshot) -> Vec<String> {
    pools(snapshot).remove("web").unwrap_or_default().into_iter().collect()
}

/// What was left out, `key: reason` each.
fn left_out(snapshot: &Snapshot) -> Vec<String> {
    snapshot.quarantined.iter().map(|(key, q)| format!("{key}: {}", q.reason)).collect()
}

/// etcd is nowhere: only tests of other methods use this.
fn context() -> Context {
    Context::new(registry::store::etcd::EtcdConfig::new(Vec::new()))
}

fn services(service: Value) -> Result<Vec<Arc<Service>>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("synapse.json");
    std::fs::write(&path, json!({"services": {"web": service}}).to_string()).unwrap();
    let loaded = discover::synapse::load::load_with(&path, &|_| None).map_err(|e| e.to_string())?;
    assert_eq!(loaded.warnings, [], "{service}");
    configured(&loaded.config).map_err(|e| e.to_string())?;
    Ok(loaded.config.services)
}

/// The method of a service `web` with this discovery; or everything that is wrong with it.
fn try_method(service: Value) -> Result<Configured, String> {
    let services = services(service)?;
    let config = discover::synapse::Config { services, ..Default::default() };
    Ok(configured(&config).unwrap().remove(0))
}

fn method(discovery: Value) -> Configured {
    try_method(json!({"discovery": discovery})).unwrap()
}

/// What is wrong with this discovery.
fn refused(discovery: Value) -> String {
    try_method(json!({"discovery": discovery})).unwrap_err()
}

/// A boxed watcher, as the contract's suite wants one.
struct Boxed(BoxWatcher);

impl Watcher<Snapshot> for Boxed {
    type Error = std::io::Error;

    async fn run(self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), std::io::Error> {
        self.0.run(out, cancel).await.map_err(std::io::Error::other)
    }
}

/// Backends of one service `web` by the suite's services and names, each at an address that was never used before.
#[derive(Debug, Default)]
struct Named {
    history: History,
    at: BTreeMap<(String, String), String>,
    count: u32,
}

impl Named {
    /// Gives each pair its next address and notes the step; `address` makes one of a number.
    fn put(&mut self, backends: &[(&str, &str)], address: impl Fn(u32) -> String) {
        for (service, name) in backends {
            self.count += 1;
            self.at.insert(((*service).to_owned(), (*name).to_owned()), address(self.count));
        }
        self.note();
    }

    fn remove(&mut self, service: &str, name: &str) {
        self.at.remove(&(service.to_owned(), name.to_owned()));
        self.note();
    }

    fn note(&mut self) {
        let all = self.at.values().cloned().collect();
        self.history.record(|pools| drop(pools.insert("web".to_owned(), all)));
    }
}
