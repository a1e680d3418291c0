//! A reload or a start: candidate → `haproxy -c` → rename → load → outcome → read back.

use std::collections::BTreeSet;
use std::path::Path;

use agent::telemetry::Chain;
use tokio::time::Instant;
use tracing::{info, warn};

use super::demands::Descriptors;
use super::errors::{ConnectionError, HaproxyError};
use super::generator::Haproxy;
use super::plan::Applied;
use super::prove::proving::search;
use super::prove::trial::Trial;
use super::reason::ReloadReason;
use super::status::ReloadRecord;
use crate::generators::haproxy::file::layout::Layout;
use crate::haproxy::process::blame::NoFinding;
use crate::haproxy::process::check::deadline;
use crate::haproxy::process::ports::new_binds_are_free;

/// What came of a reload that did not fail.
enum Reloaded {
    /// HAProxy runs what the plan says.
    Done,
    /// It was not tried: servers that HAProxy refuses are left out from now on, and it is planned without them.
    WithoutSome,
}

impl Haproxy {
    /// Reloads now, and takes down what came of it. Gives when to plan again, if at once.
    pub(super) async fn load_now(
        &mut self,
        layout: Layout,
        reasons: BTreeSet<ReloadReason>,
    ) -> Result<Option<Instant>, HaproxyError> {
        let before = self.applied.state.is_known().then(|| self.applied.layout.clone());
        self.refusals.words.proofs.release();
        let tried = layout.clone();
        let outcome = self.reload(layout, &reasons).await;
        let now = Instant::now();
        if let Ok(Reloaded::WithoutSome) = outcome {
            return Ok(Some(now));
        }
        let record = ReloadRecord::new(&reasons, outcome.as_ref().err().map(|e| Chain(e).to_string()));
        self.metrics.reload(&reasons, outcome.is_ok());
        self.note().reloaded(record);
        if let Err(error) = outcome {
            self.due.pace.failed(now);
            self.refusals.file = Some(tried);
            return Err(error);
        }
        self.due.pace.succeeded(now);
        if let Some(before) = before {
            self.due.churn.loaded(&before, &self.applied.layout, &reasons, now);
        }
        self.count_workers().await;
        Ok(None)
    }

    /// A reload, with the rules that it reads; where it does not succeed, those that run are on disk again.
    async fn reload(&mut self, layout: Layout, reasons: &BTreeSet<ReloadReason>) -> Result<Reloaded, HaproxyError> {
        self.disk.write_rules(layout.rules.as_ref())?;
        let outcome = self.load(layout, reasons).await;
        if !matches!(outcome, Ok(Reloaded::Done)) {
            self.disk.write_rules(self.applied.layout.rules.as_ref())?;
        }
        outcome
    }

    async fn load(&mut self, layout: Layout, reasons: &BTreeSet<ReloadReason>) -> Result<Reloaded, HaproxyError> {
        let started = Instant::now();
        self.disk.rest().await?;
        let candidate = self.disk.files.write_candidate(&layout)?;
        if let Err(error) = self.check(&candidate, &layout).await {
            return match self.blame(&layout, &error).await {
                true => Ok(Reloaded::WithoutSome),
                false => Err(error.into()),
            };
        }
        self.try_new_binds(&layout)?;
        self.disk.promote()?;
        match self.connection.load().await {
            Ok(()) => {
                let words: Vec<&str> = reasons.iter().map(|r| r.as_str()).collect();
                let took_ms = started.elapsed().as_millis();
                info!(reasons = words.join(","), %took_ms, "HAProxy loaded a new config.");
                self.loaded(layout).await;
                Ok(Reloaded::Done)
            }
            Err(error) => {
                let path = self.disk.files.last_good();
                self.disk.files.roll_back().map_err(|source| HaproxyError::Move { path, source })?;
                match Descriptors::of(&layout, self.connection.descriptor_limit()) {
                    Some(Descriptors { needed, limit: Some(limit) }) if needed > limit => {
                        Err(HaproxyError::Descriptors { needed, limit, source: error })
                    }
                    _ => Err(error.into()),
                }
            }
        }
    }

    /// HAProxy has loaded this: what was refused before is of the past.
    async fn loaded(&mut self, layout: Layout) {
        self.disk.loaded();
        self.connection.silence_agents(&layout).await;
        self.refusals.operations = None;
        (self.refusals.file, self.refusals.of_operator) = (None, None);
        self.applied = Applied { layout, state: self.applied.state.loaded(), ..Applied::default() };
        self.desk.loaded(&self.applied.layout);
        self.verify().await;
    }

    /// A frontend's port that somebody else has would close every listener for seconds (docs/haproxy.md). In our
    /// own way of composing such ports are left out before; an operator's config says what it says, so nothing of it is
    /// loaded until the port is free.
    fn try_new_binds(&self, layout: &Layout) -> Result<(), HaproxyError> {
        if !self.desk.chooses_ports() && self.connection.local() {
            new_binds_are_free(&self.disk.files.texts().concat(), &layout.render())?;
        }
        Ok(())
    }

    async fn check(&self, candidate: &Path, layout: &Layout) -> Result<(), ConnectionError> {
        let Some(checker) = self.connection.checker(&self.disk.files) else { return Ok(()) };
        let servers = layout.sections.iter().map(|section| section.servers.len()).sum();
        self.metrics.config_checks.inc();
        checker.admit(candidate, deadline(checker.timeout, servers)).await
    }

    /// Finds out which registrations HAProxy refuses the file for, and leaves them out from now on; false when the fault is not theirs.
    async fn blame(&mut self, layout: &Layout, error: &ConnectionError) -> bool {
        let Some(checker) = self.connection.checker(&self.disk.files).filter(|_| error.verdict().is_some()) else {
            return false;
        };
        let samples = self.desk.sample(layout, &self.can());
        let trial = Trial::of_all(layout, &self.applied.layout, samples);
        match search(&trial, &checker, &self.disk.files.probe(), &self.metrics.config_checks).await {
            Ok(finding) if finding.guilty.is_empty() && finding.undecided.is_empty() => false, // good now
            Ok(finding) => {
                self.refusals.words.judged(&trial, finding, Instant::now());
                self.applied.state = self.applied.state.forgiven();
                true
            }
            Err(NoFinding::NotTheirs(why)) => {
                if self.refusals.of_operator.as_ref() != Some(&why) {
                    warn!(why, "HAProxy refuses the operator's own text: the fault is no registration's.");
                    self.refusals.of_operator = Some(why);
                }
                false
            }
            Err(NoFinding::Unknown) => false,
        }
    }
}
