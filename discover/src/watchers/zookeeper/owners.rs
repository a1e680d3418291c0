//! Which nodes belong to which session, over all services of one ensemble.
//!
//! A session's ephemeral nodes go in one transaction when it ends. So a node that went while another one of its session is
//! still there was taken away on purpose; one that was the last that we know of may have gone with its host.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use agent::sync::lock;
use registry::DepartureCause;
use zookeeper::{ZkError, ZkPath, ZooKeeper};

/// How many nodes of one session are remembered: some will do.
const MOST: usize = 8;

/// The nodes of each session; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct SessionOwners(Arc<Mutex<HashMap<i64, BTreeSet<ZkPath>>>>);

impl SessionOwners {
    /// The node belongs to that session.
    pub fn note(&self, session: i64, node: &ZkPath) {
        if session != 0 {
            let mut all = self.lock();
            let nodes = all.entry(session).or_default();
            if nodes.len() < MOST {
                nodes.insert(node.clone());
            }
        }
    }

    /// The node is gone.
    pub fn forget(&self, session: i64, node: &ZkPath) {
        let mut all = self.lock();
        let Some(nodes) = all.get_mut(&session) else { return };
        nodes.remove(node);
        if nodes.is_empty() {
            all.remove(&session);
        }
    }

    /// How a node of that session went. `gone` are those that are known to be gone.
    ///
    /// # Errors
    /// [`ZkError`] where ZooKeeper cannot be asked.
    pub async fn cause(&self, zk: &ZooKeeper, session: i64, gone: &[ZkPath]) -> Result<DepartureCause, ZkError> {
        if session == 0 {
            return Ok(DepartureCause::Orderly); // it does not go by itself
        }
        let others: Vec<ZkPath> = self.lock().get(&session).into_iter().flatten().cloned().collect();
        for other in others.iter().filter(|node| !gone.contains(node)) {
            if zk.exists(other, false).await?.is_some_and(|stat| stat.owner == session) {
                return Ok(DepartureCause::Orderly);
            }
        }
        Ok(DepartureCause::Expiry)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, BTreeSet<ZkPath>>> {
        lock(&self.0)
    }
}
