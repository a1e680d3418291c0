//! The generator: what is known of the world and of what runs, and a turn's preparation and plan. [`super::applying`] carries
//! the plan out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::telemetry::Chain;
use tokio::time::Instant;
use tracing::warn;

use super::applying::HaproxyError;
use super::binds::Binds;
use super::compose::{Composer, TemplateError};
use super::composing::{Composing, Given};
use super::connection::Connection;
use super::edge::{EdgeComposer, Idle};
use super::files::ConfigFiles;
use super::layout::{Layout, Section};
use super::lingering::Lingering;
use super::plan::{Applied, Live, Plan, ReloadReason, plan};
use super::readback::Retired;
use super::refused::Refused;
use super::reload::ReloadPace;
use super::settings::HaproxySettings;
use super::status::{HaproxyStatus, SniStatus};
use super::synapse::{Quarantined, SynapseComposer};
use super::writing::WritePace;
use crate::edge::frontend::{Frame, section_number};
use crate::edge::{EdgeSettings, Lost, Routing, RuleMap, Way};
use crate::generators::{Generator, Outcome};
use crate::haproxy::shortage::is_shortage;
use crate::haproxy::version::{Capabilities, Version};
use crate::metrics::Metrics;
use crate::names::Resolved;
use crate::reconcile::Desired;

/// How often what runs is compared with what is believed to run.
const VERIFY_EVERY: Duration = Duration::from_secs(10);
/// How often it is looked at whether HAProxy is still there, and for a missing one.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// HAProxy as a generator.
pub struct Haproxy {
    /// For docker-discover's way only.
    pub(super) settings: Option<Arc<HaproxySettings>>,
    pub(super) files: ConfigFiles,
    composing: Composing,
    /// The HTTP edge, if there is one.
    pub(super) edge: Option<Box<EdgeComposer>>,
    /// What of the edge was told last.
    routing: Arc<Routing>,
    /// The edge's rules as they are on disk, as far as is known.
    pub(super) rules_on_disk: Option<Arc<RuleMap>>,
    pub(super) connection: Connection,
    pub(super) applied: Applied,
    pub(super) pace: ReloadPace,
    pub(super) names: Resolved,
    pub(super) binds: Binds,
    /// HAProxy runs although its runtime socket does not answer.
    pub(super) runs_silently: bool,
    /// When the file may be written.
    pub(super) writing: WritePace,
    /// The file is not yet what is applied, which is known from memory only.
    pub(super) unwritten: bool,
    /// What HAProxy refused, not tried again before the reload that does it.
    pub(super) refused_ops: Option<Live>,
    /// The version that refused to make a section: the file has them all, as for older versions.
    pub(super) makes_none: Option<Version>,
    /// No empty section is deleted before this: one that HAProxy would not delete is tried again then.
    pub(super) delete_at: Option<Instant>,
    /// Servers that HAProxy refuses even in the file.
    pub(super) refused: Refused,
    /// The servers that linger, as noted on disk.
    pub(super) retired: Retired,
    /// When busy servers are tried again, and how long after that.
    pub(super) collect_at: Option<(Instant, Duration)>,
    /// Services that are gone but whose sections stay, empty, for a while.
    pub(super) lingering: Lingering,
    pub(super) verify_at: Option<Instant>,
    pub(super) now: Instant,
    /// Seconds since 1970.
    unix_now: u64,
    /// What the composer left out last.
    quarantined: BTreeSet<Quarantined>,
    pub(super) metrics: Metrics,
    status: Arc<Mutex<HaproxyStatus>>,
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
        let composing = Composing::Native(Box::new(Composer::new(settings.clone())?));
        let edge = settings.edge.clone().map(|edge| EdgeComposer::new(edge, settings.frame(), &files.rules_name()));
        let edge = edge.transpose()?.map(Box::new);
        Ok(Self::with(composing, edge, files, Some(settings), connection, pace, metrics))
    }

    /// A generator that composes in Synapse's way, into `files`.
    pub fn of_synapse(
        composer: SynapseComposer,
        edge: Option<Arc<EdgeSettings>>,
        files: ConfigFiles,
        connection: Connection,
        pace: ReloadPace,
        metrics: Metrics,
    ) -> Self {
        // Its templates are ours and were tried out.
        let edge = edge.and_then(|edge| EdgeComposer::new(edge, Frame::default(), &files.rules_name()).ok());
        let edge = edge.map(Box::new);
        Self::with(Composing::Synapse(Box::new(composer)), edge, files, None, connection, pace, metrics)
    }

    fn with(
        composing: Composing,
        edge: Option<Box<EdgeComposer>>,
        files: ConfigFiles,
        settings: Option<Arc<HaproxySettings>>,
        connection: Connection,
        pace: ReloadPace,
        metrics: Metrics,
    ) -> Self {
        let status = HaproxyStatus { config_file: files.live().to_owned(), ..HaproxyStatus::default() };
        Self {
            files,
            composing,
            edge,
            routing: Arc::default(),
            rules_on_disk: None,
            connection,
            applied: Applied { unknown: Some(ReloadReason::Start), ..Applied::default() },
            pace,
            names: Resolved::default(),
            binds: Binds::default(),
            runs_silently: false,
            writing: WritePace::default(),
            unwritten: false,
            refused_ops: None,
            makes_none: None,
            delete_at: None,
            refused: Refused::default(),
            retired: Retired::new(),
            collect_at: None,
            lingering: Lingering::default(),
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

    pub(super) fn note(&self) -> MutexGuard<'_, HaproxyStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out what runs: at start, after HAProxy was away, and now and then.
    pub(super) async fn verify(&mut self) {
        let unwritten = self.unwritten.then_some(&self.applied.layout);
        match self.connection.read_back(&self.files, unwritten).await {
            Ok(applied) => {
                self.runs_silently = false;
                if self.verify_at.is_some() && applied.layout != self.applied.layout {
                    let sections = self.applied.layout.differs_from(&applied.layout).join(", ");
                    warn!(%sections, "HAProxy's servers are not what they were left as; repairing them.");
                    self.metrics.repairs.inc();
                }
                self.believe(applied);
                self.verify_at = Some(Instant::now() + VERIFY_EVERY);
                self.note().connected(&self.connection);
            }
            // What cannot be looked at is not believed to be another than before.
            Err(error) if is_shortage(&error) => {
                if self.note().error.replace(Chain(&error).to_string()).is_none() {
                    warn!(error = %Chain(&error), "It cannot be seen what HAProxy runs.");
                }
                self.verify_at = self.verify_at.map(|_| Instant::now() + LOOK_EVERY);
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

    /// Takes over what runs. Rules that are what they were stay the very same, so that nothing is compared again; what is on disk
    /// besides is found out, too.
    fn believe(&mut self, mut applied: Applied) {
        if let Some(rules) = &mut applied.layout.rules {
            if let Some(same) = self.applied.layout.rules.as_ref().filter(|known| *known == rules) {
                *rules = same.clone();
            }
            let on_disk = self.files.read_rules().ok().flatten();
            if !self.unwritten && on_disk.as_ref() != Some(&**rules) {
                self.unwritten = true;
            }
            self.rules_on_disk = on_disk.map(Arc::new);
        }
        self.applied = applied;
    }

    /// What HAProxy can do, but for what it has refused.
    fn can(&self) -> Capabilities {
        let can = *self.connection.can();
        let refused = self.makes_none.is_some() && self.makes_none.as_ref() == self.connection.version();
        Capabilities { add_backend: can.add_backend && self.connection.asks() && !refused, ..can }
    }

    /// The layout that is desired; what could not be rendered or is left out is told.
    fn compose(&mut self, desired: &Desired, idle: Idle) -> Layout {
        let rendered = self.composing.renders();
        let (ports, names, can) = (self.binds.chosen(), &self.names, self.can());
        let given = Given { ports, names, can, unix_now: self.unix_now };
        let (mut layout, failed) = self.composing.compose(desired, &given);
        for (service, error) in failed {
            warn!(%service, error = %Chain(&error), "Section could not be rendered; its last form stays.");
        }
        if let Some(edge) = &mut self.edge {
            edge.compose(&mut layout, desired, &given, &self.applied, self.now, idle);
        }
        self.refused.leave_out(&mut layout);
        let rendered = self.composing.renders() - rendered;
        if rendered > 0 {
            self.metrics.renders.inc_by(rendered);
            self.tell_quarantined();
        }
        if let Some(settings) = &self.settings {
            let taken = |section: &Section| {
                self.binds.wants_port_of(section, settings) || section_number(&section.name).is_some()
            };
            self.lingering.keep(&mut layout, &self.applied.layout, settings.section_linger, self.now, taken);
        }
        if self.settings.is_some() && self.edge.is_some() {
            layout.sections.sort_by(|a, b| a.name.cmp(&b.name));
        }
        self.tell_edge();
        layout
    }

    /// Takes over from the file what only it knows: the ids of servers.
    pub fn recall(&mut self) {
        if let Some(text) = self.files.texts().first() {
            self.binds.recall(text);
        }
        if let Some(layout) = self.files.read().ok().and_then(|on_disk| on_disk.layout) {
            self.composing.remember(&layout);
            if let (Some(edge), Some(rules)) = (&mut self.edge, &layout.rules) {
                edge.remember(rules);
            }
        }
    }

    /// Tells which registrations are left out of the file, each once.
    pub(super) fn tell_quarantined(&mut self) {
        let mut quarantined = self.composing.quarantined();
        quarantined.extend(self.edge.iter().flat_map(|edge| edge.quarantined().cloned()));
        for q in quarantined.difference(&self.quarantined) {
            warn!(service = %q.service, server = %q.server, reason = %q.reason, "Registration is left out of haproxy.cfg.");
        }
        self.quarantined = quarantined;
        let composers = self.quarantined.iter().map(|q| (format!("{}/{}", q.service, q.server), q.reason.clone()));
        let shown: BTreeMap<_, _> = composers.chain(self.refused.reasons()).collect();
        self.note().quarantined = shown;
    }

    /// Tells what the edge has decided, where it is something else than before.
    fn tell_edge(&mut self) {
        let Some(edge) = &self.edge else { return };
        let taken = self.binds.chosen().edge_taken;
        let (sections, [spare, made]) = edge.sections(Way::Http).unwrap_or_default();
        let passed = edge.sections(Way::Sni);
        let routing = edge.routing().clone();
        let mut note = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let told = note.edge.get_or_insert_default();
        if !Arc::ptr_eq(&routing, &self.routing) {
            for lost in routing.lost.difference(&self.routing.lost) {
                warn!(service = %lost.service, place = %lost.place, why = %lost.why, "A place at the edge is not this service's.");
            }
            let line = |lost: &Lost| (format!("{} ({})", lost.place, lost.service), lost.why.to_string());
            told.lost = routing.lost.iter().map(line).collect();
            told.rules = routing.rules.len();
            let names = routing.rules.iter().filter(|(place, _)| place.way == Way::Sni);
            let names: BTreeMap<_, _> = names.map(|(at, rule)| (at.host.to_string(), rule.service.clone())).collect();
            told.sni = passed.is_some().then(|| SniStatus { names, ..SniStatus::default() });
            self.routing = routing;
        }
        match passed {
            Some((sections, [spare, _])) => {
                let sni = told.sni.get_or_insert_default();
                (sni.sections, sni.spare) = (sections, spare);
            }
            None => told.sni = None,
        }
        (told.taken, told.sections, told.spare, told.made) = (taken, sections, spare, made);
    }

    /// The state file's path and text, if what is remembered has changed.
    pub(super) fn changed_state(&mut self) -> Option<(std::path::PathBuf, String)> {
        self.composing.changed_state(self.unix_now)
    }
}

/// Seconds since 1970, as state files have them.
fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Generator for Haproxy {
    type Plan = Plan;
    type Error = HaproxyError;

    async fn resume(&mut self) {
        self.now = Instant::now();
        self.recall();
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
        self.choose_ports(desired).await;
        self.note().unresolved = self.names.unresolved().map(str::to_owned).collect();
    }

    fn plan(&mut self, desired: &Desired) -> Plan {
        let may_go = self.delete_at.is_none_or(|at| at <= self.now);
        let layout = self.compose(desired, if may_go { Idle::Go } else { Idle::Stay });
        let can = self.can();
        match plan(&layout, &self.applied, &can) {
            // A structure that is loaded anew has its full number of spare sections again.
            Plan::Reload { interim, reasons, .. } if self.edge.is_some() => {
                Plan::Reload { interim, layout: self.compose(desired, Idle::Refill), reasons }
            }
            // Nobody listens to operations.
            Plan::Live(live) if !self.connection.live() && !live.is_idle() => {
                let reasons = BTreeSet::from([ReloadReason::ServerChanged]);
                Plan::Reload { interim: None, layout: live.layout, reasons }
            }
            plan => plan,
        }
    }

    async fn apply(&mut self, plan: Plan) -> Result<Outcome, HaproxyError> {
        self.carry_out(plan).await
    }
}
