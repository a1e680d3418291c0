//! Warm-up: the weight of a backend that has just become ready grows in a few steps (label `register.warmup`). No I/O;
//! time is given.
//!
//! Few steps, as each is a write that wakes every watcher.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::readiness::{GateKey, Verdict, Why};
use model::Weight;
use model::desired::{Candidate, ContainerId};

/// In how many steps a weight grows, the first being where it begins.
const STEPS: u32 = 5;

#[derive(Debug, Clone, Copy)]
struct Warming {
    since: Instant,
    over: Duration,
}

impl Warming {
    /// 1 to [`STEPS`].
    fn step(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.since);
        (1..STEPS).find(|step| passed < self.begins(*step)).unwrap_or(STEPS)
    }

    /// How long after the start the step after `step` begins.
    fn begins(&self, step: u32) -> Duration {
        self.over / STEPS * step
    }
}

/// The backends that warm up.
#[derive(Debug, Default)]
pub struct Warmups {
    all: BTreeMap<ContainerId, Vec<(GateKey, Option<Warming>)>>,
    /// Those of the container that is being judged, as they were before.
    former: Vec<(GateKey, Option<Warming>)>,
}

impl Warmups {
    /// A container is about to be judged. What of it is not weighed then is forgotten, and begins anew when it comes back.
    pub fn begin(&mut self, container: &ContainerId) {
        self.former = self.all.remove(container).unwrap_or_default();
    }

    /// The weight of a candidate that takes clients. One without a weight above 1 has nothing to grow; one that was
    /// registered when this agent started has grown already.
    pub fn weigh(&mut self, key: &GateKey, candidate: &Candidate, verdict: &Verdict, now: Instant) -> Option<Weight> {
        let full = candidate.backend.weight?;
        let Some(over) = candidate.warmup.filter(|_| full.get() > 1) else { return Some(full) };
        let begun = || (*verdict != Verdict::Ready(Why::Registered)).then_some(Warming { since: now, over });
        let former = self.former.iter().find(|(former, _)| former == key).map(|(_, warming)| *warming);
        let warming = former.unwrap_or_else(begun);
        self.all.entry(key.container.clone()).or_default().push((key.clone(), warming));
        let Some(step) = warming.map(|w| w.step(now)) else { return Some(full) };
        let grown = u32::from(full.get()) * step / STEPS;
        Weight::try_from(grown.max(1)).ok()
    }

    /// When the next weight of this container grows.
    pub fn next(&self, container: &ContainerId, now: Instant) -> Option<Instant> {
        let next = |w: Warming| (w.step(now) < STEPS).then(|| w.since + w.begins(w.step(now)));
        self.all.get(container)?.iter().filter_map(|(_, warming)| next((*warming)?)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use testing::containers;

    #[test]
    fn a_weight_grows_in_five_steps_and_begins_anew_with_the_next_run() {
        let mut candidate = containers::candidate();
        let key = GateKey::of(&"ab".repeat(32).parse().unwrap(), &candidate);
        candidate.warmup = Some(Duration::from_secs(50));
        candidate.backend.weight = Weight::try_from(100).ok();
        let (ready, start) = (Verdict::Ready(Why::Checked), Instant::now());
        let mut warmups = Warmups::default();
        let mut weight = |seconds: u64, verdict: &Verdict| {
            let now = start + Duration::from_secs(seconds);
            warmups.begin(&key.container);
            let weight = warmups.weigh(&key, &candidate, verdict, now).unwrap().get();
            (weight, warmups.next(&key.container, now).map(|at| (at - start).as_secs()))
        };
        let steps = [(0, 20, 10), (9, 20, 10), (10, 40, 20), (25, 60, 30), (39, 80, 40)];
        for (at, grown, next) in steps {
            assert_eq!(weight(at, &ready), (grown, Some(next)), "{at} s");
        }
        assert_eq!(weight(40, &ready), (100, None));
        assert_eq!(weight(1000, &ready), (100, None));
        warmups.begin(&key.container);
        warmups.begin(&key.container);
        assert_eq!(warmups.weigh(&key, &candidate, &ready, start).unwrap().get(), 20, "it had gone");
    }

    #[test]
    fn what_was_registered_before_has_grown_and_a_weight_of_one_cannot() {
        let mut candidate = containers::candidate();
        let key = GateKey::of(&"ab".repeat(32).parse().unwrap(), &candidate);
        candidate.warmup = Some(Duration::from_secs(50));
        let (registered, now) = (Verdict::Ready(Why::Registered), Instant::now());
        assert_eq!(Warmups::default().weigh(&key, &candidate, &registered, now), None);
        for (weight, verdict, expected) in
            [(100, registered, 100), (1, Verdict::Ready(Why::Checked), 1), (2, Verdict::Ready(Why::Checked), 1)]
        {
            candidate.backend.weight = Weight::try_from(weight).ok();
            let mut warmups = Warmups::default();
            assert_eq!(warmups.weigh(&key, &candidate, &verdict, now).unwrap().get(), expected);
        }
    }
}
