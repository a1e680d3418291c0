//! The task that owns the lease: no lease → granted → published, and back to the start when the lease is lost.
//!
//! Three things go on side by side while a claim holds: the lease is renewed on its own beat, the registrar's key is
//! watched, and changes are written. Whichever finds the claim void ends all three.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::store::{Compare, Entry, KeepAlive, Key, LeaseId, Op, Store, StoreError, Value};
use common::telemetry::Chain;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::metadata;
use super::plan::{Form, Keys, Plan, Registrations, is_shared, plan};
use super::registrar::{Claim, ClaimError, End, Identity, Registrar};
use super::report::{Phase, Publication, PublishMetrics, Reporter};

/// How often docker-register's port keys are read back: they hang on the lease of the agent that wrote last, and go when
/// that dies, while the others' backends live on.
const SHARED: Duration = Duration::from_secs(2);

/// Why the publisher gave up.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The host's key belongs to somebody else.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The store took the lease back too late or not at all.
    #[error("revoking the lease at the end")]
    Revoke(#[source] StoreError),
}

/// How to publish.
#[derive(Debug, Clone)]
pub struct PublisherSettings {
    /// How keys and values look.
    pub form: Form,
    /// Who publishes.
    pub identity: Identity,
    /// How long everything outlives this agent (`--ttl`).
    pub ttl: Duration,
    /// How often what was written is read back (`--resync`).
    pub audit: Duration,
    /// How often the host's metadata is written, if at all (`--metadata-interval`).
    pub metadata: Option<Duration>,
}

/// Brings the registry to what is desired, and keeps it there.
#[derive(Debug)]
pub struct Publisher<S> {
    store: S,
    form: Form,
    audit: Duration,
    metadata: Option<Duration>,
    registrar: Registrar<S>,
    desired: watch::Receiver<Option<Arc<Registrations>>>,
    report: Reporter,
}

impl<S: Store> Publisher<S> {
    /// Publishes what `desired` holds (`None`: not known yet, nothing is written) and tells on `out` how that goes.
    pub fn new(
        store: S,
        settings: PublisherSettings,
        desired: watch::Receiver<Option<Arc<Registrations>>>,
        out: watch::Sender<Publication>,
        metrics: PublishMetrics,
    ) -> Self {
        let PublisherSettings { form, identity, ttl, audit, metadata } = settings;
        let registrar = Registrar::new(store.clone(), identity, form.prefix.clone(), ttl);
        let report = Reporter::new(out, metrics, ttl / 3);
        Self { store, form, audit, metadata, registrar, desired, report }
    }

    /// Runs until `stop`. The lease stays and keeps everything alive for its time, unless `revoke` is cancelled, too:
    /// then everything goes at once.
    ///
    /// # Errors
    /// [`PublishError`] where the host's key belongs to somebody else, or at the start the store can never serve.
    pub async fn run(mut self, stop: CancellationToken, revoke: CancellationToken) -> Result<(), PublishError> {
        loop {
            let claim = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                claim = self.claim() => claim?,
            };
            let lease = claim.lease;
            let end = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                end = self.hold(claim) => Some(end),
            };
            match end {
                None if revoke.is_cancelled() => {
                    return self.store.revoke(lease).await.map_err(PublishError::Revoke);
                }
                None => return Ok(()),
                Some(End::Replaced(error)) => return Err(error.into()),
                Some(End::Lost(why)) => {
                    self.report.metrics.lost.inc();
                    warn!(%lease, why, "Lease lost; publishing everything again under a new one.");
                    self.report.update(|p| (p.phase, p.lease) = (Phase::NoLease, None));
                }
            }
        }
    }

    async fn claim(&mut self) -> Result<Claim, ClaimError> {
        loop {
            match self.registrar.claim().await {
                Ok(claim) => {
                    self.report.back();
                    let (lease, ttl) = (claim.lease, claim.ttl);
                    let found: Arc<[Entry]> = claim.entries.clone().into();
                    self.report.update(|p| {
                        (p.phase, p.lease, p.ttl, p.beat) = (Phase::Granted, Some(lease), ttl, Some(SystemTime::now()));
                        p.found.get_or_insert(found);
                    });
                    return Ok(claim);
                }
                Err(ClaimError::Store { source, .. }) if self.registrar.held() || !source.is_fatal() => {
                    sleep(self.report.away(&source)).await;
                }
                Err(final_error) => return Err(final_error),
            }
        }
    }

    async fn hold(&mut self, claim: Claim) -> End {
        let Self { store, form, audit, metadata, registrar, desired, report } = self;
        let (lease, about_host) = (claim.lease, Key::from(form.prefix.metadata(&form.node)));
        let metadata = async {
            match metadata {
                Some(every) => metadata::keep(store, lease, about_host, *every).await,
                None => std::future::pending().await,
            }
        };
        let published = claim.entries.into_iter().map(|e| (e.key, e.value)).collect();
        let writer = Writer { store, form, report, lease: claim.lease, published, doubtful: VecDeque::new() };
        tokio::select! {
            end = registrar.guard(claim.at, |e| report.away(e)) => end,
            end = beats(store, claim.lease, claim.ttl, report) => end,
            end = writer.run(desired, *audit) => end,
            never = metadata => match never {},
        }
    }
}

/// Renews `lease` every third of `ttl`, whatever else is going on; returns when it is gone.
async fn beats<S: Store>(store: &S, lease: LeaseId, mut ttl: Duration, report: &Reporter) -> End {
    const GONE: End = End::Lost("the registry does not know it any more");
    let mut next = Instant::now() + ttl / 3;
    loop {
        let fault = match store.keep_alive(lease).await {
            Ok(mut keeper) => loop {
                sleep_until(next).await;
                next = Instant::now() + ttl / 3;
                match keeper.beat().await {
                    Ok(granted) => {
                        ttl = granted;
                        report.metrics.beats.inc();
                        report.back();
                        report.update_quietly(|p| p.beat = Some(SystemTime::now()));
                    }
                    Err(e) => break e,
                }
            },
            Err(e) => e,
        };
        if fault.is_lease_lost() {
            return GONE;
        }
        let wait = report.away(&fault);
        sleep(wait).await;
        next = Instant::now();
    }
}

/// Writes changes under one lease.
struct Writer<'a, S> {
    store: &'a S,
    form: &'a Form,
    report: &'a Reporter,
    lease: LeaseId,
    /// What is in the registry as far as is known; an empty value stands for "perhaps something else".
    published: Keys,
    /// Keys still to be read back in this round.
    doubtful: VecDeque<Key>,
}

impl<S: Store> Writer<'_, S> {
    async fn run(mut self, desired: &mut watch::Receiver<Option<Arc<Registrations>>>, audit: Duration) -> End {
        let rounds_of = |period: Duration| {
            let mut rounds = interval_at(Instant::now() + period, period);
            rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            rounds
        };
        let (mut rounds, mut shared) = (rounds_of(audit), rounds_of(SHARED.min(audit)));
        loop {
            let wanted = desired.borrow_and_update().clone();
            let mut retry = None;
            if let Some(wanted) = wanted {
                match self.bring_to(&wanted).await {
                    Ok(()) => {}
                    Err(e) if e.is_lease_lost() => return End::Lost("a write was refused for it"),
                    Err(e) => retry = Some(self.report.away(&e)),
                }
            }
            // Waits for a reason to write: a change, a failed write, or a key that is not as it was written.
            loop {
                tokio::select! {
                    biased;
                    changed = desired.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => std::future::pending().await, // the agent is ending; it stops us as well
                    },
                    () = sleep(retry.unwrap_or_default()), if retry.is_some() => break,
                    found = Self::look(self.store, &self.doubtful), if !self.doubtful.is_empty() => {
                        if self.judge(found) { break }
                    }
                    _ = rounds.tick() => self.doubtful = self.published.keys().cloned().collect(),
                    _ = shared.tick(), if self.form.service_ports && self.doubtful.is_empty() => {
                        self.doubtful = self.published.keys().filter(|key| is_shared(key)).cloned().collect();
                    }
                }
            }
        }
    }

    async fn bring_to(&mut self, wanted: &Arc<Registrations>) -> Result<(), StoreError> {
        let keys = self.form.keys(wanted);
        let plan = plan(&keys, &self.published, self.lease);
        if !plan.is_empty() {
            self.report.update(|p| p.phase = Phase::Granted);
            self.apply(plan).await?;
            self.report.back();
        }
        self.report.metrics.keys.set(i64::try_from(keys.len()).unwrap_or(i64::MAX));
        self.report.update(|p| (p.phase, p.published) = (Phase::Published, Some(Arc::clone(wanted))));
        Ok(())
    }

    /// Until the store has answered, a key that is being written may hold the old value or the new one: only an answer
    /// makes it known.
    async fn apply(&mut self, plan: Plan) -> Result<(), StoreError> {
        let puts = |op: &Op| match op {
            Op::Put { key, value, .. } => Some((key.clone(), value.clone())),
            Op::Delete { .. } => None,
        };
        let written: Vec<(Key, Value)> = plan.ops.iter().filter_map(puts).collect();
        let gone: Vec<Key> = plan.ops.iter().filter(|op| puts(op).is_none()).map(|op| op.key().clone()).collect();
        self.published.extend(written.iter().map(|(key, _)| (key.clone(), unknown())));
        self.store.put_all(plan.ops).await?;
        let metrics = &self.report.metrics;
        metrics.puts.inc_by(written.len() as u64);
        metrics.deletes.inc_by(gone.len() as u64);
        for (key, value) in &written {
            info!(key = %key, value = %String::from_utf8_lossy(value), "Published.");
        }
        for key in &gone {
            info!(key = %key, "Withdrawn.");
            self.published.remove(key);
        }
        self.published.extend(written);
        for key in plan.yields {
            let ours = vec![Compare::LeaseIs(key.clone(), self.lease)];
            self.store.txn(ours, vec![Op::delete(key.clone())]).await?;
            self.published.remove(&key);
        }
        Ok(())
    }

    /// Reads the first doubtful key.
    async fn look(store: &S, doubtful: &VecDeque<Key>) -> Result<Option<Entry>, StoreError> {
        match doubtful.front() {
            Some(key) => store.get(key).await,
            None => std::future::pending().await,
        }
    }

    /// Whether the first doubtful key must be written again.
    fn judge(&mut self, found: Result<Option<Entry>, StoreError>) -> bool {
        let found = match found {
            Ok(found) => found,
            Err(e) => {
                warn!(error = %Chain(&e), "Reading back what was published failed; the next round tries again.");
                self.doubtful.clear();
                return false;
            }
        };
        let Some(key) = self.doubtful.pop_front() else { return false };
        let Some(published) = self.published.get(&key) else { return false };
        let intact = found
            .is_some_and(|entry| is_shared(&key) || (entry.value == *published && entry.lease == Some(self.lease)));
        if !intact {
            warn!(key = %key, "Somebody else changed or deleted this key; writing it again.");
            self.report.metrics.repairs.inc();
            self.published.insert(key, unknown());
        }
        !intact
    }
}

/// The value of a key that nobody knows: no value of ours is empty.
fn unknown() -> Value {
    Value::from([])
}
