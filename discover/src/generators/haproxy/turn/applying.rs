//! Carrying out a plan: the only I/O that changes anything. What HAProxy makes of it is known to the next plan.

use std::collections::BTreeSet;

use agent::files::{Replace, replace};
use agent::telemetry::Chain;
use tokio::time::Instant;
use tracing::warn;

use super::changes::ServerChange;
use super::errors::HaproxyError;
use super::generator::Haproxy;
use super::plan::{Live, Plan};
use super::reason::ReloadReason;
use super::slices::TurnPlan;
use super::steps::{Ran, StepError};
use crate::generators::Outcome;
use crate::generators::haproxy::file::layout::Layout;
use crate::generators::haproxy::file::server::Server;

/// How many refused operations of one slice are logged one by one.
const MOST_TOLD: usize = 5;

impl Haproxy {
    /// Carries out `plan`, and tells when to plan again.
    pub(super) async fn carry_out(&mut self, TurnPlan { plan, behind }: TurnPlan) -> Result<Outcome, HaproxyError> {
        self.keep_state();
        self.told.waiting(&self.due.churn, &behind, &self.metrics);
        let (files, checks) = (&self.disk.files, &self.metrics.config_checks);
        self.refusals.words.prove(self.connection.checker(files), files, checks);
        if !matches!(plan, Plan::Reload { .. }) {
            self.note().waiting = None;
        }
        let is_behind = !behind.is_empty();
        let again = match plan {
            Plan::Unchanged => {
                // What says the same is the same from now on, so that the next turn sees it at a glance.
                self.applied.layout.share_with(&self.draft);
                self.disk.catch_up(&self.applied.layout)?;
                None
            }
            Plan::Live(live) => {
                let done = self.apply_live(live).await?;
                // What was refused, or is not known to be done, is planned anew; so is what is left for the next turn.
                (!done || is_behind).then(Instant::now)
            }
            Plan::Reload { interim, layout, reasons } => {
                self.told.edge(&self.desk, true);
                if let Some(interim) = interim.filter(|interim| !self.refusals.has(interim)) {
                    self.apply_live(interim).await?;
                }
                self.load_in_time(layout, reasons, is_behind).await?
            }
        };
        let retired = &mut self.applied.lingering;
        self.due.collecting.collect(&mut self.connection, retired, &self.metrics).await;
        self.disk.write_retired(retired)?;
        let now = Instant::now();
        let others = [again, self.disk.next_write(now), self.desk.next_due(now)];
        Ok(Outcome::Again(self.due.next(others, now)))
    }

    /// Reloads, if it is time. Gives when to plan again.
    async fn load_in_time(
        &mut self,
        layout: Layout,
        reasons: BTreeSet<ReloadReason>,
        is_behind: bool,
    ) -> Result<Option<Instant>, HaproxyError> {
        let more = (is_behind && !reasons.contains(&ReloadReason::Refused)).then(Instant::now);
        let awaited = self.refusals.words.awaited(Instant::now()).map(|at| (at, None));
        let Some((at, why)) = self.reload_wait(&layout).await.or(awaited) else {
            return Ok(self.load_now(layout, reasons).await?.or(more));
        };
        self.note().waiting = Some(reasons.iter().map(|r| r.to_string()).chain(why).collect());
        Ok(more.or(Some(at)))
    }

    /// Writes the file that corresponds to what the operations will make, then does them; tells whether all were. Neither a full disk nor a
    /// large file keeps the operations back: nothing known to be dead may get traffic for want of a file.
    async fn apply_live(&mut self, mut live: Live) -> Result<bool, HaproxyError> {
        self.delete_sections(&mut live).await;
        let first = (!self.disk.is_large()).then(|| self.disk.write(&live.layout));
        let began = Instant::now();
        let ran = self.connection.run(&live, &self.disk.files.rules_name(), &self.metrics).await;
        self.slices.took(live.steps().count(), began.elapsed());
        self.retire(&live);
        self.applied.layout = live.layout.clone();
        let written = first.unwrap_or_else(|| self.disk.write(&live.layout));
        match ran {
            Ran::Done => {
                written?;
                return Ok(true);
            }
            Ran::Unknown(why) => {
                warn!(why, "It is not known which runtime operations were done; looking at what runs.");
                self.verify().await;
            }
            Ran::Refused(errors) => self.refused(live, &errors).await?,
        }
        written?;
        Ok(false)
    }

    /// Notes which servers linger once `live` is done.
    fn retire(&mut self, live: &Live) {
        let retired = &mut self.applied.lingering;
        for step in live.steps() {
            match &step.change {
                ServerChange::Retire(server) => {
                    let section = retired.entry(step.section.clone()).or_default();
                    section.insert(server.name.clone(), Server { maint: true, ..server.clone() });
                    self.due.collecting.hurry();
                }
                ServerChange::Revive { now, .. } | ServerChange::Replace { now, .. } => {
                    if let Some(section) = retired.get_mut(&step.section) {
                        section.remove(&now.name);
                    }
                }
                ServerChange::Add(_) | ServerChange::Alter { .. } => {}
            }
        }
        retired.retain(|_, servers| !servers.is_empty());
    }

    /// HAProxy refused some of `live`.
    async fn refused(&mut self, live: Live, errors: &[StepError]) -> Result<(), HaproxyError> {
        self.say_refused(errors);
        if errors.iter().any(StepError::no_sections) {
            self.refusals.sections_by = self.connection.version().cloned();
        }
        self.verify().await;
        // Without what was refused: somebody else may load the file before the reload.
        let rewritten = self.disk.write(&self.applied.layout);
        self.applied.state = self.applied.state.refused();
        self.refusals.operations = Some(live);
        Ok(rewritten?)
    }

    /// Deletes the sections that nothing needs any more. What HAProxy keeps for now stays in the file, too.
    async fn delete_sections(&mut self, live: &mut Live) {
        for name in std::mem::take(&mut live.sections.go) {
            if !self.connection.delete_section(&name, &self.metrics).await {
                self.due.delete_later();
                live.layout.sections.extend(self.applied.layout.sections.iter().filter(|s| s.name == name).cloned());
            }
        }
    }

    /// Writes the state file, if what is remembered has changed. A failure harms only the next start.
    fn keep_state(&mut self) {
        if let Some((path, text)) = self.desk.changed_state()
            && let Err(error) = replace(&path, text.as_bytes(), Replace { mode: Some(0o644), ..Replace::default() })
        {
            warn!(error = %Chain(&error), "The state file could not be written.");
        }
    }

    /// Says what HAProxy refused: of each section the first refusal, which those behind it follow from.
    fn say_refused(&mut self, errors: &[StepError]) {
        if let Some(error) = errors.iter().find(|error| error.is_denied()) {
            // The same at each change, until its line has other words.
            if !std::mem::replace(&mut self.refusals.denied, true) {
                warn!(error = %Chain(error), "HAProxy's runtime socket allows no changes, so each is a reload: give its line `stats socket` the words `level admin`.");
            }
            return;
        }
        self.refusals.denied = false;
        let mut sections = BTreeSet::new();
        let firsts: Vec<&StepError> = errors.iter().filter(|error| sections.insert(error.section())).collect();
        for error in firsts.iter().take(MOST_TOLD) {
            let refused = errors.iter().filter(|other| other.section() == error.section()).count();
            warn!(error = %Chain(*error), refused, "HAProxy refused runtime operations; a reload will do them.");
        }
        if let Some(more @ 1..) = firsts.len().checked_sub(MOST_TOLD) {
            warn!(more, "HAProxy refused operations in further sections; a reload will do them.");
        }
    }
}

impl Drop for Haproxy {
    /// A stop does not wait for a large file's time.
    fn drop(&mut self) {
        if let Err(error) = self.disk.finish(&self.applied.layout) {
            warn!(error = %Chain(&error), "haproxy.cfg is not what runs.");
        }
    }
}
