//! Containers that end again and again by themselves. Such a one is registered again only once it has run for a while. No
//! I/O; time is given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::desired::{Container, ContainerId, ContainerMap, Decision, State};
use tokio::time::Instant;

use crate::readiness::{Damping, WINDOW};

/// What the damping doubles: after the third end within the window a container must run for twice as long.
const UNIT: Duration = Duration::from_secs(1);

/// One container.
#[derive(Debug)]
struct Run {
    /// When Docker says that it started; `None`: it does not run.
    started_at: Option<Box<str>>,
    /// When that was seen.
    since: Instant,
    damping: Damping,
    /// What was decided about it when it ran last, once it has ended by itself.
    decisions: Vec<Arc<Decision>>,
}

/// All containers that run, or ran lately.
#[derive(Debug)]
pub struct Runs {
    begin: Instant,
    runs: BTreeMap<ContainerId, Run>,
    /// Somebody sent them a signal: their next end is no crash.
    asked: BTreeSet<ContainerId>,
    /// Those that are remembered although they are gone.
    gone: BTreeSet<ContainerId>,
    /// When the last of those was looked for whom there is nothing to remember any more.
    swept: Instant,
}

/// How often what is over for long is forgotten.
const SWEEP: Duration = Duration::from_secs(10);

impl Default for Runs {
    fn default() -> Self {
        let begin = Instant::now();
        Self { begin, runs: BTreeMap::new(), asked: BTreeSet::new(), gone: BTreeSet::new(), swept: begin }
    }
}

impl Runs {
    /// Somebody sent a signal to this container.
    pub fn asked_to_stop(&mut self, container: &ContainerId) {
        // One that ends before Docker is read is never looked at.
        if self.asked.len() > 64 + 2 * self.runs.len() {
            self.asked.retain(|id| self.runs.contains_key(id));
        }
        self.asked.insert(container.clone());
    }

    /// Docker was read, and these containers are not as they were.
    pub fn look(&mut self, changed: &BTreeSet<ContainerId>, containers: &ContainerMap, now: Instant) {
        let at = now.saturating_duration_since(self.begin);
        for id in changed {
            let container = containers.get(id);
            let runs = |c: &&Arc<Container>| matches!(c.state, State::Running | State::Paused);
            let started_at = container.filter(runs).map(|c| c.started_at.as_str());
            if let Some(run) = self.runs.get_mut(id) {
                run.damping.forget(at);
                if run.started_at.is_some() && run.started_at.as_deref() != started_at {
                    (run.started_at, run.since) = (None, now);
                    if !self.asked.remove(id) {
                        run.damping.fell(at);
                    }
                }
            }
            if let Some(started_at) = started_at {
                let new = || Run { started_at: None, since: now, damping: Damping::default(), decisions: Vec::new() };
                let run = self.runs.entry(id.clone()).or_insert_with(new);
                if run.started_at.is_none() {
                    (run.started_at, run.since) = (Some(started_at.into()), now);
                }
            }
            match container {
                Some(_) => self.gone.remove(id),
                None => self.gone.insert(id.clone()),
            };
        }
        let swept = now.saturating_duration_since(self.swept);
        if swept >= SWEEP || !self.gone.is_disjoint(changed) {
            self.sweep(at, if swept >= SWEEP { None } else { Some(changed) });
            self.swept = if swept >= SWEEP { now } else { self.swept };
        }
    }

    /// Forgets those that are gone, where there is nothing to remember of them: of these, or of all.
    fn sweep(&mut self, at: Duration, only: Option<&BTreeSet<ContainerId>>) {
        let Self { runs, asked, gone, .. } = self;
        let mut is_over = |id: &ContainerId| {
            let over = runs.get_mut(id).is_none_or(|run| {
                run.damping.forget(at);
                run.damping.falls() == 0
            });
            if over {
                runs.remove(id);
                asked.remove(id);
            }
            over
        };
        match only {
            None => gone.retain(|id| !is_over(id)),
            Some(changed) => {
                let over: Vec<ContainerId> = changed.iter().filter(|id| gone.contains(*id)).cloned().collect();
                for id in over.iter().filter(|id| is_over(id)) {
                    gone.remove(id);
                }
            }
        }
    }

    /// Why this container does not count at present although it is ready, if it ends too often.
    pub fn held_back(&self, container: &ContainerId, now: Instant) -> Option<String> {
        let run = self.runs.get(container)?;
        let hold = run.damping.hold(UNIT);
        (now < run.since + hold).then(|| {
            format!("{}, and counts again once it has run for {hold:?}", self.ends(container).unwrap_or_default())
        })
    }

    /// This is decided about a container that may be one of those.
    pub fn decided(&mut self, container: &ContainerId, decisions: &[Arc<Decision>]) {
        let ended = |run: &&mut Run| run.started_at.is_some() && run.damping.falls() > 0;
        if let Some(run) = self.runs.get_mut(container).filter(ended) {
            run.decisions = decisions.to_vec();
        }
    }

    /// It is removed, and will not run again.
    pub fn removed(&mut self, container: &ContainerId) {
        if let Some(run) = self.runs.get_mut(container) {
            run.decisions.clear();
        }
    }

    /// Of a container that ends too often, and does not run: what was decided about it, how often it has ended, and until when
    /// that is to be said, as it may run again.
    pub fn between(&self, container: &ContainerId, now: Instant) -> Option<(&[Arc<Decision>], String, Instant)> {
        let run = self.runs.get(container).filter(|run| run.started_at.is_none())?;
        let until = run.since + WINDOW;
        let loops = !run.damping.hold(UNIT).is_zero() && now < until;
        loops.then_some((&*run.decisions, self.ends(container)?, until))
    }

    /// How often this container has ended by itself, for people; `None`: not at all within the window.
    pub fn ends(&self, container: &ContainerId) -> Option<String> {
        let falls = self.runs.get(container).map(|run| run.damping.falls()).filter(|falls| *falls > 0)?;
        let times = if falls == 1 { "once".to_owned() } else { format!("{falls} times") };
        Some(format!("its container ended {times} within {} minutes", WINDOW.as_secs() / 60))
    }

    /// When this container counts again.
    pub fn next(&self, container: &ContainerId, now: Instant) -> Option<Instant> {
        let running = self.runs.get(container).filter(|run| run.started_at.is_some());
        running.map(|run| run.since + run.damping.hold(UNIT)).filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::containers;

    /// A container that runs since then; `None`: it restarts.
    fn map(started_at: Option<u32>) -> ContainerMap {
        let mut container = containers::running(1, 8000);
        match started_at {
            Some(n) => container.started_at = n.to_string(),
            None => container.state = State::Restarting,
        }
        [(container.id.clone(), Arc::new(container))].into()
    }

    /// A look at a map whose containers may all have changed.
    fn look(runs: &mut Runs, containers: &ContainerMap, now: Instant) {
        let known = runs.runs.keys().cloned().collect::<Vec<_>>();
        runs.look(&containers.keys().cloned().chain(known).collect(), containers, now);
    }

    #[test]
    fn what_ends_again_and_again_must_run_for_longer_each_time() {
        let (mut runs, mut now) = (Runs::default(), Instant::now());
        let id = map(None).keys().next().unwrap().clone();
        let mut holds = Vec::new();
        for n in 0..9 {
            look(&mut runs, &map(Some(n)), now);
            holds.push(runs.next(&id, now).map_or(0, |at| (at - now).as_secs()));
            assert_eq!(runs.held_back(&id, now).is_some(), holds.last() != Some(&0));
            now += Duration::from_secs(1);
            // Docker may be read between two runs, or only in the next one.
            if n % 2 == 0 {
                look(&mut runs, &map(None), now);
            }
        }
        assert_eq!(holds, [0, 0, 0, 2, 4, 8, 16, 32, 60]);
        assert_eq!(runs.ends(&id).unwrap(), "its container ended 9 times within 5 minutes");
        // It runs on: it counts, and what was is forgotten.
        look(&mut runs, &map(Some(100)), now);
        now += Duration::from_secs(60);
        assert_eq!(runs.held_back(&id, now), None);
        now += WINDOW;
        look(&mut runs, &map(Some(100)), now);
        assert_eq!(runs.ends(&id), None);
        look(&mut runs, &ContainerMap::new(), now);
        look(&mut runs, &ContainerMap::new(), now + WINDOW * 2);
        assert!(runs.runs.is_empty() && runs.asked.is_empty() && runs.gone.is_empty());
    }

    #[test]
    fn a_restart_that_somebody_asked_for_is_no_crash() {
        let (mut runs, now) = (Runs::default(), Instant::now());
        for n in 0..9 {
            look(&mut runs, &map(Some(n)), now);
            let id = map(None).keys().next().unwrap().clone();
            runs.asked_to_stop(&id);
            assert_eq!((runs.held_back(&id, now), runs.ends(&id)), (None, None));
        }
    }
}
