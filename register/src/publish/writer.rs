//! Writes changes under one lease, and hears of what others do to the keys that it wrote.
//!
//! Every write carries the condition that its key is ours ([`super::ledger`]). Where one does not hold, the store tells how
//! the keys stand, and the rest of the batch goes out in the next one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use agent::backoff::Backoff;
use agent::telemetry::Chain;
use agent::trouble::{News, Trouble};
use registry::store::{
    Batch, Change, Compare, Entry, Key, KeyWatch, LeaseId, MAX_TXN_OPS, Op, Position, Revision, Store, StoreError,
    TxnOutcome, Value, WatchStream, chunks,
};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::claim::{Claim, End};
use super::fights::Fights;
use super::keys::{Keys, is_numbered, is_shared};
use super::ledger::{Finding, Ledger, unknown};
use super::numbers::Numbers;
use super::outstanding::Outstanding;
use super::plan::{Form, Registrations, plan, withdrawals};
use super::report::{Phase, Reporter};
use super::slots::Slots;
use super::teller::Teller;

/// What one hand does to many keys comes as many messages: they are gathered until none comes for so long.
const GATHER: Duration = Duration::from_millis(20);
/// The longest time that messages are gathered.
const GATHER_MOST: Duration = Duration::from_millis(200);
/// How often a plan is made anew because the registry was not as it was taken to be; then it waits for the next reason.
const PLANS: usize = 16;
/// How long to wait where several others write the same keys.
const CROWDED: Duration = Duration::from_secs(1);

/// Writes changes under one lease.
pub(super) struct Writer<'a, S: Store> {
    store: &'a S,
    form: &'a Form,
    report: &'a Reporter,
    /// The agent's own key.
    registrar: Key,
    /// The store's cluster.
    cluster: u64,
    ledger: Ledger,
    outstanding: Outstanding,
    /// Which numbered key stands for which service.
    numbers: Numbers,
    /// Most operations that the store takes in one transaction.
    most: usize,
    ears: Ears<S::KeyWatch>,
    fights: Fights,
    /// When the first key that was left as it is may be written again.
    rest: Option<Instant>,
    teller: Teller,
}

/// How the agent hears of its own keys.
struct Ears<W> {
    keys: W,
    /// Something may have happened unheard: what was written is to be looked at.
    unsure: bool,
    backoff: Backoff,
    trouble: Trouble,
}

impl<'a, S: Store> Writer<'a, S> {
    /// A writer under the lease of `claim`.
    pub fn new(store: &'a S, form: &'a Form, report: &'a Reporter, claim: Claim) -> Self {
        report.newest.set(claim.at.revision);
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        let ears = Ears { keys: store.watch_keys(), unsure: false, backoff, trouble: Trouble::default() };
        Self {
            store,
            form,
            report,
            registrar: claim.key,
            cluster: claim.at.cluster,
            ledger: Ledger::new(claim.lease, claim.entries, claim.at.revision),
            outstanding: Outstanding::default(),
            numbers: Numbers::default(),
            most: MAX_TXN_OPS,
            ears,
            fights: Fights::default(),
            rest: None,
            teller: Teller::default(),
        }
    }

    /// Writes what changes, until the lease is gone.
    pub async fn run(
        mut self,
        desired: &mut watch::Receiver<Option<Arc<Registrations>>>,
        slots: &mut watch::Receiver<Arc<Slots>>,
        audit: Duration,
    ) -> End {
        let mut rounds = interval_at(Instant::now() + audit, audit);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (wanted, services) = (desired.borrow_and_update().clone(), slots.borrow_and_update().clone());
            let mut retry = match self.turn(wanted.as_ref(), &services).await {
                Ok(true) => self.listen().await,
                Ok(false) => Some(CROWDED),
                Err(e) if e.is_lease_lost() => return End::Lost("a write was refused for it"),
                Err(e) => Some(self.report.away(&e)),
            }
            .map(|pause| Instant::now() + pause);
            // Waits for a reason to write: a change, a failed write, or a key that is not as it was written.
            loop {
                let rest = self.rest;
                tokio::select! {
                    biased;
                    changed = desired.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => std::future::pending().await, // the agent is ending; it stops us as well
                    },
                    Ok(()) = slots.changed() => break,
                    () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => break,
                    () = sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => break,
                    news = self.ears.keys.next() => match self.hear(news).await {
                        Ok(true) => break,
                        Ok(false) => {}
                        Err(pause) => retry = Some(retry.unwrap_or_else(|| Instant::now() + pause)),
                    },
                    _ = rounds.tick() => {
                        self.ears.unsure = true;
                        break;
                    }
                }
            }
        }
    }

    async fn turn(&mut self, wanted: Option<&Arc<Registrations>>, services: &Slots) -> Result<bool, StoreError> {
        if self.ears.unsure {
            self.outstanding.doubt_all();
            self.look().await?;
            self.ears.unsure = false;
        }
        let brought = self.bring_to(wanted, services).await;
        if !brought.as_ref().is_err_and(StoreError::is_lease_lost) {
            let complete = matches!(brought, Ok(true));
            self.teller.tell(self.store, self.form, self.report, &self.ledger, wanted.filter(|_| complete)).await;
        }
        let complete = brought?;
        self.seek_room().await?;
        Ok(complete)
    }

    /// `None`: what containers there are is not known yet, and their keys stay as they are. Returns whether all is written
    /// that may be.
    async fn bring_to(&mut self, wanted: Option<&Arc<Registrations>>, services: &Slots) -> Result<bool, StoreError> {
        let mut complete = false;
        self.outstanding.want(self.form, wanted);
        for _ in 0..PLANS {
            let now = Instant::now();
            let (mut keys, mut published) = self.differing(services);
            let left = |key: &Key| self.ledger.foreign().contains_key(key) || self.fights.until(key, now).is_some();
            let left: BTreeSet<Key> = keys.keys().filter(|key| left(key)).cloned().collect();
            self.rest = self.fights.next(now);
            keys.retain(|key, _| !left.contains(key));
            published.retain(|key, _| !left.contains(key));
            let plan = plan(&keys, &published, self.ledger.lease());
            complete = plan.is_empty();
            if !complete {
                self.report.update_if(|p| p.phase != Phase::Granted, |p| p.phase = Phase::Granted);
                complete = self.write(plan).await?;
                self.report.back();
            }
            if complete {
                self.outstanding.reached(left.into_iter().filter(|key| self.fights.until(key, now).is_some()));
                break;
            }
        }
        self.report.metrics.keys.set(i64::try_from(self.ledger.size()).unwrap_or(i64::MAX));
        let slots = Arc::new(self.numbers.published(services, |key| self.ledger.value(key)));
        self.report.update_if(|p| p.slots != slots, |p| p.slots = slots.clone());
        Ok(complete)
    }

    /// The keys that may not be as they should be: as they are wanted, and as they are.
    fn differing(&mut self, services: &Slots) -> (Keys, Keys) {
        let with_services = !services.is_empty() || !self.numbers.is_empty();
        if let (Some(all), Some(open), false) = (self.outstanding.keys(), self.outstanding.open(), with_services) {
            self.ledger.want(|key| all.contains_key(key));
            let of = |key: &Key, value: Option<&Value>| Some((key.clone(), value?.clone()));
            let wanted = open.iter().filter_map(|key| of(key, all.get(key))).collect();
            return (wanted, open.iter().filter_map(|key| of(key, self.ledger.value(key))).collect());
        }
        let published = self.ledger.published();
        let as_they_are = || published.iter().filter(|(k, _)| !is_numbered(k)).map(|(k, v)| (k.clone(), v.clone()));
        let mut keys = self.outstanding.keys().cloned().unwrap_or_else(|| as_they_are().collect());
        keys.extend(self.numbers.keys(services, &published, self.report.newest.get()));
        self.ledger.want(|key| keys.contains_key(key));
        (keys, published)
    }

    /// Writes the plan. A store without room refuses a transaction for each put in it, and takes deletions alone: what is
    /// gone must not be routed to until somebody makes room.
    async fn write(&mut self, plan: Vec<Op>) -> Result<bool, StoreError> {
        let withdrawals = withdrawals(&plan);
        match self.apply(plan).await {
            Err(full) if full.is_no_space() && !withdrawals.is_empty() => {
                self.apply(withdrawals).await?;
                Err(full)
            }
            other => other,
        }
    }

    /// Whether a store that was full has room again is asked by a write whose condition never holds: without room it is
    /// refused all the same, and else it does nothing.
    async fn seek_room(&self) -> Result<(), StoreError> {
        if self.report.is_full() {
            let never = Compare::ModifiedAt(self.registrar.clone(), Revision(-1));
            let put = Op::put(self.registrar.clone(), unknown(), Some(self.ledger.lease()));
            self.store.txn(vec![never], vec![put]).await?;
            self.report.room();
        }
        Ok(())
    }

    /// Returns whether all of it was done; otherwise something was not as it was taken to be, and a new plan follows.
    async fn apply(&mut self, plan: Vec<Op>) -> Result<bool, StoreError> {
        let mut complete = true;
        let mut waiting = VecDeque::from(chunks(plan, self.most));
        while let Some(ops) = waiting.pop_front() {
            let when: Vec<Compare> = ops.iter().map(|op| self.ledger.guard(op)).collect();
            ops.iter().for_each(|op| self.ledger.begin(op));
            let outcome = match self.store.txn(when.clone(), ops.clone()).await {
                Err(e) if e.is_too_many_ops() && ops.len() > 1 => {
                    self.halve(ops.len());
                    waiting.push_front(ops);
                    waiting = waiting.into_iter().flat_map(|ops| chunks(ops, self.most)).collect();
                    continue;
                }
                outcome => outcome?,
            };
            self.report.newest.raise(outcome.at.revision);
            if outcome.succeeded {
                ops.iter().for_each(|op| self.done(op, outcome.at.revision));
            } else {
                complete = false;
                self.learn(&when, &outcome);
            }
        }
        Ok(complete)
    }

    fn done(&mut self, op: &Op, at: Revision) {
        self.ledger.done(op, at);
        let metrics = &self.report.metrics;
        match op {
            Op::Put { key, value, .. } => {
                metrics.puts.inc();
                published(key, value);
            }
            Op::Delete { key } => {
                metrics.deletes.inc();
                debug!(key = %key, "Key deleted.");
            }
        }
    }

    fn halve(&mut self, tried: usize) {
        self.most = (tried / 2).max(1);
        info!(most = self.most, "The registry takes no more operations in one transaction (etcd's --max-txn-ops).");
    }

    /// Reads back what was written, by conditions alone: a hundred keys cost one request.
    async fn look(&mut self) -> Result<(), StoreError> {
        let conditions = self.ledger.intact();
        let mut rest = &conditions[..];
        while !rest.is_empty() {
            let (some, later) = rest.split_at(rest.len().min(self.most));
            let outcome = match self.store.txn(some.to_vec(), Vec::new()).await {
                Err(e) if e.is_too_many_ops() && some.len() > 1 => {
                    self.halve(some.len());
                    continue;
                }
                outcome => outcome?,
            };
            match outcome.succeeded {
                true => some.iter().for_each(|condition| self.ledger.confirm(condition, outcome.at.revision)),
                false => self.learn(some, &outcome),
            }
            rest = later;
        }
        Ok(())
    }

    /// Some of these conditions did not hold.
    fn learn(&mut self, when: &[Compare], outcome: &TxnOutcome) {
        let found: BTreeMap<&Key, &Entry> = outcome.found.iter().map(|entry| (&entry.key, entry)).collect();
        for key in when.iter().map(Compare::key) {
            let finding = self.ledger.saw(key, found.get(key).copied(), outcome.at.revision, false);
            let lease = found.get(key).and_then(|entry| entry.lease);
            self.note(key, finding, lease);
        }
    }

    /// Returns whether there is something to write.
    fn note(&mut self, key: &Key, finding: Finding, lease: Option<LeaseId>) -> bool {
        if finding != Finding::Same {
            self.outstanding.doubt(key);
        }
        match finding {
            Finding::Same => return false,
            Finding::Freed => {}
            Finding::Taken if is_numbered(key) => {
                warn!(key = %key, "Somebody else has this key; taking another number.");
                self.numbers.give_up(key);
            }
            Finding::Taken => {}
            Finding::Deleted | Finding::Changed(_) if is_shared(key) => {} // it went with another agent's lease
            Finding::Deleted | Finding::Changed(_) => {
                let Some(pause) = self.fights.struck(key, Instant::now()) else { return false };
                self.report.metrics.repairs.inc();
                self.teller.struck(key, lease, pause);
            }
        }
        true
    }

    /// Listens to the keys that are ours, and to those that we wait for. Returns when to try again where that fails.
    async fn listen(&mut self) -> Option<Duration> {
        let Self { ledger, ears, cluster, .. } = self;
        let mut missing = Vec::new();
        for key in ledger.take_touched() {
            match ledger.watched(&key) {
                None => ears.keys.forget(&key),
                Some(_) if ears.keys.has(&key) => {}
                Some(revision) => missing.push((key, Position { cluster: *cluster, revision })),
            }
        }
        if missing.is_empty() {
            return None;
        }
        match ears.keys.add(missing).await {
            Ok(()) => {
                ears.trouble.end();
                ears.backoff.succeeded();
                None
            }
            Err(e) => Some(self.deaf(&e)),
        }
    }

    fn deaf(&mut self, error: &StoreError) -> Duration {
        let ears = &mut self.ears;
        let chain = Chain(error).to_string();
        // What keeps the store from serving is said by the others that use it; a silent watch is just opened anew.
        if !error.is_silence() && !error.needs_list() && ears.trouble.fail(&chain) == News::OtherReason {
            warn!(error = %chain, "The agent's own keys cannot be watched; they are read back now and then.");
        }
        (ears.keys, ears.unsure) = (self.store.watch_keys(), true);
        self.ledger.touch_all();
        ears.backoff.next_delay()
    }

    /// Takes in what the watch brings, and what follows at once. Returns whether there is something to do; `Err` when to
    /// watch again.
    async fn hear(&mut self, news: Result<Batch, StoreError>) -> Result<bool, Duration> {
        let end = Instant::now() + GATHER_MOST;
        let (mut next, mut work) = (Some(news), false);
        while let Some(news) = next {
            match news {
                Ok(batch) => work |= self.take(&batch),
                Err(e) => return Err(self.deaf(&e)),
            }
            if !work || Instant::now() >= end {
                break;
            }
            next = timeout(GATHER, self.ears.keys.next()).await.ok();
        }
        Ok(work)
    }

    fn take(&mut self, batch: &Batch) -> bool {
        let mut work = false;
        for change in &batch.changes {
            let entry = match change {
                Change::Put(entry) => Some(entry),
                Change::Delete { .. } => None,
            };
            let finding = self.ledger.saw(change.key(), entry, change.revision(), true);
            work |= self.note(change.key(), finding, entry.and_then(|entry| entry.lease));
        }
        work
    }
}

fn published(key: &Key, value: &Value) {
    debug!(key = %key, value = %String::from_utf8_lossy(value), "Key written.");
}
