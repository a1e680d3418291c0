//! Which containers are to be inspected, which are being, and which give trouble. No I/O; time is given.
//!
//! Each container is on its own: an inspection that takes long gives its place to another, and one that fails is tried again after a
//! growing wait, without a word from the daemon's other containers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use agent::backoff::{Backoff, Jitter};
use model::desired::ContainerId;

/// An inspection that takes longer holds up no other one.
const SLOW: Duration = Duration::from_millis(250);
/// How long the first inspection may take. Later tries hold nobody up, and may take as long as any request.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// How long the first picture waits for slow inspections.
const FIRST_PICTURE: Duration = Duration::from_secs(1);
/// The first and the longest wait before a container that gives trouble is asked about again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A container that is being inspected.
#[derive(Debug)]
struct UnderWay {
    since: Instant,
    /// It is tried again: it has a place of its own kind.
    again: bool,
    /// Ends it when its answer would be about the past.
    outdated: CancellationToken,
}

/// A container that could not be described.
#[derive(Debug)]
pub(super) struct Trouble {
    /// When the first of the failing inspections began.
    pub since: Instant,
    /// How often it failed since then.
    pub tries: u32,
    again: Instant,
    backoff: Backoff,
}

/// An inspection to be made now.
#[derive(Debug)]
pub(super) struct Inspection {
    pub id: ContainerId,
    pub deadline: Option<Duration>,
    pub outdated: CancellationToken,
}

/// All inspections of one subscription.
#[derive(Debug)]
pub(super) struct Inspections {
    parallel: usize,
    wanted: BTreeSet<ContainerId>,
    under_way: BTreeMap<ContainerId, UnderWay>,
    troubles: BTreeMap<ContainerId, Trouble>,
    /// They ended, and nothing has been heard of them since.
    ended: BTreeSet<ContainerId>,
}

impl Inspections {
    /// At most `parallel` are under way at a time, besides slow ones.
    pub fn new(parallel: usize) -> Self {
        Self {
            parallel: parallel.max(1),
            wanted: BTreeSet::new(),
            under_way: BTreeMap::new(),
            troubles: BTreeMap::new(),
            ended: BTreeSet::new(),
        }
    }

    /// A container has to be looked at, now or again.
    pub fn want(&mut self, id: ContainerId) {
        self.wanted.insert(id);
    }

    /// It was started: what is not known of it may well run.
    pub fn started(&mut self, id: ContainerId) {
        self.ended.remove(&id);
        self.wanted.insert(id);
    }

    /// It ended. The answer under way is about its former run; it may have been started again before this was read.
    pub fn ended(&mut self, id: ContainerId) {
        if let Some(under_way) = self.under_way.get(&id) {
            under_way.outdated.cancel();
        }
        self.troubles.remove(&id);
        self.ended.insert(id.clone());
        self.wanted.insert(id);
    }

    /// Whether the last that was heard of it is its end.
    pub fn has_ended(&self, id: &ContainerId) -> bool {
        self.ended.contains(id)
    }

    /// The next inspection to be made, which then is under way. No container is inspected twice at a time.
    pub fn next(&mut self, now: Instant) -> Option<Inspection> {
        let held = |again: bool| self.under_way.values().filter(|u| u.again == again && !u.is_slow(now)).count();
        let again = self.under_way.values().filter(|u| u.again).count() < self.parallel;
        let first = held(false) < self.parallel;
        let due = self.troubles.iter().filter(|(_, trouble)| trouble.again <= now).map(|(id, _)| id);
        let free = |id: &&ContainerId| {
            let place = if self.troubles.contains_key(*id) { again } else { first };
            place && !self.under_way.contains_key(*id)
        };
        // While there is no place for first tries, only what is tried again can be asked about: the others need not be gone through.
        let wanted: Option<&ContainerId> = match first {
            true => self.wanted.iter().find(free),
            false => self.troubles.keys().filter(|id| self.wanted.contains(*id)).find(free),
        };
        let id = wanted.or_else(|| due.into_iter().find(free))?.clone();
        self.wanted.remove(&id);
        let (again, outdated) = (self.troubles.contains_key(&id), CancellationToken::new());
        self.under_way.insert(id.clone(), UnderWay { since: now, again, outdated: outdated.clone() });
        Some(Inspection { id, deadline: (!again).then_some(DEADLINE), outdated })
    }

    /// Its answer was about the past.
    pub fn was_outdated(&mut self, id: &ContainerId) {
        self.under_way.remove(id);
    }

    /// It was described. Returns the trouble that is over with that.
    pub fn described(&mut self, id: &ContainerId) -> Option<Trouble> {
        self.under_way.remove(id);
        self.ended.remove(id);
        self.troubles.remove(id)
    }

    /// It could not be described; it is tried again by and by.
    pub fn failed(&mut self, id: &ContainerId, now: Instant) -> &Trouble {
        let since = self.under_way.remove(id).map_or(now, |under_way| under_way.since);
        let trouble = self.troubles.entry(id.clone()).or_insert_with(|| {
            let backoff = Backoff::new(AGAIN.0, AGAIN.1).with_jitter(Jitter::Equal);
            Trouble { since, tries: 0, again: now, backoff }
        });
        trouble.tries += 1;
        trouble.again = now + trouble.backoff.next_delay();
        trouble
    }

    /// Whether all have answered, but for those that the first picture does not wait for. `listed`: since when all are known.
    pub fn are_settled(&self, listed: Instant, now: Instant) -> bool {
        let waited = now >= listed + FIRST_PICTURE;
        self.wanted.iter().all(|id| self.under_way.contains_key(id))
            && (self.under_way.is_empty() || waited && self.under_way.values().all(|u| u.is_slow(now)))
    }

    /// Whether answers are about to come: what they bring is published together.
    pub fn are_busy(&self, now: Instant) -> bool {
        self.under_way.values().any(|u| !u.again && !u.is_slow(now))
    }

    /// Those that are being looked at.
    pub fn under_way(&self) -> impl Iterator<Item = &ContainerId> {
        self.under_way.keys()
    }

    /// When the next thing changes by itself. `listed` as above, for as long as the first picture waits.
    pub fn next_change(&self, listed: Option<Instant>, now: Instant) -> Option<Instant> {
        let slow = self.under_way.values().map(|u| u.since + SLOW);
        let again = self.troubles.iter().filter(|(id, _)| !self.under_way.contains_key(*id)).map(|(_, t)| t.again);
        slow.chain(again).chain(listed.map(|at| at + FIRST_PICTURE)).filter(|at| *at > now).min()
    }
}

impl UnderWay {
    fn is_slow(&self, now: Instant) -> bool {
        now >= self.since + SLOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ContainerId {
        format!("{number:02x}").repeat(32).parse().unwrap()
    }

    fn started(inspections: &mut Inspections, now: Instant) -> Vec<ContainerId> {
        std::iter::from_fn(|| inspections.next(now)).map(|inspection| inspection.id).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_inspection_gives_its_place_to_another_and_the_first_picture_waits_a_second() {
        let (mut all, start) = (Inspections::new(2), Instant::now());
        (1..=5).for_each(|n| all.want(id(n)));
        assert_eq!(started(&mut all, start), [id(1), id(2)]);
        all.described(&id(2));
        assert_eq!(started(&mut all, start), [id(3)], "its place is free");
        assert_eq!(all.next_change(Some(start), start), Some(start + SLOW));
        let slow = start + SLOW;
        assert_eq!(started(&mut all, slow), [id(4), id(5)]);
        (3..=5).for_each(|n| drop(all.described(&id(n))));
        assert!(!all.are_settled(start, slow) && all.next_change(Some(start), slow) == Some(start + FIRST_PICTURE));
        assert!(all.are_settled(start, start + FIRST_PICTURE), "the first is late");
        all.want(id(6));
        assert!(!all.are_settled(start, start + FIRST_PICTURE), "one was not even asked about");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_with_more_patience_and_after_longer_and_longer() {
        let (mut all, mut now) = (Inspections::new(1), Instant::now());
        all.want(id(1));
        assert_eq!(all.next(now).unwrap().deadline, Some(DEADLINE));
        let mut waits = Vec::new();
        for tries in 1..=9 {
            let trouble = all.failed(&id(1), now);
            assert_eq!(trouble.tries, tries);
            let again = all.next_change(None, now).unwrap();
            waits.push(again - now);
            assert!(all.next(now).is_none());
            now = again;
            assert_eq!(all.next(now).unwrap().deadline, None);
            // A place for first tries is free all the while.
            all.want(id(2));
            assert_eq!(started(&mut all, now), [id(2)]);
            all.described(&id(2));
        }
        assert!(waits[0] <= AGAIN.0 && waits[8] >= AGAIN.1 / 2 && waits[8] <= AGAIN.1, "{waits:?}");
        assert_eq!(all.described(&id(1)).unwrap().tries, 9);
        assert_eq!(all.next_change(None, now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_outdates_the_answer_under_way_and_forgets_the_trouble() {
        let (mut all, now) = (Inspections::new(1), Instant::now());
        all.want(id(1));
        let first = all.next(now).unwrap();
        all.ended(id(1));
        assert!(first.outdated.is_cancelled() && all.has_ended(&id(1)));
        assert!(all.next(now).is_none(), "never twice at a time");
        all.was_outdated(&id(1));
        assert_eq!(all.next(now).unwrap().deadline, Some(DEADLINE));
        all.failed(&id(1), now);
        all.ended(id(1));
        assert_eq!(all.next(now).unwrap().deadline, Some(DEADLINE), "another run has another first try");
        all.started(id(1));
        assert!(!all.has_ended(&id(1)));
    }
}
