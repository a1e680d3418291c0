//! Watches. All of one store share a [`Stream`], however many they are.

use std::sync::{Arc, Weak};

use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::cluster::Cluster;
use super::live::{Delivery, same_past};
use super::stream::{Begin, Begun, Stream};
use crate::store::{Batch, Fault, Operation, Position, StoreError, WatchStream};

/// A watch of etcd.
#[derive(Debug)]
pub struct EtcdWatch {
    prefix: String,
    /// The server's number of it on its stream.
    pub(super) id: i64,
    pub(super) batches: mpsc::Receiver<Delivery>,
    over: Option<Fault>,
    stream: Arc<Stream>,
}

/// The store's stream, opened where there is none that takes a watch of `key` after `after`.
pub(super) async fn stream(
    cluster: &Cluster,
    joined: &Current,
    key: &str,
    after: Position,
) -> Result<Arc<Stream>, StoreError> {
    Ok(open(cluster, joined, key, after).await?.stream.clone())
}

impl EtcdWatch {
    fn new(prefix: &str, (id, batches): Begun, stream: &Arc<Stream>) -> Self {
        Self { prefix: prefix.to_owned(), id, batches, over: None, stream: stream.clone() }
    }
}

impl WatchStream for EtcdWatch {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        let fault = match &self.over {
            Some(fault) => fault.clone(),
            None => match self.batches.recv().await {
                Some(Ok(batch)) => return Ok(batch),
                Some(Err(fault)) => fault,
                None => self.stream.fault().unwrap_or_else(|| Fault::Ended("it was read too slowly".into())),
            },
        };
        self.over = Some(fault.clone());
        Err(StoreError::new(Operation::Watch, &self.prefix, fault))
    }
}

impl Drop for EtcdWatch {
    fn drop(&mut self) {
        self.stream.leave(self.id);
    }
}

/// The stream that new watches join, if there is one; the lock is held while one is opened.
pub(super) type Current = Mutex<Weak<Stream>>;

pub(super) async fn open(
    cluster: &Cluster,
    joined: &Current,
    prefix: &str,
    after: Position,
) -> Result<EtcdWatch, StoreError> {
    let told = |fault| StoreError::new(Operation::Watch, prefix, fault);
    // This read also renews an expired token, which etcd-client does not do for a watch, and it asks for the same rights:
    // a watch that etcd 3.4 refuses would end its ear for all others of the stream.
    let now = cluster.newest(Operation::Watch, prefix).await?;
    same_past(after, now).map_err(told)?;
    // Not from the revision after it: where that one is the compacted one, etcd begins there without a word, and has
    // forgotten its deletions (etcd issues 18089 and 19179; 3.5.16 still does). Asked for one that is known already, it says
    // that it is compacted; what it tells of that one again is passed over. Where there is no such revision yet nothing can be
    // forgotten, and the watch is to be told at once: etcd catches up a watch that begins in the past every 100 ms only.
    let from = if now.revision == after.revision { after.revision.0 + 1 } else { after.revision.0.max(1) };
    let begin = Begin { after, from, exact: false };
    let mut refused: Weak<Stream> = Weak::new();
    loop {
        let patience = cluster.pool.config.timeouts.call;
        let locked = timeout(patience, joined.lock()).await;
        let mut current = locked.map_err(|_| told(Fault::Ended("another one is being opened for too long".into())))?;
        let fit = |stream: &Arc<Stream>| stream.takes_more() && !Weak::ptr_eq(&refused, &Arc::downgrade(stream));
        let Some(stream) = current.upgrade().filter(fit) else {
            let (stream, begun) = Stream::open(cluster, prefix, begin).await?;
            *current = Arc::downgrade(&stream);
            return Ok(EtcdWatch::new(prefix, begun, &stream));
        };
        drop(current);
        // A stream has the rights with which it was opened: what it refuses, a new one may take.
        match stream.watch(prefix, begin).await {
            Ok(begun) => return Ok(EtcdWatch::new(prefix, begun, &stream)),
            Err(fault @ (Fault::Compacted { .. } | Fault::ClusterChanged { .. })) => return Err(told(fault)),
            Err(_) => refused = Arc::downgrade(&stream),
        }
    }
}
