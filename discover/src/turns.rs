//! Each generator takes its turns in a task of its own: one that is slow, or that hangs, keeps nobody else waiting.
//!
//! What is wanted reaches it by a latest-value channel: however long a turn took, the next one is for what is wanted then.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::registry::Snapshot;
use common::telemetry::Chain;
use common::watch::Observation;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::generators::{Generator, Outcome};
use crate::metrics::Metrics;
use crate::reconcile::Desired;
use crate::status::{Shared, TurnRecord};

/// How long a failed turn is not tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Any generator, as the agent uses it.
pub trait Turn: Send {
    /// Brings up what was applied last.
    fn resume(&mut self) -> BoxFuture<'_, ()>;

    /// One whole turn of one generator.
    fn turn<'a>(&'a mut self, desired: &'a Desired) -> BoxFuture<'a, Result<Outcome, Box<dyn Error + Send + Sync>>>;

    /// Waits until something beside the turns asks for one; cancel-safe.
    fn due(&mut self) -> BoxFuture<'_, ()>;
}

impl<G: Generator> Turn for G {
    fn resume(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(Generator::resume(self))
    }

    fn turn<'a>(&'a mut self, desired: &'a Desired) -> BoxFuture<'a, Result<Outcome, Box<dyn Error + Send + Sync>>> {
        Box::pin(async move {
            self.prepare(desired).await;
            let plan = self.plan(desired, Instant::now());
            Ok(self.apply(plan).await?)
        })
    }

    fn due(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(Generator::due(self))
    }
}

/// What the generators are to bring about.
#[derive(Debug)]
pub struct Wanted {
    /// The state.
    pub desired: Desired,
    /// What the sources had said.
    pub observations: Vec<Observation<Snapshot>>,
}

/// Says what came of each turn.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Shared,
    changes: watch::Sender<u64>,
    metrics: Metrics,
    /// Of each generator.
    last: Arc<Mutex<Vec<Last>>>,
}

/// How a generator's last turn ended, once there was one.
type Last = Option<Result<(), String>>;

impl Recorder {
    /// For this many generators.
    pub fn new(shared: Shared, changes: watch::Sender<u64>, metrics: Metrics, generators: usize) -> Self {
        Self { shared, changes, metrics, last: Arc::new(Mutex::new(vec![None; generators])) }
    }

    /// A turn of generator `nth` ended. Nothing is called routed before every generator has taken its first turn.
    fn ended(&self, nth: usize, wanted: &Wanted, took: Duration, outcome: Result<(), String>) {
        self.metrics.turn(took, outcome.is_ok());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last[nth] = Some(outcome);
        if last.iter().any(Option::is_none) {
            return;
        }
        let failure = last.iter().flatten().find_map(|outcome| outcome.as_ref().err()).cloned();
        let record = TurnRecord::new(took, failure);
        if self.shared.turned(&wanted.desired, &wanted.observations, record, &self.metrics) {
            self.changes.send_modify(|n| *n += 1);
        }
    }
}

/// Starts a task for each generator, which takes a turn whenever `wanted` has news, and when one is due, until `cancel`.
/// A turn is never cut in two: HAProxy and its file would differ.
pub fn start(
    generators: Vec<Box<dyn Turn>>,
    wanted: &watch::Receiver<Option<Arc<Wanted>>>,
    recorder: &Recorder,
    cancel: &CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (nth, generator) in generators.into_iter().enumerate() {
        tasks.spawn(take_turns(nth, generator, wanted.clone(), recorder.clone(), cancel.clone()));
    }
    tasks
}

async fn take_turns(
    nth: usize,
    mut generator: Box<dyn Turn>,
    mut wanted: watch::Receiver<Option<Arc<Wanted>>>,
    recorder: Recorder,
    cancel: CancellationToken,
) {
    generator.resume().await;
    let mut due = None;
    loop {
        tokio::select! {
            biased; // shutdown wins over work
            () = cancel.cancelled() => return,
            news = wanted.changed() => if news.is_err() { return },
            () = generator.due() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        let Some(now) = wanted.borrow_and_update().clone() else { continue };
        let began = Instant::now();
        let outcome = generator.turn(&now.desired).await;
        due = match &outcome {
            Ok(Outcome::Done) => None,
            Ok(Outcome::Again(at)) => Some(*at),
            Err(error) => {
                error!(error = %Chain(&**error), "Turn failed; what runs stays as it is.");
                Some(Instant::now() + RETRY)
            }
        };
        recorder.ended(nth, &now, began.elapsed(), outcome.map(drop).map_err(|error| Chain(&*error).to_string()));
    }
}
