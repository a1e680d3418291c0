//! Keeps an outlet current from a store.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::follow::{Followed, Follower};
use super::owners::Owners;
use super::table::Snapshot;
use crate::store::{Store, StoreError};
use agent::backoff::Backoff;
use agent::telemetry::Chain;
use agent::watch::{Outlet, Watcher};
use model::Prefix;

/// The first wait after a failure, and the longest one.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// How long whoever follows a registry waits after its failures.
pub fn backoff() -> Backoff {
    Backoff::new(RETRY.0, RETRY.1)
}

/// Tells of a failure, and how long to wait after it.
pub fn wait_after(error: &StoreError, prefix: &Prefix, backoff: &mut Backoff) -> Duration {
    let retry_in = backoff.next_delay();
    let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
    warn!(%prefix, error = %Chain(error), retry_in_ms, "Registry watch failed; keeping the last snapshot.");
    retry_in
}

/// Watches all services under one prefix of a store.
pub struct RegistryWatcher<S: Store> {
    prefix: Prefix,
    follower: Follower<S>,
}

/// Why a registry watcher gives up. It never does: an operator may mend a wrong password while it runs.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {}

impl<S: Store> RegistryWatcher<S> {
    /// A watcher of `prefix` in `store`. It connects in [`Watcher::run`].
    pub fn new(store: S, prefix: Prefix) -> Self {
        Self { prefix: prefix.clone(), follower: Follower::new(store, prefix) }
    }

    /// Of services that the operator's table names, takes in registrations from their nodes alone.
    #[must_use]
    pub fn with_owners(mut self, owners: Owners) -> Self {
        self.follower = self.follower.with_owners(owners);
        self
    }
}

impl<S: Store> Watcher<Snapshot> for RegistryWatcher<S> {
    type Error = RegistryError;

    async fn run(mut self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), RegistryError> {
        let mut backoff = backoff();
        loop {
            let outcome = tokio::select! {
                biased; // shutdown wins over work
                () = cancel.cancelled() => return Ok(()),
                outcome = self.follower.step() => outcome,
            };
            match outcome {
                Ok(Followed::None { heard: true }) => out.mark_synced(),
                Ok(Followed::None { heard: false }) => {}
                Ok(Followed::Listed { .. } | Followed::Changed) => out.publish(Arc::new(self.follower.snapshot())),
                Err(error) => {
                    out.mark_stale(&error);
                    let retry_in = wait_after(&error, &self.prefix, &mut backoff);
                    self.follower.failed(&error);
                    if cancel.run_until_cancelled(tokio::time::sleep(retry_in)).await.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }
}
