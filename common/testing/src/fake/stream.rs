//! The fake's watches and beats.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::link::{Cut, refused};
use super::{FakeStore, IDLE_DEADLINE, PROGRESS_PERIOD};
use registry::store::{
    Batch, Change, Fault, KeepAlive, Key, KeyWatch, LeaseId, Operation, Position, Revision, Store, StoreError,
    WatchStream,
};

/// A watch of the fake.
#[derive(Debug)]
pub struct FakeWatch {
    pub(super) store: FakeStore,
    pub(super) prefix: String,
    pub(super) at: Position,
    pub(super) epoch: u64,
    pub(super) canceled: u64,
    /// When the stream last showed that it is alive.
    pub(super) heard: Instant,
    pub(super) over: Option<Fault>,
}

impl FakeWatch {
    fn step(&mut self) -> Result<Option<Batch>, Fault> {
        if let Some(fault) = &self.over {
            return Err(fault.clone());
        }
        let now = Instant::now();
        let link = self.store.link();
        let cut = link.cut;
        if link.canceled.0 != self.canceled {
            return Err(link.canceled.1.clone().unwrap_or_else(|| Fault::Ended("canceled".into())));
        }
        drop(link);
        let silent_for = now.duration_since(self.heard);
        match cut {
            Some(Cut::Refused) => return Err(refused()),
            Some(Cut::Silent) if silent_for >= IDLE_DEADLINE => return Err(Fault::Idle(silent_for)),
            Some(Cut::Silent) => return Ok(None),
            None => {}
        }
        let data = self.store.data(now);
        let (changes, at) = data.changes(&self.prefix, self.at)?;
        if data.epoch != self.epoch {
            return Err(Fault::Rewound { seen: self.at.revision, now: at.revision });
        }
        self.at = at;
        if changes.is_empty() && silent_for < PROGRESS_PERIOD {
            return Ok(None);
        }
        self.heard = now;
        Ok(Some(Batch { changes, at }))
    }

    /// When there may be something to say although nobody rang.
    fn wake_at(&self) -> Instant {
        let quiet = if self.store.link().cut == Some(Cut::Silent) { IDLE_DEADLINE } else { PROGRESS_PERIOD };
        let due = self.heard + quiet;
        self.store.data(Instant::now()).next_expiry().map_or(due, |expiry| expiry.min(due))
    }
}

impl WatchStream for FakeWatch {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        let shared = self.store.shared.clone();
        loop {
            let mut rung = std::pin::pin!(shared.bell.notified());
            rung.as_mut().enable(); // from here on no ring is missed
            match self.step() {
                Ok(Some(batch)) => return Ok(batch),
                Ok(None) => {}
                Err(fault) => {
                    self.over = Some(fault.clone());
                    return Err(StoreError::new(Operation::Watch, &self.prefix, fault));
                }
            }
            tokio::select! {
                biased; // a simulation must repeat itself
                () = rung => {}
                () = sleep_until(self.wake_at()) => {}
            }
        }
    }
}

/// A watch of single keys of the fake.
#[derive(Debug)]
pub struct FakeKeys {
    pub(super) store: FakeStore,
    /// The watch of all keys that it listens to.
    pub(super) all: Option<FakeWatch>,
    /// What of each key is known already.
    pub(super) keys: BTreeMap<Key, Revision>,
    /// What happened to keys that were added late.
    pub(super) missed: Vec<Change>,
}

impl FakeKeys {
    fn wants(&self, change: &Change) -> bool {
        self.keys.get(change.key()).is_some_and(|after| change.revision() > *after)
    }
}

impl KeyWatch for FakeKeys {
    async fn add(&mut self, keys: Vec<(Key, Position)>) -> Result<(), StoreError> {
        for (key, after) in keys {
            if self.has(&key) {
                continue;
            }
            let at = match &self.all {
                Some(all) => all.at,
                None => {
                    let all = self.store.watch("", after).await?;
                    self.all.insert(all).at
                }
            };
            let told = |fault| StoreError::new(Operation::Watch, &*key, fault);
            let (past, _) = self.store.data(Instant::now()).changes(&key, after).map_err(told)?;
            let missed = |c: &Change| *c.key() == key && c.revision() > after.revision && c.revision() <= at.revision;
            self.missed.extend(past.into_iter().filter(missed));
            self.keys.insert(key, after.revision);
        }
        Ok(())
    }

    fn forget(&mut self, key: &str) {
        self.keys.remove(key);
    }

    fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }
}

impl WatchStream for FakeKeys {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        let Some(all) = &mut self.all else { return std::future::pending().await };
        if !self.missed.is_empty() {
            return Ok(Batch { changes: std::mem::take(&mut self.missed), at: all.at });
        }
        let mut batch = all.next().await?;
        batch.changes.retain(|change| self.wants(change));
        Ok(batch)
    }
}

/// The renewal of one of the fake's leases.
#[derive(Debug)]
pub struct FakeKeeper {
    pub(super) store: FakeStore,
    pub(super) lease: LeaseId,
}

impl KeepAlive for FakeKeeper {
    async fn beat(&mut self) -> Result<Duration, StoreError> {
        self.store.beat(self.lease).await
    }
}
