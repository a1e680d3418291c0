//! A client host: the real watcher, merge, guard and turns of `discover`, and a generator that only takes note.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use agent::watch::{Watcher, channel};
use discover::agent::Agent;
use discover::debounce::Debounce;
use discover::generators::{Generator, Outcome};
use discover::metrics::Metrics;
use discover::reconcile::{Admission, Desired, Emptied, Guard, GuardSettings, Limits, Memory, Reconciler, Source};
use discover::status::StatusBoard;
use model::{BackendId, ServiceMap, ServiceName};
use prometheus_client::registry::Registry;
use registry::RegistryWatcher;
use testing::fake::{Cut, FakeStore};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::ice::Ice;
use super::world::HOLD;

/// What HAProxy would serve.
#[derive(Debug, Clone, Default)]
pub struct Routed {
    pub services: ServiceMap,
    pub held: BTreeSet<(ServiceName, BackendId)>,
    /// How often it changed.
    pub changes: u64,
}

struct Note(Arc<Mutex<Routed>>);

impl Generator for Note {
    type Plan = Desired;
    type Error = Infallible;
    fn plan(&self, desired: &Desired, _: Instant) -> Desired {
        desired.clone()
    }
    async fn apply(&mut self, desired: Desired) -> Result<Outcome, Infallible> {
        let mut routed = self.0.lock().unwrap();
        if routed.services != desired.services {
            routed.changes += 1;
            routed.services = desired.services;
        }
        let held = desired.held.into_iter().flat_map(|(s, all)| all.into_keys().map(move |id| (s.clone(), id)));
        routed.held = held.collect();
        Ok(Outcome::Done)
    }
}

struct Discover {
    tasks: [JoinHandle<()>; 2],
    guard: Arc<Mutex<Guard>>,
    wake: Arc<Notify>,
    ice: Ice,
}

/// The host.
pub struct Client {
    /// Its way to the registry.
    pub way: FakeStore,
    pub cut: bool,
    pub frozen: bool,
    discover: Option<Discover>,
    routed: Arc<Mutex<Routed>>,
    /// The state file.
    memory: Vec<u8>,
    began: Instant,
    /// Since when it runs and has heard of the registry at least once.
    pub synced: Option<Instant>,
    /// Since when it runs and reaches the registry.
    pub well: Option<Instant>,
    /// Units that it has routed and that have wanted clients ever since, and when it last routed them unheld.
    pub seen: BTreeMap<u32, Instant>,
    /// Those of them that it routes no longer.
    pub missed: BTreeSet<u32>,
    /// Units that are held, and since when.
    pub held: BTreeMap<u32, Instant>,
}

impl Client {
    pub fn new(way: FakeStore) -> Self {
        Self {
            way,
            cut: false,
            frozen: false,
            discover: None,
            routed: Arc::default(),
            memory: Vec::new(),
            began: Instant::now(),
            synced: None,
            well: None,
            seen: BTreeMap::new(),
            missed: BTreeSet::new(),
            held: BTreeMap::new(),
        }
    }

    pub fn is_running(&self) -> bool {
        self.discover.is_some()
    }

    /// What the machine's clock says.
    fn clock(&self) -> Duration {
        Duration::from_secs(1_000_000) + self.began.elapsed()
    }

    pub fn start(&mut self) {
        let memory = if self.memory.is_empty() {
            Memory::default()
        } else {
            Memory::from_base(&self.memory, &[], self.clock()).unwrap()
        };
        let settings = GuardSettings { hold: HOLD, ..GuardSettings::default() };
        let guard = Arc::new(Mutex::new(Guard::new(settings, memory, Instant::now())));
        let (outlet, inlet) = channel();
        let wake = Arc::new(Notify::new());
        let agent = Agent {
            sources: vec![Source { name: "etcd".into(), required: true, answers_for: None, inlet }],
            reconciler: Reconciler::new(Limits::default(), guard.clone(), Admission::default(), Emptied::default()),
            generators: vec![Box::new(Note(self.routed.clone()))],
            state: None,
            debounce: Debounce::new(Duration::from_millis(1), Duration::from_millis(20)),
            sync_deadline: Duration::from_secs(60),
            wake: wake.clone(),
            board: StatusBoard::default(),
            changes: watch::channel(0).0,
            metrics: Metrics::new(&mut Registry::default()),
        };
        let (never, ice) = (CancellationToken::new(), Ice::default());
        let watcher = RegistryWatcher::new(self.way.clone(), "/backends".parse().unwrap());
        let watching = watcher.run(outlet, never.clone());
        let tasks = [
            tokio::spawn(ice.clone().over(async move { watching.await.unwrap() })),
            tokio::spawn(ice.clone().over(async move { agent.run(never).await.unwrap() })),
        ];
        self.discover = Some(Discover { tasks, guard, wake, ice });
    }

    /// As `kill -9`, with what it wrote down last.
    pub fn kill(&mut self) {
        let Some(discover) = self.discover.take() else { return };
        discover.tasks.iter().for_each(JoinHandle::abort);
        self.memory = discover.guard.lock().unwrap().memory(Instant::now()).to_base(None, self.clock()).unwrap();
        self.frozen = false;
    }

    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
        self.discover.iter().for_each(|d| d.ice.set(frozen));
    }

    pub fn cut(&mut self, how: Option<Cut>) {
        self.cut = how.is_some();
        how.map_or_else(|| self.way.heal(), |how| self.way.cut(how));
    }

    /// `discover release`, as the control socket does it.
    pub fn release(&self, service: &ServiceName) {
        if let Some(discover) = &self.discover {
            discover.guard.lock().unwrap().release(service);
            discover.wake.notify_one();
        }
    }

    pub fn routed(&self) -> Routed {
        self.routed.lock().unwrap().clone()
    }
}
