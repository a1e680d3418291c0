//! Watchers side by side, as one: each runs, fails and resumes by itself; what they know is made one by a [`Resolve`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use agent::telemetry::Chain;
use agent::watch::{Inlet, Observation, Outlet, Watcher, channel};
use futures_util::future::BoxFuture;
use model::{Backend, Host, Pool, Port, ServiceMap, ServiceName};
use registry::Snapshot;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::teller::{Standing, Teller};
use super::{BoxWatcher, Context};

/// How long a member that says nothing is waited for at the start, once another has answered.
pub const FIRST_WITHIN: Duration = Duration::from_secs(30);
/// How long members may take to end.
const END_WITHIN: Duration = Duration::from_millis(900);

/// What one member knows.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its name within the group.
    pub name: Arc<str>,
    /// What it knows; of one that has given up, for ever stale.
    pub observation: Observation<Snapshot>,
}

impl Seen {
    /// How many backends it tells of.
    pub fn backends(&self) -> usize {
        self.observation.snapshot().map_or(0, |s| s.services.values().map(|p| p.len()).sum())
    }

    /// It has neither answered nor said why not.
    pub fn is_silent(&self) -> bool {
        matches!(self.observation, Observation::Pending { error: None })
    }
}

/// What the members come to.
#[derive(Debug)]
pub enum Resolution {
    /// Nothing new can be said: what was told stays. With an error it is stale.
    Wait {
        /// Why.
        error: Option<Arc<str>>,
    },
    Tell {
        snapshot: Snapshot,
        /// How well it is known.
        standing: Standing,
    },
}

/// Makes one answer of several.
pub trait Resolve: Send {
    /// What the members come to; `started` is when the group began, `now` the present.
    fn resolve(&mut self, seen: &[Seen], started: Instant, now: Instant) -> Resolution;

    /// When the same observations may come to something else, if by time alone.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Completes when they may for another reason. Cancel-safe.
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

struct Member {
    name: Arc<str>,
    watcher: BoxWatcher,
    outlet: Outlet<Snapshot>,
    inlet: Inlet<Snapshot>,
}

/// A group, not started.
pub struct Group {
    members: Vec<Member>,
    resolver: Box<dyn Resolve>,
}

impl Group {
    /// These watchers, each shown in the status as `source/name`.
    pub fn new(
        source: &str,
        watchers: Vec<(Arc<str>, BoxWatcher)>,
        resolver: Box<dyn Resolve>,
        context: &mut Context,
    ) -> Self {
        let member = |(name, watcher): (Arc<str>, BoxWatcher)| {
            let (outlet, inlet) = channel();
            context.show(format!("{source}/{name}").into(), inlet.clone());
            Member { name, watcher, outlet, inlet }
        };
        Self { members: watchers.into_iter().map(member).collect(), resolver }
    }
}

impl Watcher<Snapshot> for Group {
    type Error = Infallible;

    async fn run(self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), Infallible> {
        let Self { members, mut resolver } = self;
        let news = Arc::new(Notify::new());
        let (mut tasks, mut inlets) = (JoinSet::new(), Vec::new());
        for Member { name, watcher, outlet, inlet } in members {
            let (run, name_of) = (watcher.run(outlet, cancel.clone()), name.clone());
            tasks.spawn(async move {
                if let Err(e) = run.await {
                    error!(watcher = %name_of, error = %Chain(&*e), "Watcher has given up; its last answer stays.");
                }
            });
            tasks.spawn(forward(inlet.clone(), news.clone(), cancel.clone()));
            inlets.push((name, inlet));
        }
        let (teller, started) = (Teller::new(out), Instant::now());
        loop {
            let seen: Vec<Seen> = inlets.iter().map(|(name, inlet)| seen(name, inlet)).collect();
            match resolver.resolve(&seen, started, Instant::now()) {
                Resolution::Wait { error: None } => {}
                Resolution::Wait { error: Some(error) } => teller.fail_by(error),
                Resolution::Tell { snapshot, standing } => teller.relay(snapshot, standing),
            }
            let pending = seen.iter().any(|s| s.observation.snapshot().is_none()).then(|| started + FIRST_WITHIN);
            let due = resolver.due().into_iter().chain(pending).filter(|at| *at > Instant::now()).min();
            tokio::select! {
                biased; // shutdown wins over work
                () = cancel.cancelled() => break,
                () = news.notified() => {}
                () = resolver.changed() => {}
                () = sleep_until(due.unwrap_or(started)), if due.is_some() => {}
            }
        }
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(END_WITHIN, ended).await; // what is left is aborted with the set
        Ok(())
    }
}

/// Wakes the group whenever a member has news.
async fn forward(mut inlet: Inlet<Snapshot>, news: Arc<Notify>, cancel: CancellationToken) {
    while let Some(Ok(())) = cancel.run_until_cancelled(inlet.changed()).await {
        news.notify_one();
    }
    news.notify_one(); // it may have given up
}

fn seen(name: &Arc<str>, inlet: &Inlet<Snapshot>) -> Seen {
    let observation = inlet.borrow().clone();
    let given_up = inlet.has_changed().is_err();
    let observation = match observation {
        Observation::Synced { snapshot } if given_up => {
            Observation::Stale { snapshot, since: Instant::now(), error: "it has given up".into() }
        }
        Observation::Pending { error: None } if given_up => {
            Observation::Pending { error: Some("it has given up".into()) }
        }
        other => other,
    };
    Seen { name: name.clone(), observation }
}

/// Several snapshots as one. Of two members with a backend at one address the earlier one's counts; an id that another
/// address has already gets its member's name.
pub fn join<'a>(members: impl IntoIterator<Item = (&'a str, &'a Snapshot)>) -> Snapshot {
    let mut services: BTreeMap<ServiceName, Vec<Arc<Backend>>> = BTreeMap::new();
    let mut places: HashMap<(ServiceName, Host, Port), usize> = HashMap::new();
    let mut ids = HashSet::new();
    let mut joined = Snapshot::default();
    let (mut quarantined, mut departed) = (BTreeMap::new(), HashMap::new());
    for (n, (member, snapshot)) in members.into_iter().enumerate() {
        quarantined.extend(snapshot.quarantined.iter().map(|(key, q)| (key.clone(), q.clone())));
        departed.extend(snapshot.departed.iter().map(|(place, d)| (place.clone(), *d)));
        for (service, config) in snapshot.generator_configs.iter().filter(|(_, config)| !config.is_empty()) {
            joined.generator_configs.entry(service.clone()).or_insert_with(|| config.clone());
        }
        for (service, pool) in &snapshot.services {
            let backends = services.entry(service.clone()).or_default();
            for backend in pool.backends() {
                let place = (service.clone(), backend.host.clone(), backend.port);
                if *places.entry(place).or_insert(n) != n {
                    continue;
                }
                if ids.insert((service.clone(), backend.id.clone())) {
                    backends.push(backend.clone());
                } else if let Ok(id) = format!("{}@{member}", backend.id).parse() {
                    backends.push(Arc::new(Backend { id, ..(**backend).clone() }));
                }
            }
        }
    }
    let pool = |(service, backends)| (service, Arc::new(Pool::new(backends)));
    joined.services = services.into_iter().map(pool).collect::<ServiceMap>();
    joined.quarantined = Arc::new(quarantined);
    joined.departed = Arc::new(departed);
    joined
}

/// The first error among members, with the member's name.
pub fn first_error(seen: &[Seen]) -> Option<Arc<str>> {
    seen.iter().find_map(|s| s.observation.error().map(|error| format!("watcher {}: {error}", s.name).into()))
}

/// All backends of all watchers; of two at one address the earlier watcher's.
struct Union;

/// What any of the members knows.
pub(super) fn any() -> Box<dyn Resolve> {
    Box::new(Union)
}

impl Resolve for Union {
    /// Healthy if any is: each one's own standing is shown beside it.
    fn resolve(&mut self, seen: &[Seen], started: Instant, now: Instant) -> Resolution {
        let known: Vec<(&str, &Arc<Snapshot>)> =
            seen.iter().filter_map(|s| s.observation.snapshot().map(|snapshot| (&*s.name, snapshot))).collect();
        let waits = known.len() < seen.len() && now < started + FIRST_WITHIN;
        if known.is_empty() || waits {
            return Resolution::Wait { error: first_error(seen) };
        }
        let synced = seen.iter().any(|s| s.observation.standing() == "synced");
        let since = seen.iter().filter_map(|s| s.observation.stale_since()).min();
        let standing = match (synced, since, first_error(seen)) {
            (false, Some(since), Some(error)) => Standing::Stale { since, error },
            _ => Standing::Synced,
        };
        let snapshot = join(known.into_iter().map(|(name, snapshot)| (name, &**snapshot)));
        Resolution::Tell { snapshot, standing }
    }
}
