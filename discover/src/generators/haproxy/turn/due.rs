//! When the next turn is due: the one place that answers it.

use std::time::Duration;

use tokio::time::Instant;

use super::churn::Churn;
use super::collecting::{COLLECT_AFTER, Collecting};
use crate::haproxy::process::pace::ReloadPace;

/// How often what runs is compared with what is believed to run.
const VERIFY_EVERY: Duration = Duration::from_secs(10);
/// How often to check that HAProxy runs, and to look for it when it does not.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looking at the pools, and comparing all of what runs, each take at most one part in so many of the time.
const LOOK_SHARE: u32 = 500;

/// What waits for its time.
pub struct Due {
    /// When what runs is compared with what is applied; at once, if unset.
    verify: Option<Instant>,
    /// When HAProxy is asked which pools work.
    pools: Option<Instant>,
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
        let (verify, pools, delete) = (None, None, None);
        Self { verify, pools, delete, collecting: Collecting::default(), pace, churn: Churn::default() }
    }

    /// Whether what runs is to be compared with what is applied.
    pub fn is_verify_due(&self, now: Instant) -> bool {
        self.verify.is_none_or(|at| at <= now)
    }

    /// HAProxy has answered, which took so long: with tens of thousands of servers it is asked less often.
    pub fn verified(&mut self, took: Duration) {
        self.verify = Some(Instant::now() + VERIFY_EVERY.max(took * LOOK_SHARE));
    }

    /// It could not be asked: nothing new is known, so what is known counts for a moment longer.
    pub fn not_verified(&mut self) {
        self.verify = self.verify.map(|_| Instant::now() + LOOK_EVERY);
    }

    /// It does not answer.
    pub fn lost(&mut self) {
        self.verify = None;
    }

    /// Whether HAProxy is to be asked which pools work.
    pub fn is_look_due(&self, now: Instant) -> bool {
        self.pools.is_none_or(|at| at <= now)
    }

    /// It was asked, which took so long. Where it checks nothing, only its operator changes what works.
    pub fn looked(&mut self, took: Duration, checks: bool) {
        let every = if checks { LOOK_EVERY } else { VERIFY_EVERY };
        self.pools = Some(Instant::now() + every.max(took * LOOK_SHARE));
    }

    /// Whether empty sections may be deleted.
    pub fn may_delete(&self, now: Instant) -> bool {
        self.delete.is_none_or(|at| at <= now)
    }

    /// HAProxy would not delete one.
    pub fn delete_later(&mut self) {
        self.delete = Some(Instant::now() + COLLECT_AFTER[1]);
    }

    /// When to plan again: the earliest of all that waits here, and of `others`.
    pub fn next(&self, others: impl IntoIterator<Item = Option<Instant>>, now: Instant) -> Instant {
        let look = self.verify.map_or(now + LOOK_EVERY, |at| at.min(now + LOOK_EVERY));
        let ours = [self.collecting.next_due(), self.churn.next_due().filter(|at| *at > now)];
        others.into_iter().chain(ours).flatten().fold(look, Instant::min)
    }
}
