//! When the next turn is due.

use std::time::Duration;

use tokio::time::Instant;

use super::churn::Churn;
use super::collecting::{COLLECT_AFTER, Collecting};
use super::generator::Haproxy;
use crate::generators::Outcome;
use crate::haproxy::process::pace::ReloadPace;

/// How often what runs is compared with what is believed to run.
const VERIFY_EVERY: Duration = Duration::from_secs(10);
/// How often to check that HAProxy runs, and to look for it when it does not.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What waits for its time.
pub struct Due {
    /// When what runs is compared with what is applied; at once, if unset.
    verify: Option<Instant>,
    /// No empty section is deleted before this: one that HAProxy would not delete is tried again then.
    delete: Option<Instant>,
    /// Retired servers.
    pub(super) collecting: Collecting,
    /// Reloads.
    pub(super) pace: ReloadPace,
    /// Structures that change too often.
    pub(super) churn: Churn,
}

impl Due {
    /// Nothing waits; reloads keep this pace.
    pub fn new(pace: ReloadPace) -> Self {
        Self { verify: None, delete: None, collecting: Collecting::default(), pace, churn: Churn::default() }
    }

    /// Whether what runs is to be compared with what is applied.
    pub fn is_verify_due(&self, now: Instant) -> bool {
        self.verify.is_none_or(|at| at <= now)
    }

    /// HAProxy has answered.
    pub fn verified(&mut self) {
        self.verify = Some(Instant::now() + VERIFY_EVERY);
    }

    /// It could not be asked: nothing new is known, so what is known counts for a moment longer.
    pub fn not_verified(&mut self) {
        self.verify = self.verify.map(|_| Instant::now() + LOOK_EVERY);
    }

    /// It does not answer.
    pub fn lost(&mut self) {
        self.verify = None;
    }

    /// Whether empty sections may be deleted.
    pub fn may_delete(&self, now: Instant) -> bool {
        self.delete.is_none_or(|at| at <= now)
    }

    /// HAProxy would not delete one.
    pub fn delete_later(&mut self) {
        self.delete = Some(Instant::now() + COLLECT_AFTER[1]);
    }

    fn next_look(&self, now: Instant) -> Instant {
        self.verify.map_or(now + LOOK_EVERY, |at| at.min(now + LOOK_EVERY))
    }
}

impl Haproxy {
    /// When to plan again: the earliest of all that waits. `again` is what this turn left undone.
    pub(super) fn next_turn(&self, again: Option<Instant>) -> Outcome {
        let now = Instant::now();
        let waits = [
            again,
            self.due.collecting.next_due(),
            self.due.churn.next_due().filter(|at| *at > now),
            self.disk.next_write(now),
            self.desk.next_due(now),
        ];
        Outcome::Again(waits.into_iter().flatten().fold(self.due.next_look(now), Instant::min))
    }
}
