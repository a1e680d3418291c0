//! etcd, by its v3 API.
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`] | the same as flags and environment |
//! | [`config`] | where etcd is and how to talk to it |
//! | `cluster` | single calls, which watches and leases need too; etcd's words as ours |
//! | `pool` | one client for each endpoint; retries and rotation |
//! | `fault` | from errors of etcd and gRPC to ours |
//! | `members` | endpoints that the cluster itself names |
//! | `identify` | what answers in etcd's place |
//! | `watch`, `live`, `stream` | watches, and the one stream that carries all of a store |
//! | `keys` | watches of single keys, on the same stream |
//! | `keeper` | the stream that renews a lease |

pub mod args;
mod cluster;
pub mod config;
mod fault;
mod identify;
mod keeper;
mod keys;
mod live;
mod members;
mod pings;
mod pool;
mod stream;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{CompareOp, GetOptions, KeyValue, LeaseTimeToLiveOptions, PutOptions, Txn, TxnOp, TxnOpResponse};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

pub use args::{EtcdArgs, EtcdArgsError};
pub use config::{Credentials, Endpoint, EndpointError, EtcdConfig, Timeouts, Tls, parse_endpoints};
pub use keeper::EtcdKeeper;
pub use keys::EtcdKeys;
pub use watch::EtcdWatch;

use super::types::{subject, whole_seconds};
use super::{
    Compare, Entry, Fault, Key, Lease, LeaseId, Listing, Op, Operation, Position, Revision, Store, StoreError,
    TxnOutcome,
};
use cluster::{Cluster, entry, first_key, position, prefix_end};
use fault::of_lease;
use pool::Retry;

/// What an entry takes in memory beside its key and value, in bytes: a server may send very many of very little.
const ENTRY_OVERHEAD: usize = 128;
/// Keys in one page of a listing.
const PAGE: i64 = 2000;
/// How many lists and beginnings of watches are under way at once. A thousand services of one etcd that all begin would else
/// hold a thousand answers in memory.
const READS: usize = 16;
/// How often a listing begins again because its revision was compacted between two pages.
const LISTINGS: usize = 3;

/// A cluster of etcd. Connects when it is first used.
#[derive(Clone, Debug)]
pub struct EtcdStore {
    cluster: Cluster,
    watches: Arc<watch::Current>,
    /// Who may begin to read now.
    reads: Arc<Semaphore>,
}

impl EtcdStore {
    /// A store by its settings; does no I/O. Without endpoints every call fails with [`Fault::BadConfig`].
    pub fn new(config: EtcdConfig) -> Self {
        Self { cluster: Cluster::new(config), watches: Arc::default(), reads: Arc::new(Semaphore::new(READS)) }
    }

    /// Waits until it is one's turn to read, but not for ever behind others that hang.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        timeout(self.cluster.pool.config.timeouts.call, self.reads.acquire()).await.ok()?.ok()
    }

    /// All pages of one revision: of `at`, or else of the newest.
    async fn pages(&self, prefix: &str, at: Option<Revision>) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        let mut revision = at;
        let (mut next, end) = (first_key(prefix), prefix_end(prefix));
        let (mut limit, mut weight) = (PAGE, 0_usize);
        loop {
            let options = || {
                let options = GetOptions::new().with_range(end.clone()).with_limit(limit);
                revision.map_or(options.clone(), |revision| options.with_revision(revision.0))
            };
            let mut page = match self.cluster.get_range(Operation::List, prefix, &next, options).await {
                Err(error) if limit > 1 && error.is_too_large() => {
                    limit = (limit / 8).max(1);
                    continue;
                }
                other => other?,
            };
            let weigh = |kv: &KeyValue| kv.key().len() + kv.value().len() + ENTRY_OVERHEAD;
            weight += page.kvs().iter().map(weigh).sum::<usize>();
            if weight > self.cluster.pool.config.listing_limit {
                let limit = self.cluster.pool.config.listing_limit;
                let why = format!("the keys and values of a listing come to more than {limit} bytes");
                let fault = Fault::TooLarge { endpoint: self.cluster.pool.names(), why };
                return Err(StoreError::new(Operation::List, prefix, fault));
            }
            let now = position(page.header());
            let first = Position { revision: at.unwrap_or(now.revision), ..now };
            let begun = *revision.get_or_insert(first.revision);
            if listing.entries.is_empty() {
                listing.at = Position { revision: begun, ..now };
            } else if listing.at.cluster != now.cluster {
                let fault = Fault::ClusterChanged { seen: listing.at, now };
                return Err(StoreError::new(Operation::List, prefix, fault));
            }
            let more = page.more();
            let kvs = page.take_kvs();
            if let Some(last) = kvs.last() {
                next = [last.key(), b"\0"].concat();
            }
            listing.entries.extend(kvs.iter().map(entry));
            if !more || kvs.is_empty() {
                listing.entries.sort_by_key(|entry| entry.created); // stable: the order by key decides the rest
                return Ok(listing);
            }
        }
    }
}

impl Store for EtcdStore {
    type Watch = EtcdWatch;
    type KeyWatch = EtcdKeys;
    type Keeper = EtcdKeeper;

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let _turn = self.turn().await;
        let mut again = 0;
        loop {
            match self.pages(prefix, None).await {
                // The first page's revision went before the last page: begin with a newer one.
                Err(error) if error.needs_list() && again < LISTINGS => again += 1,
                other => return other,
            }
        }
    }

    async fn list_at(&self, prefix: &str, revision: Revision) -> Result<Listing, StoreError> {
        match self.pages(prefix, Some(revision)).await {
            Err(StoreError { fault: Fault::Rewound { .. }, .. }) => {
                let now = self.cluster.newest(Operation::List, prefix).await?.revision;
                Err(StoreError::new(Operation::List, prefix, Fault::Rewound { seen: revision, now }))
            }
            other => other,
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let answer = self.cluster.get_range(Operation::Get, key, key.as_bytes(), GetOptions::new).await?;
        Ok(answer.kvs().first().map(entry))
    }

    async fn watch(&self, prefix: &str, after: Position) -> Result<EtcdWatch, StoreError> {
        let _turn = self.turn().await;
        watch::open(&self.cluster, &self.watches, prefix, after).await
    }

    fn watch_keys(&self) -> EtcdKeys {
        EtcdKeys::new(&self.cluster, &self.watches)
    }

    async fn txn(&self, when: Vec<Compare>, ops: Vec<Op>) -> Result<TxnOutcome, StoreError> {
        let subject = subject(&when, &ops);
        let lease = ops.iter().find_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        let retry = if when.is_empty() { Retry::Always } else { Retry::Unsent };
        let compares: Vec<_> = when.iter().map(condition).collect();
        let ops: Vec<_> = ops.iter().map(operation).collect();
        let keys: BTreeSet<&Key> = when.iter().map(Compare::key).collect();
        let bare = |key: &Key| TxnOp::get(key.as_bytes(), Some(GetOptions::new().with_keys_only()));
        let look: Vec<_> = keys.into_iter().map(bare).collect();
        let txn = Txn::new().when(compares).and_then(ops).or_else(look);
        let work = |client: etcd_client::Client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        };
        let done = self.cluster.pool.call(Operation::Txn, &subject, retry, work).await;
        let (answer, _) = done.map_err(|error| lease.map_or(error.clone(), |lease| of_lease(error, lease)))?;
        let succeeded = answer.succeeded();
        let read = |response: TxnOpResponse| match response {
            TxnOpResponse::Get(got) if !succeeded => got.kvs().first().map(entry),
            _ => None,
        };
        let found = answer.op_responses().into_iter().filter_map(read).collect();
        Ok(TxnOutcome { succeeded, at: position(answer.header()), found })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let asked = whole_seconds(ttl);
        let work = |client: etcd_client::Client| async move { client.lease_client().grant(asked, None).await };
        // Granted twice because the first answer was lost: the first one lives out its time, empty.
        let (answer, _) = self.cluster.pool.call(Operation::Grant, &format!("{asked}s"), Retry::Always, work).await?;
        Ok(Lease { id: LeaseId(answer.id()), ttl: Duration::from_secs(answer.ttl().unsigned_abs()) })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<EtcdKeeper, StoreError> {
        EtcdKeeper::open(&self.cluster, lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let work = |client: etcd_client::Client| async move { client.lease_client().revoke(lease.0).await };
        match self.cluster.pool.call(Operation::Revoke, &lease.to_string(), Retry::Always, work).await {
            Err(error) if error.is_lease_lost() => Ok(()),
            other => other.map(drop),
        }
    }

    async fn time_to_live(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        self.cluster.time_to_live(lease).await
    }

    async fn lease_keys(&self, lease: LeaseId) -> Result<Vec<Key>, StoreError> {
        let work = |client: etcd_client::Client| async move {
            let options = LeaseTimeToLiveOptions::new().with_keys();
            client.lease_client().time_to_live(lease.0, Some(options)).await
        };
        match self.cluster.pool.call(Operation::TimeToLive, &lease.to_string(), Retry::Always, work).await {
            Ok((answer, _)) => Ok(answer.keys().iter().map(|key| String::from_utf8_lossy(key).into()).collect()),
            Err(error) if error.is_lease_lost() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn position(&self, prefix: &str) -> Result<Position, StoreError> {
        self.cluster.newest(Operation::Position, prefix).await
    }
}

fn condition(compare: &Compare) -> etcd_client::Compare {
    let key = compare.key().as_bytes();
    match compare {
        Compare::Absent(_) => etcd_client::Compare::create_revision(key, CompareOp::Equal, 0),
        Compare::ModifiedAt(_, at) => etcd_client::Compare::mod_revision(key, CompareOp::Equal, at.0),
        Compare::LeaseIs(_, lease) => etcd_client::Compare::lease(key, CompareOp::Equal, lease.0),
    }
}

fn operation(op: &Op) -> TxnOp {
    match op {
        Op::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(key.as_bytes(), value.to_vec(), options)
        }
        Op::Delete { key } => TxnOp::delete(key.as_bytes(), None),
    }
}
