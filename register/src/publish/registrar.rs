//! `/registrars/<node>`: which agent answers for a host, and on which lease.
//!
//! The key changes only by compare-and-swap. An agent that finds its machine's own key adopts the lease
//! behind it; one that finds its token replaced leaves a mark and stands down; one that finds such a mark waits until the
//! other agent renews its lease no more; one that finds another machine's key does not start.

use std::time::{Duration, SystemTime};

use model::Prefix;
use registry::store::{Compare, Entry, KeepAlive, Key, LeaseId, Op, Position, Store, StoreError};
use tokio::time::sleep;
use tracing::{info, warn};

use super::claim::{Claim, ClaimError};
use super::identity::{Identity, Record};
use super::keys::is_numbered;
use super::rival::Rival;

/// How long to wait before looking again at a key that somebody else is just changing.
const CONTENDED: Duration = Duration::from_millis(100);

/// Claims and guards the key of one node.
#[derive(Debug)]
pub struct Registrar<S> {
    pub(super) store: S,
    pub(super) me: Identity,
    prefix: Prefix,
    pub(super) key: Key,
    /// The key of an older version of this agent, if that is another one.
    older: Option<Key>,
    ttl: Duration,
    /// Whether the key was ours before: then another token in it is a successor, not a predecessor.
    held: bool,
    /// The lease of our last claim, until it is known to be gone: the key of an agent whose lease lives was deleted or
    /// changed by hand.
    lease: Option<LeaseId>,
    /// Who is waited for.
    rival: Option<Rival>,
}

impl<S: Store> Registrar<S> {
    /// For the agent `me`, which writes under `prefix` with leases of `ttl`.
    pub fn new(store: S, me: Identity, prefix: Prefix, ttl: Duration) -> Self {
        let key = prefix.registrar(&me.node).into();
        let older = prefix.older_registrar(&me.node).map(Key::from);
        Self { store, me, prefix, key, older, ttl, held: false, lease: None, rival: None }
    }

    /// Whether this agent ever held its claim.
    pub fn held(&self) -> bool {
        self.held
    }

    /// Takes the key: with the lease found there, or with a new one.
    ///
    /// # Errors
    /// [`ClaimError::Store`] and [`ClaimError::Contested`] may be tried again; the others are final.
    pub async fn claim(&mut self) -> Result<Claim, ClaimError> {
        loop {
            let tried = self.attempt().await;
            match tried {
                Ok(Some(claim)) => {
                    (self.held, self.lease, self.rival) = (true, Some(claim.lease), None);
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
            let absent = Compare::Absent(self.key.clone());
            return match self.older_self().await? {
                Some((entry, lease, record)) => {
                    let unchanged = Compare::ModifiedAt(entry.key, entry.modified);
                    self.adopt(lease, vec![absent, unchanged], Some(record)).await
                }
                None => self.again(absent).await,
            };
        };
        let unchanged = Compare::ModifiedAt(self.key.clone(), entry.modified);
        let Some(lease) = entry.lease else {
            warn!(key = %self.key, "The registrar key has no lease, so nobody keeps it; replacing it.");
            return self.again(unchanged).await;
        };
        let record = Record::read(&entry.value);
        let ours = record.as_ref().is_some_and(|r| r.machine_id == self.me.machine);
        if !ours {
            return Err(self.taken(record));
        }
        let record = record.filter(|r| r.token != self.me.token);
        // One that began before this agent is none that took over: an older snapshot of the registry was restored.
        let is_newer = |other: &&Record| other.started >= self.me.began();
        if let Some(other) = record.as_ref().filter(|_| self.held).filter(is_newer) {
            return Err(ClaimError::Replaced { key: self.key.to_string(), started: other.started.clone() });
        }
        let Some(former) = record else { return self.adopt(lease, Vec::new(), None).await };
        if !self.held && (self.rival.is_some() || former.is_contested(SystemTime::now())) {
            self.look_at(&former, lease).await?;
        }
        if former.prefix != self.prefix.as_str() {
            // The keys under that prefix are not ours to keep alive any more; they go with their lease.
            return self.fresh(unchanged, former.contested).await;
        }
        self.adopt(lease, vec![unchanged], Some(former)).await
    }

    /// The key of an older version of this agent, of this machine and this prefix, where its lease may live.
    async fn older_self(&self) -> Result<Option<(Entry, LeaseId, Record)>, ClaimError> {
        let Some(older) = self.older.as_ref().filter(|_| !self.held) else { return Ok(None) };
        let entry = match self.store.get(older).await {
            Ok(entry) => entry,
            // Its role is for its own key alone.
            Err(e) if e.is_fatal() => None,
            Err(e) => return Err(self.failed(e)),
        };
        let ours = |r: &Record| r.machine_id == self.me.machine && r.prefix == self.prefix.as_str();
        Ok(entry.and_then(|entry| {
            let record = Record::read(&entry.value).filter(ours)?;
            let lease = entry.lease?;
            Some((entry, lease, record))
        }))
    }

    /// Goes on where the agent of `record` is gone: else it is waited for.
    async fn look_at(&mut self, record: &Record, lease: LeaseId) -> Result<(), ClaimError> {
        let left = self.store.time_to_live(lease).await.map_err(|e| self.failed(e))?.unwrap_or_default();
        let rival = Rival::seen(self.rival.take(), &record.token, left);
        let is_gone = rival.is_gone(left);
        self.rival = Some(rival);
        match is_gone {
            true => Ok(()),
            false => Err(ClaimError::Contested { key: self.key.to_string(), started: record.started.clone() }),
        }
    }

    /// Our own lease if it lives yet, or else a new one.
    async fn again(&mut self, when: Compare) -> Result<Option<Claim>, ClaimError> {
        let Some(lease) = self.lease else { return self.fresh(when, None).await };
        match self.store.keep_alive(lease).await {
            Ok(_) => self.adopt(lease, vec![when], None).await,
            Err(e) if e.is_lease_lost() => {
                self.lease = None;
                self.fresh(when, None).await
            }
            Err(e) => Err(self.failed(e)),
        }
    }

    /// A new lease, and the key under it if `when` holds.
    async fn fresh(&self, when: Compare, contested: Option<String>) -> Result<Option<Claim>, ClaimError> {
        let lease = self.store.grant(self.ttl).await.map_err(|e| self.failed(e))?;
        match self.swap(vec![when], lease.id, contested).await? {
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

    /// The lease that `former` left, or our own that we lost sight of; the key is written where `when` has a condition for it.
    /// `None` where the lease is gone, or the key was changed meanwhile.
    async fn adopt(
        &self,
        lease: LeaseId,
        when: Vec<Compare>,
        former: Option<Record>,
    ) -> Result<Option<Claim>, ClaimError> {
        let beat = async { self.store.keep_alive(lease).await?.beat().await };
        let ttl = match beat.await {
            Ok(ttl) => ttl,
            Err(e) if e.is_lease_lost() => return Ok(None),
            Err(e) => return Err(self.failed(e)),
        };
        let contested = former.as_ref().and_then(|former| former.contested.clone());
        if !when.is_empty() && self.swap(when, lease, contested).await?.is_none() {
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

    /// Writes our record under `lease` to each key that `when` has a condition for, if all of them hold.
    async fn swap(
        &self,
        when: Vec<Compare>,
        lease: LeaseId,
        contested: Option<String>,
    ) -> Result<Option<Position>, ClaimError> {
        let json = Record::new(&self.me, &self.prefix, lease, contested).json();
        let ops = when.iter().map(|when| Op::put(when.key().clone(), json.clone(), Some(lease))).collect();
        match self.store.txn(when, ops).await {
            Ok(outcome) => Ok(outcome.succeeded.then_some(outcome.at)),
            Err(e) if e.is_lease_lost() => Ok(None),
            Err(e) => Err(self.failed(e)),
        }
    }

    pub(super) fn is_mine(&self, entry: &Entry) -> bool {
        Record::read(&entry.value).is_some_and(|r| r.token == self.me.token)
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
