//! Finding out what runs: at the start, after HAProxy was away, and now and then.

use agent::telemetry::Chain;
use tokio::time::Instant;
use tracing::{info, warn};

use super::connection::ProcessMode;
use super::demands::{ChecksStatus, Descriptors};
use super::errors::ConnectionError;
use super::generator::Haproxy;
use super::plan::Applied;
use super::state::HaproxyState;
use crate::haproxy::process::check::version;
use crate::haproxy::process::shortage::is_shortage;
use crate::reconcile::Desired;

impl Haproxy {
    /// Compares what runs with what is applied, and believes what runs.
    pub(super) async fn verify(&mut self) {
        let began = Instant::now();
        // A file that nobody has touched since says what is known already.
        let known = self.disk.is_unwritten() || self.applied.state.is_known() && self.disk.is_as_left();
        let known = known.then_some(&self.applied.layout);
        if known.is_none() {
            self.disk.left_so();
        }
        match self.connection.read_back(&self.disk.files, known).await {
            Ok(applied) => self.answered(applied, began).await,
            // What cannot be looked at is not believed to be another than before.
            Err(error) if is_shortage(&error) => {
                if self.note().error.replace(Chain(&error).to_string()).is_none() {
                    warn!(error = %Chain(&error), "It cannot be seen what HAProxy runs.");
                }
                self.due.not_verified();
            }
            Err(error) => self.lost(&error).await,
        }
    }

    /// Asks HAProxy which pools work, where it is time, and tells what has changed.
    pub(super) async fn look_at_pools(&mut self, desired: &Desired) {
        let began = Instant::now();
        if !self.connection.asks() || !self.applied.state.answers() || !self.due.is_look_due(began) {
            return;
        }
        // A HAProxy that does not answer is the next look's affair.
        let Ok(rows) = self.connection.runtime.sections().await else { return };
        self.due.looked(began.elapsed(), self.connection.worker.checks);
        self.traffic.sample(&rows);
        self.told.pools(&rows, &desired.services, self.traffic.places());
    }

    /// Looks whether HAProxy's program was replaced. The new one may take what the old one refused, so nothing waits for that any more.
    pub(super) async fn look_at_program(&mut self) {
        if self.connection.mode == ProcessMode::Files || !self.connection.process.is_replaced() {
            return;
        }
        let running = self.connection.version().map(ToString::to_string).unwrap_or_default();
        let installed = version(&self.connection.process.launch.program).await;
        match &installed {
            Ok(installed) => {
                self.connection.suppose(installed);
                info!(%installed, running, "HAProxy's program was replaced; the next reload or start is by the new one.")
            }
            Err(error) => warn!(error = %Chain(error), running, "HAProxy's program was replaced, and cannot be run."),
        }
        self.note().installed = installed.ok().map(|version| version.to_string());
        self.refusals.forget();
        self.due.pace.forgive();
    }

    async fn answered(&mut self, applied: Applied, began: Instant) {
        if self.applied.state.answers() && applied.layout != self.applied.layout {
            let sections = self.applied.layout.differs_from(&applied.layout).join(", ");
            warn!(%sections, "HAProxy's servers are not what they were left as; repairing them.");
            self.metrics.repairs.inc();
        }
        self.believe(applied);
        self.refusals.words.proofs.suit(self.connection.version());
        self.due.verified(began.elapsed());
        self.weigh();
        self.note().connected(&self.connection);
        if self.note().old_workers.is_some_and(|old| old > 0) {
            self.count_workers().await;
        }
    }

    /// Counts what the file that runs asks for, and tells what is scarce, once.
    pub(super) fn weigh(&mut self) {
        let layout = &self.applied.layout;
        let descriptors = Descriptors::of(layout, self.connection.descriptor_limit());
        let checks = ChecksStatus::of(self.desk.checking(), layout);
        self.metrics.demands.set(checks.per_second, descriptors);
        let scarce = descriptors.filter(|descriptors| descriptors.are_scarce());
        let mut note = self.note();
        let told = note.descriptors.is_some_and(Descriptors::are_scarce);
        match scarce {
            Some(Descriptors { needed, limit }) if !told => {
                let limit = limit.unwrap_or_default();
                warn!(
                    needed,
                    limit,
                    "HAProxy needs nearly all of its file descriptors, or more: beyond its limit it can load no file. Raise LimitNOFILE of its unit (nofile of its container), or lower --maxconn."
                );
            }
            None if told => info!("HAProxy has file descriptors enough again."),
            _ => {}
        }
        (note.checks, note.descriptors) = (Some(checks), descriptors);
    }

    async fn lost(&mut self, error: &ConnectionError) {
        // At the very start it need not run yet: loading the first config starts it.
        if self.note().error.is_none() && self.note().version.is_some() {
            warn!(error = %Chain(error), "HAProxy does not answer.");
        }
        self.note().error = Some(Chain(error).to_string());
        let state = if self.connection.runs().await { HaproxyState::Silent } else { HaproxyState::Away };
        self.applied = Applied { state, ..Applied::default() };
        self.due.lost();
    }

    /// Takes over what runs. What did not change keeps its `Arc`, so that comparing it is cheap and nothing is held twice.
    fn believe(&mut self, mut applied: Applied) {
        applied.layout.share_with(&self.applied.layout);
        if let Some(rules) = &mut applied.layout.rules {
            if let Some(same) = self.applied.layout.rules.as_ref().filter(|known| *known == rules) {
                *rules = same.clone();
            }
            self.disk.reread_rules(rules);
        }
        self.applied = applied;
    }
}
