//! The running agent: watchers feed it, each turn brings the generators to what they say.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use common::debounce::Debounce;
use common::model::ServiceMap;
use common::registry::Snapshot;
use common::telemetry::Chain;
use common::watch::Observation;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::generators::{Generator, Outcome};
use crate::metrics::{Metrics, SourceLabel};
use crate::reconcile::{Desired, Emptied, Guard, Memory, Policies, Source, merge};
use crate::state::StateFile;
use crate::status::{Shared, TurnRecord};

/// A turn happens at least this often, whatever was or was not signalled.
const PERIOD: Duration = Duration::from_secs(30);
/// How long a failed turn is not tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Any generator, as the agent uses it.
pub trait Turn: Send {
    /// Brings up what was applied last.
    fn resume(&mut self) -> BoxFuture<'_, ()>;

    /// One whole turn of one generator.
    fn turn<'a>(&'a mut self, desired: &'a Desired) -> BoxFuture<'a, Result<Outcome, Box<dyn Error + Send + Sync>>>;
}

impl<G: Generator> Turn for G {
    fn resume(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(Generator::resume(self))
    }

    fn turn<'a>(&'a mut self, desired: &'a Desired) -> BoxFuture<'a, Result<Outcome, Box<dyn Error + Send + Sync>>> {
        Box::pin(async move {
            self.prepare(desired).await;
            let plan = self.plan(desired);
            Ok(self.apply(plan).await?)
        })
    }
}

/// What the agent is made of.
pub struct Agent {
    /// Sources of pools, in the order in which they are merged.
    pub sources: Vec<Source>,
    /// What a config makes of discovered pools; without a config they count as they are.
    pub policies: Option<Policies>,
    /// What turns the desired state into files and running state.
    pub generators: Vec<Box<dyn Turn>>,
    /// The guard against mass expiry; shared with the control socket.
    pub guard: Arc<std::sync::Mutex<Guard>>,
    /// What becomes of pools that are empty all the same.
    pub emptied: Emptied,
    /// Where what must outlive a restart is written, if anywhere.
    pub state: Option<StateFile>,
    /// How triggers are gathered into turns.
    pub debounce: Debounce,
    /// How long a required source is waited for at the start, once another has answered.
    pub sync_deadline: Duration,
    /// Asks for a turn.
    pub wake: Arc<Notify>,
    /// What the admin server shows.
    pub shared: Shared,
    /// Told of each turn that changed something.
    pub changes: watch::Sender<u64>,
    /// discover's metrics.
    pub metrics: Metrics,
    /// Pools that stand in for empty ones: empty at the start.
    pub kept: ServiceMap,
}

impl Agent {
    /// Takes turns until `cancel`.
    ///
    /// # Errors
    /// None: a turn that fails is taken again.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), std::convert::Infallible> {
        for source in &self.sources {
            tokio::spawn(forward(source.clone(), self.wake.clone(), self.metrics.clone(), cancel.clone()));
        }
        for generator in &mut self.generators {
            generator.resume().await;
        }
        let started = Instant::now();
        let mut begun = false;
        let mut due = Some(Instant::now());
        loop {
            let at = due.unwrap_or_else(|| Instant::now() + PERIOD).min(Instant::now() + PERIOD);
            let mut wake = &*self.wake;
            tokio::select! {
                biased; // shutdown wins over work
                () = cancel.cancelled() => {
                    self.remember(None).await;
                    return Ok(());
                }
                _ = self.debounce.settle(&mut wake) => {}
                () = sleep_until(at) => {}
            }
            let observations: Vec<_> = self.sources.iter().map(|s| s.inlet.borrow().clone()).collect();
            let merged = merge(self.sources.iter().zip(observations.iter().cloned()));
            self.shared.observed(&self.sources, &observations);
            if !begun && !merged.pending.is_empty() {
                let answered = observations.iter().any(|o| o.snapshot().is_some());
                if !answered || started.elapsed() < self.sync_deadline {
                    due = Some((started + self.sync_deadline).max(Instant::now() + RETRY));
                    continue;
                }
                warn!(pending = %merged.pending.join(", "), "Going on without these sources: they have not answered in time.");
            }
            begun = true;
            let mut desired = self.lock_guard().judge(&merged, Instant::now());
            self.emptied.fill(&mut desired);
            if let Some(policies) = &mut self.policies {
                policies.apply_to(&mut desired, &merged.generator_configs);
            }
            due = self.turn(&desired, &observations, &cancel).await;
            // After the turn: a slow disk keeps nobody waiting.
            due = [due, self.remember(Some(&desired)).await].into_iter().flatten().min();
        }
    }

    fn lock_guard(&self) -> std::sync::MutexGuard<'_, Guard> {
        // A panic while judging would have ended the agent; what it left is still the best there is.
        self.guard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes down what must outlive a restart, if it is time; at the end (`None`) at once. Gives when it is time.
    async fn remember(&mut self, desired: Option<&Desired>) -> Option<Instant> {
        let state = self.state.as_mut()?;
        match desired {
            Some(desired) => self.kept = self.emptied.kept(desired),
            None => state.hurry(),
        }
        let now = Instant::now();
        let (guard, kept) = (&self.guard, &self.kept);
        let lock = || guard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let version = lock().version();
        state.save(version, || Memory { kept: kept.clone(), ..lock().memory(now) }, now).await
    }

    /// One turn of every generator; gives when the next one is due.
    async fn turn(
        &mut self,
        desired: &Desired,
        observations: &[Observation<Snapshot>],
        cancel: &CancellationToken,
    ) -> Option<Instant> {
        let began = Instant::now();
        let mut due = self.lock_guard().next_due();
        let mut failure = None;
        for generator in &mut self.generators {
            // A turn is never cut in two: HAProxy and its file would differ. But it must not outlive a shutdown for long.
            match generator.turn(desired).await {
                Ok(Outcome::Done) => {}
                Ok(Outcome::Again(at)) => due = due.into_iter().chain([at]).min(),
                Err(e) => {
                    error!(error = %Chain(&*e), "Turn failed; what runs stays as it is.");
                    failure = Some(Chain(&*e).to_string());
                    due = due.into_iter().chain([Instant::now() + RETRY]).min();
                }
            }
            if cancel.is_cancelled() {
                break;
            }
        }
        self.metrics.turn(began.elapsed(), failure.is_none());
        let changed =
            self.shared.turned(desired, observations, TurnRecord::new(began.elapsed(), failure), &self.metrics);
        if changed {
            self.changes.send_modify(|n| *n += 1);
        }
        due
    }
}

/// Wakes the agent whenever a source has news.
async fn forward(mut source: Source, wake: Arc<Notify>, metrics: Metrics, cancel: CancellationToken) {
    let failures = metrics.source_failures.get_or_create_owned(&SourceLabel { source: source.name.to_string() });
    let (mut standing, mut failing) = ("", false);
    loop {
        let (now, fails) = {
            let seen = source.inlet.borrow_and_update();
            (seen.standing(), seen.error().is_some())
        };
        if fails && !std::mem::replace(&mut failing, fails) {
            failures.inc();
        }
        failing = fails;
        if now != standing {
            info!(source = %source.name, standing = now, "Source.");
            standing = now;
        }
        wake.notify_one();
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = source.inlet.changed() => if changed.is_err() { return },
        }
    }
}
