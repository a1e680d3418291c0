//! Whose a key is, with real etcd of each version: two agents' publishers, `register put`, and hands.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Backend, Layout, NodeName, Port, Prefix, Status, ValueFormat};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use register::publish::pulse::Pulse;
use register::publish::report::PublishMetrics;
use register::publish::{Form, Identity, Publication, PublishError, Publisher, PublisherSettings, Registrations};
use registry::store::etcd::EtcdStore;
use registry::store::{Change, Entry, Op, Store, WatchStream};
use testing::etcd::{Etcd, binaries};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

fn registrations(host: &str, ids: impl IntoIterator<Item = u16>) -> Registrations {
    let one = |number: u16| {
        let id: model::BackendId = format!("v{number}").parse().unwrap();
        let backend = Backend::new(id.clone(), host.parse().unwrap(), Port::new(8000).unwrap());
        (("vic".parse().unwrap(), id), backend)
    };
    ids.into_iter().map(one).collect()
}

/// The publisher of one host.
struct Agent {
    desired: watch::Sender<Option<Arc<Registrations>>>,
    state: watch::Receiver<Publication>,
    task: JoinHandle<Result<(), PublishError>>,
}

impl Agent {
    fn start(etcd: &Etcd, node: &str, layout: Layout) -> Self {
        let node: NodeName = node.parse().unwrap();
        let identity = Identity::new(node.clone(), format!("machine of {node}"));
        let (values, service_ports) = (ValueFormat::Json, false);
        let form = Form { prefix: Prefix::default(), layout, node, values, service_ports };
        let (ttl, audit) = (Duration::from_secs(3), Duration::from_secs(30));
        let settings = PublisherSettings { form, identity, ttl, audit, metadata: None };
        let ((desired, wanted), (out, state)) = (watch::channel(None), watch::channel(Publication::default()));
        let publisher = Publisher::new(etcd.store(), settings, wanted, out, PublishMetrics::default());
        let task = tokio::spawn(publisher.run(CancellationToken::new(), CancellationToken::new()));
        Self { desired, state, task }
    }

    fn want(&self, registrations: Registrations) {
        self.desired.send_replace(Some(Arc::new(registrations)));
    }

    async fn refuses(&mut self, keys: usize) -> Publication {
        let state = timeout(DEADLINE, self.state.wait_for(|p| p.refused.len() == keys && p.published.is_some())).await;
        state.unwrap_or_else(|_| panic!("not {keys} refused")).unwrap().clone()
    }

    /// As `kill -9` ends it.
    async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

async fn entries(store: &EtcdStore) -> Vec<Entry> {
    store.list("/backends/").await.unwrap().entries
}

/// How long it takes until so many keys say `host`.
async fn until(store: &EtcdStore, keys: usize, host: &str) -> Duration {
    let start = Instant::now();
    loop {
        let all = entries(store).await;
        let so = all.iter().filter(|e| String::from_utf8_lossy(&e.value).contains(host)).count();
        if so == keys && all.len() == keys {
            return start.elapsed();
        }
        assert!(start.elapsed() < DEADLINE, "{so} of {} keys say {host}, not {keys}", all.len());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_agent_never_takes_or_deletes_the_key_of_another_host() {
    for binary in binaries() {
        for (first, second) in [("host-a", "host-b"), ("host-z", "host-b")] {
            let etcd = Etcd::start_with(&binary, &[]);
            let store = etcd.store();
            let a = Agent::start(&etcd, first, Layout::Service);
            a.want(registrations("10.0.0.1", [1]));
            until(&store, 1, "10.0.0.1").await;
            let before = entries(&store).await;
            let mut b = Agent::start(&etcd, second, Layout::Service);
            b.want(registrations("10.6.6.6", [1]));
            let refused = b.refuses(1).await;
            let said = &refused.refused.values().next().unwrap().holder;
            assert!(said.contains(&format!("registrar {first}")) && refused.published.unwrap().is_empty(), "{said}");
            // It drains and stops: container and agent.
            let mut draining = registrations("10.6.6.6", [1]);
            draining.values_mut().for_each(|backend| backend.status = Status::Draining);
            b.want(draining);
            b.refuses(1).await;
            b.want(registrations("10.6.6.6", []));
            b.refuses(0).await;
            b.want(registrations("10.6.6.6", [1]));
            b.refuses(1).await;
            // Each of them restarts while the other is there.
            b.kill().await;
            let mut b = Agent::start(&etcd, second, Layout::Service);
            b.want(registrations("10.6.6.6", [1]));
            b.refuses(1).await;
            a.kill().await;
            let mut a = Agent::start(&etcd, first, Layout::Service);
            a.want(registrations("10.0.0.1", [1]));
            a.refuses(0).await;
            assert_eq!(entries(&store).await, before);
            // It goes, and the one who waits has it; then it is that one's.
            a.want(registrations("10.0.0.1", []));
            let waited = until(&store, 1, "10.6.6.6").await;
            assert!(waited < Duration::from_secs(1), "{waited:?}");
            a.want(registrations("10.0.0.1", [1]));
            a.refuses(1).await;
            b.kill().await;
            until(&store, 1, "10.0.0.1").await;
            a.kill().await;
        }
    }
}

#[tokio::test]
async fn what_a_hand_deletes_is_back_within_a_second_and_two_thousand_keys_within_three() {
    for binary in binaries() {
        for layout in [Layout::Service, Layout::Host] {
            let etcd = Etcd::start_with(&binary, &[]);
            let store = etcd.store();
            let agent = Agent::start(&etcd, "host-a", layout);
            agent.want(registrations("10.0.0.1", 1..=2000));
            let first = until(&store, 2000, "10.0.0.1").await;
            sleep(Duration::from_secs(1)).await; // a hand is not faster
            let lease = entries(&store).await[0].lease;
            let mut took = Vec::new();
            for keys in [1, 1, 2000] {
                let some = entries(&store).await.into_iter().take(keys).map(|e| Op::delete(e.key)).collect();
                store.put_all(some).await.unwrap();
                took.push(until(&store, 2000, "10.0.0.1").await);
            }
            let key = entries(&store).await[0].key.clone();
            store.put_all(vec![Op::put(key, *b"nonsense", None)]).await.unwrap();
            took.push(until(&store, 2000, "10.0.0.1").await);
            println!("{binary:?} {layout:?}: 2,000 keys written in {first:?}; back after {took:?}");
            assert!(entries(&store).await.iter().all(|e| e.lease == lease));
            for (took, most) in took.iter().zip([1, 1, 3, 1]) {
                assert!(*took < Duration::from_secs(most), "{took:?}");
            }
            let calls = || {
                let of = |service: &str, method: &str, kind: &str| {
                    let labels =
                        format!(r#"grpc_method="{method}",grpc_service="etcdserverpb.{service}",grpc_type="{kind}""#);
                    etcd.figure(&format!("grpc_server_msg_received_total{{{labels}}}"))
                };
                let watch = of("Watch", "Watch", "bidi_stream");
                [of("KV", "Range", "unary"), of("KV", "Txn", "unary"), watch]
            };
            let before = calls();
            sleep(Duration::from_secs(10)).await;
            println!("calls in 10 s of idleness (Range, Txn, Watch): {before:?} {:?}", calls());
            agent.kill().await;
        }
    }
}

/// `register put`; dropping it kills it.
struct Put(Child);

impl Drop for Put {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Put {
    fn start(etcd: &Etcd, address: &str, log: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_register"));
        command
            .args(["put", "vic", address, "--id", "v1", "--ttl", "3s"])
            .env("ETCD_HOST", etcd.endpoint().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(log).unwrap());
        Self(command.spawn().unwrap())
    }

    fn signal(&mut self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn put_waits_for_anothers_key_and_takes_its_own_back_in_order() {
    for binary in binaries() {
        let etcd = Etcd::start_with(&binary, &[]);
        let (store, dir) = (etcd.store(), tempfile::tempdir().unwrap());
        let log = dir.path().join("b.log");
        let mut a = Put::start(&etcd, "10.0.0.1:80", &dir.path().join("a.log"));
        until(&store, 1, "10.0.0.1").await;
        let before = entries(&store).await;
        let mut b = Put::start(&etcd, "10.6.6.6:80", &log);
        let said = || std::fs::read_to_string(&log).unwrap();
        let start = Instant::now();
        while !said().contains("Not registered: the key belongs to lease") {
            assert!(start.elapsed() < DEADLINE, "{}", said());
            sleep(Duration::from_millis(10)).await;
        }
        b.signal(Signal::SIGINT);
        assert_eq!(entries(&store).await, before, "neither its start nor its end touched it");
        // A hand deletes it: it is back at once.
        store.put_all(vec![Op::delete("/backends/vic/v1")]).await.unwrap();
        assert!(until(&store, 1, "10.0.0.1").await < Duration::from_secs(1));
        // Ctrl-C: drained, deleted, and only then its lease ends.
        let mut watch = store.watch("/backends/", store.position("/backends/").await.unwrap()).await.unwrap();
        let _b = Put::start(&etcd, "10.6.6.6:80", &log);
        sleep(Duration::from_millis(500)).await;
        a.signal(Signal::SIGINT);
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let batch = timeout(DEADLINE, watch.next()).await.unwrap().unwrap();
            seen.extend(batch.changes.into_iter().map(|change| match change {
                Change::Put(entry) => String::from_utf8_lossy(&entry.value).into_owned(),
                Change::Delete { .. } => "deleted".to_owned(),
            }));
        }
        assert!(seen[0].contains("10.0.0.1") && seen[0].contains(r#""status":"draining""#), "{seen:?}");
        assert!(seen[1] == "deleted" && seen[2].contains("10.6.6.6"), "the next one has it: {seen:?}");
    }
}

/// An agent whose lease is renewed on a thread, and what it says of itself.
async fn with_pulse(etcd: &Etcd, patience: Duration) -> (Agent, PublishMetrics) {
    let node: NodeName = "busy".parse().unwrap();
    let form = Form {
        prefix: Prefix::default(),
        layout: Layout::Service,
        node: node.clone(),
        values: ValueFormat::Json,
        service_ports: false,
    };
    let (ttl, audit) = (Duration::from_secs(2), Duration::from_secs(30));
    let settings = PublisherSettings { form, identity: Identity::new(node, "m1".into()), ttl, audit, metadata: None };
    let ((desired, wanted), (out, state)) = (watch::channel(None), watch::channel(Publication::default()));
    let metrics = PublishMetrics::default();
    let publisher = Publisher::new(etcd.store(), settings, wanted, out, metrics.clone());
    let publisher = publisher.with_pulse(Pulse::with_patience(patience).unwrap(), etcd.store());
    let task = tokio::spawn(publisher.run(CancellationToken::new(), CancellationToken::new()));
    let agent = Agent { desired, state, task };
    agent.want(registrations("10.0.0.1", 1..=100));
    until(&etcd.store(), 100, "10.0.0.1").await;
    (agent, metrics)
}

#[tokio::test]
async fn a_turn_that_blocks_for_ten_seconds_loses_no_lease_and_no_registration() {
    let etcd = Etcd::start();
    let (agent, metrics) = with_pulse(&etcd, Duration::from_secs(60)).await;
    let before = entries(&etcd.store()).await;
    std::thread::sleep(Duration::from_secs(10)); // this runtime has one thread: the agent's
    assert_eq!(entries(&etcd.store()).await, before);
    agent.want(registrations("10.0.0.2", 1..=100));
    until(&etcd.store(), 100, "10.0.0.2").await;
    assert_eq!(metrics.lost.get(), 0);
    assert!(metrics.beats.get() >= 10, "{}", metrics.beats.get());
    agent.kill().await;
}

#[tokio::test]
async fn an_agent_that_hangs_for_longer_than_is_borne_loses_its_lease_and_comes_back() {
    let etcd = Etcd::start();
    let (agent, metrics) = with_pulse(&etcd, Duration::from_secs(1)).await;
    std::thread::sleep(Duration::from_secs(8));
    assert!(entries(&etcd.store()).await.is_empty(), "what nobody watches is not kept alive");
    until(&etcd.store(), 100, "10.0.0.1").await;
    assert_eq!(metrics.lost.get(), 1);
    agent.kill().await;
}
