//! When a reload may happen: rarely, spread over a fleet, and later after a failure.

use std::time::Duration;

use common::backoff::Backoff;
use rand::RngExt;
use tokio::time::Instant;

/// Synapse's restart_interval and restart_jitter, with a back-off for failures.
#[derive(Debug)]
pub struct ReloadPace {
    interval: Duration,
    jitter: f64,
    backoff: Backoff,
    /// No reload before this.
    not_before: Option<Instant>,
}

impl ReloadPace {
    /// At least `interval` between two reloads, and up to `jitter` (0 to 1) of it more.
    pub fn new(interval: Duration, jitter: f64) -> Self {
        let backoff = Backoff::new(interval.max(Duration::from_secs(1)), Duration::from_secs(60));
        Self { interval, jitter: jitter.clamp(0.0, 1.0), backoff, not_before: None }
    }

    /// When the next reload may begin, if not at once.
    pub fn wait(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|at| *at > now)
    }

    /// A reload succeeded.
    pub fn succeeded(&mut self, now: Instant) {
        self.backoff.succeeded();
        let extra = self.interval.mul_f64(self.jitter * rand::rng().random::<f64>());
        self.not_before = Some(now + self.interval + extra);
    }

    /// A reload failed; gives the time of the next try.
    pub fn failed(&mut self, now: Instant) -> Instant {
        let at = now + self.backoff.next_delay();
        self.not_before = Some(at);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reloads_keep_their_distance_and_failures_a_growing_one() {
        let mut pace = ReloadPace::new(Duration::from_secs(2), 0.5);
        let now = Instant::now();
        assert_eq!(pace.wait(now), None, "the first one waits for nothing");
        pace.succeeded(now);
        let at = pace.wait(now).unwrap();
        assert!((2.0..=3.0).contains(&(at - now).as_secs_f64()));
        assert_eq!(pace.wait(at), None);
        let mut waits = Vec::new();
        for _ in 0..50 {
            waits.push(pace.failed(now) - now);
        }
        assert!(waits.iter().all(|w| *w <= Duration::from_secs(60)), "{waits:?}");
        assert!(waits.iter().max() > Some(&Duration::from_secs(4)), "{waits:?}");
    }
}
