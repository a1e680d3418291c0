//! Runtime operations on the running HAProxy: carried out, judged, and retired servers deleted.

use std::collections::HashSet;
use std::sync::Arc;

use agent::telemetry::Chain;
use tokio::time::Instant;
use tracing::debug;

use super::changes::{NewSection, Step};
use super::connection::Connection;
use super::errors::ConnectionError;
use super::metrics::HaproxyMetrics;
use super::plan::Live;
use super::readback::Place;
use crate::generators::haproxy::file::edge::RuleMap;
use crate::generators::haproxy::file::edge::map::RuleChange;
use crate::generators::haproxy::file::layout::{Layout, Retired};
use crate::haproxy::api::command::CommandError;
use crate::haproxy::api::ops::{Op, RefusalKind, SectionName, ServerRef};
use crate::haproxy::api::runtime::{DelOutcome, Runtime, RuntimeError};

/// An operation that HAProxy did not do.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It cannot even be sent.
    #[error("server {server} of {section}")]
    Command { section: Arc<str>, server: String, source: CommandError },
    /// It was refused, or its outcome is not known.
    #[error("server change in {section}")]
    Runtime { section: Arc<str>, source: RuntimeError },
    /// A section could not be made.
    #[error("making section {section}")]
    Section { section: Arc<str>, source: RuntimeError },
    /// The edge's rules could not be changed.
    #[error("rules of the edge")]
    Rules(#[source] RuntimeError),
}

impl StepError {
    pub(super) fn section(&self) -> Option<&Arc<str>> {
        match self {
            Self::Command { section, .. } | Self::Runtime { section, .. } | Self::Section { section, .. } => {
                Some(section)
            }
            Self::Rules(_) => None,
        }
    }

    /// Whether the socket's level allows no changes.
    pub(super) fn is_denied(&self) -> bool {
        match self {
            Self::Runtime { source, .. } | Self::Section { source, .. } | Self::Rules(source) => source.is_denied(),
            Self::Command { .. } => false,
        }
    }

    /// Whether HAProxy would refuse every other section, too: not for this one's name.
    pub fn no_sections(&self) -> bool {
        matches!(self, Self::Section { source, .. } if source.refusal() != Some(RefusalKind::Exists))
    }
}

/// What came of runtime operations.
#[derive(Debug)]
pub enum Ran {
    Done,
    /// HAProxy refused some: only a reload does those.
    Refused(Vec<StepError>),
    /// Whether they were done is not known: they went to a worker that has ended or is being replaced, because somebody
    /// else reloaded HAProxy, or the socket broke.
    Unknown(String),
}

impl Connection {
    /// The edge's rules as HAProxy holds them; `None` when it has no such map, which only a reload changes.
    pub(super) async fn read_rules(&mut self, map: &str) -> Result<Option<Arc<RuleMap>>, ConnectionError> {
        match self.runtime.map_show(map).await {
            Ok(entries) => Ok(Some(Arc::new(RuleMap::of_entries(entries)))),
            Err(error @ RuntimeError::Socket(_)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// Leaves out of `layout` the sections that only run if HAProxy was told to make them, and that do not.
    pub(super) async fn leave_out_unmade(&mut self, layout: &mut Layout) -> Result<(), ConnectionError> {
        if self.can().add_backend && layout.sections.iter().any(|section| section.made_from().is_some()) {
            let made = self.runtime.published().await?;
            layout.sections.retain(|section| section.made_from().is_none() || made.contains(&*section.name));
        }
        Ok(())
    }

    /// Carries out `live`, but for the sections that go; the rules' map is `map`. Each operation is judged by its own reply.
    pub async fn run(&mut self, live: &Live, map: &str, metrics: &HaproxyMetrics) -> Ran {
        let (new, steps, rules) = (&live.sections.come, &live.ops, live.rules.as_ref());
        if !self.asks() || live.first.is_empty() && new.is_empty() && steps.is_empty() && rules.is_none() {
            return Ran::Done;
        }
        let mut tally = Tally { metrics, failures: Vec::new(), broken: None };
        self.run_steps(&live.first.iter().collect::<Vec<_>>(), &mut tally).await;
        self.run_sections(new, &mut tally).await;
        // What comes before what goes: where a newcomer is refused, those that it replaces stay until the reload.
        let (go, come): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(|s| s.change.is_dead());
        self.run_steps(&tally.possible(come), &mut tally).await;
        if let Some(rules) = rules.filter(|_| tally.broken.is_none()) {
            self.run_rules(rules, map, &mut tally).await;
        }
        self.run_steps(&tally.possible(go), &mut tally).await;
        if let Some(why) = tally.broken {
            return Ran::Unknown(why);
        }
        // An old worker says yes to most things, and nothing of it counts (docs/haproxy.md).
        match self.runtime.info().await {
            Ok(info) if info.stopping => Ran::Unknown("they went to a worker that is being replaced".into()),
            _ if tally.failures.is_empty() => Ran::Done,
            _ => Ran::Refused(tally.failures),
        }
    }

    /// Every HAProxy that we speak to.
    fn all(&mut self) -> impl Iterator<Item = &mut Runtime> {
        std::iter::once(&mut self.runtime).chain(&mut self.others)
    }

    /// Has every HAProxy that we speak to make these sections.
    async fn run_sections(&mut self, new: &[NewSection], tally: &mut Tally<'_>) {
        let (mut ops, mut sections) = (Vec::with_capacity(new.len() * 2), Vec::with_capacity(new.len() * 2));
        for section in new {
            match section.ops() {
                Ok(of_section) => {
                    sections.extend(of_section.iter().map(|_| &section.name));
                    ops.extend(of_section);
                }
                Err(source) => {
                    let source = RuntimeError::Command { operation: format!("{section:?}"), source };
                    tally.failures.push(StepError::Section { section: section.name.clone(), source });
                }
            }
        }
        for runtime in self.all() {
            for ((op, section), result) in ops.iter().zip(&sections).zip(runtime.apply(&ops).await) {
                tally.judge(op, result, |source| StepError::Section { section: (*section).clone(), source });
            }
        }
    }

    /// Deletes this empty section in every HAProxy that we speak to; tells whether it is gone from all of them.
    pub async fn delete_section(&mut self, section: &str, metrics: &HaproxyMetrics) -> bool {
        let Ok(name) = SectionName::new(section) else { return false };
        let mut gone = true;
        for runtime in self.all() {
            let outcome = runtime.del_section(&name).await;
            let deleted = matches!(outcome, Ok(DelOutcome::Deleted | DelOutcome::NotFound));
            metrics.operation(&Op::DelSection(name.clone()), deleted);
            if !deleted {
                debug!(section, ?outcome, "An empty section stays for now.");
            }
            gone &= deleted;
        }
        gone
    }

    /// Changes the map of every HAProxy that we speak to.
    async fn run_rules(&mut self, rules: &RuleChange, map: &str, tally: &mut Tally<'_>) {
        for runtime in self.all() {
            let changed = change_rules(runtime, rules, map, tally.metrics).await;
            tally.take(changed, StepError::Rules);
        }
    }

    async fn run_steps(&mut self, steps: &[&Step], tally: &mut Tally<'_>) {
        if tally.broken.is_some() {
            return;
        }
        let mut ops: Vec<Op> = Vec::with_capacity(steps.len() * 3);
        let mut sections: Vec<&Arc<str>> = Vec::with_capacity(ops.capacity());
        for step in steps {
            match step.ops() {
                Ok(step_ops) => {
                    sections.extend(step_ops.iter().map(|_| &step.section));
                    ops.extend(step_ops);
                }
                Err(source) => {
                    let (section, server) = (step.section.clone(), format!("{:?}", step.change));
                    tally.failures.push(StepError::Command { section, server, source });
                }
            }
        }
        let mut results = self.runtime.apply(&ops).await;
        for other in &mut self.others {
            for (result, of_other) in results.iter_mut().zip(other.apply(&ops).await) {
                if result.is_ok() {
                    *result = of_other;
                }
            }
        }
        for ((op, section), result) in ops.iter().zip(sections).zip(results) {
            tally.judge(op, result, |source| StepError::Runtime { section: section.clone(), source });
        }
    }

    /// Tries to delete these servers, in their order, those behind `after`; one that is still busy stays. Gives the last one that was tried
    /// where `until` came before the end.
    pub(super) async fn delete_idle(
        &mut self,
        lingering: &mut Retired,
        after: Option<&Place>,
        until: Instant,
        metrics: &HaproxyMetrics,
    ) -> Option<Place> {
        let (mut gone, mut stopped): (Vec<Place>, Option<Place>) = (Vec::new(), None);
        let mut places: Vec<Place> = Vec::new();
        for (section, servers) in lingering.iter() {
            places.extend(servers.keys().map(|name| (section.clone(), name.clone())));
        }
        for place in places.into_iter().filter(|place| after.is_none_or(|after| place > after)) {
            let (section, name) = &place;
            let Ok(server) = ServerRef::new(&**section, &**name) else { continue };
            let outcome = self.runtime.del_server(server.clone()).await;
            metrics.operation(&Op::DelServer(server), outcome.is_ok());
            match outcome {
                Ok(DelOutcome::Deleted | DelOutcome::NotFound) => gone.push(place.clone()),
                Ok(DelOutcome::Busy) => {}
                Ok(other) => debug!(%section, %name, ?other, "Server stays in maintenance until the next reload."),
                Err(_) => break,
            }
            if Instant::now() >= until {
                stopped = Some(place);
                break;
            }
        }
        for (section, name) in &gone {
            if let Some(servers) = lingering.get_mut(section) {
                servers.remove(name);
            }
        }
        lingering.retain(|_, servers| !servers.is_empty());
        stopped
    }
}

/// What came of the operations so far.
struct Tally<'a> {
    metrics: &'a HaproxyMetrics,
    failures: Vec<StepError>,
    /// A socket broke: what was done is not known.
    broken: Option<String>,
}

impl Tally<'_> {
    fn judge(&mut self, op: &Op, result: Result<(), RuntimeError>, failed: impl FnOnce(RuntimeError) -> StepError) {
        self.metrics.operation(op, result.is_ok());
        if result.is_ok() {
            debug!(%op, "Done.");
        }
        self.take(result, failed);
    }

    fn take(&mut self, result: Result<(), RuntimeError>, failed: impl FnOnce(RuntimeError) -> StepError) {
        match result {
            Ok(()) => {}
            Err(RuntimeError::Socket(error)) => _ = self.broken.get_or_insert_with(|| Chain(&error).to_string()),
            Err(error) => self.failures.push(failed(error)),
        }
    }

    /// The steps in sections where nothing has failed yet.
    fn possible<'s>(&self, steps: Vec<&'s Step>) -> Vec<&'s Step> {
        let lacking: HashSet<&Arc<str>> = self.failures.iter().filter_map(StepError::section).collect();
        steps.into_iter().filter(|step| !lacking.contains(&step.section)).collect()
    }
}

async fn change_rules(
    runtime: &mut Runtime,
    rules: &RuleChange,
    map: &str,
    metrics: &HaproxyMetrics,
) -> Result<(), RuntimeError> {
    let ops = match rules {
        RuleChange::Keys(_) => rules.ops(map).unwrap_or_default(),
        RuleChange::Swap(all) => {
            let lines: Vec<_> = all.entries().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            return runtime.map_swap(map, &lines).await;
        }
    };
    let results = runtime.apply(&ops).await;
    ops.iter().zip(results).try_for_each(|(op, result)| {
        metrics.operation(op, result.is_ok());
        result
    })
}
