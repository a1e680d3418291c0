//! One key that is held alone, as it is in the registry.

use registry::store::{
    Batch, Change, Compare, Entry, Key, KeyWatch, LeaseId, Op, Position, Revision, Store, StoreError,
};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::publish::fights::Fights;
use crate::publish::holders::Holders;
use crate::publish::keys::is_shared;
use crate::publish::ledger::{Finding, Ledger};

/// The key of one registration, as it is in the registry.
pub(super) struct Place<'a, S, T> {
    store: &'a S,
    key: Key,
    lease: LeaseId,
    ledger: Ledger,
    cluster: u64,
    fights: Fights,
    /// What the caller knows.
    said: Option<Option<String>>,
    told: T,
}

impl<'a, S: Store, T: FnMut(Option<&str>)> Place<'a, S, T> {
    pub fn new(store: &'a S, key: &str, lease: LeaseId, told: T) -> Self {
        let ledger = Ledger::new(lease, Vec::new(), Revision::default());
        Self { store, key: key.into(), lease, ledger, cluster: 0, fights: Fights::default(), said: None, told }
    }

    /// Writes or deletes the key where it is ours. A key of another holder is left alone until that one has gone.
    pub async fn bring_to(&mut self, value: Option<&str>) -> Result<(), StoreError> {
        self.ledger.want(|_| value.is_some());
        loop {
            if self.ledger.foreign().contains_key(&self.key) || self.rest().is_some() {
                return Ok(());
            }
            let there = self.ledger.published().remove(&self.key);
            let op = match (value, there) {
                (Some(value), Some(there)) if *there == *value.as_bytes() => break,
                (Some(value), _) => Op::put(self.key.clone(), value.as_bytes(), Some(self.lease)),
                (None, Some(_)) => Op::delete(self.key.clone()),
                (None, None) => break, // what was never there need not be deleted
            };
            let when = vec![self.ledger.guard(&op)];
            self.ledger.begin(&op);
            let outcome = self.store.txn(when, vec![op.clone()]).await?;
            self.cluster = outcome.at.cluster;
            if outcome.succeeded {
                self.ledger.done(&op, outcome.at.revision);
                match &value {
                    Some(value) => info!(key = %self.key, %value, lease = %self.lease, "Registered."),
                    None => info!(key = %self.key, reason = "check_fails", "Withdrawn."),
                }
            } else {
                self.see(outcome.found.first(), outcome.at.revision, false);
            }
        }
        if self.said.as_ref().map(Option::as_deref) != Some(value) {
            (self.told)(value);
            self.said = Some(value.map(str::to_owned));
        }
        Ok(())
    }

    fn see(&mut self, entry: Option<&Entry>, at: Revision, whole: bool) {
        let lease = entry.and_then(|entry| entry.lease);
        match self.ledger.saw(&self.key.clone(), entry, at, whole) {
            Finding::Same | Finding::Freed => {}
            // It is of all who serve under that name, and goes with the lease of any of them.
            _ if is_shared(&self.key) => {}
            Finding::Taken => {
                let holder = Holders::default().describe(lease);
                warn!(key = %self.key, "Not registered: the key {holder}. It is registered once that one leaves it; another --id avoids it.");
            }
            Finding::Deleted | Finding::Changed(_) => {
                let Some(pause) = self.fights.struck(&self.key, Instant::now()) else { return };
                let pause_s = pause.as_secs();
                let by = Holders::default().writer(lease);
                warn!(key = %self.key, by, pause_s, "Somebody else changed or deleted this key; it is written again.");
            }
        }
    }

    /// Until when the key is left as it is, if it is.
    pub fn rest(&self) -> Option<Instant> {
        self.fights.until(&self.key, Instant::now())
    }

    /// What is to be listened to, if that is not done yet.
    pub fn unheard(&self, ears: &impl KeyWatch) -> Option<(Key, Position)> {
        let key = Key::clone(&self.key);
        let revision = self.ledger.watched(&key).filter(|_| !ears.has(&key))?;
        Some((key, Position { cluster: self.cluster, revision }))
    }

    pub fn hear(&mut self, batch: &Batch) {
        for change in &batch.changes {
            if *change.key() != self.key {
                continue;
            }
            let entry = match change {
                Change::Put(entry) => Some(entry),
                Change::Delete { .. } => None,
            };
            self.see(entry, change.revision(), true);
        }
    }

    /// Finds what a fault before left under this lease.
    pub async fn recall(&mut self) -> Result<(), StoreError> {
        let outcome = self.store.txn(vec![Compare::Absent(self.key.clone())], Vec::new()).await?;
        if let Some(entry) = outcome.found.first().filter(|entry| entry.lease == Some(self.lease)) {
            self.see(Some(entry), outcome.at.revision, false);
        }
        Ok(())
    }

    /// Reads back what was written.
    pub async fn look(&mut self) -> Result<(), StoreError> {
        let outcome = self.store.txn(self.ledger.intact(), Vec::new()).await?;
        match (outcome.succeeded, self.ledger.intact().first()) {
            (true, Some(condition)) => self.ledger.confirm(condition, outcome.at.revision),
            (true, None) => {}
            (false, _) => self.see(outcome.found.first(), outcome.at.revision, false),
        }
        Ok(())
    }
}
