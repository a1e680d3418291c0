//! The running agent: watchers feed it, each turn brings the generators to what they say.

use std::sync::Arc;
use std::time::Duration;

use common::debounce::Debounce;
use common::model::ServiceMap;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::metrics::{Metrics, SourceLabel};
use crate::reconcile::{Admission, Desired, Emptied, Guard, LeftOut, Limits, Memory, Policies, Source, merge};
use crate::state::StateFile;
use crate::status::Shared;
pub use crate::turns::Turn;
use crate::turns::{Recorder, Wanted, start};

/// A turn happens at least this often, whatever was or was not signalled.
const PERIOD: Duration = Duration::from_secs(30);
/// How long after the sync deadline it is looked again whether a source has answered.
const RETRY: Duration = Duration::from_secs(1);

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
    /// How much of what the sources say is taken in.
    pub limits: Limits,
    /// Which backends are let in.
    pub admission: Admission,
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
    /// Has turns taken until `cancel`.
    ///
    /// # Errors
    /// None: a turn that fails is taken again.
    ///
    /// # Panics
    /// When a generator does.
    pub async fn run(mut self, cancel: CancellationToken) -> Result<(), std::convert::Infallible> {
        for source in &self.sources {
            tokio::spawn(forward(source.clone(), self.wake.clone(), self.metrics.clone(), cancel.clone()));
        }
        let generators = std::mem::take(&mut self.generators);
        let recorder = Recorder::new(self.shared.clone(), self.changes.clone(), self.metrics.clone(), generators.len());
        let (news, wanted) = watch::channel(None);
        let mut tasks = start(generators, &wanted, &recorder, &cancel);
        let started = Instant::now();
        let mut begun = false;
        let mut left_out = LeftOut::new();
        let mut due = Some(Instant::now());
        loop {
            let at = due.unwrap_or_else(|| Instant::now() + PERIOD).min(Instant::now() + PERIOD);
            let mut wake = &*self.wake;
            tokio::select! {
                biased; // shutdown wins over work
                () = cancel.cancelled() => {
                    self.remember(None).await;
                    while let Some(end) = tasks.join_next().await {
                        go_on_if_well(end);
                    }
                    return Ok(());
                }
                Some(end) = tasks.join_next() => go_on_if_well(end),
                _ = self.debounce.settle(&mut wake) => {}
                () = sleep_until(at) => {}
            }
            let observations: Vec<_> = self.sources.iter().map(|s| s.inlet.borrow().clone()).collect();
            let mut merged = merge(self.sources.iter().zip(observations.iter().cloned()));
            self.shared.observed(&self.sources, &observations, &self.metrics);
            if !begun && !merged.pending.is_empty() {
                let answered = observations.iter().any(|o| o.snapshot().is_some());
                if !answered || started.elapsed() < self.sync_deadline {
                    due = Some((started + self.sync_deadline).max(Instant::now() + RETRY));
                    continue;
                }
                warn!(pending = %merged.pending.join(", "), "Going on without these sources: they have not answered in time.");
            }
            let served = || self.lock_guard().memory(Instant::now()).told;
            let cut = self.limits.cut(&mut merged.services, served);
            if cut != left_out {
                cut.iter().for_each(|(service, why)| warn!(%service, %why, "The sources say more than is taken in."));
                left_out = cut;
            }
            begun = true;
            let mut desired = self.lock_guard().judge(&merged, Instant::now());
            desired.barred = self.admission.admit(&mut desired.services).clone();
            self.emptied.fill(&mut desired);
            if let Some(policies) = &mut self.policies {
                policies.apply_to(&mut desired, &merged.generator_configs, Instant::now());
            }
            if !left_out.is_empty() {
                Arc::make_mut(&mut desired.refused).extend(left_out.clone());
            }
            let wanted = Arc::new(Wanted { desired, observations });
            news.send_replace(Some(wanted.clone()));
            // After that: a slow disk keeps nobody waiting.
            let written = self.remember(Some(&wanted.desired)).await;
            due = [self.lock_guard().next_due(), written].into_iter().flatten().min();
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
}

/// A generator's task ends only when it is told to, or by a panic, which is everybody's.
fn go_on_if_well(end: Result<(), tokio::task::JoinError>) {
    if let Err(error) = end
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
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
            biased; // shutdown wins over work
            () = cancel.cancelled() => return,
            changed = source.inlet.changed() => if changed.is_err() { return },
        }
    }
}
