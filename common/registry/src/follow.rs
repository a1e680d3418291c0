//! Follows a store's keys step by step: list at R, watch from R+1, list again only when there is no other way.

use std::collections::{HashSet, VecDeque};

use tracing::{debug, info};

use super::lost;
use super::owners::Owners;
use super::table::{Snapshot, Table};
use crate::store::{Batch, Change, Fault, LeaseId, Listing, Position, Revision, Store, StoreError, WatchStream};
use model::Prefix;

/// A [`Table`] that follows one prefix of a store, driven by whoever wants its news.
pub struct Follower<S: Store> {
    store: S,
    prefix: Prefix,
    table: Table,
    step: Step<S::Watch>,
    /// What a stream brought and the table has not taken in yet.
    brought: VecDeque<Batch>,
    each_revision: bool,
}

/// Where it stands between two steps.
enum Step<W> {
    /// Nothing is known, or what is known is no base to watch from. `anew`: revisions do not continue.
    List { anew: bool },
    /// As it was at that revision, to go on from there.
    ListAt(Revision),
    /// Everything up to the position is known.
    Resume(Position),
    /// A stream is open.
    Watching(W, Position),
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Nothing has changed; a stream that speaks says at least that all of this still holds.
    None {
        /// The store itself has just said so.
        heard: bool,
    },
    /// Everything was read anew.
    Listed {
        /// The revisions do not continue those before: another cluster, or one that was set back.
        anew: bool,
    },
    /// Something changed.
    Changed,
}

impl<S: Store> Follower<S> {
    /// Begins with a listing. Nothing is asked before the first [`step`](Self::step).
    pub fn new(store: S, prefix: Prefix) -> Self {
        let table = Table::new(prefix.clone());
        let step = Step::List { anew: false };
        Self { store, prefix, table, step, brought: VecDeque::new(), each_revision: false }
    }

    /// Begins with what there was at `revision`: the first listing is of then, what follows are the changes since.
    #[must_use]
    pub fn from_revision(mut self, revision: Revision) -> Self {
        self.step = Step::ListAt(revision);
        self
    }

    /// Of services that the operator's table names, takes in registrations from their nodes alone.
    #[must_use]
    pub fn with_owners(mut self, owners: Owners) -> Self {
        self.table = self.table.with_owners(owners);
        self
    }

    /// Takes in one revision at a step, also of those that arrive together; how backends went is then not asked for.
    #[must_use]
    pub fn by_revision(mut self) -> Self {
        self.each_revision = true;
        self
    }

    /// What is known now. Cheap: pools are shared.
    pub fn snapshot(&self) -> Snapshot {
        self.table.snapshot()
    }

    /// One step towards newer knowledge. After an error call [`failed`](Self::failed), and wait a little.
    ///
    /// Cancel-safe: the table changes only after the last await of a step, and what a stream brought is kept.
    ///
    /// # Errors
    /// [`StoreError`]; what is known stays.
    pub async fn step(&mut self) -> Result<Followed, StoreError> {
        let backends = self.prefix.backends();
        match &mut self.step {
            Step::ListAt(revision) => {
                let listing = Box::pin(self.store.list_at(&backends, *revision)).await?;
                Ok(self.take_listing(&listing, &HashSet::new(), false))
            }
            Step::List { anew } => {
                let anew = *anew;
                let listing = Box::pin(self.store.list(&backends)).await?;
                let gone = if anew { HashSet::new() } else { self.table.leases_missing(&listing) };
                let before = self.table.revision();
                let orderly = lost::orderly(&self.store, &self.prefix, before, listing.at, &gone);
                let orderly = Box::pin(orderly).await?;
                Ok(self.take_listing(&listing, &orderly, anew))
            }
            Step::Resume(at) => {
                let watch = Box::pin(self.store.watch(&backends, *at)).await?;
                self.step = Step::Watching(watch, *at);
                Ok(Followed::None { heard: false })
            }
            Step::Watching(watch, _) => {
                if self.brought.is_empty() {
                    let batch = match watch.next().await {
                        Ok(batch) => batch,
                        Err(error) if error.is_silence() => return Ok(self.watch_anew()),
                        Err(error) => return Err(error),
                    };
                    match self.each_revision {
                        true => self.brought.extend(revisions(batch)),
                        false => self.brought.push_back(batch),
                    }
                }
                self.take_brought().await
            }
        }
    }

    fn watch_anew(&mut self) -> Followed {
        debug!(prefix = %self.prefix, "The watch is silent; opening it anew.");
        if let Step::Watching(_, at) = &self.step {
            self.step = Step::Resume(*at);
        }
        Followed::None { heard: false }
    }

    async fn take_brought(&mut self) -> Result<Followed, StoreError> {
        let Some(batch) = self.brought.front() else { return Ok(Followed::None { heard: true }) };
        let gone = if self.each_revision { HashSet::new() } else { self.table.leases_taken(batch) };
        let first = batch.changes.first().map_or(batch.at.revision, Change::revision);
        let orderly = lost::orderly(&self.store, &self.prefix, Revision(first.0 - 1), batch.at, &gone);
        let orderly = Box::pin(orderly).await?;
        let Some(batch) = self.brought.pop_front() else { return Ok(Followed::None { heard: true }) };
        if let Step::Watching(_, at) = &mut self.step {
            *at = batch.at;
        }
        if batch.changes.is_empty() {
            return Ok(Followed::None { heard: true });
        }
        self.table.apply(&batch, &orderly);
        Ok(Followed::Changed)
    }

    fn take_listing(&mut self, listing: &Listing, orderly: &HashSet<LeaseId>, anew: bool) -> Followed {
        self.table.replace(listing, orderly, anew);
        let (services, keys) = (self.table.snapshot().services.len(), listing.entries.len());
        info!(prefix = %self.prefix, services, keys, revision = %listing.at.revision, "Registry listed.");
        self.step = Step::Resume(listing.at);
        Followed::Listed { anew }
    }

    /// Decides where the next step begins, after one that failed.
    pub fn failed(&mut self, error: &StoreError) {
        self.brought.clear();
        let list_again = Step::List { anew: !matches!(error.fault, Fault::Compacted { .. }) };
        self.step = match std::mem::replace(&mut self.step, Step::List { anew: false }) {
            _ if error.needs_list() => list_again,
            // What happened since cannot be sent at once: what there is now can be read page by page.
            Step::Watching(..) | Step::Resume(_) if error.is_too_large() => Step::List { anew: false },
            Step::Watching(_, at) => Step::Resume(at),
            other => other,
        };
    }
}

/// A batch as one for each of its revisions.
fn revisions(batch: Batch) -> Vec<Batch> {
    let cluster = batch.at.cluster;
    let mut each: Vec<Batch> = Vec::new();
    for change in batch.changes {
        let revision = change.revision();
        match each.last_mut().filter(|last| last.at.revision == revision) {
            Some(last) => last.changes.push(change),
            None => each.push(Batch { changes: vec![change], at: Position { cluster, revision } }),
        }
    }
    each.push(Batch { changes: Vec::new(), at: batch.at });
    each
}
