//! A hand-over between two `put`s: the new registration names the old one in its label `register.replaces`, and the old one's holder takes
//! it back. Nobody touches another's key.

use std::time::Duration;

use agent::backoff::Backoff;
use agent::telemetry::Chain;
use model::{BackendId, Decoded, ParsedKey, Prefix, ServiceName, Status, decode};
use registry::store::{Change, Entry, Store, StoreError, WatchStream};
use tokio::time::sleep;
use tracing::debug;

/// The label by which a registration names the one that it replaces.
pub const REPLACES: &str = "register.replaces";

/// Whether an entry is a registration of `service` that is up and replaces `id`.
fn replaces(prefix: &Prefix, service: &ServiceName, id: &BackendId, entry: &Entry) -> bool {
    let Ok(ParsedKey::Backend { service: of, id: by, .. }) = prefix.parse(&entry.key) else { return false };
    let Ok(Decoded::Backend(backend)) = decode(&by, &entry.value) else { return false };
    of == *service
        && by != *id
        && backend.status == Status::Up
        && backend.labels.get(REPLACES).is_some_and(|replaced| replaced == id.as_str())
}

/// Who waits to be replaced.
pub struct Waiting<'a, S> {
    pub store: &'a S,
    /// The prefix of all keys.
    pub prefix: &'a Prefix,
    /// Below which of them registrations of the service lie.
    pub below: &'a str,
    pub service: &'a ServiceName,
    pub id: &'a BackendId,
}

impl<S: Store> Waiting<'_, S> {
    /// Ends once another registration of the service replaces this one.
    pub async fn replaced(&self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        while let Err(error) = self.look_and_watch().await {
            debug!(error = %Chain(&error), "Not seen whether this registration is replaced; looking again.");
            sleep(backoff.next_delay()).await;
        }
    }

    async fn look_and_watch(&self) -> Result<(), StoreError> {
        let listing = self.store.list(self.below).await?;
        let is_it = |entry: &Entry| replaces(self.prefix, self.service, self.id, entry);
        if listing.entries.iter().any(is_it) {
            return Ok(());
        }
        let mut changes = self.store.watch(self.below, listing.at).await?;
        loop {
            let batch = changes.next().await?;
            let written = batch.changes.iter().filter_map(|change| match change {
                Change::Put(entry) => Some(entry),
                Change::Delete { .. } => None,
            });
            if written.into_iter().any(is_it) {
                return Ok(());
            }
        }
    }
}
