//! The agent as a whole between a registry in memory and a generator that only takes note: what is routed when
//! registrations run out together, with discover up, down, or restarting. On a paused clock.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::admin::StatusSource;
use agent::watch::{Watcher, channel};
use discover::agent::{Agent, TakesTurns};
use discover::debounce::Debounce;
use discover::generators::{Generator, Outcome};
use discover::metrics::Metrics;
use discover::reconcile::{Admission, Desired, Emptied, Guard, GuardSettings, Limits, OnEmpty, Reconciler, Source};
use discover::state::StateFile;
use discover::status::StatusBoard;
use model::{ServiceMap, ServiceName};
use prometheus_client::registry::Registry;
use registry::RegistryWatcher;
use registry::store::{Lease, Op, Store};
use testing::fake::FakeStore;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const SERVICES: usize = 50;
const EACH: usize = 20;

/// Remembers what was desired last.
struct Note(Arc<Mutex<ServiceMap>>);

impl Generator for Note {
    type Plan = ServiceMap;
    type Error = Infallible;
    fn plan(&self, desired: &Desired, _: Instant) -> ServiceMap {
        desired.services.clone()
    }
    async fn apply(&mut self, plan: ServiceMap) -> Result<Outcome, Infallible> {
        *self.0.lock().unwrap() = plan;
        Ok(Outcome::Done)
    }
}

/// Hangs in its first turn.
struct Hung;

impl Generator for Hung {
    type Plan = ();
    type Error = Infallible;
    fn plan(&self, _: &Desired, _: Instant) {}
    async fn apply(&mut self, (): ()) -> Result<Outcome, Infallible> {
        std::future::pending().await
    }
}

struct Running {
    cancel: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    routed: Arc<Mutex<ServiceMap>>,
    guard: Arc<Mutex<Guard>>,
}

impl Running {
    fn start(store: &FakeStore, dir: &Path, on_empty: OnEmpty) -> Self {
        Self::with(store, dir, on_empty, StatusBoard::default(), Vec::new())
    }

    /// With further generators, which come first.
    fn with(
        store: &FakeStore,
        dir: &Path,
        on_empty: OnEmpty,
        board: StatusBoard,
        mut generators: Vec<Box<dyn TakesTurns>>,
    ) -> Self {
        let state = StateFile::new(dir.join("state.json"));
        let memory = state.load();
        let last = memory.told.clone().into_iter().chain(memory.kept.clone()).collect();
        let guard = Arc::new(Mutex::new(Guard::new(GuardSettings::default(), memory, Instant::now())));
        let (cancel, routed, (outlet, inlet)) = (CancellationToken::new(), Arc::default(), channel());
        let watcher = RegistryWatcher::new(store.peer(), "/backends".parse().unwrap());
        generators.push(Box::new(Note(Arc::clone(&routed))));
        let agent = Agent {
            sources: vec![Source { name: "etcd".into(), required: true, answers_for: None, inlet }],
            reconciler: Reconciler::new(
                Limits { max_services: SERVICES, max_backends: EACH, max_all_backends: SERVICES * EACH },
                guard.clone(),
                Admission::default(),
                Emptied::new(on_empty, last),
            ),
            generators,
            state: Some(state),
            debounce: Debounce::new(Duration::from_millis(1), Duration::from_millis(20)),
            sync_deadline: Duration::from_secs(60),
            wake: Arc::new(Notify::new()),
            board,
            changes: watch::channel(0).0,
            metrics: Metrics::new(&mut Registry::default()),
        };
        let (watching, turning) = (cancel.clone(), cancel.clone());
        let tasks = vec![
            tokio::spawn(async move { watcher.run(outlet, watching).await.unwrap() }),
            tokio::spawn(async move { agent.run(turning).await.unwrap() }),
        ];
        Self { cancel, tasks, routed, guard }
    }

    async fn stop(self) {
        self.cancel.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }

    /// As `kill -9`.
    fn kill(self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }

    /// How many backends are routed, and how many services have none.
    fn routed(&self) -> (usize, usize) {
        let routed = self.routed.lock().unwrap();
        let full = routed.values().filter(|p| !p.is_empty()).count();
        (routed.values().map(|p| p.len()).sum(), SERVICES.saturating_sub(full))
    }
}

/// The registry as five hosts write it: one lease each, the registrar's key and its backends under it.
struct Hosts {
    store: FakeStore,
    leases: Vec<Lease>,
}

impl Hosts {
    async fn new() -> Self {
        let mut hosts = Self { store: FakeStore::new(), leases: Vec::new() };
        hosts.register().await;
        hosts
    }

    async fn register(&mut self) {
        self.leases.clear();
        for host in 0..5 {
            let lease = self.store.grant(Duration::from_secs(100_000)).await.unwrap();
            let mut ops = vec![Op::put(format!("/registrars/h{host}"), "{}".as_bytes(), Some(lease.id))];
            for n in (0..SERVICES * EACH).filter(|n| n % 5 == host) {
                let (service, id) = (n % SERVICES, n / SERVICES);
                let value = format!("10.0.{service}.{id}:80");
                ops.push(Op::put(format!("/backends/s{service}/b{id}"), value.as_bytes(), Some(lease.id)));
            }
            self.store.put_all(ops).await.unwrap();
            self.leases.push(lease);
        }
    }

    /// All agents are cut off at once.
    fn expire(&self) {
        for lease in &self.leases {
            self.store.expire(lease.id);
        }
    }
}

async fn settled() {
    sleep(Duration::from_secs(3)).await;
}

const ALL: (usize, usize) = (SERVICES * EACH, 0);

#[tokio::test(start_paused = true)]
async fn a_thousand_registrations_that_run_out_together_empty_no_pool() {
    let (mut hosts, dir) = (Hosts::new().await, tempfile::tempdir().unwrap());
    let discover = Running::start(&hosts.store, dir.path(), OnEmpty::Empty);
    settled().await;
    assert_eq!(discover.routed(), ALL);
    hosts.expire();
    settled().await;
    assert_eq!(discover.routed(), ALL, "0 pools are empty");
    assert!(discover.guard.lock().unwrap().next_due().is_some());
    hosts.register().await;
    settled().await;
    assert_eq!(discover.routed(), ALL);
    assert_eq!(discover.guard.lock().unwrap().next_due(), None, "their return ends the hold");
    hosts.expire();
    sleep(Duration::from_secs(590)).await;
    assert_eq!(discover.routed(), ALL);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(discover.routed(), (0, SERVICES), "nothing is held for ever");
    discover.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_out_while_discover_is_down_is_held_and_no_restart_prolongs_it() {
    for clean in [true, false] {
        let (hosts, dir) = (Hosts::new().await, tempfile::tempdir().unwrap());
        let discover = Running::start(&hosts.store, dir.path(), OnEmpty::Empty);
        settled().await;
        if clean {
            discover.stop().await
        } else {
            discover.kill()
        }
        hosts.expire();
        let discover = Running::start(&hosts.store, dir.path(), OnEmpty::Empty);
        settled().await;
        assert_eq!(discover.routed(), ALL, "stopped cleanly: {clean}");
        discover.kill();
        let discover = Running::start(&hosts.store, dir.path(), OnEmpty::Empty);
        settled().await;
        assert_eq!(discover.routed(), ALL, "nor does a second restart lose them");
        discover.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn orderly_removals_are_never_held_and_an_emptied_pool_is_kept_only_when_asked() {
    for on_empty in [OnEmpty::Empty, OnEmpty::Keep] {
        let (store, dir) = (FakeStore::new(), tempfile::tempdir().unwrap());
        let lease = store.grant(Duration::from_secs(100_000)).await.unwrap();
        let put = |key: &str, value: &str| Op::put(key.to_owned(), value.as_bytes(), Some(lease.id));
        let ops = vec![put("/registrars/h", "{}"), put("/backends/web/a", "10.0.0.1:80")];
        store.put_all(ops).await.unwrap();
        let discover = Running::start(&store, dir.path(), on_empty);
        settled().await;
        store.delete("/backends/web/a");
        settled().await;
        let left = usize::from(on_empty == OnEmpty::Keep);
        assert_eq!(discover.routed().0, left);
        discover.kill();
        let discover = Running::start(&store, dir.path(), on_empty);
        settled().await;
        assert_eq!(discover.routed().0, left, "a restart does not matter");
        store.put_all(vec![put("/backends/web/b", "10.0.0.2:80")]).await.unwrap();
        settled().await;
        let web: ServiceName = "web".parse().unwrap();
        let hosts: Vec<String> =
            discover.routed.lock().unwrap()[&web].backends().iter().map(|b| b.host.to_string()).collect();
        assert_eq!(hosts, ["10.0.0.2"], "others take the place of kept ones");
        discover.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_generator_that_hangs_keeps_neither_the_others_nor_the_status_waiting() {
    let (hosts, dir, board) = (Hosts::new().await, tempfile::tempdir().unwrap(), StatusBoard::default());
    let discover = Running::with(
        &hosts.store,
        dir.path(),
        OnEmpty::Empty,
        board.clone(),
        vec![Box::new(Hung) as Box<dyn TakesTurns>],
    );
    settled().await;
    assert_eq!(discover.routed(), ALL);
    for n in 0..EACH {
        hosts.store.delete(format!("/backends/s0/b{n}"));
        settled().await;
    }
    assert_eq!(discover.routed(), ((SERVICES - 1) * EACH, 1), "the other one follows");
    assert_eq!(board.status()["sources"][0]["backends"], (SERVICES - 1) * EACH);
    assert!(board.ready().is_err(), "not everything that is desired is applied");
    discover.kill();
}

/// Somebody who may write to the registry writes without end; the pools are those of before, also after a restart.
#[tokio::test(start_paused = true)]
async fn a_flood_of_registrations_is_left_out_and_shown_and_takes_nothing_away() {
    let (hosts, dir, board) = (Hosts::new().await, tempfile::tempdir().unwrap(), StatusBoard::default());
    let start =
        |board: &StatusBoard| Running::with(&hosts.store, dir.path(), OnEmpty::Empty, board.clone(), Vec::new());
    let discover = start(&board);
    settled().await;
    assert_eq!(discover.routed(), ALL);
    let flood = (0..300).map(|n| format!("/backends/a{n}/x")).chain((0..300).map(|n| format!("/backends/s0/x{n}")));
    let ops = flood.map(|key| Op::put(key, "10.9.9.9:1".as_bytes(), None)).collect();
    hosts.store.put_all(ops).await.unwrap();
    settled().await;
    assert_eq!(discover.routed(), ALL);
    let shown = board.status()["quarantined"].as_array().unwrap().clone();
    assert_eq!(shown.len(), 301, "each service of which something is left out");
    let s0 = shown.iter().find(|row| row["key"] == "s0").unwrap();
    assert_eq!(s0["reason"], "300 of 320 backends are left out: too many (--max-backends)");
    discover.kill();
    let board = StatusBoard::default();
    let discover = start(&board);
    settled().await;
    assert_eq!(discover.routed(), ALL, "a restart does not matter");
    assert!(discover.routed.lock().unwrap().keys().all(|name| name.as_str().starts_with('s')));
    // Where there is room again, the first of them take it.
    for n in 0..EACH {
        hosts.store.delete(format!("/backends/s1/b{n}"));
    }
    settled().await;
    let names: Vec<String> = discover.routed.lock().unwrap().keys().map(|name| name.to_string()).collect();
    assert_eq!((names.len(), names[0].as_str()), (SERVICES, "a0"));
    discover.stop().await;
}

/// A key names any host; what is refused is left out alone, shown with its reason, and by no way kept: not by a hold, an emptied pool or
/// a restart.
#[tokio::test(start_paused = true)]
async fn backends_at_refused_addresses_are_left_out_alone_and_shown_and_never_kept() {
    let bad = [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "localhost",
        "0x7f000001",
        "0.0.0.0",
        "::",
        "169.254.169.254",
        "fe80::1",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
    ];
    for on_empty in [OnEmpty::Empty, OnEmpty::Keep] {
        let (store, dir, board) = (FakeStore::new(), tempfile::tempdir().unwrap(), StatusBoard::default());
        let lease = store.grant(Duration::from_secs(100_000)).await.unwrap();
        let put = |key: String, host: &str| {
            let value = serde_json::json!({"host": host, "port": 9181, "service_port": 80}).to_string();
            Op::put(key, value.into_bytes(), Some(lease.id))
        };
        let mut ops = vec![Op::put("/registrars/h".to_owned(), "{}".as_bytes(), Some(lease.id))];
        ops.extend(bad.iter().enumerate().map(|(n, host)| put(format!("/backends/web/b{n:02}"), host)));
        ops.extend(bad.iter().enumerate().map(|(n, host)| put(format!("/backends/only{n}/b"), host)));
        ops.push(put("/backends/web/good".to_owned(), "10.0.0.1"));
        store.put_all(ops).await.unwrap();
        let discover = Running::with(&store, dir.path(), on_empty, board.clone(), Vec::new());
        settled().await;
        assert_eq!(discover.routed().0, 1);
        let shown = board.status()["quarantined"].as_array().unwrap().clone();
        assert_eq!(shown.len(), 2 * bad.len());
        let b00 = shown.iter().find(|row| row["key"] == "web/b00").unwrap();
        assert_eq!(b00["reason"], "127.0.0.1:9181: a loopback address (--allow-loopback takes it)");
        store.expire(lease.id);
        settled().await;
        assert_eq!(discover.routed().0, 1, "what is held is judged, too");
        discover.kill();
        let discover = Running::with(&store, dir.path(), on_empty, board, Vec::new());
        settled().await;
        assert_eq!(discover.routed().0, 1, "a restart does not matter");
        discover.kill();
    }
}
