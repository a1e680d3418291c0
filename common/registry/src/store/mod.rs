//! The registry as both agents see it: keys with values and leases, ordered by revision.
//!
//! | module | what it holds |
//! |---|---|
//! | this one | [`Store`], what an agent may ask; [`WatchStream`] and [`KeepAlive`], what it may wait for |
//! | [`types`] | keys, entries, positions, changes, operations |
//! | [`error`] | [`StoreError`]: what was asked of which subject, and the [`Fault`] that came back |
//! | [`etcd`] | etcd's v3 API |
//!
//! The rule: a caller lists, then watches from the listing's [`Position`]. A fault whose
//! [`StoreError::needs_list`] is true means list again; after any other one a watch may resume at the last
//! [`Batch`]'s position. No answer ever stands for "nothing there" unless the store said so.

pub mod error;
pub mod etcd;
pub mod types;

use std::future::Future;
use std::time::Duration;

pub use error::{Fault, Operation, StoreError};
pub use types::{
    Batch, Change, Compare, Entry, Key, Lease, LeaseId, Listing, MAX_TXN_BYTES, Op, Position, Revision, TxnOutcome,
    Value, chunks, subject, whole_seconds,
};

/// Most operations that one transaction may hold.
///
/// Source: etcd's default `--max-txn-ops`.
pub const MAX_TXN_OPS: usize = 128;

/// A registry. Clones are cheap and share their connections; constructors do no I/O.
///
/// Every call is bounded in time and may be dropped at any point: a dropped write may or may not have happened.
pub trait Store: Clone + Send + Sync + 'static {
    /// What [`Store::watch`] gives.
    type Watch: WatchStream;
    /// What [`Store::watch_keys`] gives.
    type KeyWatch: KeyWatch;
    /// What [`Store::keep_alive`] gives.
    type Keeper: KeepAlive;

    /// All keys that begin with `prefix`, as they were at one revision: the newest.
    ///
    /// # Errors
    /// [`StoreError`]; never a part of the keys.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Listing, StoreError>> + Send;

    /// All keys that begin with `prefix`, as they were at `revision`.
    ///
    /// # Errors
    /// [`Fault::Compacted`] when the store has forgotten that revision, [`Fault::Rewound`] when it has not reached it.
    fn list_at(&self, prefix: &str, revision: Revision) -> impl Future<Output = Result<Listing, StoreError>> + Send;

    /// One key, or `None` when it does not exist.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Entry>, StoreError>> + Send;

    /// Every change to keys that begin with `prefix`, from the revision after `after` on, without a gap.
    ///
    /// # Errors
    /// [`StoreError`]; [`Fault::Rewound`] or [`Fault::ClusterChanged`] when `after` is not in this store's past.
    /// [`Fault::Compacted`] may come from here or from the stream.
    fn watch(&self, prefix: &str, after: Position) -> impl Future<Output = Result<Self::Watch, StoreError>> + Send;

    /// A watch of single keys, of none at first. It hears of those keys alone, however many others lie beside them. No I/O.
    fn watch_keys(&self) -> Self::KeyWatch;

    /// Does all of `ops` at one revision if all of `when` hold; nothing otherwise, and then tells how the keys of `when`
    /// stand ([`TxnOutcome::found`]).
    ///
    /// At most [`MAX_TXN_OPS`] operations, no key twice. With conditions it is sent again only after a failure that
    /// cannot have reached the store; other failures leave the outcome open: read the keys again.
    ///
    /// # Errors
    /// [`StoreError`]; [`Fault::LeaseLost`] when an operation names a lease that is gone.
    fn txn(&self, when: Vec<Compare>, ops: Vec<Op>) -> impl Future<Output = Result<TxnOutcome, StoreError>> + Send;

    /// Does all of `ops`, in order, in as few transactions as fit ([`MAX_TXN_OPS`], [`MAX_TXN_BYTES`], no key twice
    /// in one), and tells the position after the last. `None` when there was nothing to do.
    ///
    /// # Errors
    /// [`StoreError`] of the first transaction that failed; those before it have happened.
    #[cfg(feature = "testing")]
    fn put_all(&self, ops: Vec<Op>) -> impl Future<Output = Result<Option<Position>, StoreError>> + Send {
        async move {
            let mut last = None;
            for chunk in types::chunks(ops, MAX_TXN_OPS) {
                last = Some(self.txn(Vec::new(), chunk).await?.at);
            }
            Ok(last)
        }
    }

    /// A new lease that lives for `ttl` after its last beat: whole seconds rounded up, at least 1 s. The store may
    /// grant more than was asked for (etcd: at least 1.5 election timeouts).
    fn grant(&self, ttl: Duration) -> impl Future<Output = Result<Lease, StoreError>> + Send;

    /// A means to renew `lease`. The lease may have been granted by somebody else.
    ///
    /// # Errors
    /// [`Fault::LeaseLost`] when the store does not know the lease.
    fn keep_alive(&self, lease: LeaseId) -> impl Future<Output = Result<Self::Keeper, StoreError>> + Send;

    /// Ends `lease` and deletes its keys, all at one revision. A lease that is already gone is no error.
    fn revoke(&self, lease: LeaseId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What is left of `lease`, or `None` when it is gone.
    fn time_to_live(&self, lease: LeaseId) -> impl Future<Output = Result<Option<Duration>, StoreError>> + Send;

    /// The keys that hang on `lease`, in no order; none when it is gone.
    ///
    /// # Errors
    /// [`StoreError`]; [`Fault::Denied`] for a caller without the right to read one of them.
    fn lease_keys(&self, lease: LeaseId) -> impl Future<Output = Result<Vec<Key>, StoreError>> + Send;

    /// The store's newest position, by a read that a caller with rights on `prefix` only may do.
    fn position(&self, prefix: &str) -> impl Future<Output = Result<Position, StoreError>> + Send;
}

/// The changes under one prefix. Dropping it ends the watch.
pub trait WatchStream: Send + 'static {
    /// The next message: changes of whole revisions, or none of them, which says that the stream is alive.
    ///
    /// Cancel-safe: a dropped call loses nothing. After an error the stream is over; every later call repeats it or
    /// fails as ended. A silent stream is found out within a bounded time and becomes an error.
    ///
    /// # Errors
    /// [`StoreError`]; see [`StoreError::needs_list`].
    fn next(&mut self) -> impl Future<Output = Result<Batch, StoreError>> + Send;
}

/// The changes of single keys. Dropping it ends the watch.
///
/// As a [`WatchStream`] it waits for ever while it has no keys. Its batches keep the order of one key's changes, not that of
/// several keys'. After an error it is over.
pub trait KeyWatch: WatchStream {
    /// Also hears of each of `keys` from the revision after the one that stands beside it. A key that it has is passed over.
    ///
    /// # Errors
    /// [`StoreError`], and the watch is over; [`Fault::Compacted`] may come from here or from the stream.
    fn add(&mut self, keys: Vec<(Key, Position)>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Hears no more of `key`.
    fn forget(&mut self, key: &str);

    /// Whether it hears of `key`.
    fn has(&self, key: &str) -> bool;
}

/// The renewal of one lease. Dropping it renews no more; the lease lives out its time.
pub trait KeepAlive: Send + 'static {
    /// Renews the lease once and tells how long it now lives. Bounded in time; changes the store if it must.
    ///
    /// Cancel-safe: a dropped call may have renewed the lease.
    ///
    /// # Errors
    /// [`Fault::LeaseLost`] when the lease is gone, and with it its keys; after any other one, beat again.
    fn beat(&mut self) -> impl Future<Output = Result<Duration, StoreError>> + Send;
}
