//! A look at a source, repeated, as a watcher: every source without a stream of changes goes through here, and every one
//! whose stream only says that it is time to look.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agent::backoff::{Backoff, Jitter};
use agent::telemetry::Chain;
use agent::watch::{Outlet, Watcher};
use rand::RngExt;
use registry::Snapshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::findings::Answer;
use super::teller::Teller;

/// The first delay after a failure; it grows up to the period.
const RETRY: Duration = Duration::from_millis(200);
/// Nothing is asked more often, whatever it says of its own lifetime.
const LEAST: Duration = Duration::from_secs(1);

/// What one look brought.
#[derive(Debug)]
pub struct Look {
    /// All that the source says.
    pub answer: Answer,
    /// For how long the source itself says that this holds (a record's TTL): the next look comes no later.
    pub good_for: Option<Duration>,
}

impl From<Answer> for Look {
    fn from(answer: Answer) -> Self {
        Self { answer, good_for: None }
    }
}

/// A source that can be looked at.
pub trait Poll: Send + 'static {
    /// Why a look may fail; every failure is tried again.
    type Error: Error + Send + Sync + 'static;

    /// Looks once. What it gives is complete. Cancel-safe.
    fn look(&mut self) -> impl Future<Output = Result<Look, Self::Error>> + Send;

    /// For how long at least nobody may be asked after this failure (a rate limit was hit).
    fn hold_off(&self, _: &Self::Error) -> Duration {
        Duration::ZERO
    }

    /// Completes when there is reason to look again before the period is over. Cancel-safe.
    fn nudged(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// When a source is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From one look to the next, give or take a tenth: a fleet that was started at once spreads out.
    pub every: Duration,
    /// The first look comes at a random moment within this time.
    pub start_within: Duration,
    /// How long one look may take.
    pub patience: Duration,
    /// The first delay after a failure, and the longest one.
    pub retry: (Duration, Duration),
}

impl Pace {
    /// Every `seconds`, or every `default` seconds without them. A look may take as long as the period, within 1 to 30 s.
    pub fn every(seconds: Option<f64>, default: u64) -> Self {
        let given = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
        let every = given.unwrap_or(Duration::from_secs(default)).max(Duration::from_millis(10));
        Self {
            every,
            start_within: Duration::ZERO,
            patience: every.clamp(Duration::from_secs(1), Duration::from_secs(30)),
            retry: (RETRY, every.max(RETRY)),
        }
    }

    /// After failures it looks again so soon, and at the latest after so long.
    #[must_use]
    pub fn with_retry(mut self, retry: (Duration, Duration)) -> Self {
        self.retry = retry;
        self
    }

    /// The first look comes within so many seconds.
    #[must_use]
    pub fn starting_within(mut self, seconds: Option<f64>) -> Self {
        self.start_within = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or_default();
        self
    }

    /// One look may take so long.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn next(&self, good_for: Option<Duration>) -> Duration {
        match good_for {
            Some(time) if time < self.every => time.max(LEAST.min(self.every)),
            _ => self.every.mul_f64(rand::rng().random_range(0.9..1.1)),
        }
    }
}

/// A look took too long.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct Late(Duration);

/// A [`Poll`] as a watcher.
#[derive(Debug)]
pub struct Polled<P> {
    source: P,
    name: Arc<str>,
    pace: Pace,
}

impl<P: Poll> Polled<P> {
    /// A watcher of `source`, called `name` in logs.
    pub fn new(source: P, name: Arc<str>, pace: Pace) -> Self {
        Self { source, name, pace }
    }

    async fn go_on(mut self, teller: Teller) -> Infallible {
        let mut backoff = Backoff::new(self.pace.retry.0, self.pace.retry.1).with_jitter(Jitter::Equal);
        let mut at = Instant::now() + self.pace.start_within.mul_f64(rand::rng().random());
        let mut nudges = false;
        loop {
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.source.nudged(), if nudges => {}
            }
            nudges = true;
            let mut least = Duration::ZERO;
            let looked = timeout(self.pace.patience, self.source.look()).await;
            let failed: Box<dyn Error + Send + Sync> = match looked {
                Ok(Ok(Look { answer, good_for })) => {
                    if backoff.failures() > 0 {
                        info!(watcher = %self.name, "The source answers again.");
                    }
                    teller.tell(answer);
                    backoff.succeeded();
                    at = Instant::now() + self.pace.next(good_for);
                    continue;
                }
                Ok(Err(error)) => {
                    least = self.source.hold_off(&error);
                    nudges = least.is_zero();
                    Box::new(error)
                }
                Err(_) => Box::new(Late(self.pace.patience)),
            };
            if teller.fail(&*failed) {
                warn!(watcher = %self.name, error = %Chain(&*failed), "Watch failed; keeping the last snapshot.");
            }
            at = Instant::now() + backoff.next_delay().max(least);
        }
    }
}

impl<P: Poll> Watcher<Snapshot> for Polled<P> {
    type Error = Infallible;

    async fn run(self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), Infallible> {
        match cancel.run_until_cancelled(self.go_on(Teller::new(out))).await {
            None => Ok(()),
            Some(never) => match never {},
        }
    }
}

#[cfg(test)]
mod tests {
    use agent::watch::{Inlet, channel};
    use model::Pool;
    use tokio::sync::mpsc;

    use super::*;

    /// Answers what it is told, and notes when it was asked.
    struct Scripted {
        answers: mpsc::UnboundedReceiver<Option<Duration>>,
        asked: mpsc::UnboundedSender<Instant>,
        nudges: mpsc::UnboundedReceiver<()>,
    }

    impl Poll for Scripted {
        type Error = std::io::Error;

        async fn look(&mut self) -> Result<Look, std::io::Error> {
            self.asked.send(Instant::now()).unwrap();
            match self.answers.try_recv() {
                Ok(good_for) => {
                    let services = [("s".parse().unwrap(), Arc::new(Pool::default()))].into();
                    Ok(Look { answer: Answer { services, ..Answer::default() }, good_for })
                }
                Err(mpsc::error::TryRecvError::Empty) => Err(std::io::Error::other("refused")),
                Err(_) => std::future::pending().await,
            }
        }

        async fn nudged(&mut self) {
            if self.nudges.recv().await.is_none() {
                std::future::pending().await
            }
        }
    }

    struct World {
        answers: mpsc::UnboundedSender<Option<Duration>>,
        asked: mpsc::UnboundedReceiver<Instant>,
        nudge: mpsc::UnboundedSender<()>,
        inlet: Inlet<Snapshot>,
        _end: tokio_util::sync::DropGuard,
    }

    fn start(pace: Pace) -> World {
        let (answers, answers_in) = mpsc::unbounded_channel();
        let (asked_out, asked) = mpsc::unbounded_channel();
        let (nudge, nudges) = mpsc::unbounded_channel();
        let source = Scripted { answers: answers_in, asked: asked_out, nudges };
        let ((out, inlet), cancel) = (channel(), CancellationToken::new());
        tokio::spawn(Polled::new(source, "s".into(), pace).run(out, cancel.clone()));
        World { answers, asked, nudge, inlet, _end: cancel.drop_guard() }
    }

    const PACE: Pace = Pace {
        every: Duration::from_secs(10),
        start_within: Duration::ZERO,
        patience: Duration::from_secs(3),
        retry: (RETRY, Duration::from_secs(10)),
    };

    #[tokio::test(start_paused = true)]
    async fn it_looks_at_its_period_sooner_for_a_short_life_and_at_once_when_nudged() {
        let mut world = start(PACE);
        for good_for in [None, Some(Duration::from_secs(4)), Some(Duration::ZERO), Some(Duration::from_secs(99))] {
            world.answers.send(good_for).unwrap();
        }
        let mut gaps = Vec::new();
        let mut last = world.asked.recv().await.unwrap();
        for _ in 0..4 {
            let next = world.asked.recv().await.unwrap();
            gaps.push((next - last).as_secs_f64());
            last = next;
        }
        assert!((9.0..=11.1).contains(&gaps[0]) && (9.0..=11.1).contains(&gaps[3]), "{gaps:?}");
        assert!((4.0..4.1).contains(&gaps[1]) && (1.0..1.1).contains(&gaps[2]), "{gaps:?}");
        world.answers.send(None).unwrap();
        world.nudge.send(()).unwrap();
        assert!(world.asked.recv().await.unwrap() - last < Duration::from_millis(300), "a nudge is a look");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_up_to_the_period_and_a_hung_source_is_stale() {
        let mut world = start(PACE);
        world.answers.send(None).unwrap();
        world.inlet.wait_for(|o| o.standing() == "synced").await.unwrap();
        let mut last = world.asked.recv().await.unwrap();
        let mut gaps = Vec::new();
        for _ in 0..12 {
            let next = world.asked.recv().await.unwrap();
            gaps.push(next - last);
            last = next;
        }
        assert_eq!(world.inlet.borrow().standing(), "stale");
        assert!(gaps[1] <= RETRY && gaps.iter().all(|gap| *gap <= PACE.every * 11 / 10 + LEAST), "{gaps:?}");
        assert!(gaps[11] >= PACE.every / 2, "{gaps:?}");
        drop(world.answers); // from now on it hangs
        world.inlet.wait_for(|o| o.error().is_some_and(|e| e.contains("no answer within 3s"))).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_that_starts_at_once_does_not_look_at_once() {
        let pace = Pace { start_within: Duration::from_secs(20), ..PACE };
        let mut first = Vec::new();
        for _ in 0..40 {
            let began = Instant::now();
            first.push(start(pace).asked.recv().await.unwrap() - began);
        }
        let early = first.iter().filter(|d| **d < Duration::from_secs(1)).count();
        assert!(early < 20, "{first:?}");
    }
}
