//! The fake's watches and beats.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::link::{Cut, refused};
use super::{FakeStore, IDLE_DEADLINE, PROGRESS_PERIOD};
use crate::store::{Batch, Fault, KeepAlive, LeaseId, Operation, Position, StoreError, WatchStream};

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
