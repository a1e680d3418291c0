//! Watches of single keys. Each is a watch of etcd's on the [`Stream`] of the store, and all of one [`EtcdKeys`] share a queue.
//!
//! etcd finds the watchers of one key in a map: what others write beside it costs neither side anything. A watch of the
//! directory would bring each agent the changes of all hosts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::live::Delivery;
use super::stream::{Begin, Stream};
use super::watch::{self, Current};
use crate::store::{Batch, Fault, Key, KeyWatch, Operation, Position, StoreError, WatchStream};

/// How many messages may wait for a slow reader: an agent with some thousand keys hears all its own writes at once.
const QUEUE: usize = 4096;

/// A watch of single keys of etcd.
#[derive(Debug)]
pub struct EtcdKeys {
    cluster: Cluster,
    /// The stream that new watches join.
    joined: Arc<Current>,
    /// The stream that carries each key's watch, and the server's number of it there. Keys that come later may need another
    /// stream than those before: one has the rights with which it was opened.
    ids: BTreeMap<Key, (Arc<Stream>, i64)>,
    /// Each live watch of the stream has a clone of it.
    out: mpsc::Sender<Delivery>,
    news: mpsc::Receiver<Delivery>,
    /// What came while keys were being added.
    early: VecDeque<Delivery>,
    over: Option<Fault>,
}

impl EtcdKeys {
    pub(super) fn new(cluster: &Cluster, joined: &Arc<Current>) -> Self {
        let (out, news) = mpsc::channel(QUEUE);
        let (cluster, joined) = (cluster.clone(), Arc::clone(joined));
        let (ids, early) = (BTreeMap::new(), VecDeque::new());
        Self { cluster, joined, ids, out, news, early, over: None }
    }

    fn end(&mut self, fault: Fault) -> StoreError {
        self.over = Some(fault.clone());
        StoreError::new(Operation::Watch, "own keys", fault)
    }

    async fn begin(&mut self, keys: Vec<(Key, Position)>) -> Result<(), Fault> {
        if let Some(fault) = &self.over {
            return Err(fault.clone());
        }
        let missing: Vec<_> = keys.into_iter().filter(|(key, _)| !self.ids.contains_key(key)).collect();
        let Some((first, after)) = missing.first() else { return Ok(()) };
        let stream = watch::stream(&self.cluster, &self.joined, first, *after).await.map_err(|e| e.fault)?;
        let patience = self.cluster.pool.config.timeouts.call;
        let asked = missing.into_iter().map(|(key, after)| {
            // Not from the revision after it, as for any other watch: see `watch::open`.
            let begin = Begin { after, from: after.revision.0.max(1), exact: true };
            stream.ask_for(&key, begin, self.out.clone()).map(|created| (key, created))
        });
        let asked: Vec<_> = asked.collect::<Result<_, _>>()?;
        for (key, created) in asked {
            let created = timeout(patience, created);
            tokio::pin!(created);
            // The stream waits for a reader of its news, and with it the answer that is awaited here.
            let id = loop {
                tokio::select! {
                    id = &mut created => break id,
                    Some(news) = self.news.recv() => self.early.push_back(news),
                }
            };
            let id = id.map_err(|_| Fault::Ended("the server does not begin it".into()))?;
            let id = id.map_err(|_| Fault::Ended("its stream ended".into()))??;
            self.ids.insert(key, (stream.clone(), id));
        }
        Ok(())
    }
}

impl KeyWatch for EtcdKeys {
    async fn add(&mut self, keys: Vec<(Key, Position)>) -> Result<(), StoreError> {
        let begun = self.begin(keys).await;
        begun.map_err(|fault| self.end(fault))
    }

    fn forget(&mut self, key: &str) {
        if let Some((stream, id)) = self.ids.remove(key) {
            stream.leave(id);
        }
    }

    fn has(&self, key: &str) -> bool {
        self.ids.contains_key(key)
    }
}

impl WatchStream for EtcdKeys {
    async fn next(&mut self) -> Result<Batch, StoreError> {
        if let Some(fault) = self.over.clone() {
            return Err(self.end(fault));
        }
        let news = match self.early.pop_front() {
            Some(news) => Some(news),
            None => self.news.recv().await,
        };
        // A watch that ended while the queue was full could not say so.
        let lost = self.out.strong_count() <= self.ids.len();
        match news {
            Some(Err(fault)) => Err(self.end(fault)),
            Some(Ok(_)) if lost => Err(self.end(Fault::Ended("it was read too slowly".into()))),
            Some(Ok(batch)) => Ok(batch),
            None => Err(self.end(Fault::Ended("its stream ended".into()))), // never: the queue's other end is in `self`
        }
    }
}

impl Drop for EtcdKeys {
    fn drop(&mut self) {
        std::mem::take(&mut self.ids).into_values().for_each(|(stream, id)| stream.leave(id));
    }
}
