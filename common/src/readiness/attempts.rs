//! The tasks behind the gates.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::desired::CheckSpec;
use crate::telemetry::Chain;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::{GateKey, Verdict, Why};
use crate::checks::{AnyCheck, Check, Outcome};

/// How long a connection may take until its address counts as out of reach. A living container on a bridge answers,
/// yes or no, within a fraction of a millisecond.
const CONNECT: Duration = Duration::from_secs(1);
/// The shortest pause between two dials.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(1);
/// The pause grows with the time that has gone by: a gate opens at most this part of it late.
const PART: u32 = 50;
/// What each waiting gate adds to everybody's shortest pause, so that 500 of them dial 10,000 times a second together.
const SHARE: Duration = Duration::from_micros(100);

/// A verdict of one part of a gate.
pub(super) struct News {
    pub key: GateKey,
    pub number: u64,
    pub part: usize,
    pub verdict: Verdict,
}

/// One task's place.
pub(super) struct Attempts {
    pub key: GateKey,
    pub number: u64,
    pub part: usize,
    pub out: mpsc::Sender<News>,
    pub waiting: Arc<AtomicUsize>,
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
                        self.tell(Verdict::Waiting).await;
                    }
                    sleep(waiting.pause(start)).await;
                }
            }
        };
        drop(waiting);
        self.tell(Verdict::Ready(why)).await;
    }

    /// Checks as `spec` says: fast until it first passes, then in its interval.
    pub async fn forever(self, check: AnyCheck, spec: CheckSpec, mut up: bool) {
        let start = Instant::now();
        let mut waiting = (!up).then(|| Waiting::new(&self.waiting));
        let (mut passes, mut failures) = (0_u32, 0_u32);
        let mut tried = up;
        loop {
            let began = Instant::now();
            match check.attempt(spec.timeout).await {
                Outcome::Pass => {
                    (passes, failures) = (passes.saturating_add(1), 0);
                    if !up && passes >= spec.rise {
                        (up, waiting) = (true, None);
                        self.tell(Verdict::Ready(Why::Checked)).await;
                    }
                }
                Outcome::Fail(e) | Outcome::Unreachable(e) => {
                    (passes, failures) = (0, failures.saturating_add(1));
                    if up && failures >= spec.fall && start.elapsed() >= spec.start_period {
                        up = false;
                        let why = Chain(&e).to_string();
                        self.tell(Verdict::Failing(why)).await;
                    }
                }
            }
            if !std::mem::replace(&mut tried, true) && !up {
                self.tell(Verdict::Waiting).await;
            }
            let rest = spec.interval.saturating_sub(began.elapsed());
            let pause = match &waiting {
                Some(waiting) => waiting.pause(start).min(spec.interval),
                None => rest,
            };
            sleep(pause.max(SHORTEST)).await;
        }
    }

    async fn tell(&self, verdict: Verdict) {
        let news = News { key: self.key.clone(), number: self.number, part: self.part, verdict };
        // Where nobody listens any more the gate is gone, and this task with it.
        let _ = self.out.send(news).await;
    }
}
