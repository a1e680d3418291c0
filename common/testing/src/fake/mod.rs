//! A registry in memory, for tests: etcd's semantics on tokio's clock (so that paused time works), and faults on
//! demand.
//!
//! Nothing runs in the background: a lease whose time is over ends when anybody next looks, at its own revision.

mod data;
mod link;
mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agent::sync::lock;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

pub use data::Snapshot;
pub use link::{Counts, Cut};
pub use stream::{FakeKeeper, FakeKeys, FakeWatch};

use data::Data;
use link::Link;
use registry::store::whole_seconds;
use registry::store::{
    Compare, Entry, Fault, Key, Lease, LeaseId, Listing, Op, Operation, Position, Revision, Store, StoreError,
    TxnOutcome, Value,
};

/// After how long a call over a silent way fails.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a watch without changes says that it is alive.
pub const PROGRESS_PERIOD: Duration = Duration::from_secs(5);
/// After how long a silent watch fails.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(7);

/// A registry in memory. Clones share data, faults and counts; [`FakeStore::peer`] shares the data only.
#[derive(Clone, Debug)]
pub struct FakeStore {
    shared: Arc<Shared>,
    link: Arc<Mutex<Link>>,
}

#[derive(Debug)]
struct Shared {
    data: Mutex<Data>,
    /// Rung at every change of data or faults.
    bell: Notify,
}

impl Default for FakeStore {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeStore {
    /// An empty registry.
    pub fn new() -> Self {
        let shared = Shared { data: Mutex::new(Data::new()), bell: Notify::new() };
        Self { shared: Arc::new(shared), link: Arc::default() }
    }

    /// Another caller's way to the same registry, with faults and counts of its own.
    pub fn peer(&self) -> Self {
        Self { shared: self.shared.clone(), link: Arc::default() }
    }

    /// The next call of `operation` fails with `fault`; several are taken in order.
    pub fn fail_next(&self, operation: Operation, fault: Fault) {
        self.link().script(operation, fault);
    }

    /// The next call of `operation` is carried out, and its answer is lost: the caller hears of a timeout.
    pub fn lose_next_answer(&self, operation: Operation) {
        self.link().lose(operation);
    }

    /// Cuts the way until [`Self::heal`]. Leases go on living and ending on the other side.
    pub fn cut(&self, how: Cut) {
        self.link().cut = Some(how);
        self.ring();
    }

    /// Ends a cut.
    pub fn heal(&self) {
        self.link().cut = None;
        self.ring();
    }

    /// Ends every open watch of this way with `fault`.
    pub fn cancel_watches(&self, fault: Fault) {
        let mut link = self.link();
        link.canceled = (link.canceled.0 + 1, Some(fault));
        drop(link);
        self.ring();
    }

    /// Has no room from now on, or has it again, as etcd with the alarm NOSPACE: it refuses to grant leases, and each
    /// transaction with a put in it, whether its conditions hold or not.
    pub fn fill(&self, full: bool) {
        self.data(Instant::now()).full = full;
    }

    /// Takes no more than `most` operations or conditions in one transaction, as etcd with `--max-txn-ops`.
    pub fn limit_txns(&self, most: usize) {
        self.data(Instant::now()).most_ops = most;
    }

    /// Writes one key under `lease`, as another agent would: not counted, not subject to faults. Nothing where that lease
    /// does not live.
    pub fn put_under(&self, key: impl Into<Key>, value: impl Into<Value>, lease: LeaseId) {
        let _ = self.data(Instant::now()).txn(&[], vec![Op::put(key, value, Some(lease))]);
        self.ring();
    }

    /// Forgets everything before `at`, at most all but the newest revision.
    pub fn compact(&self, at: Revision) {
        self.data(Instant::now()).compact(at);
        self.ring();
    }

    /// The registry as it is, to be restored later.
    pub fn snapshot(&self) -> Snapshot {
        self.data(Instant::now()).snapshot()
    }

    /// Goes back to `snapshot`, as an operator does after a disaster: revisions go back, leases begin anew, and with
    /// `other_cluster` the cluster's id changes too.
    pub fn restore(&self, snapshot: Snapshot, other_cluster: bool) {
        let now = Instant::now();
        self.data(now).restore(snapshot, other_cluster, now);
        self.ring();
    }

    /// Ends a lease as if its time were over.
    pub fn expire(&self, lease: LeaseId) {
        self.data(Instant::now()).revoke(lease);
        self.ring();
    }

    /// Writes one key, as somebody else would: not counted, not subject to faults.
    pub fn put(&self, key: impl Into<Key>, value: impl Into<Value>) -> Revision {
        self.outside(Op::put(key, value, None))
    }

    /// Deletes one key, as somebody else would: not counted, not subject to faults.
    pub fn delete(&self, key: impl Into<Key>) -> Revision {
        self.outside(Op::delete(key))
    }

    fn outside(&self, op: Op) -> Revision {
        let mut data = self.data(Instant::now());
        let done = data.txn(&[], vec![op]);
        debug_assert_eq!(done, Ok(true), "a single operation without a lease always succeeds");
        let revision = data.position().revision;
        drop(data);
        self.ring();
        revision
    }

    /// What is there now under `prefix`; not counted, not subject to faults.
    pub fn entries(&self, prefix: &str) -> Vec<Entry> {
        self.data(Instant::now()).list(prefix).entries
    }

    /// The leases that live now, oldest first.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.data(Instant::now()).lease_ids()
    }

    /// What went over this way so far.
    pub fn counts(&self) -> Counts {
        self.link().counts
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        lock(&self.link)
    }

    fn data(&self, now: Instant) -> MutexGuard<'_, Data> {
        let mut data = lock(&self.shared.data);
        if data.expire(now) {
            self.ring();
        }
        data
    }

    fn ring(&self) {
        self.shared.bell.notify_waiters();
    }

    /// Counts a call, and fails it if the way is cut or a fault was scripted.
    async fn gate(&self, operation: Operation) -> Result<(), Fault> {
        tokio::task::yield_now().await; // as a real call does: nobody may rely on an answer within one poll
        let (cut, fault) = {
            let mut link = self.link();
            link.counts.call(operation);
            (link.cut, link.take_fault(operation))
        };
        match (fault, cut) {
            (Some(fault), _) => Err(fault),
            (None, Some(Cut::Refused)) => Err(link::refused()),
            (None, Some(Cut::Silent)) => {
                sleep(CALL_TIMEOUT).await;
                Err(link::timed_out(CALL_TIMEOUT))
            }
            (None, None) => Ok(()),
        }
    }

    async fn call<T>(
        &self,
        operation: Operation,
        subject: impl ToString,
        work: impl FnOnce(&mut Data, Instant) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let done = match self.gate(operation).await {
            Ok(()) => {
                let now = Instant::now();
                let done = work(&mut self.data(now), now);
                self.ring();
                if self.link().take_lost(operation) { Err(link::timed_out(CALL_TIMEOUT)) } else { done }
            }
            Err(fault) => Err(fault),
        };
        done.map_err(|fault| StoreError::new(operation, subject.to_string(), fault))
    }

    async fn beat(&self, lease: LeaseId) -> Result<Duration, StoreError> {
        let renew = |data: &mut Data, now| data.renew(lease, now).ok_or(Fault::LeaseLost(lease));
        self.call(Operation::KeepAlive, lease, renew).await
    }
}

impl Store for FakeStore {
    type Watch = FakeWatch;
    type KeyWatch = FakeKeys;
    type Keeper = FakeKeeper;

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.call(Operation::List, prefix, |data, _| Ok(data.list(prefix))).await
    }

    async fn list_at(&self, prefix: &str, revision: Revision) -> Result<Listing, StoreError> {
        self.call(Operation::List, prefix, |data, _| data.list_at(prefix, revision)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.call(Operation::Get, key, |data, _| Ok(data.get(key).cloned())).await
    }

    async fn watch(&self, prefix: &str, after: Position) -> Result<FakeWatch, StoreError> {
        let open = |data: &mut Data, _| data.changes(prefix, after).map(|_| data.epoch);
        let epoch = self.call(Operation::Watch, prefix, open).await?;
        let canceled = self.link().canceled.0;
        let (store, prefix, heard) = (self.clone(), prefix.to_owned(), Instant::now());
        Ok(FakeWatch { store, prefix, at: after, epoch, canceled, heard, over: None })
    }

    fn watch_keys(&self) -> FakeKeys {
        FakeKeys { store: self.clone(), all: None, keys: BTreeMap::new(), missed: Vec::new() }
    }

    async fn txn(&self, when: Vec<Compare>, ops: Vec<Op>) -> Result<TxnOutcome, StoreError> {
        let subject = registry::store::subject(&when, &ops);
        let work = |data: &mut Data, _| {
            data.room_for(&ops)?;
            let copy = ops.clone();
            let succeeded = data.txn(&when, copy)?;
            if succeeded {
                self.link().counts.written(&ops);
            }
            let found = if succeeded { Vec::new() } else { data.found(&when) };
            Ok(TxnOutcome { succeeded, at: data.position(), found })
        };
        self.call(Operation::Txn, subject, work).await
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let ttl = Duration::from_secs(whole_seconds(ttl).unsigned_abs());
        let work = |data: &mut Data, now| data.room().map(|()| Lease { id: data.grant(ttl, now), ttl });
        self.call(Operation::Grant, format!("{ttl:?}"), work).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<FakeKeeper, StoreError> {
        self.beat(lease).await?;
        Ok(FakeKeeper { store: self.clone(), lease })
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let work = |data: &mut Data, _| {
            data.revoke(lease);
            Ok(())
        };
        self.call(Operation::Revoke, lease, work).await
    }

    async fn time_to_live(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.call(Operation::TimeToLive, lease, |data, now| Ok(data.remaining(lease, now))).await
    }

    async fn lease_keys(&self, lease: LeaseId) -> Result<Vec<Key>, StoreError> {
        let hang_on_it = |data: &mut Data, _| {
            Ok(data.list("").entries.into_iter().filter(|e| e.lease == Some(lease)).map(|e| e.key).collect())
        };
        self.call(Operation::TimeToLive, lease, hang_on_it).await
    }

    async fn position(&self, prefix: &str) -> Result<Position, StoreError> {
        self.call(Operation::Position, prefix, |data, _| Ok(data.position())).await
    }
}

#[cfg(test)]
mod tests;
