//! The running agent: watchers feed it, and each turn brings the generators to what they say.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::debounce::Debounce;
use agent::history::History;
use agent::sync::lock;
use agent::watch::Observation;
use registry::Snapshot;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::metrics::{Metrics, SourceLabel};
use crate::reconcile::{Merged, Reconciler, Source, merge};
use crate::state::StateFile;
use crate::status::StatusBoard;
pub use crate::turns::TakesTurns;
use crate::turns::{Goal, Recorder, start};

/// A turn happens at least this often, with or without a signal.
const PERIOD: Duration = Duration::from_secs(30);
/// How often to check, after the sync deadline, whether a source has answered.
const RETRY: Duration = Duration::from_secs(1);

/// The history's words for a source that fails, and for one that is current again.
const SOURCE_CHANGES: [&str; 2] = ["source_away", "source_back"];

/// What the agent is made of.
pub struct Agent {
    /// Sources of pools, in the order in which they are merged.
    pub sources: Vec<Source>,
    /// Makes the desired state of what they say.
    pub reconciler: Reconciler,
    /// What turns the desired state into files and running state.
    pub generators: Vec<Box<dyn TakesTurns>>,
    /// The file of what must outlive a restart, if any.
    pub state: Option<StateFile>,
    /// How triggers are gathered into turns.
    pub debounce: Debounce,
    /// How long a required source is waited for at the start, once another has answered.
    pub sync_deadline: Duration,
    /// Asks for a turn.
    pub wake: Arc<Notify>,
    /// What the admin server shows.
    pub board: StatusBoard,
    /// Counts the turns that changed something.
    pub changes: watch::Sender<u64>,
    /// discover's metrics.
    pub metrics: Metrics,
}

/// When the agent looks at its sources next, and whether it has ever had all that it waits for.
struct Clock {
    started: Instant,
    begun: bool,
    due: Option<Instant>,
}

impl Agent {
    /// Has turns taken until `cancel`.
    ///
    /// # Errors
    /// None: a turn that fails is taken again.
    ///
    /// # Panics
    /// When a generator does.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), std::convert::Infallible> {
        let news = News::default();
        for source in &self.sources {
            tokio::spawn(forward(
                source.clone(),
                self.wake.clone(),
                self.metrics.clone(),
                cancel.clone(),
                news.clone(),
                self.board.history(),
            ));
        }
        let generators = std::mem::take(&mut self.generators);
        let recorder = Recorder::new(self.board.clone(), self.changes.clone(), self.metrics.clone(), generators.len());
        let (goals, goal) = watch::channel(None);
        let mut tasks = start(generators, &goal, &recorder, &cancel);
        let mut clock = Clock { started: Instant::now(), begun: false, due: Some(Instant::now()) };
        while self.wait(&clock, &mut tasks, &cancel).await {
            let since = lock(&news).take();
            let observations: Vec<_> = self.sources.iter().map(|s| s.inlet.borrow().clone()).collect();
            let merged = merge(self.sources.iter().zip(observations.iter().cloned()));
            self.board.observed(&self.sources, &observations, &self.metrics);
            if !self.may_begin(&mut clock, &merged, &observations) {
                continue;
            }
            if let Some(near) = self.reconciler.near() {
                near.hear(&self.board.found_down());
            }
            let desired = self.reconciler.desired(merged, Instant::now());
            goals.send_replace(Some(Arc::new(Goal { desired, observations, since })));
            // The generators have it by now, so a slow disk does not delay them.
            let written = self.remember().await;
            clock.due = [self.reconciler.next_due(), written].into_iter().flatten().min();
        }
        self.state.iter_mut().for_each(StateFile::hurry);
        self.remember().await;
        while let Some(end) = tasks.join_next().await {
            go_on_if_well(end);
        }
        Ok(())
    }

    /// Waits for the next turn; `false` when the agent is to end.
    async fn wait(&mut self, clock: &Clock, tasks: &mut JoinSet<()>, cancel: &CancellationToken) -> bool {
        let latest = Instant::now() + PERIOD;
        let mut wake = &*self.wake;
        tokio::select! {
            biased; // shutdown wins over work
            () = cancel.cancelled() => return false,
            Some(end) = tasks.join_next() => go_on_if_well(end),
            _ = self.debounce.settle(&mut wake) => {}
            () = sleep_until(clock.due.unwrap_or(latest).min(latest)) => {}
        }
        true
    }

    /// Whether enough sources have answered; else says when to look again.
    fn may_begin(&self, clock: &mut Clock, merged: &Merged, observations: &[Observation<Snapshot>]) -> bool {
        if !clock.begun && !merged.pending.is_empty() {
            let answered = observations.iter().any(|o| o.snapshot().is_some());
            if !answered || clock.started.elapsed() < self.sync_deadline {
                clock.due = Some((clock.started + self.sync_deadline).max(Instant::now() + RETRY));
                return false;
            }
            warn!(pending = %merged.pending.join(", "), "Going on without these sources: they have not answered in time.");
        }
        clock.begun = true;
        true
    }

    /// Writes down what must outlive a restart, if it is time; gives when it is time again.
    async fn remember(&mut self) -> Option<Instant> {
        let (state, reconciler, now) = (self.state.as_mut()?, &self.reconciler, Instant::now());
        state.save(reconciler.version(), || reconciler.memory(now), now).await
    }
}

/// A generator's task ends only when it is cancelled, or by a panic, which ends the agent.
fn go_on_if_well(end: Result<(), tokio::task::JoinError>) {
    if let Err(error) = end
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// When the first news came that no turn has taken up yet.
type News = Arc<Mutex<Option<Instant>>>;

/// Wakes the agent at each change of a source.
async fn forward(
    mut source: Source,
    wake: Arc<Notify>,
    metrics: Metrics,
    cancel: CancellationToken,
    news: News,
    history: History,
) {
    let failures = metrics.sources.failures.get_or_create_owned(&SourceLabel { source: source.name.to_string() });
    let (mut standing, mut failing, mut was_stale) = ("", false, false);
    loop {
        let (now, fails) = {
            let seen = source.inlet.borrow_and_update();
            history.note_standing(&source.name, &seen, &mut was_stale, SOURCE_CHANGES);
            (seen.standing(), seen.error().is_some())
        };
        if fails && !std::mem::replace(&mut failing, fails) {
            failures.inc();
        }
        failing = fails;
        if now != standing {
            match now {
                "synced" => info!(source = %source.name, standing = now, "The source is current."),
                "stale" => info!(source = %source.name, standing = now, "The source fails; its last state stays."),
                _ => debug!(source = %source.name, standing = now, "The source has not answered yet."),
            }
            standing = now;
        }
        lock(&news).get_or_insert_with(Instant::now);
        wake.notify_one();
        tokio::select! {
            biased; // shutdown wins over work
            () = cancel.cancelled() => return,
            changed = source.inlet.changed() => if changed.is_err() { return },
        }
    }
}
