//! When to act: a lone trigger is served at once; in a burst, a turn begins once triggers have been quiet for a minimum, but never later
//! than a maximum after the first one.
//!
//! Source of the rule for bursts: consul-template's `wait` (`min`, `max`). It lets a lone change wait as well, which is most of the time that
//! such a change takes.

use std::{future::Future, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

/// What may ask for a turn. It carries no data: every turn reads the state again.
pub trait Trigger {
    /// Waits for the next trigger; `false` when there can be no more. Must be cancel-safe: a dropped wait loses no trigger.
    fn triggered(&mut self) -> impl Future<Output = bool> + Send;
}

impl<T: Send + Sync> Trigger for watch::Receiver<T> {
    async fn triggered(&mut self) -> bool {
        self.changed().await.is_ok()
    }
}

impl Trigger for &Notify {
    async fn triggered(&mut self) -> bool {
        self.notified().await;
        true
    }
}

/// A quiet minimum and a total maximum.
#[derive(Debug, Clone)]
pub struct Debounce {
    quiet: Duration,
    max: Duration,
    /// When the last turn began.
    served: Option<Instant>,
}

/// One burst of triggers: pure, so that its law can be tested without a clock.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Debounce {
    /// A turn begins at once after a rest of `max`; else `quiet` after the last trigger and at most `max` after the first. A `max` below `quiet`
    /// counts as `quiet`.
    pub fn new(quiet: Duration, max: Duration) -> Self {
        Self { quiet, max: max.max(quiet), served: None }
    }

    /// Waits for a first trigger and, if the last turn was not long ago, until its burst is over: the caller's turn begins now.
    ///
    /// `false` when the trigger ended and none was left to serve. A trigger that a dropped call has seen is gone: drop it only for a turn of
    /// another cause, or at shutdown.
    pub async fn settle(&mut self, trigger: &mut impl Trigger) -> bool {
        if !trigger.triggered().await {
            return false;
        }
        if self.served.is_some_and(|at| at.elapsed() < self.max) {
            self.quieten(trigger).await;
        }
        self.served = Some(Instant::now());
        true
    }

    async fn quieten(&self, trigger: &mut impl Trigger) {
        let now = Instant::now();
        let mut burst = Burst { first: now, last: now };
        while let Ok(more) = timeout_at(self.due(burst), trigger.triggered()).await {
            // A trigger that is always ready would beat the clock for ever: `timeout_at` polls it first.
            if !more || Instant::now() >= self.due(burst) {
                break;
            }
            burst.last = Instant::now();
        }
    }

    fn due(&self, burst: Burst) -> Instant {
        (burst.last + self.quiet).min(burst.first + self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::{sleep, sleep_until};

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Sends triggers at `times` (ms, sorted) and says when turns began (ms).
    async fn turns(mut d: Debounce, times: Vec<u64>) -> Vec<u64> {
        let start = Instant::now();
        let (tx, mut rx) = watch::channel(0);
        tokio::spawn(async move {
            for t in times {
                sleep_until(start + ms(t)).await;
                tx.send_modify(|n| *n += 1);
            }
            sleep(ms(1_000_000)).await; // a closed channel would end the burst early
        });
        let mut out = Vec::new();
        while d.settle(&mut rx).await {
            out.push(u64::try_from(start.elapsed().as_millis()).unwrap());
        }
        out
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_trigger_is_served_at_once() {
        assert_eq!(turns(Debounce::new(ms(10), ms(100)), vec![5, 105, 400]).await, [5, 105, 400]);
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_burst_a_turn_begins_a_quiet_time_after_the_last_trigger() {
        assert_eq!(turns(Debounce::new(ms(10), ms(100)), vec![5, 10, 15, 300]).await, [5, 25, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn unending_triggers_cannot_put_a_turn_off() {
        let began = turns(Debounce::new(ms(10), ms(100)), (0..50).map(|n| n * 8).collect()).await;
        assert_eq!(began[..2], [0, 108]);
        assert!(began.windows(2).all(|w| w[1] - w[0] <= 108), "{began:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_maximum_below_the_quiet_time_is_the_quiet_time() {
        assert_eq!(turns(Debounce::new(ms(50), ms(10)), vec![0, 1]).await, [0, 51]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_trigger_still_serves_what_came_before() {
        let (tx, mut rx) = watch::channel(());
        let mut d = Debounce::new(ms(10), ms(100));
        for _ in 0..2 {
            tx.send_replace(());
            assert!(d.settle(&mut rx).await);
        }
        drop(tx);
        assert!(!d.settle(&mut rx).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_notify_triggers_too() {
        let (notify, start) = (Notify::new(), Instant::now());
        let mut d = Debounce::new(ms(10), ms(100));
        for _ in 0..2 {
            notify.notify_one();
            assert!(d.settle(&mut &notify).await);
        }
        assert_eq!(start.elapsed(), ms(10));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_trigger_is_served_in_time(
            quiet in 1_u64..40, max in 1_u64..200, gaps in prop::collection::vec(0_u64..60, 1..40)
        ) {
            let times: Vec<u64> = gaps.iter().scan(0, |t, g| { *t += g; Some(*t) }).collect();
            let rt = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let began = rt.block_on(turns(Debounce::new(ms(quiet), ms(max)), times.clone()));
            let max = max.max(quiet);
            for t in &times {
                let next = began.iter().find(|b| *b >= t);
                // 1 ms: tokio's timer counts whole milliseconds
                prop_assert!(next.is_some_and(|b| b - t <= max + 1), "trigger at {t} was served at {next:?}");
            }
            prop_assert!(began.len() <= times.len());
            prop_assert!(began.windows(2).all(|w| w[1] - w[0] >= quiet));
        }
    }
}
