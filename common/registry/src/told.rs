//! Bad keys in the log: a few by name, the rest as a number.

use std::time::{Duration, Instant};

use super::known::Quarantined;
use crate::store::Key;

/// How many newly bad keys of one batch are named in the log, one by one.
const MOST_TOLD: usize = 5;
/// How many are named within [`TOLD_FOR`], in whatever batches they come.
const MOST_TOLD_OF_ALL: usize = 20;
const TOLD_FOR: Duration = Duration::from_secs(60);

/// What the log was told of bad keys: a few by name, the rest as a number, whatever a writer does. The status has them all.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Named since then.
    since: Option<Instant>,
    named: usize,
    /// Named of the batch under way.
    of_batch: usize,
    /// Not named, and not counted in the log yet.
    rest: usize,
}

impl Told {
    /// `key` is bad since now.
    pub fn bad(&mut self, key: &Key, why: &Quarantined, now: Instant) {
        if self.since.is_none_or(|since| now.duration_since(since) > TOLD_FOR) {
            (self.since, self.named) = (Some(now), 0);
        }
        if self.of_batch < MOST_TOLD && self.named < MOST_TOLD_OF_ALL {
            tracing::warn!(%key, revision = %why.revision, reason = %why.reason, "Registration left out.");
            self.of_batch += 1;
            self.named += 1;
        } else {
            self.rest += 1;
        }
    }

    /// The batch is at its end. Single keys that come thick and fast are summed up as well: at each doubling of their number.
    pub fn settle(&mut self, quarantined: usize) {
        let many = self.of_batch > 0 || self.rest >= self.named.max(1);
        if self.rest > 0 && many {
            tracing::warn!(more = self.rest, quarantined, "More registrations left out; the status names them.");
            self.named = self.named.saturating_add(self.rest);
            self.rest = 0;
        }
        self.of_batch = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;

    fn told(batches: usize, keys: usize) -> (usize, usize) {
        let (mut told, now, mut summaries) = (Told::default(), Instant::now(), 0);
        let (mut named, why) = (0, Quarantined { reason: "bad".into(), revision: Revision(1) });
        for _ in 0..batches {
            for _ in 0..keys {
                told.bad(&"/backends/a/b".into(), &why, now);
            }
            named += told.of_batch;
            let rest = told.rest;
            told.settle(1_000);
            summaries += usize::from(rest > 0 && told.rest == 0);
        }
        (named, summaries)
    }

    #[test]
    fn many_bad_keys_are_a_few_lines_whether_they_come_together_or_one_by_one() {
        assert_eq!(told(1, 3), (3, 0), "a few are named");
        assert_eq!(told(1, 3_000), (5, 1));
        let (named, summaries) = told(3_000, 1);
        assert!(named == 20 && (1..10).contains(&summaries), "{named} named, {summaries} summaries");
        let (named, summaries) = told(100, 30);
        assert!(named <= 20 && summaries < 15, "{named} named, {summaries} summaries");
    }

    #[test]
    fn after_a_while_bad_keys_are_named_again() {
        let (mut told, now) = (Told::default(), Instant::now());
        let why = Quarantined { reason: "bad".into(), revision: Revision(1) };
        for _ in 0..100 {
            told.bad(&"/backends/a/b".into(), &why, now);
            told.settle(1);
        }
        told.bad(&"/backends/a/b".into(), &why, now + 2 * TOLD_FOR);
        assert_eq!(told.of_batch, 1);
    }
}
