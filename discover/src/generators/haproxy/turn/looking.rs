//! Finding out what runs: at the start, after HAProxy was away, and now and then.

use agent::telemetry::Chain;
use tokio::time::Instant;
use tracing::{info, warn};

use super::connection::ProcessMode;
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
        let unwritten = self.disk.is_unwritten().then_some(&self.applied.layout);
        match self.connection.read_back(&self.disk.files, unwritten).await {
            Ok(applied) => self.answered(applied).await,
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
                info!(%installed, running, "HAProxy's program was replaced; the next reload or start is by the new one.")
            }
            Err(error) => warn!(error = %Chain(error), running, "HAProxy's program was replaced, and cannot be run."),
        }
        self.note().installed = installed.ok().map(|version| version.to_string());
        self.refusals.forget();
        self.due.pace.forgive();
    }

    async fn answered(&mut self, applied: Applied) {
        if self.applied.state.answers() && applied.layout != self.applied.layout {
            let sections = self.applied.layout.differs_from(&applied.layout).join(", ");
            warn!(%sections, "HAProxy's servers are not what they were left as; repairing them.");
            self.metrics.repairs.inc();
        }
        self.believe(applied);
        self.refusals.words.proofs.suit(self.connection.version());
        self.due.verified();
        self.note().connected(&self.connection);
        if self.note().old_workers.is_some_and(|old| old > 0) {
            self.count_workers().await;
        }
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

    /// Takes over what runs. Unchanged rules keep their `Arc`, so that comparing them is cheap.
    fn believe(&mut self, mut applied: Applied) {
        if let Some(rules) = &mut applied.layout.rules {
            if let Some(same) = self.applied.layout.rules.as_ref().filter(|known| *known == rules) {
                *rules = same.clone();
            }
            self.disk.reread_rules(rules);
        }
        self.applied = applied;
    }
}
