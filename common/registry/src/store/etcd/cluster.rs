//! A cluster of etcd as a watch or a lease needs it: single calls, and etcd's words as ours.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, GetResponse, KeyValue, LeaseTimeToLiveOptions, ResponseHeader};

use super::config::EtcdConfig;
use super::members::Members;
use super::pool::{Pool, Retry};
use crate::store::{Entry, LeaseId, Operation, Position, Revision, StoreError};

/// Most bytes of one message from etcd: some ten times what etcd takes in a request. The default of 4 MiB would make a large
/// registry slow to read, and with none a hostile server could use up the memory.
pub(super) const DECODE_LIMIT: usize = 16 * 1024 * 1024;

/// A cluster of etcd; clones share its connections.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) pool: Arc<Pool>,
    members: Arc<Members>,
}

impl Cluster {
    pub(super) fn new(config: EtcdConfig) -> Self {
        Self { pool: Arc::new(Pool::new(config)), members: Arc::default() }
    }

    /// The store's position, by a linearizable read of `prefix` itself, for `operation`.
    pub(super) async fn newest(&self, operation: Operation, prefix: &str) -> Result<Position, StoreError> {
        let key = first_key(prefix);
        let options = || GetOptions::new().with_count_only();
        let answer = self.get_range(operation, prefix, &key, options).await?;
        self.members.learn(&self.pool).await;
        Ok(position(answer.header()))
    }

    /// One range of keys.
    pub(super) async fn get_range(
        &self,
        operation: Operation,
        subject: &str,
        key: &[u8],
        options: impl Fn() -> GetOptions + Send + Sync,
    ) -> Result<GetResponse, StoreError> {
        let work = |client: etcd_client::Client| {
            let mut kv = client.kv_client().max_decoding_message_size(DECODE_LIMIT);
            let (key, options) = (key.to_owned(), options());
            async move { kv.get(key, Some(options)).await }
        };
        Ok(self.pool.call(operation, subject, Retry::Always, work).await?.0)
    }

    /// How long a lease still lives; `None`: it is gone.
    pub(super) async fn time_to_live(&self, lease: LeaseId) -> Result<Option<Duration>, StoreError> {
        let work = |client: etcd_client::Client| async move {
            client.lease_client().time_to_live(lease.0, None::<LeaseTimeToLiveOptions>).await
        };
        match self.pool.call(Operation::TimeToLive, &lease.to_string(), Retry::Always, work).await {
            // Source: etcd v3 API: "Expired lease will return -1"; 0 is its last second.
            Ok((answer, _)) => Ok(u64::try_from(answer.ttl()).ok().map(Duration::from_secs)),
            Err(error) if error.is_lease_lost() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn entry(kv: &KeyValue) -> Entry {
    Entry {
        key: String::from_utf8_lossy(kv.key()).into(),
        value: kv.value().into(),
        lease: (kv.lease() != 0).then(|| LeaseId(kv.lease())),
        created: Revision(kv.create_revision()),
        modified: Revision(kv.mod_revision()),
    }
}

pub(super) fn position(header: Option<&ResponseHeader>) -> Position {
    header.map_or_else(Position::default, |h| Position { cluster: h.cluster_id(), revision: Revision(h.revision()) })
}

/// Where the range of keys with `prefix` begins. etcd knows no empty key.
pub(super) fn first_key(prefix: &str) -> Vec<u8> {
    if prefix.is_empty() { vec![0] } else { prefix.as_bytes().to_vec() }
}

/// Where the range of keys with `prefix` ends: the prefix with its last byte one higher; all keys for an empty one.
/// No byte of UTF-8 text is 0xff, so there is always a higher one.
pub(super) fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(0),
    }
    end
}
