//! The generator: what is known of the world and of what runs, and a turn's preparation and plan. [`super::applying`] carries
//! the plan out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::telemetry::Chain;
use tokio::time::Instant;
use tracing::warn;

use super::applying::HaproxyError;
use super::churn::Churn;
use super::connection::{Connection, ProcessMode};
use super::files::ConfigFiles;
use super::metrics::HaproxyMetrics;
use super::plan::{Applied, Live, Plan, ReloadReason, plan};
use super::prove::proofs::{Blamed, Proofs};
use super::prove::proving::Proving;
use super::readback::{Place, Retired};
use super::slices::{Behind, Slices};
use super::status::HaproxyStatus;
use super::writing::WritePace;
use crate::addresses::AddressPolicy;
use crate::edge::sections::section_number;
use crate::edge::{EdgeSettings, Routing};
use crate::generators::haproxy::file::binds::Binds;
use crate::generators::haproxy::file::compose::{Composer, TemplateError};
use crate::generators::haproxy::file::composing::{Composing, Given};
use crate::generators::haproxy::file::edge::RuleMap;
use crate::generators::haproxy::file::edge::frontend::Frame;
use crate::generators::haproxy::file::edge::{EdgeComposer, Idle};
use crate::generators::haproxy::file::layout::{Layout, Section};
use crate::generators::haproxy::file::lingering::Lingering;
use crate::generators::haproxy::file::loops::Loops;
use crate::generators::haproxy::file::settings::HaproxySettings;
use crate::generators::haproxy::file::synapse::{Quarantined, SynapseComposer};
use crate::generators::{Generator, Outcome};
use crate::haproxy::api::version::{Capabilities, Version};
use crate::haproxy::process::blame::NoFinding;
use crate::haproxy::process::pace::ReloadPace;
use crate::haproxy::process::shortage::is_shortage;
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
    pub(super) routing: Arc<Routing>,
    /// The edge's rules as they are on disk, as far as is known.
    pub(super) rules_on_disk: Option<Arc<RuleMap>>,
    pub(super) connection: Connection,
    pub(super) applied: Applied,
    pub(super) pace: ReloadPace,
    pub(super) names: Resolved,
    pub(super) binds: Binds,
    /// Servers that would be HAProxy itself.
    loops: Loops,
    /// HAProxy runs although its runtime socket does not answer.
    pub(super) runs_silently: bool,
    /// When the file may be written.
    pub(super) writing: WritePace,
    /// The file is not yet what is applied, which is known from memory only.
    pub(super) unwritten: bool,
    /// How often each service may cause a reload.
    pub(super) churn: Churn,
    /// How much one turn does.
    pub(super) slices: Slices,
    /// What the last plan leaves to the turns after it.
    pub(super) behind: Behind,
    /// What HAProxy refused, not tried again before the reload that does it.
    pub(super) refused_ops: Option<Live>,
    /// The version that refused to make a section: the file has them all, as for older versions.
    pub(super) makes_none: Option<Version>,
    /// No empty section is deleted before this: one that HAProxy would not delete is tried again then.
    pub(super) delete_at: Option<Instant>,
    /// Which registrants' words HAProxy takes.
    pub(super) proofs: Proofs,
    /// Finds it out beside the turns.
    pub(super) proving: Proving,
    /// The servers that linger, as noted on disk.
    pub(super) retired: Retired,
    /// When busy servers are tried again, and how long after that.
    pub(super) collect_at: Option<(Instant, Duration)>,
    /// The last server whose deletion was tried, where others wait for the next turn.
    pub(super) collected: Option<Place>,
    /// Services that are gone but whose sections stay, empty, for a while.
    pub(super) lingering: Lingering,
    pub(super) verify_at: Option<Instant>,
    pub(super) now: Instant,
    /// Seconds since 1970.
    unix_now: u64,
    /// What the composer left out last.
    quarantined: BTreeSet<Quarantined>,
    pub(super) metrics: HaproxyMetrics,
    pub(super) status: Arc<Mutex<HaproxyStatus>>,
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
        metrics: HaproxyMetrics,
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
        metrics: HaproxyMetrics,
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
        metrics: HaproxyMetrics,
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
            loops: Loops::default(),
            runs_silently: false,
            writing: WritePace::default(),
            unwritten: false,
            churn: Churn::default(),
            slices: Slices::default(),
            behind: Behind::new(),
            refused_ops: None,
            makes_none: None,
            delete_at: None,
            proofs: Proofs::default(),
            proving: Proving::default(),
            retired: Retired::new(),
            collect_at: None,
            collected: None,
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

    /// With this policy for what host names resolve to, and where discover's own admin server listens.
    #[must_use]
    pub fn with_addresses(mut self, policy: AddressPolicy, admin: Option<SocketAddr>) -> Self {
        (self.names, self.loops) = (Resolved::new(policy), Loops::new(admin));
        self
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
                self.proofs.suit(self.connection.version());
                self.verify_at = Some(Instant::now() + VERIFY_EVERY);
                self.note().connected(&self.connection);
                if self.note().old_workers.is_some_and(|old| old > 0) {
                    self.count_workers().await;
                }
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
        let judges = self.connection.checker(&self.files).is_some();
        let others = judges && self.proofs.admit(&mut layout, &self.applied, self.now);
        let rendered = self.composing.renders() - rendered;
        self.metrics.renders.inc_by(rendered);
        if let Some(settings) = &self.settings {
            let taken = |section: &Section| {
                self.binds.wants_port_of(section, settings) || section_number(&section.name).is_some()
            };
            self.lingering.keep(&mut layout, &self.applied.layout, settings.section_linger, self.now, taken);
        }
        // Where it is not known what is loaded, everything is loaded anyway.
        if matches!(self.applied.unknown, None | Some(ReloadReason::Refused)) {
            self.churn.hold(&mut layout, &self.applied.layout, self.now);
        }
        if self.settings.is_some() && self.edge.is_some() {
            layout.sections.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let loops = self.loops.leave_out(&mut layout, &self.applied.layout);
        if rendered > 0 || others || loops {
            self.tell_quarantined();
        }
        self.tell_edge();
        layout
    }

    /// Begins to judge the words that wait for it, in a task of its own.
    pub(super) fn prove(&mut self) {
        let Some(checker) = self.connection.checker(&self.files).filter(|_| self.proving.is_free(self.now)) else {
            return;
        };
        let Some(batch) = self.proofs.batch(self.now) else { return };
        // The file names the rules' file, which must be there.
        if !self.files.rules().exists()
            && let Some(rules) = self.proofs.rules()
            && let Err(error) = self.files.write_rules(rules)
        {
            warn!(error = %Chain(&error), "The edge's rules cannot be written.");
        }
        self.proving.begin(batch, checker, self.files.probe(), self.metrics.config_checks.clone());
    }

    /// How many servers wait for the judgement of their words.
    pub fn unproved(&self) -> usize {
        self.proofs.waiting()
    }

    /// Whether registrants' words are being judged, or wait for it.
    pub fn is_proving(&self) -> bool {
        self.proving.is_busy() || self.proofs.waiting() > 0
    }

    /// Takes down what was found out about registrants' words.
    fn take_verdicts(&mut self) {
        let Some((trial, found)) = self.proving.take() else { return };
        match found {
            Ok(finding) => {
                let blamed = self.proofs.judged(&trial, finding, self.now);
                self.tell_blamed(blamed);
            }
            // Whoever reloads judges.
            Err(NoFinding::Unknown) if self.connection.mode == ProcessMode::Commands => {
                self.proofs.trust(&trial, self.now)
            }
            Err(NoFinding::Unknown) => self.proofs.put_off(&trial, "haproxy -c cannot be run", self.now),
            Err(NoFinding::NotTheirs(why)) => {
                warn!(
                    why,
                    "HAProxy refuses the operator's own text: the fault is no registration's, and no new words can be judged."
                );
                let why = format!("haproxy -c refuses the file without it, too, so that it cannot be judged: {why}");
                self.proofs.put_off(&trial, &why, self.now);
            }
        }
    }

    /// Tells who is to blame.
    pub(super) fn tell_blamed(&self, blamed: Vec<Blamed>) {
        for Blamed { example, servers, words, why } in blamed {
            match servers {
                0 => {
                    warn!(section = example, why, "HAProxy refuses a service's section: it is left out of haproxy.cfg.")
                }
                _ => {
                    warn!(server = example, servers, %words, why, "HAProxy refuses words of a registration: the servers with them are left out of haproxy.cfg.")
                }
            }
        }
    }

    /// Sections of nobody's: what HAProxy has against them, it has against the operator's text.
    pub(super) fn samples(&self, layout: &Layout) -> Vec<Arc<Section>> {
        self.composing.sample(layout, &self.can()).into_iter().collect()
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
        let shown: BTreeMap<_, _> = composers.chain(self.proofs.reasons()).chain(self.loops.reasons()).collect();
        let mut note = self.note();
        (note.quarantined, note.unproved) = (shown, self.proofs.waiting());
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
        self.take_verdicts();
        self.unix_now = unix_seconds();
        self.names.refresh(&desired.services).await;
        if self.verify_at.is_none_or(|at| at <= self.now) || !self.connection.is_open() {
            self.verify().await;
        }
        self.choose_ports(desired).await;
        self.loops.look(self.connection.local(), self.now);
        self.note().unresolved = self.names.unresolved().map(str::to_owned).collect();
    }

    fn plan(&mut self, desired: &Desired) -> Plan {
        let may_go = self.delete_at.is_none_or(|at| at <= self.now);
        let layout = self.compose(desired, if may_go { Idle::Go } else { Idle::Stay });
        let can = self.can();
        let plan = match plan(&layout, &self.applied, &can) {
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
        };
        let (plan, behind) = if self.connection.live() && self.connection.asks() {
            self.slices.cut(plan, &self.applied)
        } else {
            (plan, Behind::new())
        };
        self.behind = behind;
        plan
    }

    async fn apply(&mut self, plan: Plan) -> Result<Outcome, HaproxyError> {
        self.carry_out(plan).await
    }

    async fn due(&mut self) {
        self.proving.ended().await;
    }
}
