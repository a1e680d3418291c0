//! How often a service may come and go: Nerve's token bucket. No I/O; time is given.

use tokio::time::Instant;

use crate::nerve::config::Limit;

/// Begins with `average` tokens, gains as many a second in whole ones, holds at most `burst` after a gain.
///
/// Source: Nerve's rate limiter, which counts so.
#[derive(Debug)]
pub(super) struct Bucket {
    limit: Limit,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    pub fn new(limit: Limit, now: Instant) -> Self {
        Self { limit, tokens: limit.average, filled: now }
    }

    /// Takes a token; whether there was one.
    pub fn take(&mut self, now: Instant) -> bool {
        if !self.limit.average.is_finite() {
            return true;
        }
        let gained = (self.limit.average * now.saturating_duration_since(self.filled).as_secs_f64()).floor();
        if gained >= 1.0 {
            self.tokens = (self.tokens + gained).min(self.limit.burst);
            self.filled = now;
        }
        let there_is_one = self.tokens >= 1.0;
        if there_is_one {
            self.tokens -= 1.0;
        }
        there_is_one
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tokens_come_at_the_average_rate_up_to_the_burst() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let limit = Limit { shadow: false, average: 2.0, burst: 3.0 };
        let mut bucket = Bucket::new(limit, start);
        let taken = |bucket: &mut Bucket, millis| (0..5).filter(|_| bucket.take(at(millis))).count();
        assert_eq!(taken(&mut bucket, 0), 2, "as many as come in a second");
        assert_eq!(taken(&mut bucket, 499), 0);
        assert_eq!(taken(&mut bucket, 500), 1);
        assert_eq!(taken(&mut bucket, 60_000), 3, "no more than the burst");
        let mut slow = Bucket::new(Limit { average: 0.1, ..limit }, start);
        assert_eq!((taken(&mut slow, 0), taken(&mut slow, 9_999)), (0, 0), "as Nerve: the first must be saved up, too");
        assert_eq!(taken(&mut slow, 10_000), 1);
        let mut endless = Bucket::new(Limit::default(), start);
        assert_eq!(taken(&mut endless, 0), 5);
    }
}
