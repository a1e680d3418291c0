//! Keeps a [`Table`] current from a store: list at R, watch from R+1, list again only when there is no other way.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::table::{Snapshot, Table};
use crate::backoff::Backoff;
use crate::model::Prefix;
use crate::store::{Fault, LeaseId, Listing, Position, Store, StoreError, WatchStream};
use crate::telemetry::Chain;
use crate::watch::{Outlet, Watcher};

/// The first wait after a failure, and the longest one.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Watches all services under one prefix of a store.
#[derive(Debug)]
pub struct RegistryWatcher<S> {
    store: S,
    prefix: Prefix,
    table: Table,
    backoff: Backoff,
}

/// Why a registry watcher gives up. It never does: an operator may mend a wrong password while it runs.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {}

/// Where the watcher stands between two steps.
enum Step<W> {
    /// Nothing is known, or what is known is no base to watch from. `anew`: revisions do not continue.
    List { anew: bool },
    /// Everything up to the position is known.
    Resume(Position),
    /// A stream is open.
    Watching(W, Position),
}

impl<S: Store> RegistryWatcher<S> {
    /// A watcher of `prefix` in `store`. It connects in [`Watcher::run`].
    pub fn new(store: S, prefix: Prefix) -> Self {
        let table = Table::new(prefix.clone());
        Self { store, prefix, table, backoff: Backoff::new(RETRY.0, RETRY.1) }
    }

    /// One step towards a newer snapshot.
    ///
    /// Cancel-safe: the table changes only after the last await of a step.
    async fn step(&mut self, step: &mut Step<S::Watch>, out: &Outlet<Snapshot>) -> Result<(), StoreError> {
        let backends = self.prefix.backends();
        match step {
            Step::List { anew } => {
                let listing = self.store.list(&backends).await?;
                let answered_for =
                    if *anew || self.table.is_empty() { HashSet::new() } else { self.answered_for(listing.at).await? };
                self.table.replace(&listing, &answered_for, *anew);
                let snapshot = self.table.snapshot();
                let (services, keys) = (snapshot.services.len(), listing.entries.len());
                info!(prefix = %self.prefix, services, keys, revision = %listing.at.revision, "Registry listed.");
                *step = Step::Resume(listing.at);
                out.publish(Arc::new(snapshot));
            }
            Step::Resume(at) => {
                let watch = self.store.watch(&backends, *at).await?;
                *step = Step::Watching(watch, *at);
            }
            Step::Watching(watch, at) => {
                let batch = watch.next().await?;
                let answered_for = if self.table.takes_undrained(&batch) {
                    self.answered_for(batch.at).await?
                } else {
                    HashSet::new()
                };
                *at = batch.at;
                out.mark_synced();
                if !batch.changes.is_empty() {
                    self.table.apply(&batch, &answered_for);
                    out.publish(Arc::new(self.table.snapshot()));
                }
            }
        }
        Ok(())
    }

    /// The leases of the agents that were alive at a position: whoever still answers for its backends.
    async fn answered_for(&self, at: Position) -> Result<HashSet<LeaseId>, StoreError> {
        let registrars = self.prefix.registrars();
        let listing = match self.store.list_at(&registrars, at.revision).await {
            Err(e) if e.needs_list() => self.store.list(&registrars).await?,
            other => other?,
        };
        Ok(leases(&listing))
    }
}

fn leases(listing: &Listing) -> HashSet<LeaseId> {
    listing.entries.iter().filter_map(|e| e.lease).collect()
}

impl<S: Store> Watcher<Snapshot> for RegistryWatcher<S> {
    type Error = RegistryError;

    async fn run(mut self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), RegistryError> {
        let mut step = Step::List { anew: false };
        loop {
            let outcome = tokio::select! {
                biased; // shutdown wins over work
                () = cancel.cancelled() => return Ok(()),
                outcome = self.step(&mut step, &out) => outcome,
            };
            let Err(error) = outcome else { continue };
            out.mark_stale(&error);
            let retry_in = self.backoff.next_delay();
            let retry_in_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
            warn!(prefix = %self.prefix, error = %Chain(&error), retry_in_ms, "Registry watch failed; keeping the last snapshot.");
            step = match step {
                _ if error.needs_list() => Step::List { anew: !matches!(error.fault, Fault::Compacted { .. }) },
                Step::Watching(_, at) => Step::Resume(at),
                other => other,
            };
            if cancel.run_until_cancelled(tokio::time::sleep(retry_in)).await.is_none() {
                return Ok(());
            }
        }
    }
}
