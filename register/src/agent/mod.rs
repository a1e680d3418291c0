//! The agent: containers, events, readiness and drains in; registrations out.
//!
//! | module | what it holds |
//! |---|---|
//! | this one | the loop: whatever happens, everything that is known is judged again |
//! | `turn` | that judgement, pure |
//! | `found` | what the former self left in the registry |
//! | `control` | what an operator may ask |
//!
//! The rule: a trigger carries no data, but for events, which may begin or end a drain.

pub mod control;
pub mod found;
pub mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::containers::docker::{Containers, Docker, Event};
use common::containers::life::handover::Handovers;
use common::desired::{Candidate, ContainerId, Decider, Decision, Settings};
use common::model::{BackendId, Prefix, ServiceName, Status};
use common::watch::{Inlet, Observation};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::address::HostAddress;
use crate::metrics::Metrics;
use crate::publish::{Publication, Registrations};
use common::containers::life::drain::Drains;
use common::containers::life::warmup::Warmups;
use common::containers::readiness::{CheckTarget, Readiness, ReadyMode, Verdict};
use control::{Request, resolve};
use found::Found;
use turn::{Row, gate_key, turn};

/// The agent's inputs and outputs.
pub struct Wires {
    /// What Docker runs.
    pub containers: Inlet<Containers>,
    /// What happens to it.
    pub events: mpsc::Receiver<Event>,
    /// This host's address.
    pub address: watch::Receiver<HostAddress>,
    /// How the publisher does.
    pub publication: watch::Receiver<Publication>,
    /// What an operator asks.
    pub requests: mpsc::Receiver<Request>,
    /// What to publish.
    pub desired: watch::Sender<Option<Arc<Registrations>>>,
    /// What is shown.
    pub rows: watch::Sender<Arc<[Row]>>,
    /// Counts whatever changed, for those who look at the status.
    pub changes: watch::Sender<u64>,
}

/// How the agent behaves.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// What is made of a container.
    pub settings: Settings,
    /// What opens the gate of a container without any check.
    pub ready: ReadyMode,
    /// What checks dial.
    pub check_target: CheckTarget,
    /// Runs commands in containers; `None`: such checks fail.
    pub docker: Option<Docker>,
    /// Where backends lie in the registry.
    pub prefix: Prefix,
    /// `--on-exit drain`: how long everything drains at the end; `None`: everything is kept.
    pub drain_at_exit: Option<Duration>,
}

/// The agent.
pub struct Agent {
    wires: Wires,
    settings: AgentSettings,
    metrics: Metrics,
    readiness: Readiness,
    drains: Drains,
    warmups: Warmups,
    decider: Decider,
    decisions: Vec<Arc<Decision>>,
    /// What the former self left as up, until this one has written.
    former: BTreeSet<(ServiceName, BackendId)>,
    /// What the former self left; known once the publisher has a claim, of use until the first turn after that.
    found: Option<Found>,
    /// What is published of containers that Docker lists and cannot describe: nothing may be concluded about them.
    kept: Registrations,
    started: bool,
    warned: BTreeMap<ContainerId, BTreeSet<String>>,
}

impl Agent {
    /// Nothing happens before [`Self::run`].
    pub fn new(wires: Wires, settings: AgentSettings, metrics: Metrics) -> Self {
        let mut readiness = Readiness::new(settings.ready).with_metrics(metrics.checks.clone());
        readiness = readiness.with_target(settings.check_target);
        if let Some(docker) = settings.docker.clone() {
            readiness = readiness.with_docker(docker);
        }
        let decider = Decider::new(settings.settings.clone());
        Self {
            wires,
            settings,
            metrics,
            readiness,
            drains: Drains::default(),
            warmups: Warmups::default(),
            decider,
            decisions: Vec::new(),
            former: BTreeSet::new(),
            found: None,
            kept: Registrations::new(),
            started: false,
            warned: BTreeMap::new(),
        }
    }

    /// Runs until cancelled, and with `--on-exit drain` until everything has drained. `at_end` is cancelled then;
    /// `revoke` before it where nothing is to be kept.
    pub async fn run(mut self, cancel: CancellationToken, at_end: CancellationToken, revoke: CancellationToken) {
        let _stop_publishing = at_end.drop_guard();
        let mut end: Option<Instant> = None;
        loop {
            let warmer = self.warmups.next(Instant::now());
            let deadline = [self.drains.next_deadline(), warmer, end].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = cancel.cancelled(), if end.is_none() => {
                    let Some(wait) = self.settings.drain_at_exit else { return };
                    info!(wait_ms = wait.as_millis(), "Draining everything before the end.");
                    end = Some(Instant::now() + wait);
                }
                Some(event) = self.wires.events.recv() => self.take(&event),
                Some(request) = self.wires.requests.recv() => self.serve(request),
                Ok(()) = self.wires.containers.changed() => self.look(),
                Ok(()) = self.wires.address.changed() => self.move_to_address(),
                () = self.readiness.changed() => {}
                Ok(()) = self.wires.publication.changed() => self.learn(),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if end.is_some_and(|end| end <= Instant::now()) {
                        revoke.cancel();
                        return;
                    }
                    self.expire();
                }
            }
            if let Some(end) = end {
                self.drain_all_until(end);
            }
            self.turn();
        }
    }

    /// An event may begin or end a drain; what became of the container is seen when it is read again.
    fn take(&mut self, event: &Event) {
        self.metrics.events.inc();
        let of_container = |d: &&Arc<Decision>| d.container == event.container && d.candidate().is_some();
        let decision = self.decisions.iter().find(of_container);
        if self.drains.observe(event, decision.and_then(|d| d.candidate()), Instant::now())
            && let (Some(decision), Some(drain)) = (decision, self.drains.get(&event.container))
        {
            let deadline_ms = drain.deadline.map_or(0, |at| at.duration_since(Instant::now()).as_millis());
            info!(container = %decision.name, id = %event.container, deadline_ms, "Asked to stop: draining.");
        }
    }

    /// Docker was read.
    fn look(&mut self) {
        let observation = self.wires.containers.borrow_and_update().clone();
        self.metrics.docker_up.set(i64::from(matches!(observation, Observation::Synced { .. })));
        self.wires.changes.send_modify(|n| *n += 1);
        let Some(containers) = observation.snapshot() else { return };
        self.decisions = self.decider.decide(&containers.running);
        self.drains.retain(|id| containers.running.contains_key(id) || containers.refused.contains_key(id));
        self.warned.retain(|id, _| containers.running.contains_key(id));
        self.warn_once();
        self.open_gates();
    }

    /// This host has another address: all is decided again.
    fn move_to_address(&mut self) {
        let host_ip = self.wires.address.borrow_and_update().address;
        self.decider = Decider::new(Settings { host_ip, ..self.decider.settings().clone() });
        self.look();
    }

    /// The publisher got further.
    fn learn(&mut self) {
        self.wires.changes.send_modify(|n| *n += 1);
        let found = self.wires.publication.borrow_and_update().found.clone();
        if let (Some(entries), false) = (found, self.started) {
            let found = Found::read(&self.settings.prefix, &entries);
            self.former = found.registered.iter().filter(|key| !found.draining.contains_key(key)).cloned().collect();
            self.kept = found.left.clone();
            self.found = Some(found);
            self.started = true;
            self.open_gates();
        }
    }

    /// Makes gates for what was decided, once it is known what the former self left, and takes its drains over.
    fn open_gates(&mut self) {
        let observation = self.wires.containers.borrow().clone();
        let (Some(containers), true) = (observation.snapshot(), self.started) else { return };
        let mut found = self.found.take().unwrap_or_default();
        // One that can be described again need not prove itself from nothing.
        found.registered.extend(self.kept.iter().filter(|(_, b)| b.status != Status::Down).map(|(key, _)| key.clone()));
        let candidates = || self.decisions.iter().filter_map(|d| Some((d, d.candidate()?)));
        for (decision, candidate) in candidates() {
            let key = (candidate.service.clone(), candidate.backend.id.clone());
            if let Some(cause) = found.draining.get(&key) {
                self.drains.restore(decision.container.clone(), *cause, candidate, Instant::now());
            }
        }
        let gates = candidates().filter_map(|(decision, candidate)| {
            let started_at = containers.running.get(&decision.container)?.started_at.as_str();
            Some((gate_key(decision, candidate), candidate, started_at))
        });
        self.readiness.update(gates, &found.registered);
    }

    fn serve(&mut self, request: Request) {
        let found = resolve(&request.whom, &self.decisions);
        if let Ok(containers) = &found {
            for (id, name) in containers {
                let changed = if request.drain { self.drains.request(id.clone()) } else { self.drains.release(id) };
                if changed {
                    info!(container = %name, %id, drain = request.drain, "An operator's request.");
                }
            }
        }
        // An operator who did not wait for the answer does not need it.
        let _ = request.reply.send(found.map(|all| all.into_iter().map(|(_, name)| name).collect()));
    }

    fn expire(&mut self) {
        for id in self.drains.expire(Instant::now()) {
            self.metrics.drains_reverted.inc();
            let name = self.decisions.iter().find(|d| d.container == id).map_or("", |d| &d.name);
            warn!(container = %name, %id, "Asked to stop, but still running after its deadline: taking clients again.");
        }
    }

    fn drain_all_until(&mut self, end: Instant) {
        for decision in self.decisions.iter().filter(|d| d.candidate().is_some()) {
            self.drains.leave(decision.container.clone(), end);
        }
    }

    fn warn_once(&mut self) {
        for decision in &self.decisions {
            for warning in &decision.warnings {
                if self.warned.entry(decision.container.clone()).or_default().insert(warning.clone()) {
                    warn!(container = %decision.name, id = %decision.container, "{warning}");
                }
            }
        }
    }

    /// Whether a candidate takes clients, as far as it is up to itself: it works, nobody drains it, and the registry
    /// holds it. Only then may it replace another one.
    fn serves(&self, decision: &Decision, candidate: &Candidate) -> bool {
        let key = (candidate.service.clone(), candidate.backend.id.clone());
        let published = match &self.wires.publication.borrow().published {
            Some(published) => published.get(&key).is_some_and(|b| b.status != Status::Down),
            None => self.former.contains(&key),
        };
        published
            && candidate.backend.status == Status::Up
            && self.drains.get(&decision.container).is_none()
            && matches!(self.readiness.verdict(&gate_key(decision, candidate)), Verdict::Ready(_))
    }

    /// What was published of containers of which no description is known: by the turn before, or by the former self.
    fn keep_refused(&mut self) {
        let observation = self.wires.containers.borrow();
        let Some(containers) = observation.snapshot() else { return };
        let unknown = containers.refused.keys().filter(|id| !containers.running.contains_key(*id));
        let refused: BTreeSet<&str> = unknown.map(ContainerId::short).collect();
        let is_refused = |id: &BackendId| id.as_str().split(':').next().is_some_and(|id| refused.contains(id));
        if let Some(published) = &*self.wires.desired.borrow() {
            self.kept =
                published.iter().filter(|((_, id), _)| is_refused(id)).map(|(k, b)| (k.clone(), b.clone())).collect();
        } else {
            self.kept.retain(|(_, id), _| is_refused(id));
        }
    }

    fn turn(&mut self) {
        if !self.started || self.wires.containers.borrow().snapshot().is_none() {
            return;
        }
        let began = Instant::now();
        let handovers = Handovers::new(&self.decisions, |decision, candidate| self.serves(decision, candidate));
        let warmups = (&mut self.warmups, Instant::now());
        let mut turn = turn(&self.decisions, &self.readiness, &self.drains, &handovers, warmups);
        turn.refuse(&self.wires.publication.borrow().refused);
        self.keep_refused();
        turn.registrations.extend(self.kept.clone());
        self.metrics.turns.inc();
        let changed = self.wires.desired.send_if_modified(|desired| {
            let changed = desired.as_deref() != Some(&turn.registrations);
            if changed {
                *desired = Some(Arc::new(turn.registrations));
            }
            changed
        });
        if changed {
            self.metrics.changes.inc();
        }
        self.metrics.count(&turn.rows);
        let shown = self.wires.rows.send_if_modified(|rows| {
            let changed = **rows != *turn.rows;
            if changed {
                *rows = turn.rows.into();
            }
            changed
        });
        if changed || shown {
            self.wires.changes.send_modify(|n| *n += 1);
        }
        self.metrics.turn_duration.observe(began.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
