//! The generator: a turn's preparation, plan and application, on what is known to run.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::files::{Replace, replace};
use common::telemetry::Chain;
use tokio::time::Instant;
use tracing::{info, warn};

use super::binds::{Binds, Listening};
use super::compose::{Composer, TemplateError};
use super::connection::{Connection, ConnectionError};
use super::files::ConfigFiles;
use super::layout::{Layout, Section};
use super::plan::{Applied, Live, Plan, ReloadReason, ServerChange, Step, plan};
use super::readback::Retired;
use super::reload::ReloadPace;
use super::server::Server;
use super::settings::HaproxySettings;
use super::status::{HaproxyStatus, ReloadRecord};
use super::steps::Ran;
use super::synapse::{Quarantined, SynapseComposer};
use crate::generators::{Generator, Outcome};
use crate::metrics::Metrics;
use crate::names::Resolved;
use crate::reconcile::Desired;

/// How often what runs is compared with what is believed to run.
const VERIFY_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked at whether HAProxy is still there, and for a missing one.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to delete busy servers: at first, and at most.
const COLLECT_AFTER: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];

/// HAProxy as a generator.
pub struct Haproxy {
    /// For docker-discover's way only.
    settings: Option<Arc<HaproxySettings>>,
    files: ConfigFiles,
    composer: Composing,
    connection: Connection,
    applied: Applied,
    pace: ReloadPace,
    names: Resolved,
    binds: Binds,
    /// HAProxy runs although its runtime socket does not answer.
    runs_silently: bool,
    /// The file could not be written: what is applied is known from memory only.
    unwritten: bool,
    /// Operations that HAProxy refused, not tried again before the reload that does them.
    refused: Vec<Step>,
    /// The servers that linger, as noted on disk.
    retired: Retired,
    /// When busy servers are tried again, and how long after that.
    collect_at: Option<(Instant, Duration)>,
    /// Services that are gone but whose sections stay, empty, for a while.
    lingering_sections: HashMap<Arc<str>, Instant>,
    verify_at: Option<Instant>,
    now: Instant,
    /// Seconds since 1970.
    unix_now: u64,
    /// What Synapse's composer left out last.
    quarantined: BTreeSet<Quarantined>,
    metrics: Metrics,
    status: Arc<Mutex<HaproxyStatus>>,
}

/// In whose way the file is composed.
enum Composing {
    /// docker-discover's: one `listen` for each service.
    Native(Box<Composer>),
    /// Synapse's, from its config.
    Synapse(Box<SynapseComposer>),
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
        let files = ConfigFiles::new(settings.config_file.clone());
        let composer = Composing::Native(Box::new(Composer::new(settings.clone())?));
        Ok(Self::with(composer, files, Some(settings), connection, pace, metrics))
    }

    /// A generator that composes in Synapse's way, into `files`.
    pub fn of_synapse(
        composer: SynapseComposer,
        files: ConfigFiles,
        connection: Connection,
        pace: ReloadPace,
        metrics: Metrics,
    ) -> Self {
        Self::with(Composing::Synapse(Box::new(composer)), files, None, connection, pace, metrics)
    }

    fn with(
        composer: Composing,
        files: ConfigFiles,
        settings: Option<Arc<HaproxySettings>>,
        connection: Connection,
        pace: ReloadPace,
        metrics: Metrics,
    ) -> Self {
        let status = HaproxyStatus { config_file: files.live().to_owned(), ..HaproxyStatus::default() };
        Self {
            files,
            composer,
            connection,
            applied: Applied { unknown: Some(ReloadReason::Start), ..Applied::default() },
            pace,
            names: Resolved::default(),
            binds: Binds::default(),
            runs_silently: false,
            unwritten: false,
            refused: Vec::new(),
            retired: Retired::new(),
            collect_at: None,
            lingering_sections: HashMap::new(),
            verify_at: None,
            now: Instant::now(),
            unix_now: unix_seconds(),
            quarantined: BTreeSet::new(),
            settings,
            metrics,
            status: Arc::new(Mutex::new(status)),
        }
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
        let unwritten = self.unwritten.then_some(&self.applied.layout);
        match self.connection.read_back(&self.files, unwritten).await {
            Ok(applied) => {
                self.runs_silently = false;
                if self.verify_at.is_some() && applied.layout != self.applied.layout {
                    warn!("HAProxy's servers are not what they were left as; repairing them.");
                    self.metrics.repairs.inc();
                }
                self.applied = applied;
                self.verify_at = Some(Instant::now() + VERIFY_EVERY);
                self.note().connected(&self.connection);
            }
            Err(error) => {
                // At the very start it need not run yet: loading the first config starts it.
                if self.note().error.is_none() && self.note().version.is_some() {
                    warn!(error = %Chain(&error), "HAProxy does not answer.");
                }
                self.note().error = Some(Chain(&error).to_string());
                self.runs_silently = self.connection.runs().await;
                if self.verify_at.take().is_some() || self.applied.unknown.is_none() {
                    self.applied = Applied { unknown: Some(ReloadReason::Start), ..Applied::default() };
                }
            }
        }
    }

    fn choose_ports(&mut self, desired: &Desired) {
        let Some(settings) = self.settings.clone() else { return };
        let texts;
        let listening = match (self.connection.local(), self.applied.unknown) {
            (false, _) => Listening::Elsewhere,
            (true, None | Some(ReloadReason::Interrupted | ReloadReason::Refused)) => {
                Listening::Layout(&self.applied.layout)
            }
            (true, Some(_)) if self.verify_at.is_some() || self.runs_silently => {
                texts = self.files.texts();
                Listening::Files(&texts)
            }
            (true, Some(_)) => Listening::Nothing,
        };
        self.binds.choose(&desired.services, &settings, &listening, self.now);
        let unlisted = &self.binds.chosen().unlisted;
        self.note().unlisted = unlisted.iter().map(|(s, r)| (s.clone(), r.to_string())).collect();
    }

    /// Keeps the sections of services that are gone, empty, so that a service whose last container restarts costs no
    /// reload. Another service that wants the name or port has it at once.
    fn keep_lingering(&mut self, layout: &mut Layout) {
        let Some(settings) = self.settings.clone() else { return };
        let wanted: BTreeSet<&str> = layout.sections.iter().map(|s| &*s.name).collect();
        self.lingering_sections.retain(|name, _| !wanted.contains(&**name));
        let mut kept = Vec::new();
        for section in &self.applied.layout.sections {
            if wanted.contains(&*section.name) || self.binds.wants_port_of(section, &settings) {
                continue;
            }
            let until =
                *self.lingering_sections.entry(section.name.clone()).or_insert(self.now + settings.section_linger);
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

    /// Writes the file that corresponds to what the operations will make, then does them; tells whether all were. A full disk does not keep the
    /// operations back: nothing known to be dead may get traffic for want of a file.
    async fn apply_live(&mut self, live: Live) -> Result<bool, HaproxyError> {
        let written = self.write(&live.layout);
        let ran = self.connection.run(&live.ops, &self.metrics).await;
        for step in &live.ops {
            if let ServerChange::Retire(server) = &step.change {
                let section = self.applied.lingering.entry(step.section.clone()).or_default();
                section.insert(server.name.clone(), Server { maint: true, ..server.clone() });
                self.collect_at = Some((Instant::now(), COLLECT_AFTER[0]));
            }
            if let ServerChange::Revive { now, .. } | ServerChange::Replace { now, .. } = &step.change
                && let Some(section) = self.applied.lingering.get_mut(&step.section)
            {
                section.remove(&now.name);
            }
        }
        self.applied.layout = live.layout;
        self.applied.lingering.retain(|_, servers| !servers.is_empty());
        let done = matches!(ran, Ran::Done);
        match ran {
            Ran::Done => {}
            Ran::Unknown(why) => {
                warn!(why, "It is not known which runtime operations were done; looking at what runs.");
                self.verify().await;
            }
            Ran::Refused(errors) => {
                for error in &errors {
                    warn!(error = %Chain(error), "HAProxy refused a runtime operation; a reload will do it.");
                }
                self.verify().await;
                self.applied.unknown.get_or_insert(ReloadReason::Refused);
                self.refused = live.ops;
            }
        }
        written.map(|()| done)
    }

    fn write(&mut self, layout: &Layout) -> Result<(), HaproxyError> {
        let written = self.files.write_live(layout);
        self.unwritten = written.is_err();
        written?;
        self.metrics.config_writes.inc();
        Ok(())
    }

    /// Candidate → `haproxy -c` → rename → reload (or start) → outcome → read back.
    async fn reload(&mut self, layout: Layout, reasons: &BTreeSet<ReloadReason>) -> Result<(), HaproxyError> {
        let started = Instant::now();
        let candidate = self.files.write_candidate(&layout)?;
        self.connection.check(&candidate).await?;
        let moved = |source| HaproxyError::Move { path: self.files.live().to_owned(), source };
        self.files.promote().map_err(moved)?;
        self.metrics.config_writes.inc();
        match self.connection.load().await {
            Ok(log) => {
                self.files.settle();
                self.unwritten = false;
                self.refused.clear();
                let words: Vec<&str> = reasons.iter().map(|r| r.as_str()).collect();
                let took_ms = started.elapsed().as_millis();
                info!(reasons = words.join(","), %took_ms, "HAProxy loaded a new config.");
                if log.contains("[WARNING]") || log.contains("[ALERT]") {
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
            self.collect_at = None;
            return None;
        }
        let (at, wait) = self.collect_at.unwrap_or((Instant::now(), COLLECT_AFTER[0]));
        self.collect_at = Some((at, wait));
        if at <= Instant::now() {
            self.connection.delete_idle(&mut self.applied.lingering, &self.metrics).await;
            self.collect_at = Some((Instant::now() + wait, COLLECT_AFTER[1].min(wait * 2)));
        }
        self.collect_at.filter(|_| !self.applied.lingering.is_empty()).map(|(at, _)| at)
    }
}

/// Seconds since 1970, as state files have them.
fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Haproxy {
    /// The layout that is desired; what could not be rendered or is left out is told.
    fn compose(&mut self, desired: &Desired) -> Layout {
        match &mut self.composer {
            Composing::Native(composer) => {
                let rendered = composer.renders();
                let can = *self.connection.can();
                let (mut layout, failed) = composer.compose(&desired.services, self.binds.chosen(), &self.names, &can);
                self.metrics.renders.inc_by(composer.renders() - rendered);
                for (service, error) in failed {
                    warn!(%service, error = %Chain(&error), "Section could not be rendered; its last form stays.");
                }
                self.keep_lingering(&mut layout);
                layout
            }
            Composing::Synapse(composer) => {
                let rendered = composer.renders();
                composer.take(&desired.configured);
                let layout = composer.compose(&desired.services, Some(&self.names), self.unix_now);
                self.metrics.renders.inc_by(composer.renders() - rendered);
                if composer.renders() != rendered {
                    let quarantined: BTreeSet<Quarantined> = composer.quarantined().cloned().collect();
                    for q in quarantined.difference(&self.quarantined) {
                        warn!(service = %q.service, server = %q.server, reason = %q.reason, "Registration is left out of haproxy.cfg.");
                    }
                    self.quarantined = quarantined;
                    let shown =
                        self.quarantined.iter().map(|q| (format!("{}/{}", q.service, q.server), q.reason.clone()));
                    let shown = shown.collect();
                    self.note().quarantined = shown;
                }
                layout
            }
        }
    }

    /// Writes the state file, if what is remembered has changed. A failure harms only the next start.
    fn keep_state(&mut self) {
        let Composing::Synapse(composer) = &mut self.composer else { return };
        if let Some((path, text)) = composer.changed_state(self.unix_now)
            && let Err(error) = replace(&path, text.as_bytes(), Replace { mode: Some(0o644), ..Replace::default() })
        {
            warn!(error = %Chain(&error), "The state file could not be written.");
        }
    }
}

impl Generator for Haproxy {
    type Plan = Plan;
    type Error = HaproxyError;

    async fn resume(&mut self) {
        self.now = Instant::now();
        if let (Composing::Synapse(composer), Some(layout)) = (&mut self.composer, self.files.read().layout) {
            composer.remember_ids(&layout);
        }
        if let Err(error) = self.connection.resume(&self.files).await {
            warn!(error = %Chain(&error), "The last config could not be started; waiting for the registry.");
        }
        self.verify().await;
    }

    async fn prepare(&mut self, desired: &Desired) {
        self.now = Instant::now();
        self.unix_now = unix_seconds();
        self.names.refresh(&desired.services).await;
        if self.verify_at.is_none_or(|at| at <= self.now) || !self.connection.is_open() {
            self.verify().await;
        }
        self.choose_ports(desired);
        self.note().unresolved = self.names.unresolved().map(str::to_owned).collect();
    }

    fn plan(&mut self, desired: &Desired) -> Plan {
        let layout = self.compose(desired);
        let can = *self.connection.can();
        match plan(&layout, &self.applied, &can) {
            // Nobody listens to operations.
            Plan::Live(live) if !self.connection.live() && !live.ops.is_empty() => {
                let reasons = BTreeSet::from([ReloadReason::ServerChanged]);
                Plan::Reload { interim: None, layout: live.layout, reasons }
            }
            plan => plan,
        }
    }

    async fn apply(&mut self, plan: Plan) -> Result<Outcome, HaproxyError> {
        let mut again = None;
        self.keep_state();
        match plan {
            Plan::Unchanged if self.unwritten => {
                let layout = self.applied.layout.clone();
                self.write(&layout)?;
            }
            Plan::Unchanged => {}
            Plan::Live(live) => {
                let done = self.apply_live(live).await?;
                // What was refused, or is not known to be done, is planned anew.
                again = (!done).then(Instant::now);
            }
            Plan::Reload { interim, layout, reasons } => {
                if let Some(interim) = interim.filter(|interim| interim.ops != self.refused) {
                    self.apply_live(interim).await?;
                }
                match self.pace.wait(Instant::now()) {
                    Some(at) => {
                        self.note().waiting = Some(reasons.iter().map(|r| r.to_string()).collect());
                        again = Some(at);
                    }
                    None => again = self.paced_reload(layout, reasons).await?,
                }
            }
        }
        let collected = self.collect().await;
        if self.retired != self.applied.lingering {
            self.files.write_retired(&self.applied.lingering)?;
            self.retired = self.applied.lingering.clone();
        }
        let now = Instant::now();
        let looked = self.verify_at.map(|at| at.min(now + LOOK_EVERY)).or(Some(now + LOOK_EVERY));
        let due = [again, collected, looked, self.names.next_due(), self.next_section_end(now), self.binds.next_due()];
        Ok(due.into_iter().flatten().min().map_or(Outcome::Done, Outcome::Again))
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

    /// When a section's time is up; one whose time is up already waits for the reload, which has its own time.
    fn next_section_end(&self, now: Instant) -> Option<Instant> {
        self.lingering_sections.values().filter(|at| **at > now).min().copied()
    }
}
