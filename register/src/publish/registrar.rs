//! `/registrars/<node>`: which agent answers for a host, and on which lease.
//!
//! The key changes only by compare-and-swap. An agent that finds its machine's own key adopts the lease
//! behind it; one that finds its token replaced stands down; one that finds another machine's key does not start.

use std::time::{Duration, SystemTime};

use super::keys::is_numbered;
use model::{NodeName, Prefix};
use registry::store::{
    Change, Compare, Entry, Fault, KeepAlive, Key, LeaseId, Op, Operation, Position, Revision, Store, StoreError,
    WatchStream,
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::{info, warn};

/// How long to wait before looking again at a key that somebody else is just changing.
const CONTENDED: Duration = Duration::from_millis(100);

/// Who this agent is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The host that it answers for.
    pub node: NodeName,
    /// What tells this host from another one of the same name: Docker's engine ID, else the host's machine-id.
    pub machine: String,
    /// Tells this run of the agent from any other.
    pub token: String,
    /// When it started.
    pub started: SystemTime,
}

impl Identity {
    /// An identity with a fresh token.
    pub fn new(node: NodeName, machine: String) -> Self {
        let token = format!("{:032x}", rand::random::<u128>());
        Self { node, machine, token, started: SystemTime::now() }
    }
}

/// The value of the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    machine_id: String,
    token: String,
    /// As etcdctl shows it.
    lease: String,
    version: String,
    started: String,
    prefix: String,
}

/// When an agent began, as its record says it: such texts compare as times.
fn started(of: &Identity) -> String {
    humantime::format_rfc3339_seconds(of.started).to_string()
}

/// Why an agent may not answer for its host.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another machine bears this name.
    #[error(
        "node name {node:?} belongs to another machine ({machine}, agent started {started}): \
         {key} in the registry; give each host its own NODE_NAME"
    )]
    Taken {
        /// The node name.
        node: String,
        /// The key that says so.
        key: String,
        /// The other's machine id.
        machine: String,
        /// Since when the other agent runs.
        started: String,
    },
    /// A newer agent of this machine took over.
    #[error("another agent of this machine took over {key} (started {started}); standing down without revoking")]
    Replaced {
        /// The key.
        key: String,
        /// When the other agent started.
        started: String,
    },
    /// The store did not answer.
    #[error("claiming {key}")]
    Store {
        /// The key.
        key: String,
        /// The store's error.
        source: StoreError,
    },
}

/// The right to write, and what goes with it.
#[derive(Debug)]
pub struct Claim {
    /// The registrar's key.
    pub key: Key,
    /// The lease under which everything is written.
    pub lease: LeaseId,
    /// How long it lives after each beat.
    pub ttl: Duration,
    /// What already hangs on that lease: the former self's keys.
    pub entries: Vec<Entry>,
    /// Where a watch on the registrar's key begins.
    pub at: Position,
}

/// What ends a claim.
#[derive(Debug)]
pub enum End {
    /// The lease is gone, or nothing is certain any more: claim again.
    Lost(&'static str),
    /// A hand was at the registrar's key: claim again, under the same lease if that lives.
    Touched(&'static str),
    /// Another agent has it now.
    Replaced(ClaimError),
}

/// Claims and guards the key of one node.
#[derive(Debug)]
pub struct Registrar<S> {
    store: S,
    me: Identity,
    prefix: Prefix,
    key: Key,
    ttl: Duration,
    /// Whether the key was ours before: then another token in it is a successor, not a predecessor.
    held: bool,
    /// The lease of our last claim, until it is known to be gone: the key of an agent whose lease lives was deleted or
    /// changed by hand.
    lease: Option<LeaseId>,
}

impl<S: Store> Registrar<S> {
    /// For the agent `me`, which writes under `prefix` with leases of `ttl`.
    pub fn new(store: S, me: Identity, prefix: Prefix, ttl: Duration) -> Self {
        let key = prefix.registrar(&me.node).into();
        Self { store, me, prefix, key, ttl, held: false, lease: None }
    }

    /// Whether this agent ever held its claim.
    pub fn held(&self) -> bool {
        self.held
    }

    /// Takes the key: with the lease found there, or with a new one.
    ///
    /// # Errors
    /// [`ClaimError::Store`] may be tried again; the others are final.
    pub async fn claim(&mut self) -> Result<Claim, ClaimError> {
        loop {
            let tried = self.attempt().await;
            match tried {
                Ok(Some(claim)) => {
                    (self.held, self.lease) = (true, Some(claim.lease));
                    return Ok(claim);
                }
                Ok(None) => sleep(CONTENDED).await,
                Err(e) => return Err(e),
            }
        }
    }

    /// `None` where somebody changed the key meanwhile.
    async fn attempt(&mut self) -> Result<Option<Claim>, ClaimError> {
        let Some(entry) = self.store.get(&self.key).await.map_err(|e| self.failed(e))? else {
            return self.again(Compare::Absent(self.key.clone())).await;
        };
        let unchanged = Compare::ModifiedAt(self.key.clone(), entry.modified);
        let Some(lease) = entry.lease else {
            warn!(key = %self.key, "The registrar key has no lease, so nobody keeps it; replacing it.");
            return self.again(unchanged).await;
        };
        let record = self.read(&entry);
        let ours = record.as_ref().is_some_and(|r| r.machine_id == self.me.machine);
        if !ours {
            return Err(self.taken(record));
        }
        let record = record.filter(|r| r.token != self.me.token);
        // One that began before this agent is none that took over: an older snapshot of the registry was restored.
        let is_newer = |other: &&Record| other.started >= started(&self.me);
        if let Some(other) = record.as_ref().filter(|_| self.held).filter(is_newer) {
            return Err(ClaimError::Replaced { key: self.key.to_string(), started: other.started.clone() });
        }
        if record.as_ref().is_some_and(|r| r.prefix != self.prefix.as_str()) {
            // The keys under that prefix are not ours to keep alive any more; they go with their lease.
            return self.fresh(unchanged).await;
        }
        self.adopt(lease, record.is_some().then_some(unchanged), record).await
    }

    /// Our own lease if it lives yet, or else a new one.
    async fn again(&mut self, when: Compare) -> Result<Option<Claim>, ClaimError> {
        let Some(lease) = self.lease else { return self.fresh(when).await };
        match self.store.keep_alive(lease).await {
            Ok(_) => self.adopt(lease, Some(when), None).await,
            Err(e) if e.is_lease_lost() => {
                self.lease = None;
                self.fresh(when).await
            }
            Err(e) => Err(self.failed(e)),
        }
    }

    /// A new lease, and the key under it if `when` holds.
    async fn fresh(&self, when: Compare) -> Result<Option<Claim>, ClaimError> {
        let lease = self.store.grant(self.ttl).await.map_err(|e| self.failed(e))?;
        match self.swap(when, lease.id).await? {
            Some(at) => {
                info!(lease = %lease.id, ttl_s = lease.ttl.as_secs(), key = %self.key, "Lease granted.");
                Ok(Some(Claim { key: self.key.clone(), lease: lease.id, ttl: lease.ttl, entries: Vec::new(), at }))
            }
            None => {
                self.store.revoke(lease.id).await.map_err(|e| self.failed(e))?;
                Ok(None)
            }
        }
    }

    /// The lease that `former` left, or our own that we lost sight of; the key is written if `when` says so. `None` where the
    /// lease is gone, or the key was changed meanwhile.
    async fn adopt(
        &self,
        lease: LeaseId,
        when: Option<Compare>,
        former: Option<Record>,
    ) -> Result<Option<Claim>, ClaimError> {
        let beat = async { self.store.keep_alive(lease).await?.beat().await };
        let ttl = match beat.await {
            Ok(ttl) => ttl,
            Err(e) if e.is_lease_lost() => return Ok(None),
            Err(e) => return Err(self.failed(e)),
        };
        if let Some(when) = when
            && self.swap(when, lease).await?.is_none()
        {
            return Ok(None);
        }
        let listing = self.store.list(&self.prefix.backends()).await.map_err(|e| self.failed(e))?;
        let mut entries: Vec<_> = listing.entries.into_iter().filter(|e| e.lease == Some(lease)).collect();
        entries.extend(self.elsewhere(lease).await?);
        if let Some(former) = former {
            info!(%lease, keys = entries.len(), former_started = %former.started, "Adopted the former agent's lease.");
        }
        // The registrar's key may change between the swap and the listing: look once more, then watch from there.
        match self.store.get(&self.key).await.map_err(|e| self.failed(e))? {
            Some(entry) if self.is_mine(&entry) => {
                Ok(Some(Claim { key: self.key.clone(), lease, ttl, entries, at: listing.at }))
            }
            _ => Ok(None),
        }
    }

    /// The keys of services without Docker lie where the config wants them, and the former self's config may have been
    /// another one: the lease knows all of them.
    async fn elsewhere(&self, lease: LeaseId) -> Result<Vec<Entry>, ClaimError> {
        let backends = self.prefix.backends();
        let keys = match self.store.lease_keys(lease).await {
            Ok(keys) => keys,
            // Who may not read a key may not ask for the lease's keys either; his own role wrote none elsewhere.
            Err(e) if e.is_fatal() => return Ok(Vec::new()),
            Err(e) => return Err(self.failed(e)),
        };
        let mut entries = Vec::new();
        for key in keys.into_iter().filter(|key| is_numbered(key) && !key.starts_with(&backends)) {
            let entry = self.store.get(&key).await.map_err(|e| self.failed(e))?;
            entries.extend(entry.filter(|e| e.lease == Some(lease)));
        }
        Ok(entries)
    }

    /// Writes our record under `lease` if `when` holds.
    async fn swap(&self, when: Compare, lease: LeaseId) -> Result<Option<Position>, ClaimError> {
        let record = Record {
            machine_id: self.me.machine.clone(),
            token: self.me.token.clone(),
            lease: lease.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: started(&self.me),
            prefix: self.prefix.to_string(),
        };
        let json = serde_json::to_vec(&record).unwrap_or_default(); // strings only: cannot fail
        match self.store.txn(vec![when], vec![Op::put(self.key.clone(), json, Some(lease))]).await {
            Ok(outcome) => Ok(outcome.succeeded.then_some(outcome.at)),
            Err(e) if e.is_lease_lost() => Ok(None),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Watches the key from `at` on; returns when it is no longer ours. `away` hears of each fault of the store and
    /// says how long to wait.
    pub async fn guard(
        &self,
        mut at: Position,
        newest: impl Fn() -> Revision,
        mut away: impl FnMut(&StoreError) -> Duration,
    ) -> End {
        loop {
            let fault = match self.watch(at, newest()).await {
                Ok(mut stream) => loop {
                    match stream.next().await {
                        Ok(batch) => {
                            if let Some(end) = batch.changes.iter().find_map(|change| self.judge(change)) {
                                return end;
                            }
                            at = batch.at;
                        }
                        Err(e) => break e,
                    }
                },
                Err(e) => e,
            };
            if fault.needs_list() {
                warn!(error = %agent::telemetry::Chain(&fault), "The registry's past changed; claiming again.");
                return End::Lost("the registry's past changed");
            }
            sleep(away(&fault)).await;
        }
    }

    /// Watches the key after `at`. That may lie far back, as the key seldom changes: a store that was set back to a
    /// snapshot from between is found out by our `newest` write, which it has lost.
    async fn watch(&self, at: Position, newest: Revision) -> Result<S::Watch, StoreError> {
        let now = self.store.position(&self.key).await?.revision;
        if now < newest {
            let fault = Fault::Rewound { seen: newest, now };
            return Err(StoreError::new(Operation::Watch, &*self.key, fault));
        }
        self.store.watch(&self.key, at).await
    }

    fn judge(&self, change: &Change) -> Option<End> {
        match change {
            // No agent writes such a value, or none without a lease.
            Change::Put(entry) if entry.key == self.key && (entry.lease.is_none() || self.read(entry).is_none()) => {
                Some(End::Touched("the registrar key was changed by hand"))
            }
            Change::Put(entry) if entry.key == self.key && !self.is_mine(entry) => {
                let started = self.read(entry).map_or_else(|| "at an unknown time".to_owned(), |r| r.started);
                Some(End::Replaced(ClaimError::Replaced { key: self.key.to_string(), started }))
            }
            Change::Delete { key, .. } if *key == self.key => Some(End::Touched("the registrar key was deleted")),
            _ => None,
        }
    }

    fn read(&self, entry: &Entry) -> Option<Record> {
        serde_json::from_slice(&entry.value).ok()
    }

    fn is_mine(&self, entry: &Entry) -> bool {
        self.read(entry).is_some_and(|r| r.token == self.me.token)
    }

    fn taken(&self, record: Option<Record>) -> ClaimError {
        let (machine, started) = record.map_or(("unreadable value".to_owned(), "unknown".to_owned()), |r| {
            (format!("machine id {:?}", r.machine_id), r.started)
        });
        ClaimError::Taken { node: self.me.node.to_string(), key: self.key.to_string(), machine, started }
    }

    fn failed(&self, source: StoreError) -> ClaimError {
        ClaimError::Store { key: self.key.to_string(), source }
    }
}
