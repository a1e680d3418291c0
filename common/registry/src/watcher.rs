//! Keeps an outlet current from a store.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::follow::{Followed, Follower};
use super::owners::Owners;
use super::table::Snapshot;
use crate::store::{Store, StoreError};
use agent::backoff::Backoff;
use agent::telemetry::Chain;
use agent::trouble::{News, Trouble};
use agent::watch::{Outlet, Watcher};
use model::Prefix;

/// The first wait after a failure, and the longest one.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The failures of whoever follows a registry: each reason is said once, and the end.
#[derive(Debug)]
pub struct Retries {
    prefix: Prefix,
    backoff: Backoff,
    trouble: Trouble,
}

impl Retries {
    /// Of what follows `prefix`.
    pub fn new(prefix: Prefix) -> Self {
        Self { prefix, backoff: Backoff::new(RETRY.0, RETRY.1), trouble: Trouble::default() }
    }

    /// Tells of a failure, and how long to wait after it.
    pub fn failed(&mut self, error: &StoreError) -> Duration {
        let (prefix, chain) = (&self.prefix, Chain(error).to_string());
        match self.trouble.fail(&chain) {
            News::Begins => warn!(%prefix, error = %chain, "Registry watch failed; keeping the last snapshot."),
            News::OtherReason => warn!(%prefix, error = %chain, "Registry watch still fails, for another reason."),
            News::None => debug!(%prefix, error = %chain, "Registry watch failed again."),
        }
        self.backoff.next_delay()
    }

    /// The registry has answered.
    pub fn works(&mut self) {
        if let Some(lasted) = self.trouble.end() {
            info!(prefix = %self.prefix, away_s = lasted.as_secs(), "Registry watch works again.");
        }
    }
}

/// Watches all services under one prefix of a store.
pub struct RegistryWatcher<S: Store> {
    follower: Follower<S>,
    retries: Retries,
}

/// Why a registry watcher gives up. It never does: an operator may mend a wrong password while it runs.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {}

impl<S: Store> RegistryWatcher<S> {
    /// A watcher of `prefix` in `store`. It connects in [`Watcher::run`].
    pub fn new(store: S, prefix: Prefix) -> Self {
        Self { follower: Follower::new(store, prefix.clone()), retries: Retries::new(prefix) }
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
        loop {
            let outcome = tokio::select! {
                biased; // shutdown wins over work
                () = cancel.cancelled() => return Ok(()),
                outcome = self.follower.step() => outcome,
            };
            if outcome.as_ref().is_ok_and(|followed| !matches!(followed, Followed::None { heard: false })) {
                self.retries.works();
            }
            match outcome {
                Ok(Followed::None { heard: true }) => out.mark_synced(),
                Ok(Followed::None { heard: false }) => {}
                Ok(Followed::Listed { .. } | Followed::Changed) => out.publish(Arc::new(self.follower.snapshot())),
                Err(error) => {
                    out.mark_stale(&error);
                    let retry_in = self.retries.failed(&error);
                    self.follower.failed(&error);
                    if cancel.run_until_cancelled(tokio::time::sleep(retry_in)).await.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }
}
