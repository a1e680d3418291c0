//! The generator: a turn's preparation, plan and application, on what is known to run.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::model::Port;
use common::telemetry::Chain;
use tokio::time::Instant;
use tracing::{info, warn};

use super::compose::{Composer, TemplateError};
use super::connection::{Connection, ConnectionError};
use super::files::ConfigFiles;
use super::layout::{Layout, Section};
use super::plan::{Applied, Live, Plan, ReloadReason, ServerChange, plan};
use super::ports::{Ports, assign};
use super::reload::ReloadPace;
use super::settings::HaproxySettings;
use super::status::{HaproxyStatus, ReloadRecord};
use crate::generators::{Generator, Outcome};
use crate::haproxy::ports::bindable;
use crate::metrics::Metrics;
use crate::names::Resolved;
use crate::reconcile::Desired;

/// How often what runs is compared with what is believed to run.
const VERIFY_EVERY: Duration = Duration::from_secs(10);
/// How long a port that was found taken is not tried again.
const TAKEN_FOR: Duration = Duration::from_secs(5);
/// How often a missing HAProxy is looked for.
const RECONNECT_EVERY: Duration = Duration::from_secs(1);

/// HAProxy as a generator.
pub struct Haproxy {
    settings: Arc<HaproxySettings>,
    files: ConfigFiles,
    composer: Composer,
    connection: Connection,
    applied: Applied,
    pace: ReloadPace,
    names: Resolved,
    ports: Ports,
    taken: HashMap<Port, Instant>,
    /// Services that are gone but whose sections stay, empty, for a while.
    lingering_sections: HashMap<Arc<str>, Instant>,
    verify_at: Option<Instant>,
    now: Instant,
    metrics: Metrics,
    status: Arc<Mutex<HaproxyStatus>>,
}

/// Why a turn could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HaproxyError {
    /// The file could not be written; the old one stays.
    #[error("writing haproxy.cfg")]
    Write(#[from] common::files::FileError),
    /// One of the files beside it could not be moved.
    #[error("moving {path:?}")]
    Move {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// HAProxy refuses the file, does not run, or cannot be asked.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl Haproxy {
    /// A generator that has not looked at the world yet.
    ///
    /// # Errors
    /// [`TemplateError`] when a template of the operator's is wrong.
    pub fn new(
        settings: HaproxySettings,
        connection: Connection,
        pace: ReloadPace,
        metrics: Metrics,
    ) -> Result<Self, TemplateError> {
        let settings = Arc::new(settings);
        let status = HaproxyStatus { config_file: settings.config_file.clone(), ..HaproxyStatus::default() };
        Ok(Self {
            files: ConfigFiles::new(settings.config_file.clone()),
            composer: Composer::new(settings.clone())?,
            connection,
            applied: Applied { unknown: Some(ReloadReason::Start), ..Applied::default() },
            pace,
            names: Resolved::default(),
            ports: Ports::default(),
            taken: HashMap::new(),
            lingering_sections: HashMap::new(),
            verify_at: None,
            now: Instant::now(),
            settings,
            metrics,
            status: Arc::new(Mutex::new(status)),
        })
    }

    /// What the last turns did, for status.
    pub fn status(&self) -> Arc<Mutex<HaproxyStatus>> {
        self.status.clone()
    }

    fn note(&self) -> MutexGuard<'_, HaproxyStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out what runs: at start, after HAProxy was away, and now and then.
    async fn verify(&mut self) {
        match self.connection.read_back(&self.files).await {
            Ok(applied) => {
                if self.verify_at.is_some() && applied.layout != self.applied.layout {
                    warn!("HAProxy's servers are not what they were left as; repairing them.");
                    self.metrics.repairs.inc();
                }
                self.applied = applied;
                self.verify_at = Some(self.now + VERIFY_EVERY);
                self.note().connected(&self.connection);
            }
            Err(error) => {
                // At the very start it need not run yet: loading the first config starts it.
                if self.note().error.is_none() && self.note().version.is_some() {
                    warn!(error = %Chain(&error), "HAProxy does not answer.");
                }
                self.note().error = Some(Chain(&error).to_string());
                if self.verify_at.take().is_some() || self.applied.unknown.is_none() {
                    self.applied = Applied { unknown: Some(ReloadReason::Start), ..Applied::default() };
                }
            }
        }
    }

    /// Tries to bind the ports that are new: one that is taken would close every listener for seconds, and
    /// `haproxy -c` does not see it (dataplane.md section 1.3).
    fn try_ports(&mut self, desired: &Desired) {
        let now = self.now;
        self.taken.retain(|_, until| *until > now);
        let ours: BTreeSet<Port> = self.ports.listed.values().copied().collect();
        loop {
            let taken = self.taken.keys().copied().collect();
            let ports = assign(&desired.services, &self.settings, &taken);
            let refused: Vec<Port> = ports
                .listed
                .iter()
                .filter(|(_, port)| !ours.contains(port) && !self.is_bound(**port))
                .map(|(_, port)| *port)
                .filter(|port| self.connection.local() && !self.is_free(*port))
                .collect();
            if refused.is_empty() {
                self.report_unlisted(&ports);
                self.ports = ports;
                return;
            }
            self.taken.extend(refused.into_iter().map(|port| (port, now + TAKEN_FOR)));
        }
    }

    fn is_free(&self, port: Port) -> bool {
        self.settings.listen.addresses(port).into_iter().all(|address| bindable(address).is_ok())
    }

    /// Whether the running HAProxy listens there already: it was loaded with a section that says so.
    fn is_bound(&self, port: Port) -> bool {
        let binds: Vec<String> =
            self.settings.listen.binds(port).into_iter().map(|bind| format!("\tbind {bind}\n")).collect();
        self.applied.layout.sections.iter().any(|s| binds.iter().all(|bind| s.skeleton.contains(bind.as_str())))
    }

    fn report_unlisted(&mut self, ports: &Ports) {
        for (service, reason) in &ports.unlisted {
            if self.ports.unlisted.get(service) != Some(reason) {
                warn!(%service, %reason, "Service is not in haproxy.cfg.");
            }
        }
        self.note().unlisted = ports.unlisted.iter().map(|(s, r)| (s.clone(), r.to_string())).collect();
    }

    /// Keeps the sections of services that are gone, empty, so that a service whose last container restarts costs no
    /// reload. Another service that wants the name or port has it at once.
    fn keep_lingering(&mut self, layout: &mut Layout) {
        let wanted: BTreeSet<&str> = layout.sections.iter().map(|s| &*s.name).collect();
        self.lingering_sections.retain(|name, _| !wanted.contains(&**name));
        let mut kept = Vec::new();
        for section in &self.applied.layout.sections {
            if wanted.contains(&*section.name) || self.ports_wanted(section) {
                continue;
            }
            let until =
                *self.lingering_sections.entry(section.name.clone()).or_insert(self.now + self.settings.section_linger);
            if until > self.now {
                kept.push(match section.servers.is_empty() {
                    true => section.clone(),
                    false => Arc::new(Section { servers: Vec::new(), ..(**section).clone() }),
                });
            }
        }
        if !kept.is_empty() {
            layout.sections.extend(kept);
            layout.sections.sort_by(|a, b| a.name.cmp(&b.name));
        }
    }

    fn ports_wanted(&self, section: &Section) -> bool {
        let mut binds = section.skeleton.lines().filter_map(|l| l.trim_start().strip_prefix("bind "));
        binds.any(|bind| {
            self.ports.listed.values().any(|port| self.settings.listen.binds(*port).iter().any(|b| b == bind))
        })
    }

    /// Writes the file that corresponds to what the operations will make, then does them.
    async fn apply_live(&mut self, live: Live) -> Result<(), HaproxyError> {
        let text = live.layout.render();
        self.files.write_live(&text)?;
        self.metrics.config_writes.inc();
        let failures = self.connection.run(&live.ops, &self.metrics).await;
        for step in &live.ops {
            if let ServerChange::Retire(server) = &step.change {
                let section = self.applied.lingering.entry(step.section.clone()).or_default();
                section.insert(server.name.clone(), super::server::Server { maint: true, ..server.clone() });
            }
            if let ServerChange::Revive { now, .. } | ServerChange::Replace { now, .. } = &step.change
                && let Some(section) = self.applied.lingering.get_mut(&step.section)
            {
                section.remove(&now.name);
            }
        }
        self.applied.layout = live.layout;
        self.applied.lingering.retain(|_, servers| !servers.is_empty());
        if !failures.is_empty() {
            for error in &failures {
                warn!(error = %Chain(error), "HAProxy refused a runtime operation; a reload will do it.");
            }
            self.applied.unknown = Some(ReloadReason::Refused);
        }
        Ok(())
    }

    /// Candidate → `haproxy -c` → rename → reload (or start) → outcome → read back.
    async fn reload(&mut self, layout: Layout, reasons: &BTreeSet<ReloadReason>) -> Result<(), HaproxyError> {
        let started = Instant::now();
        let text = layout.render();
        let candidate = self.files.write_candidate(&text)?;
        self.connection.check(&candidate).await?;
        let moved = |source| HaproxyError::Move { path: self.files.live().to_owned(), source };
        self.files.promote().map_err(moved)?;
        self.metrics.config_writes.inc();
        match self.connection.load().await {
            Ok(log) => {
                self.files.settle();
                let words: Vec<&str> = reasons.iter().map(|r| r.as_str()).collect();
                let took_ms = started.elapsed().as_millis();
                info!(reasons = words.join(","), %took_ms, "HAProxy loaded a new config.");
                if !log.trim().is_empty() {
                    warn!(%log, "HAProxy has something to say about it.");
                }
                self.applied = Applied { layout, ..Applied::default() };
                self.lingering_sections.retain(|name, _| self.applied.layout.sections.iter().any(|s| s.name == *name));
                self.verify().await;
                Ok(())
            }
            Err(error) => {
                let path = self.files.last_good();
                self.files.roll_back().map_err(|source| HaproxyError::Move { path, source })?;
                Err(error.into())
            }
        }
    }

    /// Deletes servers that were retired, where this version can and they are idle. Gives when to try again.
    async fn collect(&mut self) -> Option<Instant> {
        if !self.connection.can().del_server || self.applied.lingering.is_empty() {
            return None;
        }
        self.connection.delete_idle(&mut self.applied.lingering, &self.metrics).await;
        (!self.applied.lingering.is_empty()).then(|| Instant::now() + Duration::from_millis(200))
    }
}

impl Generator for Haproxy {
    type Plan = Plan;
    type Error = HaproxyError;

    async fn resume(&mut self) {
        self.now = Instant::now();
        if let Err(error) = self.connection.resume(&self.files).await {
            warn!(error = %Chain(&error), "The last config could not be started; waiting for the registry.");
        }
        self.verify().await;
    }

    async fn prepare(&mut self, desired: &Desired) {
        self.now = Instant::now();
        self.names.refresh(&desired.services).await;
        if self.verify_at.is_none_or(|at| at <= self.now) {
            self.verify().await;
        }
        self.try_ports(desired);
        self.note().unresolved = self.names.unresolved().map(str::to_owned).collect();
    }

    fn plan(&mut self, desired: &Desired) -> Plan {
        let can = *self.connection.can();
        let rendered = self.composer.renders();
        let (mut layout, failed) = self.composer.compose(&desired.services, &self.ports, &self.names, &can);
        for (service, error) in failed {
            warn!(%service, error = %Chain(&error), "Section could not be rendered; its last form stays.");
        }
        self.keep_lingering(&mut layout);
        self.metrics.renders.inc_by(self.composer.renders() - rendered);
        plan(&layout, &self.applied, &can)
    }

    async fn apply(&mut self, plan: Plan) -> Result<Outcome, HaproxyError> {
        let mut again = None;
        match plan {
            Plan::Unchanged => {}
            Plan::Live(live) => {
                self.apply_live(live).await?;
                again = self.applied.unknown.map(|_| Instant::now());
            }
            Plan::Reload { interim, layout, reasons } => {
                if let Some(interim) = interim {
                    self.apply_live(interim).await?;
                }
                let now = Instant::now();
                match self.pace.wait(now) {
                    Some(at) => {
                        self.note().waiting = Some(reasons.iter().map(|r| r.to_string()).collect());
                        again = Some(at);
                    }
                    None => again = self.paced_reload(layout, reasons).await?,
                }
            }
        }
        let due = [again, self.collect().await, self.verify_at, self.names.next_due(), self.next_section_end()];
        let reconnect = self.verify_at.is_none().then(|| Instant::now() + RECONNECT_EVERY);
        Ok(due.into_iter().chain([reconnect]).flatten().min().map_or(Outcome::Done, Outcome::Again))
    }
}

impl Haproxy {
    async fn paced_reload(
        &mut self,
        layout: Layout,
        reasons: BTreeSet<ReloadReason>,
    ) -> Result<Option<Instant>, HaproxyError> {
        let outcome = self.reload(layout, &reasons).await;
        let now = Instant::now();
        let record = ReloadRecord::new(&reasons, outcome.as_ref().err().map(|e| Chain(e).to_string()));
        self.metrics.reload(&reasons, outcome.is_ok());
        self.note().reloaded(record);
        match outcome {
            Ok(()) => {
                self.pace.succeeded(now);
                Ok(None)
            }
            Err(error) => {
                self.pace.failed(now);
                Err(error)
            }
        }
    }

    fn next_section_end(&self) -> Option<Instant> {
        self.lingering_sections.values().min().copied()
    }
}
