//! Keeps track of containers: what is decided about them, their gates, drains, handovers and warm-ups. Its user waits for
//! a change, lets what changed be judged again, and publishes what comes of that.
//!
//! A trigger carries no data, but for events, which may begin or end a drain. It only says which containers are to be judged
//! again, so what a change costs depends on how much changes, and not on how many containers there are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::alarms::Alarms;
use super::decided::Decided;
use super::drain::{Cause, Drains};
use super::handover::Handovers;
use super::runs::Runs;
use super::warmup::Warmups;
use crate::docker::{Containers, Event, EventKind};
use crate::readiness::{CheckState, GateKey, Readiness};
use agent::watch::{Inlet, Observation};
use model::desired::{ContainerId, Decision, Settings, State};
use model::{BackendId, ServiceName};

/// How long an answer counts that does not tell whether a container outlived the deadline of its drain.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What has happened to containers.
#[derive(Debug, Default)]
pub struct News {
    /// Events that came.
    pub events: u64,
    /// Docker was read: [`Keeper::open_gates`] is due.
    pub looked: bool,
    /// Containers that outlived the deadline of their drain, and take clients again.
    pub reverted: u64,
}

/// All that is known of a daemon's containers.
pub struct Keeper {
    containers: Inlet<Containers>,
    events: mpsc::Receiver<Event>,
    pub(super) decided: Decided,
    pub(super) readiness: Readiness,
    pub(super) drains: Drains,
    pub(super) warmups: Warmups,
    /// Whether containers that are overdue still run, being asked.
    questions: JoinSet<(ContainerId, bool)>,
    pub(super) runs: Runs,
    pub(super) handovers: Handovers,
    pub(super) alarms: Alarms,
    /// Those for which something else may come of it now.
    pub(super) dirty: BTreeSet<ContainerId>,
    /// Those whose gates are to be looked after.
    ungated: BTreeSet<ContainerId>,
}

impl Keeper {
    /// Nothing is known before [`Self::changed`].
    pub fn new(
        containers: Inlet<Containers>,
        events: mpsc::Receiver<Event>,
        settings: Settings,
        readiness: Readiness,
    ) -> Self {
        Self {
            containers,
            events,
            decided: Decided::new(settings),
            readiness,
            drains: Drains::default(),
            warmups: Warmups::default(),
            questions: JoinSet::new(),
            runs: Runs::default(),
            handovers: Handovers::default(),
            alarms: Alarms::default(),
            dirty: BTreeSet::new(),
            ungated: BTreeSet::new(),
        }
    }

    /// What Docker runs.
    pub fn containers(&self) -> Observation<Containers> {
        self.containers.borrow().clone()
    }

    /// All that is decided about it, the containers by id.
    pub fn decisions(&self) -> impl Iterator<Item = &Arc<Decision>> {
        self.decided.decider.all()
    }

    /// What is decided about this container.
    pub fn decisions_of(&self, container: &ContainerId) -> &[Arc<Decision>] {
        self.decided.decider.of(container)
    }

    /// When Docker says that this container was started.
    pub fn started_at(&self, container: &ContainerId) -> Option<&str> {
        self.decided.decider.started_at(container)
    }

    /// Whether Docker lists this container, cannot describe it, and never could.
    pub fn is_undescribed(&self, container: &ContainerId) -> bool {
        self.decided.refused.contains_key(container) && self.decisions_of(container).is_empty()
    }

    /// Whether the first try of every gate has come back.
    pub fn is_settled(&self) -> bool {
        self.readiness.is_settled()
    }

    /// The checks of a decision's candidate.
    pub fn checks(&self, decision: &Decision) -> Vec<CheckState> {
        decision.candidate().map(|c| self.readiness.checks(&GateKey::of(&decision.container, c))).unwrap_or_default()
    }

    /// Waits until something happens that may change what is judged, and takes in all that has happened. Cancel-safe.
    pub async fn changed(&mut self) -> News {
        let mut news = News::default();
        let deadline = self.drains.next_deadline().into_iter().chain(self.alarms.next()).min();
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => self.take(&event, &mut news),
            Ok(()) = self.containers.changed() => self.look(&mut news),
            changed = self.readiness.changed() => self.dirty.extend(changed),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.expire(&mut news),
            Some(answer) = self.questions.join_next() => self.hear(answer, &mut news),
        }
        // Takes all that is there; else a dead container would show for one turn without its drain.
        while let Ok(event) = self.events.try_recv() {
            self.take(&event, &mut news);
        }
        if self.containers.has_changed().unwrap_or(false) {
            self.look(&mut news);
        }
        self.dirty.extend(self.readiness.changed_by_now());
        news
    }

    /// This host has another address: all is decided again.
    pub fn move_to(&mut self, host_ip: Option<IpAddr>) {
        let settings = Settings { host_ip, ..self.decided.decider.settings().clone() };
        self.decided.decider.change(settings);
        self.look(&mut News::default());
    }

    /// This container is to be judged again.
    pub fn touch(&mut self, container: &ContainerId) {
        self.dirty.insert(container.clone());
    }

    /// Drains at an operator's request, or ends a drain. Returns whether something changed.
    pub fn operate(&mut self, container: &ContainerId, drain: bool) -> bool {
        self.touch(container);
        if drain { self.drains.request(container.clone()) } else { self.drains.release(container) }
    }

    /// An event may begin or end a drain; what became of the container is seen when it is read again.
    fn take(&mut self, event: &Event, news: &mut News) {
        news.events += 1;
        match event.kind {
            EventKind::Kill { .. } => self.runs.asked_to_stop(&event.container),
            EventKind::Destroy => {
                self.runs.removed(&event.container);
                self.dirty.insert(event.container.clone());
            }
            _ => {}
        }
        let found = self.decided.candidate(&event.container);
        if !self.drains.observe(event, found.map(|(_, candidate)| candidate), Instant::now()) {
            return;
        }
        self.dirty.insert(event.container.clone());
        if let (Some((decision, _)), Some(drain)) = (found, self.drains.get(&event.container)) {
            let deadline_ms = drain.deadline.map_or(0, |at| at.duration_since(Instant::now()).as_millis());
            debug!(container = %decision.name, id = %event.container, deadline_ms, "Asked to stop.");
        }
    }

    /// Docker was read.
    fn look(&mut self, news: &mut News) {
        news.looked = true;
        let observation = self.containers.borrow_and_update().clone();
        let Some(containers) = observation.snapshot() else { return };
        let changed = self.decided.look(containers);
        self.runs.look(&changed, &containers.running, Instant::now());
        let known = |id: &ContainerId| containers.running.contains_key(id) || containers.refused.contains_key(id);
        for id in changed.iter().filter(|id| !known(id)) {
            self.drains.release(id);
        }
        self.dirty.extend(changed.iter().cloned());
        self.ungated.extend(changed);
    }

    /// Makes gates for new candidates. Those in `registered` begin open, and those in `draining` drain on: a former self
    /// left them so.
    pub fn open_gates(
        &mut self,
        registered: &BTreeSet<(ServiceName, BackendId)>,
        draining: &BTreeMap<(ServiceName, BackendId), Cause>,
    ) {
        if self.containers.borrow().snapshot().is_none() {
            return;
        }
        for id in std::mem::take(&mut self.ungated) {
            let decisions = self.decided.decider.of(&id);
            let candidates = || decisions.iter().filter_map(|decision| decision.candidate());
            for candidate in candidates().filter(|_| !draining.is_empty()) {
                if let Some(cause) = draining.get(&(candidate.service.clone(), candidate.backend.id.clone())) {
                    self.drains.restore(id.clone(), *cause, candidate, Instant::now());
                }
            }
            let started_at = self.decided.decider.started_at(&id).unwrap_or_default();
            self.readiness.update(&id, candidates(), started_at, registered);
        }
    }

    /// Those whose gates are about to be made or dropped.
    pub fn ungated(&self) -> impl Iterator<Item = &ContainerId> {
        self.ungated.iter()
    }

    /// A container takes clients again only when it is known to have outlived the deadline of its drain. What Docker said before the
    /// deadline is no proof: it may have fallen silent, as a whole or about this container.
    fn expire(&mut self, news: &mut News) {
        self.dirty.extend(self.alarms.take_due(Instant::now()));
        for id in self.drains.expire(Instant::now()) {
            self.dirty.insert(id.clone());
            let told = match &*self.containers.borrow() {
                Observation::Synced { snapshot } => {
                    snapshot.running.contains_key(&id) && !snapshot.refused.contains_key(&id)
                }
                _ => false,
            };
            match self.readiness.docker().cloned() {
                Some(docker) if told => drop(self.questions.spawn(async move {
                    let runs = docker
                        .inspect(&id)
                        .await
                        .is_ok_and(|found| found.is_some_and(|c| matches!(c.state, State::Running | State::Paused)));
                    (id, runs)
                })),
                _ => self.answer(&id, told, news),
            }
        }
    }

    fn hear(&mut self, answer: Result<(ContainerId, bool), tokio::task::JoinError>, news: &mut News) {
        if let Ok((id, runs)) = answer {
            self.answer(&id, runs, news);
        }
    }

    fn answer(&mut self, id: &ContainerId, runs: bool, news: &mut News) {
        if !runs {
            return self.drains.ask_again(id, Instant::now() + ASK_AGAIN);
        }
        if self.drains.get(id).is_some_and(|drain| drain.overdue) {
            self.drains.release(id);
            self.touch(id);
            news.reverted += 1;
            let name = self.decisions_of(id).first().map_or("", |d| &d.name);
            warn!(container = %name, %id, "Asked to stop, but still running after its deadline: taking clients again.");
        }
    }

    /// Everything drains until `end`.
    pub fn drain_all(&mut self, end: Instant) {
        let with_candidate = self.decided.decider.all().filter(|d| d.candidate().is_some());
        for container in with_candidate.map(|d| d.container.clone()).collect::<Vec<_>>() {
            if self.drains.leave(container.clone(), end) {
                self.dirty.insert(container);
            }
        }
    }
}
