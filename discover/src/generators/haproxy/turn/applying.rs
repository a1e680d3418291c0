//! Carrying out a plan: the only I/O that changes anything. What HAProxy makes of it is known to the next plan.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::files::{FileError, Replace, replace};
use common::telemetry::Chain;
use tokio::time::Instant;
use tracing::{info, warn};

use super::changes::ServerChange;
use super::connection::ConnectionError;
use super::generator::{Haproxy, LOOK_EVERY};
use super::plan::{Applied, Live, Plan, ReloadReason};
use super::prove::proving::search;
use super::prove::trial::Trial;
use super::status::ReloadRecord;
use super::steps::{Ran, StepError};
use crate::generators::Outcome;
use crate::generators::haproxy::file::edge::RuleMap;
use crate::generators::haproxy::file::layout::Layout;
use crate::generators::haproxy::file::server::Server;
use crate::haproxy::process::blame::NoFinding;
use crate::haproxy::process::check::deadline;
use crate::haproxy::process::ports::{BindRefusal, new_binds_are_free};

/// Between two tries to delete busy servers: at first, and at most.
const COLLECT_AFTER: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];
/// How long one turn may delete servers; further ones are left to the next.
const COLLECT_FOR: Duration = Duration::from_millis(100);
/// So many refused operations of one slice are told one by one.
const MOST_TOLD: usize = 5;

/// Why a turn could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HaproxyError {
    /// The file could not be written; the old one stays.
    #[error("writing haproxy.cfg")]
    Write(#[from] FileError),
    /// The last good file could not be put back.
    #[error("moving {path:?}")]
    Move {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The config wants an address that HAProxy could not bind.
    #[error("trying the addresses of the new config")]
    Bind(#[from] BindRefusal),
    /// HAProxy refuses the file, does not run, or cannot be asked.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// What came of a reload that did not fail.
enum Reloaded {
    /// HAProxy runs what the plan says.
    Done,
    /// It was not tried: servers that HAProxy refuses are left out from now on, and it is planned without them.
    WithoutSome,
}

impl Haproxy {
    /// Carries out `plan`, and tells when to plan again.
    pub(super) async fn carry_out(&mut self, plan: Plan) -> Result<Outcome, HaproxyError> {
        let mut again = None;
        self.keep_state();
        self.tell_waiting();
        self.prove();
        if !matches!(plan, Plan::Reload { .. }) {
            self.note().waiting = None;
        }
        match plan {
            Plan::Unchanged if self.unwritten => {
                let layout = self.applied.layout.clone();
                self.write(&layout)?;
            }
            Plan::Unchanged => {}
            Plan::Live(live) => {
                let done = self.apply_live(live).await?;
                // What was refused, or is not known to be done, is planned anew; so is what is left for the next turn.
                again = (!done || !self.behind.is_empty()).then(Instant::now);
            }
            Plan::Reload { interim, layout, reasons } => {
                if let Some(interim) =
                    interim.filter(|interim| !self.refused_ops.as_ref().is_some_and(|r| r.same_work(interim)))
                {
                    self.apply_live(interim).await?;
                }
                let more = !self.behind.is_empty() && !reasons.contains(&ReloadReason::Refused);
                let awaited = self.awaited_words(Instant::now()).map(|at| (at, None));
                match self.reload_wait().await.or(awaited) {
                    Some((at, why)) => {
                        let words = reasons.iter().map(|r| r.to_string()).chain(why);
                        self.note().waiting = Some(words.collect());
                        again = Some(if more { Instant::now() } else { at });
                    }
                    None => again = self.paced_reload(layout, reasons).await?.or(more.then(Instant::now)),
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
        let written = self.writing.wait(now).filter(|_| self.unwritten);
        let (section, name, bind) = (self.lingering.next_end(now), self.names.next_due(), self.binds.next_due());
        let rule = self.edge.as_ref().and_then(|edge| edge.next_end(now));
        let structure = self.churn.next_due().filter(|at| *at > now);
        let due = [again, collected, looked, written, section, rule, name, bind, structure];
        Ok(due.into_iter().flatten().min().map_or(Outcome::Done, Outcome::Again))
    }

    /// Writes the file that corresponds to what the operations will make, then does them; tells whether all were. A full
    /// disk does not keep the operations back: nothing known to be dead may get traffic for want of a file.
    async fn apply_live(&mut self, mut live: Live) -> Result<bool, HaproxyError> {
        self.delete_sections(&mut live).await;
        let written = self.write(&live.layout);
        let began = Instant::now();
        let ran = self.connection.run(&live, &self.files.rules_name(), &self.metrics).await;
        self.slices.took(live.steps().count(), began.elapsed());
        for step in live.steps() {
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
        self.applied.layout = live.layout.clone();
        self.applied.lingering.retain(|_, servers| !servers.is_empty());
        match ran {
            Ran::Done => return written.map(|()| true),
            Ran::Unknown(why) => {
                warn!(why, "It is not known which runtime operations were done; looking at what runs.");
                self.verify().await;
            }
            Ran::Refused(errors) => {
                for error in errors.iter().take(MOST_TOLD) {
                    warn!(error = %Chain(error), "HAProxy refused a runtime operation; a reload will do it.");
                }
                if let Some(more @ 1..) = errors.len().checked_sub(MOST_TOLD) {
                    warn!(more, "HAProxy refused further runtime operations; a reload will do them.");
                }
                if errors.iter().any(StepError::no_sections) {
                    self.makes_none = self.connection.version().cloned();
                }
                self.verify().await;
                // Not what was refused: whoever loads the file before the reload must be able to.
                let runs = self.applied.layout.clone();
                let rewritten = self.write(&runs);
                self.applied.unknown.get_or_insert(ReloadReason::Refused);
                self.refused_ops = Some(live);
                rewritten?;
            }
        }
        written.map(|()| false)
    }

    /// Deletes the sections that nothing needs any more. What HAProxy keeps for now stays in the file, too.
    async fn delete_sections(&mut self, live: &mut Live) {
        for name in std::mem::take(&mut live.sections.go) {
            if !self.connection.delete_section(&name, &self.metrics).await {
                self.delete_at = Some(Instant::now() + COLLECT_AFTER[1]);
                live.layout.sections.extend(self.applied.layout.sections.iter().filter(|s| s.name == name).cloned());
            }
        }
    }

    /// Writes the file, or leaves that to a later turn when it is large and was written a moment ago.
    fn write(&mut self, layout: &Layout) -> Result<(), HaproxyError> {
        let now = Instant::now();
        self.unwritten = true;
        if self.writing.wait(now).is_some() {
            return Ok(());
        }
        self.files.write_live(layout)?;
        let rules = self.write_rules(layout.rules.as_ref())?;
        self.unwritten = false;
        self.writing.wrote(layout.pieces().iter().map(|piece| piece.len()).sum::<usize>() + rules, now);
        self.metrics.config_writes.inc();
        Ok(())
    }

    /// Writes the edge's rules, unless they are on disk; tells how many bytes that took.
    fn write_rules(&mut self, rules: Option<&Arc<RuleMap>>) -> Result<usize, FileError> {
        let Some(rules) = rules.filter(|rules| self.rules_on_disk.as_ref() != Some(rules)) else { return Ok(0) };
        self.rules_on_disk = None;
        let bytes = self.files.write_rules(rules)?;
        self.rules_on_disk = Some(rules.clone());
        Ok(bytes)
    }

    /// A frontend's port that somebody else has would close every listener for seconds (dataplane.md section 1.3). In our
    /// own way of composing such ports are left out before; an operator's config says what it says, so nothing of it is
    /// loaded until the port is free.
    fn try_new_binds(&self, layout: &Layout) -> Result<(), HaproxyError> {
        if self.settings.is_none() && self.connection.local() {
            new_binds_are_free(&self.files.texts().concat(), &layout.render())?;
        }
        Ok(())
    }

    /// A reload, with the rules that it reads; where it does not succeed, those that run are on disk again.
    async fn reload(&mut self, layout: Layout, reasons: &BTreeSet<ReloadReason>) -> Result<Reloaded, HaproxyError> {
        self.write_rules(layout.rules.as_ref())?;
        let outcome = self.load(layout, reasons).await;
        if !matches!(outcome, Ok(Reloaded::Done)) {
            let runs = self.applied.layout.rules.clone();
            self.write_rules(runs.as_ref())?;
        }
        outcome
    }

    /// Candidate → `haproxy -c` → rename → reload (or start) → outcome → read back.
    async fn load(&mut self, layout: Layout, reasons: &BTreeSet<ReloadReason>) -> Result<Reloaded, HaproxyError> {
        let started = Instant::now();
        let candidate = self.files.write_candidate(&layout)?;
        if let Err(error) = self.check(&candidate, &layout).await {
            return match self.blame(&layout, &error).await {
                true => Ok(Reloaded::WithoutSome),
                false => Err(error.into()),
            };
        }
        self.try_new_binds(&layout)?;
        self.files.promote()?;
        self.metrics.config_writes.inc();
        match self.connection.load().await {
            Ok(log) => {
                self.files.settle();
                self.unwritten = false;
                self.refused_ops = None;
                let words: Vec<&str> = reasons.iter().map(|r| r.as_str()).collect();
                let took_ms = started.elapsed().as_millis();
                info!(reasons = words.join(","), %took_ms, "HAProxy loaded a new config.");
                if log.contains("[WARNING]") || log.contains("[ALERT]") {
                    warn!(%log, "HAProxy has something to say about it.");
                }
                self.applied = Applied { layout, ..Applied::default() };
                self.lingering.loaded(&self.applied.layout);
                self.verify().await;
                Ok(Reloaded::Done)
            }
            Err(error) => {
                let path = self.files.last_good();
                self.files.roll_back().map_err(|source| HaproxyError::Move { path, source })?;
                Err(error.into())
            }
        }
    }

    async fn check(&self, candidate: &Path, layout: &Layout) -> Result<(), ConnectionError> {
        let Some(checker) = self.connection.checker(&self.files) else { return Ok(()) };
        let servers = layout.sections.iter().map(|section| section.servers.len()).sum();
        self.metrics.config_checks.inc();
        checker.admit(candidate, deadline(checker.timeout, servers)).await
    }

    /// Finds out which registrations HAProxy refuses the file for, and leaves them out from now on; false when the fault is not theirs.
    async fn blame(&mut self, layout: &Layout, error: &ConnectionError) -> bool {
        let Some(checker) = self.connection.checker(&self.files).filter(|_| error.verdict().is_some()) else {
            return false;
        };
        let trial = Trial::of_all(layout, &self.applied.layout, self.samples(layout));
        let probe = self.files.probe();
        let found = search(&trial, &checker, &probe, &self.metrics.config_checks).await;
        let _ = std::fs::remove_file(&probe); // only tidiness
        match found {
            Ok(finding) if finding.guilty.is_empty() && finding.undecided.is_empty() => false, // good now
            Ok(finding) => {
                let blamed = self.proofs.judged(&trial, finding, Instant::now());
                self.tell_blamed(blamed);
                if self.applied.unknown == Some(ReloadReason::Refused) {
                    self.applied.unknown = None; // what was refused is not wanted any more
                }
                true
            }
            Err(NoFinding::NotTheirs(why)) => {
                warn!(why, "HAProxy refuses the operator's own text: the fault is no registration's.");
                false
            }
            Err(NoFinding::Unknown) => false,
        }
    }

    /// Until when a reload waits for words that are being judged, if it does.
    fn awaited_words(&mut self, now: Instant) -> Option<Instant> {
        if self.proving.judges_new() { self.proofs.hold(now) } else { None }
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
            let until = Instant::now() + COLLECT_FOR;
            let after = self.collected.take();
            let lingering = &mut self.applied.lingering;
            self.collected = self.connection.delete_idle(lingering, after.as_ref(), until, &self.metrics).await;
            self.collect_at = Some(match self.collected {
                Some(_) => (Instant::now(), wait),
                None => (Instant::now() + wait, COLLECT_AFTER[1].min(wait * 2)),
            });
        }
        self.collect_at.filter(|_| !self.applied.lingering.is_empty()).map(|(at, _)| at)
    }

    async fn paced_reload(
        &mut self,
        layout: Layout,
        reasons: BTreeSet<ReloadReason>,
    ) -> Result<Option<Instant>, HaproxyError> {
        let known = matches!(self.applied.unknown, None | Some(ReloadReason::Refused));
        let before = known.then(|| self.applied.layout.clone());
        self.proofs.release();
        let outcome = self.reload(layout, &reasons).await;
        let now = Instant::now();
        if let Ok(Reloaded::WithoutSome) = outcome {
            return Ok(Some(now));
        }
        let record = ReloadRecord::new(&reasons, outcome.as_ref().err().map(|e| Chain(e).to_string()));
        self.metrics.reload(&reasons, outcome.is_ok());
        self.note().reloaded(record);
        match outcome {
            Ok(_) => {
                self.pace.succeeded(now);
                if let Some(before) = before {
                    self.churn.loaded(&before, &self.applied.layout, &reasons, now);
                }
                self.count_workers().await;
                Ok(None)
            }
            Err(error) => {
                self.pace.failed(now);
                Err(error)
            }
        }
    }

    /// Writes the state file, if what is remembered has changed. A failure harms only the next start.
    fn keep_state(&mut self) {
        if let Some((path, text)) = self.changed_state()
            && let Err(error) = replace(&path, text.as_bytes(), Replace { mode: Some(0o644), ..Replace::default() })
        {
            warn!(error = %Chain(&error), "The state file could not be written.");
        }
    }
}

impl Drop for Haproxy {
    /// A stop does not wait for a large file's time.
    fn drop(&mut self) {
        if self.unwritten && self.writing.wait(Instant::now()).is_some() {
            let rules = self.applied.layout.rules.clone();
            let written = self.write_rules(rules.as_ref()).and_then(|_| self.files.write_live(&self.applied.layout));
            if let Err(error) = written {
                warn!(error = %Chain(&error), "haproxy.cfg is not what runs.");
            }
        }
    }
}
