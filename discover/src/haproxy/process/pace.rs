//! When a reload may happen: rarely, spread over a fleet, and later after a failure.

use std::time::Duration;

use agent::backoff::Backoff;
use rand::RngExt;
use tokio::time::Instant;

/// How many old workers may finish their sessions without a reload waiting for them.
pub const MOST_OLD: usize = 16;
/// How long a reload waits after the one before where there is one old worker too many; with each further one twice as long.
const PAUSE: Duration = Duration::from_secs(4);
/// The longest such wait.
const LONGEST: Duration = Duration::from_secs(60);

/// Synapse's restart_interval and restart_jitter, with a back-off for failures.
#[derive(Debug)]
pub struct ReloadPace {
    interval: Duration,
    jitter: f64,
    backoff: Backoff,
    /// No reload before this.
    not_before: Option<Instant>,
    /// When the last one failed, if it did.
    failed: Option<Instant>,
    /// When the last one succeeded.
    last: Option<Instant>,
    /// With more old workers than this, reloads wait.
    most_old: usize,
}

impl ReloadPace {
    /// At least `interval` between two reloads, and up to `jitter` (0 to 1) of it more.
    pub fn new(interval: Duration, jitter: f64) -> Self {
        let backoff = Backoff::new(interval.max(Duration::from_secs(1)), Duration::from_secs(60));
        Self {
            interval,
            jitter: jitter.clamp(0.0, 1.0),
            backoff,
            not_before: None,
            failed: None,
            last: None,
            most_old: MOST_OLD,
        }
    }

    /// When the next reload may begin, if not at once. `again`: it is of what failed last, which waits longer each time.
    pub fn wait(&self, now: Instant, again: bool) -> Option<Instant> {
        let soonest = self.failed.filter(|_| !again).map(|failed| failed + self.interval);
        self.not_before.map(|at| soonest.map_or(at, |soonest| at.min(soonest))).filter(|at| *at > now)
    }

    /// Another number of old workers above which reloads wait.
    #[must_use]
    pub fn with_most_old(mut self, most: usize) -> Self {
        self.most_old = most;
        self
    }

    /// With more old workers than this, reloads wait.
    pub fn most_old(&self) -> usize {
        self.most_old
    }

    /// When the next reload may begin while `old` workers still have sessions, if not at once. More old workers mean a longer wait.
    pub fn wait_for_workers(&self, old: usize, now: Instant) -> Option<Instant> {
        let more = old.checked_sub(self.most_old + 1)?;
        let pause = PAUSE.saturating_mul(1 << more.min(8)).min(LONGEST);
        self.last.map(|last| last + pause).filter(|at| *at > now)
    }

    /// A reload succeeded.
    pub fn succeeded(&mut self, now: Instant) {
        (self.last, self.failed) = (Some(now), None);
        self.backoff.succeeded();
        let extra = self.interval.mul_f64(self.jitter * rand::rng().random::<f64>());
        self.not_before = Some(now + self.interval + extra);
    }

    /// What made reloads fail is gone: the next one waits for the one before alone.
    pub fn forgive(&mut self) {
        if self.failed.take().is_some() {
            self.backoff.succeeded();
            self.not_before = self.last.map(|last| last + self.interval);
        }
    }

    /// A reload failed; gives the time of the next try.
    pub fn failed(&mut self, now: Instant) -> Instant {
        let at = now + self.backoff.next_delay();
        (self.not_before, self.failed) = (Some(at), Some(now));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn with_too_many_old_workers_reloads_wait_ever_longer() {
        let (mut pace, now) = (ReloadPace::new(Duration::ZERO, 0.0).with_most_old(2), Instant::now());
        assert_eq!(pace.wait_for_workers(9, now), None, "the first one waits for nothing");
        pace.succeeded(now);
        let waits: Vec<_> =
            (2..9).map(|old| pace.wait_for_workers(old, now).map_or(0, |at| (at - now).as_secs())).collect();
        assert_eq!(waits, [0, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pace.wait_for_workers(3, now + Duration::from_secs(4)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn reloads_keep_their_distance_and_failures_a_growing_one() {
        let mut pace = ReloadPace::new(Duration::from_secs(2), 0.5);
        let now = Instant::now();
        assert_eq!(pace.wait(now, true), None, "the first one waits for nothing");
        pace.succeeded(now);
        let at = pace.wait(now, true).unwrap();
        assert!((2.0..=3.0).contains(&(at - now).as_secs_f64()));
        assert_eq!(pace.wait(at, true), None);
        let mut waits = Vec::new();
        for _ in 0..50 {
            waits.push(pace.failed(now) - now);
        }
        assert!(waits.iter().all(|w| *w <= Duration::from_secs(60)), "{waits:?}");
        assert!(waits.iter().max() > Some(&Duration::from_secs(4)), "{waits:?}");
        assert!(pace.wait(now, false) <= Some(now + Duration::from_secs(2)), "another file waits no longer than usual");
        pace.forgive();
        assert!(pace.wait(now, true) <= Some(now + Duration::from_secs(2)), "what failed is tried again");
    }
}
