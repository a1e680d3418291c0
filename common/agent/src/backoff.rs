//! When to try again: one value that grows, is jittered and capped, and starts over after a quiet time.
//!
//! Jitter matters here because one event (an etcd leader lost, a daemon restarted) makes every agent of a cluster retry at once;
//! source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

#[cfg(any(test, feature = "testing"))]
use std::cell::RefCell;
use std::time::Duration;

#[cfg(any(test, feature = "testing"))]
use rand::SeedableRng;
use rand::{RngExt, rngs::StdRng};
use tokio::time::Instant;

/// No delay is ever shorter: a delay of 0 would be a busy loop.
const FLOOR: Duration = Duration::from_millis(1);

#[cfg(any(test, feature = "testing"))]
thread_local! {
    /// Where the seeds of this thread's back-offs come from, if they are to be the same each time.
    static SEEDS: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// From now on every [`Backoff`] that is made on this thread is seeded, in the order in which they are made: a simulation
/// of whole agents repeats its delays.
#[cfg(any(test, feature = "testing"))]
pub fn seed_this_thread(seed: u64) {
    SEEDS.set(Some(StdRng::seed_from_u64(seed)));
}

/// The generator of a new back-off, where the thread is seeded.
fn simulated() -> Option<Box<StdRng>> {
    #[cfg(any(test, feature = "testing"))]
    return SEEDS.with_borrow_mut(|seeds| seeds.as_mut().map(|seeds| Box::new(StdRng::seed_from_u64(seeds.random()))));
    #[cfg(not(any(test, feature = "testing")))]
    None
}

/// How a delay is drawn below the current ceiling (`base · 2ⁿ`, at most `cap`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// From 1 ms to the ceiling: spreads a crowd best.
    Full,
    /// From half the ceiling to the ceiling: for peers that must not be asked again too soon.
    Equal,
}

/// The delays of one retry loop.
///
/// The ceiling doubles with each [`next_delay`](Self::next_delay) until it is `cap`. It starts over at `base` once the work went on for the
/// quiet time after the last delay (an attempt that takes this long is slow enough by itself), or at [`succeeded`](Self::succeeded).
#[derive(Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    quiet: Duration,
    jitter: Jitter,
    failures: u32,
    /// When the last delay given out ends: the quiet time is counted from here.
    resumes: Option<Instant>,
    /// `None`: the thread's own generator; `Some` in tests that want the same delays each time.
    seeded: Option<Box<StdRng>>,
}

impl Backoff {
    /// Full jitter, ceilings from `base` to `cap`, and a quiet time of twice `cap`, at least 10 s.
    ///
    /// Values below 1 ms count as 1 ms, and a `cap` below `base` as `base`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        let base = base.max(FLOOR);
        let cap = cap.max(base);
        let quiet = cap.saturating_mul(2).max(Duration::from_secs(10));
        Self { base, cap, quiet, jitter: Jitter::Full, failures: 0, resumes: None, seeded: simulated() }
    }

    /// Draws delays by `jitter`.
    #[must_use]
    pub fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Starts over at `base` after `quiet` without a failure.
    #[cfg(test)]
    fn with_quiet(mut self, quiet: Duration) -> Self {
        self.quiet = quiet;
        self
    }

    /// Makes the delays the same for the same `seed`.
    #[cfg(test)]
    fn seeded(mut self, seed: u64) -> Self {
        self.seeded = Some(Box::new(StdRng::seed_from_u64(seed)));
        self
    }

    /// How long to wait after the failure that just happened; at least 1 ms, at most `cap`.
    pub fn next_delay(&mut self) -> Duration {
        let now = Instant::now();
        if self.resumes.is_some_and(|at| now.saturating_duration_since(at) >= self.quiet) {
            self.failures = 0;
        }
        let ceiling = self.ceiling();
        let lowest = match self.jitter {
            Jitter::Full => FLOOR,
            Jitter::Equal => (ceiling / 2).max(FLOOR),
        };
        let range = nanos(lowest)..=nanos(ceiling);
        let drawn = match &mut self.seeded {
            Some(rng) => rng.random_range(range),
            None => rand::rng().random_range(range),
        };
        let delay = Duration::from_nanos(drawn);
        self.failures = self.failures.saturating_add(1);
        self.resumes = now.checked_add(delay);
        delay
    }

    /// Starts over at `base` now.
    ///
    /// Only for work that proves itself when it succeeds (a request answered). Where success is merely a connection that may be cut the next
    /// moment, leave it to the quiet time: else a peer that accepts and hangs up is asked again at full speed.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.resumes = None;
    }

    /// Failures since the start or the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::sleep;

    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn ceiling_doubles_up_to_the_cap() {
        let mut b = Backoff::new(BASE, CAP).with_jitter(Jitter::Equal).seeded(1);
        for n in 0..80 {
            let ceiling = BASE.saturating_mul(2_u32.saturating_pow(n)).min(CAP);
            let delay = b.next_delay();
            assert!(ceiling / 2 <= delay && delay <= ceiling, "delay {n} is {delay:?}, ceiling {ceiling:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn starts_over_after_the_quiet_time_only() {
        let mut b = Backoff::new(BASE, CAP).with_quiet(Duration::from_secs(60)).seeded(2);
        for _ in 0..5 {
            let delay = b.next_delay();
            sleep(delay + Duration::from_secs(59)).await;
        }
        assert_eq!(b.failures(), 5);
        let delay = b.next_delay();
        sleep(delay + Duration::from_secs(60)).await;
        assert!(b.next_delay() <= BASE);
        assert_eq!(b.failures(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn success_starts_over_at_once() {
        let mut b = Backoff::new(BASE, CAP).seeded(3);
        for _ in 0..9 {
            b.next_delay();
        }
        b.succeeded();
        assert!(b.next_delay() <= BASE);
    }

    #[tokio::test(start_paused = true)]
    async fn unseeded_values_differ_from_each_other() {
        let mut all: Vec<_> = (0..20).map(|_| Backoff::new(CAP, CAP).next_delay()).collect();
        all.sort_unstable();
        all.dedup();
        assert!(all.len() > 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_seeded_thread_repeats_its_delays_and_its_backoffs_differ() {
        let delays = || {
            seed_this_thread(7);
            [Backoff::new(CAP, CAP).next_delay(), Backoff::new(CAP, CAP).next_delay()]
        };
        let first = delays();
        assert_eq!(first, delays());
        assert_ne!(first[0], first[1]);
        SEEDS.set(None);
    }

    proptest! {
        #[test]
        fn delays_stay_in_bounds_and_repeat_under_one_seed(
            base in 0_u64..5_000, cap in 0_u64..60_000, seed in any::<u64>(), equal in any::<bool>()
        ) {
            let (base, cap) = (Duration::from_millis(base), Duration::from_millis(cap));
            let jitter = if equal { Jitter::Equal } else { Jitter::Full };
            let make = || Backoff::new(base, cap).with_jitter(jitter).seeded(seed);
            let (mut a, mut b) = (make(), make());
            for _ in 0..40 {
                let delay = a.next_delay();
                prop_assert!(delay >= FLOOR && delay <= cap.max(base).max(FLOOR));
                prop_assert_eq!(delay, b.next_delay());
            }
        }
    }
}
