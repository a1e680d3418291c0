//! Keeps track of containers: what is decided about them, their gates, drains, handovers and warm-ups. Its user waits for
//! a change, lets everything be judged again, and publishes what comes of that.
//!
//! A trigger carries no data, but for events, which may begin or end a drain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::drain::{Cause, Drains};
use super::handover::Handovers;
use super::runs::Runs;
use super::verdict::{Judged, RowState, judge};
use super::warmup::Warmups;
use crate::docker::{Containers, Event, EventKind};
use crate::readiness::{CheckState, GateKey, Readiness, Verdict, Why};
use agent::watch::{Inlet, Observation};
use model::desired::{Candidate, ContainerId, Decider, Decision, Outcome, Settings, Skip, State};
use model::{BackendId, ServiceName, Status};

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
    decider: Decider,
    decisions: Vec<Arc<Decision>>,
    readiness: Readiness,
    /// Which containers drain.
    pub drains: Drains,
    warmups: Warmups,
    /// What was said of each container.
    warned: BTreeMap<ContainerId, BTreeSet<String>>,
    /// Whether containers that are overdue still run, being asked.
    questions: JoinSet<(ContainerId, bool)>,
    runs: Runs,
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
            decider: Decider::new(settings),
            decisions: Vec::new(),
            readiness,
            drains: Drains::default(),
            warmups: Warmups::default(),
            warned: BTreeMap::new(),
            questions: JoinSet::new(),
            runs: Runs::default(),
        }
    }

    /// What Docker runs.
    pub fn containers(&self) -> Observation<Containers> {
        self.containers.borrow().clone()
    }

    /// What is decided about it.
    pub fn decisions(&self) -> &[Arc<Decision>] {
        &self.decisions
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
        let now = Instant::now();
        let deadline = [self.drains.next_deadline(), self.warmups.next(now), self.runs.next(now)];
        let deadline = deadline.into_iter().flatten().min();
        tokio::select! {
            biased;
            Some(event) = self.events.recv() => self.take(&event, &mut news),
            Ok(()) = self.containers.changed() => self.look(&mut news),
            () = self.readiness.changed() => {}
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
        news
    }

    /// This host has another address: all is decided again.
    pub fn move_to(&mut self, host_ip: Option<IpAddr>) {
        self.decider = Decider::new(Settings { host_ip, ..self.decider.settings().clone() });
        self.look(&mut News::default());
    }

    /// An event may begin or end a drain; what became of the container is seen when it is read again.
    fn take(&mut self, event: &Event, news: &mut News) {
        news.events += 1;
        if matches!(event.kind, EventKind::Kill { .. }) {
            self.runs.asked_to_stop(&event.container);
        }
        let of_container = |d: &&Arc<Decision>| d.container == event.container && d.candidate().is_some();
        let decision = self.decisions.iter().find(of_container);
        if self.drains.observe(event, decision.and_then(|d| d.candidate()), Instant::now())
            && let (Some(decision), Some(drain)) = (decision, self.drains.get(&event.container))
        {
            let deadline_ms = drain.deadline.map_or(0, |at| at.duration_since(Instant::now()).as_millis());
            debug!(container = %decision.name, id = %event.container, deadline_ms, "Asked to stop.");
        }
    }

    /// Docker was read.
    fn look(&mut self, news: &mut News) {
        news.looked = true;
        let observation = self.containers.borrow_and_update().clone();
        let Some(containers) = observation.snapshot() else { return };
        self.decisions = self.decider.decide(&containers.running);
        self.runs.look(&containers.running, Instant::now());
        self.drains.retain(|id| containers.running.contains_key(id) || containers.refused.contains_key(id));
    }

    /// Logs what the owners of containers should mend, each once as long as its container runs.
    pub fn warn_once(&mut self) {
        let running: BTreeSet<&ContainerId> = self.decisions.iter().map(|decision| &decision.container).collect();
        self.warned.retain(|id, _| running.contains(id));
        for decision in &self.decisions {
            let skip = match &decision.outcome {
                Outcome::Skip(Skip::Filtered(_)) => continue, // it is no concern of this agent's
                Outcome::Skip(skip) => skip.to_string(),
                Outcome::Register(_) => String::new(),
            };
            // Why it is left out is said with its standing.
            for warning in decision.warnings.iter().filter(|warning| **warning != skip) {
                if self.warned.entry(decision.container.clone()).or_default().insert(warning.clone()) {
                    warn!(container = %decision.name, id = %decision.container, "{warning}");
                }
            }
        }
    }

    /// Makes gates for new candidates. Those in `registered` begin open, and those in `draining` drain on: a former self
    /// left them so.
    pub fn open_gates(
        &mut self,
        registered: &BTreeSet<(ServiceName, BackendId)>,
        draining: &BTreeMap<(ServiceName, BackendId), Cause>,
    ) {
        let observation = self.containers.borrow();
        let Some(containers) = observation.snapshot() else { return };
        let candidates = || self.decisions.iter().filter_map(|d| Some((d, d.candidate()?)));
        for (decision, candidate) in candidates().filter(|_| !draining.is_empty()) {
            if let Some(cause) = draining.get(&(candidate.service.clone(), candidate.backend.id.clone())) {
                self.drains.restore(decision.container.clone(), *cause, candidate, Instant::now());
            }
        }
        let gates = candidates().filter_map(|(decision, candidate)| {
            let started_at = containers.running.get(&decision.container)?.started_at.as_str();
            Some((GateKey::of(&decision.container, candidate), candidate, started_at))
        });
        self.readiness.update(gates, registered);
    }

    /// A container takes clients again only when it is known to have outlived the deadline of its drain. What Docker said before the
    /// deadline is no proof: it may have fallen silent, as a whole or about this container.
    fn expire(&mut self, news: &mut News) {
        for id in self.drains.expire(Instant::now()) {
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
            news.reverted += 1;
            let name = self.decisions.iter().find(|d| d.container == *id).map_or("", |d| &d.name);
            warn!(container = %name, %id, "Asked to stop, but still running after its deadline: taking clients again.");
        }
    }

    /// Everything drains until `end`.
    pub fn drain_all(&mut self, end: Instant) {
        for decision in self.decisions.iter().filter(|d| d.candidate().is_some()) {
            self.drains.leave(decision.container.clone(), end);
        }
    }

    /// What becomes of each port of each container that runs, in the order in which the containers were started.
    ///
    /// A candidate replaces another one only where it is `published`. With `grown`, what takes clients now has warmed up.
    pub fn judge(&mut self, published: impl Fn(&Candidate) -> bool, grown: bool) -> Vec<(Arc<Decision>, Judged)> {
        let Self { decisions, readiness, drains, warmups, runs, .. } = self;
        let now = Instant::now();
        let serves = |decision: &Decision, candidate: &Candidate| {
            candidate.backend.status == Status::Up
                && drains.get(&decision.container).is_none()
                && runs.held_back(&decision.container, now).is_none()
                && matches!(readiness.verdict(&GateKey::of(&decision.container, candidate)), Verdict::Ready(_))
                && published(candidate)
        };
        let handovers = Handovers::new(decisions, serves);
        warmups.begin_turn();
        let mut of_candidate = |decision: &Decision, candidate: &Candidate| {
            let key = GateKey::of(&decision.container, candidate);
            let verdict = readiness.verdict(&key);
            let replaced = || handovers.get(&decision.container, &candidate.service);
            let mut judged = judge(candidate, verdict, drains.get(&decision.container).or_else(replaced));
            if judged.state == RowState::Up
                && let Some(why) = runs.held_back(&decision.container, now)
            {
                judged = Judged::between_runs(why);
            }
            if let (RowState::Up, Some(backend)) = (judged.state, &mut judged.backend) {
                let verdict = if grown { &Verdict::Ready(Why::Registered) } else { verdict };
                backend.weight = warmups.weigh(&key, candidate, verdict, now);
            }
            judged
        };
        let of = |decision: &Arc<Decision>| {
            let judged = match &decision.outcome {
                Outcome::Skip(Skip::Stopped(State::Restarting)) => {
                    let ends = runs.ends(&decision.container).unwrap_or_else(|| "its container ended".to_owned());
                    Judged::between_runs(format!("{ends}; its restart policy starts it again"))
                }
                Outcome::Skip(Skip::Stopped(_)) => return None,
                Outcome::Skip(skip) => Judged::skipped(skip),
                Outcome::Register(candidate) => of_candidate(decision, candidate),
            };
            Some((Arc::clone(decision), judged))
        };
        decisions.iter().filter_map(of).collect()
    }
}
