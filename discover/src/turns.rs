//! Each generator takes its turns in a task of its own: one that is slow, or that hangs, does not delay the others.
//!
//! The goal reaches it by a latest-value channel: however long a turn took, the next one is for the newest goal.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::sync::lock;
use agent::telemetry::Chain;
use agent::trouble::{News, Trouble};
use agent::watch::Observation;
use futures_util::future::BoxFuture;
use registry::Snapshot;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::generators::{Generator, Outcome};
use crate::metrics::Metrics;
use crate::reconcile::Desired;
use crate::status::{StatusBoard, TurnRecord};

/// How long a failed turn is not tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Any generator, as the agent uses it.
pub trait TakesTurns: Send {
    /// Brings up what was applied last.
    fn resume(&mut self) -> BoxFuture<'_, ()>;

    /// One whole turn of one generator.
    fn turn<'a>(&'a mut self, desired: &'a Desired) -> BoxFuture<'a, Result<Outcome, Box<dyn Error + Send + Sync>>>;

    /// Waits until something beside the turns asks for one; cancel-safe.
    fn due(&mut self) -> BoxFuture<'_, ()>;
}

impl<G: Generator> TakesTurns for G {
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
pub struct Goal {
    /// The state.
    pub desired: Desired,
    /// What the sources had said.
    pub observations: Vec<Observation<Snapshot>>,
    /// When the first of the news came that made it; none where there was none.
    pub since: Option<Instant>,
}

/// Says what came of each turn.
#[derive(Debug, Clone)]
pub struct Recorder {
    board: StatusBoard,
    changes: watch::Sender<u64>,
    metrics: Metrics,
    /// Of each generator.
    last: Arc<Mutex<Vec<Last>>>,
}

/// How a generator's last turn ended, once there was one.
type Last = Option<Result<(), String>>;

impl Recorder {
    /// For this many generators.
    pub fn new(board: StatusBoard, changes: watch::Sender<u64>, metrics: Metrics, generators: usize) -> Self {
        Self { board, changes, metrics, last: Arc::new(Mutex::new(vec![None; generators])) }
    }

    /// A turn of generator `nth` ended. Nothing is called routed before every generator has taken its first turn.
    /// Gives what counts as the outcome.
    fn ended(&self, nth: usize, goal: &Goal, took: Duration, outcome: Result<(), String>) -> Result<(), String> {
        self.metrics.turn(took, outcome.is_ok());
        let mut last = lock(&self.last);
        let outcome = match (&last[nth], outcome) {
            // HAProxy's turns, the first ones: a turn that waits for the next try has mended nothing.
            (Some(Err(before)), Ok(())) if nth == 0 && self.board.lacks_haproxy() => Err(before.clone()),
            (_, outcome) => outcome,
        };
        last[nth] = Some(outcome.clone());
        if last.iter().any(Option::is_none) {
            return outcome;
        }
        if nth == 0 {
            let ok = matches!(last[nth], Some(Ok(())));
            self.board.chronicle(&goal.desired, &goal.observations, goal.since, ok, &self.metrics);
        }
        let failure = last.iter().flatten().find_map(|outcome| outcome.as_ref().err()).cloned();
        let record = TurnRecord::new(took, failure);
        if self.board.turned(&goal.desired, &goal.observations, record, &self.metrics) {
            self.changes.send_modify(|n| *n += 1);
        }
        outcome
    }
}

/// Starts a task for each generator, which takes a turn at each change of `goal`, and when one is due, until `cancel`.
/// A turn is never cut in two: HAProxy and its file would differ.
pub fn start(
    generators: Vec<Box<dyn TakesTurns>>,
    goal: &watch::Receiver<Option<Arc<Goal>>>,
    recorder: &Recorder,
    cancel: &CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (nth, generator) in generators.into_iter().enumerate() {
        tasks.spawn(take_turns(nth, generator, goal.clone(), recorder.clone(), cancel.clone()));
    }
    tasks
}

/// The text without the ids of processes, which stand in brackets in HAProxy's words: each try has another one.
fn without_ids(text: &str) -> String {
    let is_id = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text.split('(').map(|part| match part.split_once(')') {
        Some((id, rest)) if is_id(&id) => rest,
        _ => part,
    });
    parts.collect::<Vec<_>>().join("(")
}

/// Says each reason of a trouble once, and its end.
fn say(trouble: &mut Trouble, outcome: &Result<(), String>) {
    match outcome {
        Ok(()) => {
            if let Some(lasted) = trouble.end() {
                info!(after_s = lasted.as_secs(), "A turn has succeeded again.");
            }
        }
        Err(error) => match trouble.fail(&without_ids(error)) {
            News::Begins => error!(error, "A turn failed; it is tried again."),
            News::OtherReason => error!(error, "The turns still fail, for another reason."),
            News::None => {}
        },
    }
}

async fn take_turns(
    nth: usize,
    mut generator: Box<dyn TakesTurns>,
    mut goal: watch::Receiver<Option<Arc<Goal>>>,
    recorder: Recorder,
    cancel: CancellationToken,
) {
    generator.resume().await;
    let (mut due, mut trouble) = (None, Trouble::default());
    loop {
        tokio::select! {
            biased; // shutdown wins over work
            () = cancel.cancelled() => return,
            changed = goal.changed() => if changed.is_err() { return },
            () = generator.due() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        let Some(now) = goal.borrow_and_update().clone() else { continue };
        let began = Instant::now();
        let outcome = generator.turn(&now.desired).await;
        due = match &outcome {
            Ok(Outcome::Done) => None,
            Ok(Outcome::Again(at)) => Some(*at),
            Err(_) => Some(Instant::now() + RETRY),
        };
        let outcome = outcome.map(drop).map_err(|error| Chain(&*error).to_string());
        say(&mut trouble, &recorder.ended(nth, &now, began.elapsed(), outcome));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tries_that_differ_in_a_process_id_fail_for_one_reason() {
        let said = |pid: u32| {
            without_ids(&format!("HAProxy ended (exit status: 1): [ALERT] ({pid}) : limit is 4096 (raise it)"))
        };
        assert_eq!(said(7898), said(12));
        assert!(said(1).contains("(exit status: 1)") && said(1).contains("(raise it)"), "{}", said(1));
        assert_ne!(without_ids("port 80"), without_ids("port 81"));
    }
}
