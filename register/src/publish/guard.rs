//! Watches the registrar's key while it is held.

use std::time::{Duration, SystemTime};

use agent::telemetry::Chain;
use registry::store::{Change, Compare, Fault, Op, Operation, Position, Revision, Store, StoreError, WatchStream};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::claim::{ClaimError, End};
use super::identity::Record;
use super::registrar::Registrar;

/// The longest that an agent takes to leave its mark before it stands down.
const MARKING: Duration = Duration::from_secs(2);

impl<S: Store> Registrar<S> {
    /// Watches the key from `at` on; returns when it is no longer ours. `away` hears of each fault of the store and
    /// says how long to wait.
    pub async fn guard(
        &self,
        mut at: Position,
        newest: impl Fn() -> Revision,
        mut away: impl FnMut(&StoreError) -> Duration,
    ) -> End {
        loop {
            let fault = match self.watch(at, newest()).await {
                Ok(mut stream) => loop {
                    match stream.next().await {
                        Ok(batch) => {
                            if let Some(end) = batch.changes.iter().find_map(|change| self.judge(change)) {
                                return end;
                            }
                            at = batch.at;
                        }
                        Err(e) => break e,
                    }
                },
                Err(e) => e,
            };
            if fault.is_silence() {
                continue;
            }
            if fault.needs_list() {
                warn!(error = %Chain(&fault), "The registry's past changed; claiming again.");
                return End::Lost("the registry's past changed");
            }
            sleep(away(&fault)).await;
        }
    }

    /// Watches the key after `at`. That may lie far back, as the key seldom changes: a store that was set back to a
    /// snapshot from between is found out by our `newest` write, which it has lost.
    async fn watch(&self, at: Position, newest: Revision) -> Result<S::Watch, StoreError> {
        let now = self.store.position(&self.key).await?.revision;
        if now < newest {
            let fault = Fault::Rewound { seen: newest, now };
            return Err(StoreError::new(Operation::Watch, &*self.key, fault));
        }
        self.store.watch(&self.key, at).await
    }

    fn judge(&self, change: &Change) -> Option<End> {
        match change {
            // No agent writes such a value, or none without a lease.
            Change::Put(entry)
                if entry.key == self.key && (entry.lease.is_none() || Record::read(&entry.value).is_none()) =>
            {
                Some(End::Touched("the registrar key was changed by hand"))
            }
            Change::Put(entry) if entry.key == self.key && !self.is_mine(entry) => {
                let started = Record::read(&entry.value).map_or_else(|| "at an unknown time".to_owned(), |r| r.started);
                Some(End::Replaced(ClaimError::Replaced { key: self.key.to_string(), started }))
            }
            Change::Delete { key, .. } if *key == self.key => Some(End::Touched("the registrar key was deleted")),
            _ => None,
        }
    }

    /// Tells the agent that took over, and whoever comes after it, that this one lived: the next one waits until the other is
    /// gone. Nothing depends on its success.
    pub async fn leave_mark(&self) {
        if let Ok(Err(error)) = timeout(MARKING, self.mark()).await {
            warn!(error = %Chain(&error), key = %self.key, "The other agent could not be told of this one.");
        }
    }

    async fn mark(&self) -> Result<(), StoreError> {
        let Some(entry) = self.store.get(&self.key).await? else { return Ok(()) };
        let theirs = |r: &Record| r.machine_id == self.me.machine && r.token != self.me.token;
        let Some((record, lease)) = Record::read(&entry.value).filter(theirs).zip(entry.lease) else { return Ok(()) };
        let json = record.disputed(SystemTime::now()).json();
        let unchanged = Compare::ModifiedAt(entry.key.clone(), entry.modified);
        self.store.txn(vec![unchanged], vec![Op::put(entry.key, json, Some(lease))]).await.map(drop)
    }
}
