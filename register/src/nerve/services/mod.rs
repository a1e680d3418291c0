//! Services without Docker: checked here, published by reporters, as Nerve's config has it.
//!
//! | module | what it holds |
//! |---|---|
//! | this one | the task: config, checks and reporters in; what is wanted of each reporter out |
//! | `entry` | one service: its present self, and the former one until that is replaced; pure |
//! | `rounds` | the task behind each service: its checks, one after the other |
//! | `resolve` | names of hosts, looked up once for all |
//! | `limit` | how often a service may come and go; pure |
//! | `outlets` | the reporters at work |
//! | [`alone`] | the checks of a service that belongs to no config |
//! | `rows`, `metrics` | what is shown |
//! | `source` | the config, read again when it changes |
//!
//! The rule: whatever happens, all that is wanted is worked out again; nobody is given single orders.

pub mod alone;
mod entry;
mod limit;
mod metrics;
mod outlets;
mod resolve;
mod rounds;
mod rows;
pub mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use agent::config::Note;
use agent::telemetry::Chain;
use agent::watch::replace;
use containers::readiness::CheckMetrics;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::nerve::config::{Config, Service};
use crate::nerve::reporters::{Frame, ReporterError, Standing, Wanted};
use entry::{Entry, Instance};
pub use metrics::ServiceMetrics;
use outlets::Outlets;
use rounds::{News, Rounds};
pub use rows::{ReporterRow, ServiceRow, ServiceState};
use source::Good;

/// How often the heartbeat file is touched.
///
/// Source: Nerve's main loop.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What the services need of the rest of the agent.
pub struct Wires {
    /// The config, whenever a good one was read.
    pub config: watch::Receiver<Arc<Good>>,
    /// What is shown.
    pub rows: watch::Sender<Arc<[ServiceRow]>>,
    /// Counts whatever changed, for those who look at the status.
    pub changes: watch::Sender<u64>,
    /// `--on-exit drain`: how long the end may take; `None`: everything is kept.
    pub drain_at_exit: Option<Duration>,
}

/// All services of a config.
pub struct Services {
    wires: Wires,
    frame: Frame,
    config: Arc<Config>,
    wrong: BTreeMap<Arc<str>, Vec<Note>>,
    entries: BTreeMap<Arc<str>, Entry>,
    outlets: Outlets,
    rounds: Rounds,
    numbers: u64,
    inbox: mpsc::Receiver<News>,
    metrics: ServiceMetrics,
}

impl Services {
    /// The services of the config that `wires` holds at present; nothing is checked or written before [`Self::run`].
    pub fn new(mut wires: Wires, frame: Frame, metrics: ServiceMetrics, checks: CheckMetrics) -> Self {
        let (news, inbox) = mpsc::channel(1024);
        let good = wires.config.borrow_and_update().clone();
        let rounds = Rounds { out: news, resolver: Arc::default(), metrics: checks, statsd: frame.statsd.clone() };
        Self {
            wires,
            config: good.config.clone(),
            wrong: good.wrong.clone(),
            entries: BTreeMap::new(),
            outlets: Outlets::default(),
            frame,
            rounds,
            numbers: 0,
            inbox,
            metrics,
        }
    }

    /// The channels of the reporter of the agent's own etcd, which somebody else runs: what it is to publish, and where
    /// it tells how that goes.
    pub fn own_etcd(&mut self, destination: &str) -> (watch::Receiver<Arc<Wanted>>, watch::Sender<Standing>) {
        self.adopt_config();
        let mut wanted = self.wanted();
        self.outlets.foreign(destination, wanted.remove(destination).unwrap_or_default())
    }

    /// Runs until cancelled.
    ///
    /// # Errors
    /// When a reporter finds that somebody else is in the agent's place.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), ReporterError> {
        self.frame.statsd.increment("nerve.start", &[]);
        self.adopt_config();
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.turn();
            let now = Instant::now();
            let deadline = self.entries.values().filter_map(Entry::deadline).chain(self.outlets.deadline()).min();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                _ = beat.tick() => self.beat(),
                told = self.outlets.changed() => told?,
                Ok(()) = self.wires.config.changed() => {
                    self.frame.statsd.increment("nerve.config.update", &[]);
                    self.adopt_config();
                }
                Some(news) = self.inbox.recv() => self.take(news),
                () = sleep_until(deadline.unwrap_or(now)), if deadline.is_some() => {}
            }
            // What has come meanwhile costs no turn of its own.
            while let Ok(news) = self.inbox.try_recv() {
                self.take(news);
            }
        }
        self.entries.clear();
        self.outlets.end(self.wires.drain_at_exit).await;
        self.frame.statsd.increment("nerve.stop", &[]);
        Ok(())
    }

    /// Takes the newest config over: what is unchanged goes on, what is wrong goes on as it was.
    fn adopt_config(&mut self) {
        let good = self.wires.config.borrow_and_update().clone();
        (self.config, self.wrong) = (good.config.clone(), good.wrong.clone());
        self.frame.max_failures.store(self.config.max_failures, Ordering::Relaxed);
        let config = Arc::clone(&self.config);
        let gone: BTreeSet<Arc<str>> = self
            .entries
            .keys()
            .filter(|name| !config.services.contains_key(*name) && !self.wrong.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            info!(service = %name, "Removed from the config.");
            self.count("nerve.watcher.reap", &name);
            self.entries.remove(&name);
        }
        for (name, service) in &config.services {
            match self.entries.get(name).map(|entry| (entry.now.service.clone(), entry.now.instance.clone())) {
                None => {
                    let instance = self.launch(service, &config.instance);
                    self.entries.insert(name.clone(), Entry::new(instance));
                }
                Some((old, id)) if *old == **service && id == config.instance => {}
                Some((old, _)) => {
                    info!(service = %name, "Changed in the config.");
                    let fresh = (!service.proves_itself_as(&old)).then(|| self.launch(service, &config.instance));
                    if let Some(entry) = self.entries.get_mut(name) {
                        entry.replace(fresh, service, &config.instance);
                    }
                }
            }
        }
    }

    /// A new self of a service, whose checks begin.
    fn launch(&mut self, service: &Arc<Service>, id: &Arc<str>) -> Instance {
        self.numbers += 1;
        self.count("nerve.watcher.launch", &service.name);
        let task = tokio::spawn(self.rounds.clone().run(Arc::clone(service), self.numbers));
        Instance::new(Arc::clone(service), Arc::clone(id), self.numbers, AbortOnDropHandle::new(task))
    }

    fn count(&self, name: &str, service: &str) {
        self.frame.statsd.increment(name, &[("service_name", service)]);
    }

    fn take(&mut self, news: News) {
        let Some(entry) = self.entries.get_mut(&news.service) else { return };
        entry.take(news);
    }

    fn beat(&self) {
        for entry in self.entries.values() {
            let away =
                entry.now.placements().any(|placement| self.outlets.hindrance(&placement, &self.frame).is_some());
            let result = if away { "fail" } else { "success" };
            let tags = [("ping_result", result), ("service_name", &*entry.now.service.name)];
            self.frame.statsd.increment("nerve.watcher.status.ping.count", &tags);
        }
        if let Some(path) = &self.config.heartbeat_path
            && let Err(error) = touch(path)
        {
            warn!(path = %path.display(), error = %Chain(&error), "The heartbeat file cannot be touched.");
        }
    }

    /// What each destination is to hold.
    fn wanted(&self) -> BTreeMap<String, Wanted> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        for entry in self.entries.values() {
            for (placement, want) in entry.wants() {
                wanted.entry(placement.target.destination(&self.frame)).or_default().insert(placement, want);
            }
        }
        wanted
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let _told = self.frame.statsd.timer("nerve.main_loop.elapsed_time");
        for entry in self.entries.values_mut() {
            entry.settle(now, &self.frame, &self.outlets, &self.metrics);
        }
        let wanted = self.wanted();
        self.outlets.bring_to(wanted, &self.frame);
        let mut rows: Vec<ServiceRow> =
            self.entries.values().map(|entry| entry.row(&self.frame, &self.outlets)).collect();
        let wrong = self.wrong.iter().map(|(name, notes)| (name, notes, self.entries.contains_key(name)));
        for (name, notes, runs) in wrong {
            let reason: Vec<String> = notes.iter().map(ToString::to_string).collect();
            match rows.iter_mut().find(|row| runs && row.service == *name) {
                Some(row) => row.refused = Some(reason.join("; ")),
                None => rows.push(rows::left_out(name, reason.join("; "))),
            }
        }
        self.metrics.count(&rows);
        if replace(&self.wires.rows, rows.into()) {
            self.wires.changes.send_modify(|n| *n += 1);
        }
    }
}

/// Makes the file, or gives it the present time.
fn touch(path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::options().create(true).append(true).open(path)?;
    file.set_modified(SystemTime::now())
}
