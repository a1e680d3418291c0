//! The tasks behind the gates.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent::telemetry::Chain;
use model::desired::CheckSpec;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::gate::Told;
use super::tally::Tally;
use super::{CheckMetrics, GateKey, Verdict, Why};
use crate::checks::{AnyCheck, Check, Outcome};

/// How long a connection may take until its address counts as out of reach. A living container on a bridge answers,
/// yes or no, within a fraction of a millisecond.
const CONNECT: Duration = Duration::from_secs(1);
/// The shortest pause between two dials.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(1);
/// The pause grows with the time that has gone by: a gate opens at most this part of it late.
const PART: u32 = 50;
/// What each waiting gate adds to everybody's shortest pause, so that 500 of them dial 10,000 times a second together.
const SHARE: Duration = Duration::from_micros(100);

/// News from one part of a gate.
pub(super) struct News {
    pub key: GateKey,
    pub number: u64,
    pub part: usize,
    pub told: Told,
}

/// One task's place.
pub(super) struct Attempts {
    pub key: GateKey,
    pub number: u64,
    pub part: usize,
    pub out: mpsc::Sender<News>,
    pub waiting: Arc<AtomicUsize>,
    pub metrics: CheckMetrics,
}

/// Counts a gate as waiting until it is dropped.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }

    /// The pause before the next dial of a gate made at `start`.
    fn pause(&self, start: Instant) -> Duration {
        let others = u32::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        pause(start.elapsed(), others)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) fn pause(waited: Duration, others: u32) -> Duration {
    let shortest = SHORTEST.max(SHARE.saturating_mul(others)).min(LONGEST);
    (waited / PART).clamp(shortest, LONGEST)
}

impl Attempts {
    /// Dials until somebody accepts, or until it is clear that nobody can be reached.
    pub async fn until_accepted(self, check: AnyCheck) {
        let start = Instant::now();
        let waiting = Waiting::new(&self.waiting);
        let mut tried = false;
        let why = loop {
            match check.attempt(CONNECT).await {
                Outcome::Pass => break Why::Accepted(start.elapsed()),
                Outcome::Unreachable(e) => break Why::Unreachable(Chain(&e).to_string()),
                Outcome::Fail(_) => {
                    if !std::mem::replace(&mut tried, true) {
                        self.tell(Told::Tried).await;
                    }
                    sleep(waiting.pause(start)).await;
                }
            }
        };
        drop(waiting);
        self.tell(Told::Gate(Verdict::Ready(why))).await;
    }

    /// Checks as `spec` says: fast until it first passes, then in its interval, which begins anywhere: what came up
    /// together is not checked together.
    pub async fn forever(self, check: AnyCheck, spec: CheckSpec, passing: bool) {
        let start = Instant::now();
        let mut tally = Tally::new(&spec, passing);
        let mut waiting = (!passing).then(|| Waiting::new(&self.waiting));
        let [passed, failed] = self.metrics.tries(&spec.kind);
        let mut first = true;
        loop {
            let began = Instant::now();
            let tried = match check.attempt(spec.timeout).await {
                Outcome::Pass => Ok(()),
                Outcome::Fail(e) => Err(Chain(&e).to_string()),
                Outcome::Unreachable(e) => Err(format!("{} (there is no way from here)", Chain(&e))),
            };
            if tried.is_ok() {
                passed.inc()
            } else {
                failed.inc()
            };
            self.metrics.duration.observe(began.elapsed().as_secs_f64());
            let told = tally.record(tried, start.elapsed()).cloned();
            let was_first = std::mem::replace(&mut first, false);
            match told {
                Some(standing) => {
                    self.metrics.changed(&spec.kind, &standing);
                    self.tell(Told::Check(standing)).await;
                }
                None if was_first => self.tell(Told::Tried).await,
                None => {}
            }
            let shortest = check.shortest_pause();
            let pause = match &waiting {
                Some(still) if !tally.is_passing() => {
                    sleep(still.pause(start).min(spec.interval).max(shortest)).await;
                    continue;
                }
                Some(_) => {
                    waiting = None;
                    spec.interval.mul_f64(rand::random())
                }
                None if was_first => spec.interval.mul_f64(rand::random()),
                None => jittered(&spec).saturating_sub(began.elapsed()),
            };
            sleep_until(together(Instant::now() + pause.max(shortest), spec.interval)).await;
        }
    }

    async fn tell(&self, told: Told) {
        let news = News { key: self.key.clone(), number: self.number, part: self.part, told };
        // Where nobody listens any more the gate is gone, and this task with it.
        let _ = self.out.send(news).await;
    }
}

/// The moment after `at` at which others with such an interval wake, too: one wake-up serves several checks, which is
/// what most of the cost of hundreds of them is. It comes at most a fiftieth of the interval later.
pub fn together(at: Instant, interval: Duration) -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    let base = *BASE.get_or_init(Instant::now);
    let grid = (interval / 50).clamp(Duration::from_millis(1), Duration::from_millis(50)).as_nanos();
    let over = at.saturating_duration_since(base).as_nanos() % grid;
    at + Duration::from_nanos(u64::try_from(grid - over).unwrap_or_default())
}

/// The interval, give or take its jitter.
fn jittered(spec: &CheckSpec) -> Duration {
    let early = spec.interval.saturating_sub(spec.jitter);
    early + spec.jitter.mul_f64(2.0 * rand::random::<f64>())
}
