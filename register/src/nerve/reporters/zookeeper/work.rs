//! One ensemble's nodes: what is written for each registration, and what is known of it.

use std::collections::{BTreeMap, BTreeSet};

use agent::telemetry::Chain;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use tracing::{info, warn};
use zookeeper::{Mailbox, NodeKind, ZkError, ZkFault, ZkPath, ZooKeeper};

use super::Target;
use super::names::{cluster, is_named, name, target};
use super::removal::Removals;
use crate::nerve::reporters::{Payload, Placement, Standing, Want, Wanted};
use crate::nerve::statsd::Statsd;

/// A node of ours.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) path: ZkPath,
    payload: Payload,
    /// The connection on which it was last read, and is watched.
    epoch: u64,
    /// When it was last written.
    written: Instant,
}

/// Why a registration is not there.
enum Trouble {
    /// ZooKeeper refuses this one, or cannot be asked.
    Failed(ZkError),
    /// Somebody else has its name.
    Taken(ZkPath),
}

impl From<ZkError> for Trouble {
    fn from(error: ZkError) -> Self {
        Self::Failed(error)
    }
}

/// All nodes of one reporter.
pub(super) struct Work {
    pub(super) zk: ZooKeeper,
    pub(super) statsd: Statsd,
    pub(super) cluster: String,
    epoch: u64,
    pub(super) session: i64,
    pub(super) held: BTreeMap<Placement, Held>,
    pub(super) removals: Removals,
    /// Registrations whose node may be there although nobody said so: a call was lost.
    pub(super) uncertain: BTreeMap<Placement, Payload>,
    /// Names that were taken from another session once. One that is lost again is left to its new holder.
    taken_over: BTreeSet<ZkPath>,
    pub(super) refused: BTreeMap<Placement, String>,
    mailbox: Option<(Vec<ZkPath>, Mailbox)>,
}

impl Work {
    pub(super) fn new(zk: ZooKeeper, statsd: Statsd) -> Self {
        Self {
            cluster: cluster(&zk),
            zk,
            statsd,
            epoch: 0,
            session: 0,
            held: BTreeMap::new(),
            removals: Removals::default(),
            uncertain: BTreeMap::new(),
            taken_over: BTreeSet::new(),
            refused: BTreeMap::new(),
            mailbox: None,
        }
    }

    /// There is a connection; of another session than before, nodes that lived with that one are gone.
    pub(super) fn connected(&mut self, epoch: u64, session: i64) {
        if self.session != session {
            if self.session == 0 {
                self.statsd.increment("nerve.reporter.zk.client.created", &[("zk_cluster", &self.cluster)]);
            } else {
                warn!(at = %self.zk.target(), "The ZooKeeper session was lost: everything is published anew.");
            }
            self.held.retain(|placement, _| !target(placement).is_some_and(|t| t.kind.is_ephemeral()));
            self.uncertain.retain(|placement, _| !target(placement).is_some_and(|t| t.kind.is_ephemeral()));
            self.taken_over.clear();
            self.session = session;
        }
        self.epoch = epoch;
    }

    /// Brings ZooKeeper to what is wanted: first what is new or changed, then what is to go.
    ///
    /// Cancel-safe: what may have been written is remembered as uncertain.
    pub(super) async fn bring_to(&mut self, wanted: &Wanted) -> Result<(), ZkError> {
        self.subscribe(wanted);
        self.removals.begin(wanted);
        let touched = self.mailbox.as_ref().map(|(_, mailbox)| mailbox.take()).unwrap_or_default();
        let now = Instant::now();
        let mut todo: Vec<(&Placement, &Payload, Option<Held>)> = Vec::new();
        for (placement, want) in wanted {
            let Want::Publish(payload) = want else { continue };
            let held = self.held.get(placement);
            let good = |h: &&Held| h.epoch == self.epoch && !touched.contains(h.path.as_str());
            let due = |h: &Held| target(placement).and_then(|t| t.ttl).is_some_and(|ttl| now >= h.written + ttl);
            if held.filter(good).is_none_or(|h| h.payload != *payload || due(h)) {
                todo.push((placement, payload, held.cloned()));
            }
        }
        let unheld = todo.iter().filter(|(.., held)| held.is_none());
        self.uncertain.extend(unheld.map(|(placement, payload, _)| ((*placement).clone(), (*payload).clone())));
        let mut settled = Vec::new();
        {
            let mut running: FuturesUnordered<_> = todo
                .into_iter()
                .map(async |(placement, payload, held)| {
                    (placement, held.clone(), self.settle(placement, payload, held).await)
                })
                .collect();
            while let Some(one) = running.next().await {
                settled.push(one);
            }
        }
        self.refused.retain(|placement, _| wanted.contains_key(placement));
        let mut lost = None;
        for (placement, before, outcome) in settled {
            match outcome {
                Ok((held, former)) => {
                    let former = before.map(|b| b.path).into_iter().chain(former);
                    self.removals.former.extend(former);
                    self.removals.former.remove(&held.path);
                    self.uncertain.remove(placement);
                    self.refused.remove(placement);
                    self.held.insert(placement.clone(), held);
                }
                Err(Trouble::Failed(error)) if is_lost(&error.fault) => lost = Some(error),
                Err(trouble) => {
                    if !matches!(&trouble, Trouble::Failed(error) if error.fault.is_uncertain()) {
                        self.uncertain.remove(placement);
                    }
                    self.held.remove(placement);
                    self.refuse(placement, trouble);
                }
            }
        }
        match lost {
            Some(error) => Err(error),
            None => self.remove(wanted).await,
        }
    }

    fn refuse(&mut self, placement: &Placement, trouble: Trouble) {
        let why = match trouble {
            Trouble::Failed(error) => Chain(&error).to_string(),
            Trouble::Taken(path) => format!("{path} belongs to another session"),
        };
        if self.refused.insert(placement.clone(), why.clone()).is_none_or(|before| before != why) {
            warn!(service = %placement.service, reason = %why, "Not published in ZooKeeper.");
        }
    }

    /// Sees to one registration; gives its node, and those that it replaces.
    async fn settle(
        &self,
        placement: &Placement,
        payload: &Payload,
        held: Option<Held>,
    ) -> Result<(Held, Vec<ZkPath>), Trouble> {
        let Some(to) = target(placement) else { return Err(Trouble::Taken(ZkPath::root())) }; // never: it is not ours
        let name = name(placement, payload);
        let (mut at, mut former) = (held.filter(|held| is_named(&held.path, &name, to.kind)), Vec::new());
        if at.is_none() && (self.uncertain.contains_key(placement) || to.kind == NodeKind::PersistentSequential) {
            former = self.find(placement, payload).await?;
            at = former.iter().find(|path| is_named(path, &name, to.kind)).map(|path| self.now(path.clone(), payload));
        }
        if let Some(held) = at
            && let Some(held) = self.keep(to, payload, held).await?
        {
            return Ok((held, former));
        }
        let path = to.path.child(&name).ok_or_else(|| Trouble::Taken(to.path.clone()))?;
        let began = Instant::now();
        let made = match self.zk.create(&path, payload.as_bytes(), to.kind).await {
            Err(ZkError { fault: ZkFault::NoNode, .. }) => {
                self.zk.create_all(&to.path).await?;
                self.zk.create(&path, payload.as_bytes(), to.kind).await
            }
            other => other,
        };
        let made = match made {
            Err(ZkError { fault: ZkFault::NodeExists, .. }) => {
                return Ok((self.take_over(to, payload, path).await?, former));
            }
            made => made?,
        };
        let tags = [("zk_cluster", self.cluster.as_str())];
        self.statsd.time("nerve.reporter.zk.create.elapsed_time", began.elapsed(), &tags);
        self.statsd.gauge("nerve.reporter.zk.child.bytes", name.len() as u64, &tags);
        info!(service = %placement.service, node = %made, "Published in ZooKeeper.");
        let held = self.now(made, payload);
        match self.zk.exists(&held.path, true).await? {
            Some(_) => Ok((held, former)),
            None => Err(Trouble::Taken(held.path)),
        }
    }

    fn now(&self, path: ZkPath, payload: &Payload) -> Held {
        Held { path, payload: payload.clone(), epoch: self.epoch, written: Instant::now() }
    }

    /// Reads a node of ours, and writes it where it says something else or is to be renewed; `None` where it is gone.
    async fn keep(&self, to: &Target, payload: &Payload, held: Held) -> Result<Option<Held>, ZkError> {
        let Some((data, _)) = self.zk.data(&held.path, true).await? else { return Ok(None) };
        let renews = to.ttl.is_some_and(|ttl| held.written.elapsed() >= ttl);
        if data == payload.as_bytes() && !renews {
            return Ok(Some(Held { payload: payload.clone(), epoch: self.epoch, ..held }));
        }
        let began = Instant::now();
        match self.zk.set(&held.path, payload.as_bytes()).await {
            Err(ZkError { fault: ZkFault::NoNode, .. }) => return Ok(None),
            set => drop(set?),
        }
        let tags = [("zk_cluster", self.cluster.as_str())];
        match renews {
            true => self.statsd.increment("nerve.reporter.zk.ttl.renew", &[tags[0], ("result", "success")]),
            false => self.statsd.time("nerve.reporter.zk.save.elapsed_time", began.elapsed(), &tags),
        }
        // Our own write has used the watch up.
        Ok(self.zk.exists(&held.path, true).await?.map(|_| self.now(held.path, payload)))
    }

    /// The node is there already: a persistent one is written anew, one of a session that will end is made anew.
    async fn take_over(&self, to: &Target, payload: &Payload, path: ZkPath) -> Result<Held, Trouble> {
        let owner = self.zk.exists(&path, true).await?.map_or(self.session, |stat| stat.owner);
        let ours = if to.kind.is_ephemeral() { self.session } else { 0 };
        if owner != ours && self.taken_over.contains(&path) {
            return Err(Trouble::Taken(path));
        }
        if owner != ours {
            self.zk.delete(&path).await?;
        }
        if owner != ours || self.zk.exists(&path, true).await?.is_none() {
            self.zk.create(&path, payload.as_bytes(), to.kind).await?;
        }
        let held = self.now(path.clone(), payload);
        self.keep(to, payload, held).await?.ok_or(Trouble::Taken(path))
    }

    /// Has one mailbox for all nodes.
    fn subscribe(&mut self, wanted: &Wanted) {
        let parents: BTreeSet<&ZkPath> = wanted.keys().filter_map(target).map(|t| &t.path).collect();
        let parents: Vec<ZkPath> = parents.into_iter().cloned().collect();
        if self.mailbox.as_ref().is_none_or(|(known, _)| *known != parents) {
            let mailbox = self.zk.mailbox(&parents.iter().collect::<Vec<_>>());
            self.mailbox = Some((parents, mailbox));
            // What was told to the old one is not known here.
            self.held.values_mut().for_each(|held| held.epoch = 0);
        }
    }

    /// Waits until something has happened to one of our nodes.
    pub(super) async fn news(&self) {
        match &self.mailbox {
            Some((_, mailbox)) => mailbox.changed().await,
            None => std::future::pending().await,
        }
    }

    /// When the next node is to be written again.
    pub(super) fn next_renewal(&self) -> Option<Instant> {
        self.held.iter().filter_map(|(placement, held)| Some(held.written + target(placement)?.ttl?)).min()
    }

    /// Whether something is to be tried again.
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty() || self.removals.is_stuck()
    }

    /// Whether there has been no session.
    pub(super) fn is_unused(&self) -> bool {
        self.session == 0
    }

    /// How things are.
    pub(super) fn standing(&self, away: Option<(String, Instant)>) -> Standing {
        Standing {
            published: self.held.iter().map(|(placement, held)| (placement.clone(), held.payload.clone())).collect(),
            absent: self.removals.absent.clone(),
            refused: self.refused.clone(),
            session: (self.session != 0).then(|| format!("{:#x}", self.session)),
            away,
        }
    }
}

/// The connection is at fault, not the registration.
pub(super) fn is_lost(fault: &ZkFault) -> bool {
    fault.is_uncertain() || matches!(fault, ZkFault::NotConnected(_) | ZkFault::Expired)
}
