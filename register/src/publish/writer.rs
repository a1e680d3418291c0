//! Writes changes under one lease, and looks after what was written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use common::store::{Compare, Entry, Key, LeaseId, MAX_TXN_OPS, Op, Revision, Store, StoreError, Value};
use common::telemetry::Chain;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tracing::{info, warn};

use super::numbers::{Numbers, is_numbered};
use super::plan::{Form, Keys, Plan, Registrations, is_shared, plan};
use super::registrar::{Claim, End};
use super::report::{Phase, Reporter};
use crate::reporters::Wanted;

/// How often docker-register's port keys are read back: they hang on the lease of the agent that wrote last, and go when
/// that dies, while the others' backends live on.
const SHARED: Duration = Duration::from_secs(2);

/// Writes changes under one lease.
pub(super) struct Writer<'a, S> {
    store: &'a S,
    form: &'a Form,
    report: &'a Reporter,
    lease: LeaseId,
    /// The agent's own key.
    registrar: Key,
    /// What is in the registry as far as is known; an empty value stands for "perhaps something else".
    published: Keys,
    /// Which numbered key stands for which service.
    numbers: Numbers,
    /// Numbered keys that were to be made, and nobody knows whether they were.
    open: BTreeMap<Key, Value>,
    /// Keys still to be read back in this round.
    doubtful: VecDeque<Key>,
}

impl<'a, S: Store> Writer<'a, S> {
    /// A writer under the lease of `claim`.
    pub fn new(store: &'a S, form: &'a Form, report: &'a Reporter, claim: Claim) -> Self {
        report.newest.set(claim.at.revision);
        Self {
            store,
            form,
            report,
            lease: claim.lease,
            registrar: claim.key,
            published: claim.entries.into_iter().map(|e| (e.key, e.value)).collect(),
            numbers: Numbers::default(),
            open: BTreeMap::new(),
            doubtful: VecDeque::new(),
        }
    }

    /// Writes what changes, until the lease is gone.
    pub async fn run(
        mut self,
        desired: &mut watch::Receiver<Option<Arc<Registrations>>>,
        slots: &mut watch::Receiver<Arc<Wanted>>,
        audit: Duration,
    ) -> End {
        let rounds_of = |period: Duration| {
            let mut rounds = interval_at(Instant::now() + period, period);
            rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            rounds
        };
        let (mut rounds, mut shared) = (rounds_of(audit), rounds_of(SHARED.min(audit)));
        loop {
            let (wanted, services) = (desired.borrow_and_update().clone(), slots.borrow_and_update().clone());
            let mut retry = None;
            let brought = self.bring_to(wanted.as_ref(), &services).await;
            let done = if brought.is_ok() { self.seek_room().await } else { brought };
            match done {
                Ok(()) => {}
                Err(e) if e.is_lease_lost() => return End::Lost("a write was refused for it"),
                Err(e) => retry = Some(self.report.away(&e)),
            }
            // Waits for a reason to write: a change, a failed write, or a key that is not as it was written.
            loop {
                tokio::select! {
                    biased;
                    changed = desired.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => std::future::pending().await, // the agent is ending; it stops us as well
                    },
                    Ok(()) = slots.changed() => break,
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

    /// `None`: what containers there are is not known yet, and their keys stay as they are.
    async fn bring_to(&mut self, wanted: Option<&Arc<Registrations>>, services: &Wanted) -> Result<(), StoreError> {
        self.settle_open().await?;
        let containers = match wanted {
            Some(wanted) => self.form.keys(wanted),
            None => {
                self.published.iter().filter(|(k, _)| !is_numbered(k)).map(|(k, v)| (k.clone(), v.clone())).collect()
            }
        };
        loop {
            let mut keys = containers.clone();
            keys.extend(self.numbers.keys(services, &self.published, self.report.newest.get()));
            let plan = plan(&keys, &self.published, self.lease);
            if plan.is_empty() {
                break;
            }
            self.report.update(|p| p.phase = Phase::Granted);
            let complete = self.write(plan).await?;
            self.report.back();
            if complete {
                break;
            }
        }
        self.report.metrics.keys.set(i64::try_from(self.published.len()).unwrap_or(i64::MAX));
        let slots = Arc::new(self.numbers.published(services, &self.published));
        self.report.update(|p| {
            p.slots = slots;
            if let Some(wanted) = wanted {
                (p.phase, p.published) = (Phase::Published, Some(Arc::clone(wanted)));
            }
        });
        Ok(())
    }

    /// Writes the plan. A store without room refuses a transaction for each put in it, and takes deletions alone: what is
    /// gone must not be routed to until somebody makes room.
    async fn write(&mut self, plan: Plan) -> Result<bool, StoreError> {
        let withdrawals = plan.withdrawals();
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
            let put = Op::put(self.registrar.clone(), unknown(), Some(self.lease));
            self.store.txn(vec![never], vec![put]).await?;
            self.report.room();
        }
        Ok(())
    }

    /// Until the store has answered, a key that is being written may hold the old value or the new one: only an answer
    /// makes it known. Returns whether all of it was done; otherwise a plan with other numbers follows.
    async fn apply(&mut self, plan: Plan) -> Result<bool, StoreError> {
        let complete = self.create(plan.creates).await?;
        let gone: Vec<Key> =
            plan.ops.iter().filter(|op| matches!(op, Op::Delete { .. })).map(|op| op.key().clone()).collect();
        let puts = |op: &Op| match op {
            Op::Put { key, value, .. } if !gone.contains(key) => Some((key.clone(), value.clone())),
            _ => None,
        };
        let written: Vec<(Key, Value)> = plan.ops.iter().filter_map(puts).collect();
        self.published.extend(written.iter().map(|(key, _)| (key.clone(), unknown())));
        if let Some(at) = self.store.put_all(plan.ops).await? {
            self.report.newest.raise(at.revision);
        }
        let metrics = &self.report.metrics;
        metrics.puts.inc_by(written.len() as u64);
        metrics.deletes.inc_by(gone.len() as u64);
        for (key, value) in &written {
            published(key, value);
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
        Ok(complete)
    }

    /// Writes new numbered keys where nobody has them; returns whether that was so for all.
    async fn create(&mut self, keys: Vec<(Key, Value)>) -> Result<bool, StoreError> {
        let mut complete = true;
        for chunk in keys.chunks(MAX_TXN_OPS) {
            let absent = chunk.iter().map(|(key, _)| Compare::Absent(key.clone())).collect();
            let puts = chunk.iter().map(|(key, value)| Op::put(key.clone(), value.clone(), Some(self.lease))).collect();
            self.open = chunk.iter().cloned().collect();
            let outcome = self.store.txn(absent, puts).await?;
            self.report.newest.raise(outcome.at.revision);
            if !outcome.succeeded {
                self.settle_open().await?;
                complete = false;
                continue;
            }
            self.open.clear();
            self.report.metrics.puts.inc_by(chunk.len() as u64);
            for (key, value) in chunk {
                published(key, value);
                self.published.insert(key.clone(), value.clone());
            }
        }
        Ok(complete)
    }

    /// Finds out which of the keys that were to be made are there, and whose they are.
    async fn settle_open(&mut self) -> Result<(), StoreError> {
        while let Some((key, value)) = self.open.first_key_value() {
            let (key, value) = (key.clone(), value.clone());
            match self.store.get(&key).await? {
                Some(entry) if entry.lease == Some(self.lease) && entry.value == value => {
                    self.published.insert(key.clone(), value);
                }
                Some(_) => {
                    warn!(key = %key, "Somebody else has this key; taking another number.");
                    self.numbers.give_up(&key);
                }
                None => {}
            }
            self.open.remove(&key);
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
        if *published == unknown() {
            return false; // it could not be written yet, and that is tried again
        }
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

fn published(key: &Key, value: &Value) {
    info!(key = %key, value = %String::from_utf8_lossy(value), "Published.");
}

/// The value of a key that nobody knows: no value of ours is empty.
fn unknown() -> Value {
    Value::from([])
}
