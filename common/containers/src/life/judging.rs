//! What becomes of containers, by all that the keeper knows of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::handover::Handovers;
use super::keeper::Keeper;
use super::verdict::{Judged, RowState, judge};
use crate::readiness::{GateKey, Verdict, Why};
use model::Status;
use model::desired::{Candidate, ContainerId, Decision, Outcome, Skip, State};

/// What became of each port of some containers.
pub type Judgement = BTreeMap<ContainerId, Vec<(Arc<Decision>, Judged)>>;

impl Keeper {
    /// What has become of each port of the containers for which that may have changed; of one that does not run any more, nothing.
    ///
    /// A candidate replaces another one only where it is `published`. With `grown`, what takes clients now has warmed up.
    pub fn judge(&mut self, published: impl Fn(&Candidate) -> bool, grown: bool) -> Judgement {
        let now = Instant::now();
        self.dirty.extend(self.alarms.take_due(now));
        self.hand_over(published, now);
        let mut judgement = Judgement::new();
        for id in std::mem::take(&mut self.dirty) {
            self.warmups.begin(&id);
            let decisions = self.decided.decider.of(&id).to_vec();
            self.runs.decided(&id, &decisions);
            let of = |decision: Arc<Decision>| Some((self.judge_one(&decision, grown, now)?, decision));
            let mut ports: Vec<_> =
                decisions.into_iter().filter_map(of).map(|(judged, decision)| (decision, judged)).collect();
            let mut next = self.warmups.next(&id, now).into_iter().chain(self.runs.next(&id, now)).min();
            if ports.is_empty()
                && let Some((decisions, ends, until)) = self.runs.between(&id, now)
            {
                let judged = Judged::between_runs(format!("{ends}, and it does not run now"));
                ports = decisions.iter().map(|decision| (decision.clone(), judged.clone())).collect();
                next = Some(until);
            }
            self.alarms.set(&id, next);
            judgement.insert(id, ports);
        }
        judgement
    }

    /// Works out who replaces whom.
    fn hand_over(&mut self, published: impl Fn(&Candidate) -> bool, now: Instant) {
        let Self { decided, readiness, drains, runs, .. } = &*self;
        if decided.replacers.is_empty() && self.handovers == Handovers::default() {
            return;
        }
        let serves = |decision: &Decision, candidate: &Candidate| {
            candidate.backend.status == Status::Up
                && drains.get(&decision.container).is_none()
                && runs.held_back(&decision.container, now).is_none()
                && matches!(readiness.verdict(&GateKey::of(&decision.container, candidate)), Verdict::Ready(_))
                && published(candidate)
        };
        let replacers: Vec<_> = decided.replacers.iter().flat_map(|id| decided.decider.of(id)).cloned().collect();
        let newer = Handovers::new(&replacers, &decided.names, serves);
        self.dirty.extend(self.handovers.differences(&newer).cloned());
        self.handovers = newer;
    }

    fn judge_one(&mut self, decision: &Decision, grown: bool, now: Instant) -> Option<Judged> {
        let container = &decision.container;
        let candidate = match &decision.outcome {
            Outcome::Skip(Skip::Stopped(State::Restarting)) => {
                let ends = self.runs.ends(container).unwrap_or_else(|| "its container ended".to_owned());
                return Some(Judged::between_runs(format!("{ends}; its restart policy starts it again")));
            }
            Outcome::Skip(Skip::Stopped(_)) => return None,
            Outcome::Skip(skip) => return Some(Judged::skipped(skip)),
            Outcome::Register(candidate) => candidate,
        };
        let key = GateKey::of(container, candidate);
        let verdict = self.readiness.verdict(&key);
        let replaced = || self.handovers.get(container, &candidate.service);
        let mut judged = judge(candidate, verdict, self.drains.get(container).or_else(replaced));
        // Whether it is ready yet is another matter in each of its runs, and the loop is the same one.
        if matches!(judged.state, RowState::Up | RowState::Waiting)
            && let Some(why) = self.runs.held_back(container, now)
        {
            judged = Judged::between_runs(why);
        }
        if let (RowState::Up, Some(backend)) = (judged.state, &mut judged.backend) {
            let verdict = if grown { &Verdict::Ready(Why::Registered) } else { verdict };
            backend.weight = self.warmups.weigh(&key, candidate, verdict, now);
        }
        Some(judged)
    }
}
