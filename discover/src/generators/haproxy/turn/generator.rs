//! HAProxy as a generator: what it consists of, and a turn's preparation and plan. [`super::applying`] carries the plan out.
//!
//! `prepare` asks the world, and composes the file that is desired: the composers' caches, the ledger of words and the budgets of
//! changes live there. `plan` only compares that draft with what is applied.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use agent::telemetry::Chain;
use tokio::time::Instant;
use tracing::warn;

use super::connection::{Connection, ProcessMode};
use super::disk::Disk;
use super::due::Due;
use super::errors::HaproxyError;
use super::files::ConfigFiles;
use super::metrics::HaproxyMetrics;
use super::plan::{Applied, Plan, plan};
use super::reason::ReloadReason;
use super::refusals::Refusals;
use super::slices::{Behind, Slices, TurnPlan};
use super::state::HaproxyState;
use super::status::HaproxyStatus;
use super::telling::Telling;
use crate::addresses::AddressPolicy;
use crate::edge::EdgeSettings;
use crate::generators::haproxy::file::compose::TemplateError;
use crate::generators::haproxy::file::desk::{Desk, Runs};
use crate::generators::haproxy::file::edge::Idle;
use crate::generators::haproxy::file::layout::Layout;
use crate::generators::haproxy::file::published::Published;
use crate::generators::haproxy::file::settings::HaproxySettings;
use crate::generators::haproxy::file::synapse::SynapseComposer;
use crate::generators::haproxy::traffic::asking::Traffic;
use crate::generators::{Generator, Outcome};
use crate::haproxy::api::version::Capabilities;
use crate::haproxy::process::pace::ReloadPace;
use crate::reconcile::Desired;

/// HAProxy as a generator.
pub struct Haproxy {
    /// Where the file is composed.
    pub(super) desk: Desk,
    /// What was composed last: what is desired.
    pub(super) draft: Layout,
    pub(super) connection: Connection,
    /// What runs, as far as is known.
    pub(super) applied: Applied,
    pub(super) disk: Disk,
    pub(super) refusals: Refusals,
    pub(super) due: Due,
    /// How much one turn does.
    pub(super) slices: Slices,
    pub(super) told: Telling,
    /// What HAProxy says of the services, for who looks.
    pub(super) traffic: Traffic,
    pub(super) metrics: HaproxyMetrics,
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
        let files = ConfigFiles::new(settings.config_file.clone());
        let desk = Desk::native(settings, &files.rules_name())?;
        Ok(Self::with(desk, files, connection, pace, metrics))
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
        let desk = Desk::of_synapse(composer, edge, &files.rules_name());
        Self::with(desk, files, connection, pace, metrics)
    }

    fn with(desk: Desk, files: ConfigFiles, connection: Connection, pace: ReloadPace, metrics: HaproxyMetrics) -> Self {
        let status = HaproxyStatus { config_file: files.live().to_owned(), ..HaproxyStatus::default() };
        let traffic = Traffic::new(connection.socket(), desk.places());
        Self {
            desk,
            draft: Layout::default(),
            connection,
            applied: Applied { state: HaproxyState::Away, ..Applied::default() },
            disk: Disk::new(files, metrics.config_writes.clone()),
            refusals: Refusals::default(),
            due: Due::new(pace),
            slices: Slices::default(),
            told: Telling::new(status),
            traffic,
            metrics,
        }
    }

    /// With this policy for what host names resolve to, and where discover's own admin server listens.
    #[must_use]
    pub fn with_addresses(mut self, policy: AddressPolicy, admin: Option<SocketAddr>) -> Self {
        self.desk.set_addresses(policy, admin);
        self
    }

    /// Keeps off the ports that containers of this host publish.
    pub fn keep_off(&mut self, published: Published) {
        self.desk.keep_off(published);
    }

    /// What the last turns did, for status.
    pub fn status(&self) -> Arc<Mutex<HaproxyStatus>> {
        self.told.status()
    }

    /// What stands before the services' sections.
    pub fn header(&self) -> &str {
        self.desk.header()
    }

    /// What HAProxy says of the services.
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    pub(super) fn note(&self) -> MutexGuard<'_, HaproxyStatus> {
        self.told.note()
    }

    /// How many servers wait for the judgement of their words.
    pub fn unproved(&self) -> usize {
        self.refusals.words.waiting()
    }

    /// Whether registrants' words are being judged, or wait for it.
    pub fn is_proving(&self) -> bool {
        self.refusals.words.is_busy()
    }

    /// Takes over from the file what only it knows: the ids of servers.
    pub fn recall(&mut self) {
        let files = &self.disk.files;
        let layout = files.read().ok().and_then(|on_disk| on_disk.layout);
        self.desk.remember(files.texts().first().map(String::as_str), layout.as_ref());
    }

    /// What HAProxy can do, but for what it has refused.
    pub(super) fn can(&self) -> Capabilities {
        let can = *self.connection.can();
        let can = Capabilities { add_backend: can.add_backend && self.connection.asks(), ..can };
        self.refusals.limit(can, self.connection.version())
    }

    /// Composes what is desired, and tells what could not be rendered or is left out.
    fn compose(&mut self, desired: &Desired, now: Instant) -> Layout {
        let (rendered, paced) = (self.desk.renders(), self.desk.checking().generation());
        let idle = if self.due.may_delete(now) { Idle::Go } else { Idle::Stay };
        let running = &self.applied.layout;
        let runs = Runs { can: self.can(), layout: running, retired: &self.applied.lingering };
        let (mut layout, failed) = self.desk.compose(desired, &runs, idle, now);
        for (service, error) in failed {
            warn!(%service, error = %Chain(&error), "Section could not be rendered; its last form stays.");
        }
        let judges = self.connection.checker(&self.disk.files).is_some();
        let others = judges && self.refusals.words.proofs.admit(&mut layout, running, now);
        let rendered = self.desk.renders() - rendered;
        self.metrics.renders.inc_by(rendered);
        self.desk.keep_lingering(&mut layout, running, now);
        // Where it is not known what is loaded, everything is loaded anyway.
        if self.applied.state.is_known() {
            self.due.churn.hold(&mut layout, running, now);
        }
        let loops = self.desk.finish(&mut layout, running);
        if rendered > 0 || others || loops {
            self.told.quarantined(&self.desk, &self.refusals.words.proofs);
        }
        self.told.edge(&self.desk, false);
        if self.desk.checking().generation() != paced {
            self.weigh();
        }
        layout
    }

    /// `draft` as a reload is to load it: with the full number of spare sections, but for those that HAProxy has refused.
    fn refilled(&self, draft: Layout, now: Instant) -> Layout {
        let mut layout = self.desk.refilled(draft);
        self.refusals.words.proofs.misfits.leave_out(&mut layout, &self.applied.layout, now);
        layout
    }
}

impl Generator for Haproxy {
    type Plan = TurnPlan;
    type Error = HaproxyError;

    async fn resume(&mut self) {
        self.recall();
        if let Err(error) = self.connection.resume(&self.disk.files).await {
            warn!(error = %Chain(&error), "The last config could not be started; waiting for the registry.");
        }
        self.verify().await;
    }

    async fn prepare(&mut self, desired: &Desired) {
        let now = Instant::now();
        self.refusals.words.hear(self.connection.mode == ProcessMode::Commands, now);
        self.desk.resolve(desired).await;
        if self.due.is_verify_due(now) || !self.connection.is_open() || self.disk.was_touched() {
            self.verify().await;
        }
        self.look_at_pools(desired).await;
        self.look_at_program().await;
        self.choose_ports(desired, now).await;
        self.desk.look_at_host(self.connection.local(), now);
        self.note().unresolved = self.desk.unresolved().map(str::to_owned).collect();
        self.draft = self.compose(desired, now);
    }

    fn plan(&self, _: &Desired, now: Instant) -> TurnPlan {
        let plan = match plan(&self.draft, &self.applied, &self.can()) {
            Plan::Reload { interim, layout, reasons } => {
                Plan::Reload { interim, layout: self.refilled(layout, now), reasons }
            }
            // Nobody listens to operations.
            Plan::Live(live) if !self.connection.live() && !live.is_idle() => {
                let reasons = BTreeSet::from([ReloadReason::ServerChanged]);
                Plan::Reload { interim: None, layout: live.layout, reasons }
            }
            plan => plan,
        };
        match self.connection.live() && self.connection.asks() {
            true => self.slices.cut(plan, &self.applied),
            false => TurnPlan { plan, behind: Behind::new() },
        }
    }

    async fn apply(&mut self, plan: TurnPlan) -> Result<Outcome, HaproxyError> {
        self.carry_out(plan).await
    }

    async fn due(&mut self) {
        self.refusals.words.ended().await;
    }
}
