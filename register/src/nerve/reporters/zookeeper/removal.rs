//! What goes: nodes of registrations that are not wanted, and former names. A node counts as gone once ZooKeeper says so.

use std::collections::BTreeSet;

use agent::telemetry::Chain;
use tokio::time::Instant;
use tracing::{info, warn};
use zookeeper::{ZkError, ZkPath, child};

use super::names::{is_named, name, same_place, target};
use super::work::{Work, is_lost};
use crate::nerve::reporters::{Payload, Placement, Want, Wanted};

/// What is known of what goes.
#[derive(Default)]
pub(super) struct Removals {
    /// Nodes to be removed: the former names of registrations whose names have changed.
    pub former: BTreeSet<ZkPath>,
    /// Of these ZooKeeper has confirmed that nothing is there.
    pub absent: BTreeSet<Placement>,
    /// Nodes that ZooKeeper does not let go.
    stuck: BTreeSet<ZkPath>,
}

impl Removals {
    /// What is not to be absent any more is looked for again the next time.
    pub fn begin(&mut self, wanted: &Wanted) {
        self.absent.retain(|placement| matches!(wanted.get(placement), Some(Want::Absent(_))));
    }

    /// Whether a removal is to be tried again.
    pub fn is_stuck(&self) -> bool {
        !self.stuck.is_empty()
    }
}

impl Work {
    /// Removes what is not wanted any more.
    pub(super) async fn remove(&mut self, wanted: &Wanted) -> Result<(), ZkError> {
        let stays = |placement: &Placement| matches!(wanted.get(placement), Some(Want::Publish(_) | Want::Leave(_)));
        let unsure = self.uncertain.iter().filter(|(placement, _)| !stays(placement));
        for (placement, payload) in unsure.map(|(p, payload)| (p.clone(), payload.clone())).collect::<Vec<_>>() {
            // What a call that was lost has made.
            self.removals.former.extend(self.find(&placement, &payload).await?);
            self.uncertain.remove(&placement);
        }
        for placement in self.held.keys().filter(|placement| !stays(placement)).cloned().collect::<Vec<_>>() {
            let Some(path) = self.held.get(&placement).map(|held| held.path.clone()) else { continue };
            if self.delete(&path).await? {
                info!(service = %placement.service, node = %path, "Removed from ZooKeeper.");
            }
            self.held.remove(&placement);
        }
        for path in self.removals.former.clone() {
            if self.delete(&path).await? {
                self.removals.former.remove(&path);
            }
        }
        for (placement, want) in wanted {
            let Want::Absent(payload) = want else { continue };
            if !self.removals.absent.contains(placement) {
                self.make_absent(placement, payload).await?;
            }
        }
        Ok(())
    }

    /// Looks for what is there of `placement`, whoever wrote it, and removes it.
    async fn make_absent(&mut self, placement: &Placement, payload: &Payload) -> Result<(), ZkError> {
        for path in self.find(placement, payload).await? {
            if !self.delete(&path).await? {
                self.refused.insert(placement.clone(), format!("ZooKeeper does not let {path} be removed"));
                return Ok(());
            }
            info!(service = %placement.service, node = %path, "Removed from ZooKeeper: the service is not up.");
        }
        self.refused.remove(placement);
        self.removals.absent.insert(placement.clone());
        Ok(())
    }

    /// Removes one node, and tells whether it is gone. Where ZooKeeper does not allow it, this is logged once, and
    /// everything else goes on.
    async fn delete(&mut self, path: &ZkPath) -> Result<bool, ZkError> {
        let began = Instant::now();
        let gone = match self.zk.delete(path).await {
            Err(error) if !is_lost(&error.fault) => {
                if self.removals.stuck.insert(path.clone()) {
                    warn!(node = %path, error = %Chain(&error), "Cannot be removed from ZooKeeper; trying again.");
                }
                false
            }
            deleted => {
                deleted?;
                self.removals.stuck.remove(path);
                true
            }
        };
        self.statsd.time("nerve.reporter.zk.delete.elapsed_time", began.elapsed(), &[("zk_cluster", &self.cluster)]);
        Ok(gone)
    }

    /// The nodes that this registration has without our knowing: made by a call whose answer was lost, or left by a
    /// former self.
    pub(super) async fn find(&self, placement: &Placement, payload: &Payload) -> Result<Vec<ZkPath>, ZkError> {
        let mut nodes = Vec::new();
        let Some(to) = target(placement) else { return Ok(nodes) };
        let name = name(placement, payload);
        let Some((names, _)) = self.zk.children(&to.path, false).await? else { return Ok(nodes) };
        let known: BTreeSet<&ZkPath> = self.held.values().map(|held| &held.path).collect();
        for found in names {
            let Some(path) = to.path.child(&found) else { continue };
            let encoded = || child::payload(&found).is_some_and(|said| same_place(&said, payload.as_bytes()));
            if known.contains(&path) || !(is_named(&path, &name, to.kind) || encoded()) {
                continue;
            }
            let Some((data, stat)) = self.zk.data(&path, false).await? else { continue };
            let ours = if to.kind.is_ephemeral() { self.session } else { 0 };
            if stat.owner == ours && same_place(&data, payload.as_bytes()) {
                nodes.push(path);
            }
        }
        Ok(nodes)
    }

    /// What may stay in ZooKeeper for good although it was to go: `rest` was wanted last.
    pub(super) fn left_behind(&self, rest: &Wanted) -> Vec<String> {
        let unconfirmed = rest.keys().filter(|placement| !self.removals.absent.contains(*placement));
        unconfirmed.map(|placement| format!("{} of {}", placement.target.path(), placement.service)).collect()
    }
}
