//! The keys, leases and history of the fake. Pure; the time is given.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use registry::store::{Change, Compare, Entry, Fault, Key, LeaseId, Listing, MAX_TXN_OPS, Op, Position, Revision};

/// Everything that the fake remembers, as one may take it aside to [`super::FakeStore::restore`] it later.
#[derive(Clone, Debug)]
pub struct Snapshot {
    revision: Revision,
    keys: BTreeMap<Key, Entry>,
    leases: BTreeMap<LeaseId, FakeLease>,
}

#[derive(Clone, Debug)]
struct FakeLease {
    ttl: Duration,
    ends: Instant,
}

#[derive(Debug)]
pub(super) struct Data {
    cluster: u64,
    /// How often the store was restored: a stream from before must not go on.
    pub(super) epoch: u64,
    now: Snapshot,
    /// Every change after `compacted`.
    history: BTreeMap<Revision, Vec<Change>>,
    /// The state at `compacted`, for reads of old revisions.
    base: BTreeMap<Key, Entry>,
    compacted: Revision,
    last_lease: i64,
    /// Takes no writes, for want of room.
    pub(super) full: bool,
    /// Most operations or conditions in one transaction.
    pub(super) most_ops: usize,
}

impl Data {
    pub(super) fn new() -> Self {
        let now = Snapshot { revision: Revision(1), keys: BTreeMap::new(), leases: BTreeMap::new() };
        Self {
            cluster: 0xfa4e,
            epoch: 0,
            now,
            history: BTreeMap::new(),
            base: BTreeMap::new(),
            compacted: Revision(1),
            last_lease: 0x1000,
            full: false,
            most_ops: MAX_TXN_OPS,
        }
    }

    pub(super) fn position(&self) -> Position {
        Position { cluster: self.cluster, revision: self.now.revision }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.now.keys.get(key)
    }

    pub(super) fn list(&self, prefix: &str) -> Listing {
        listing(&self.now.keys, prefix, self.position())
    }

    pub(super) fn list_at(&self, prefix: &str, revision: Revision) -> Result<Listing, Fault> {
        if revision < self.compacted {
            return Err(Fault::Compacted { at: self.compacted });
        }
        if revision > self.now.revision {
            return Err(Fault::Rewound { seen: revision, now: self.now.revision });
        }
        let mut keys = self.base.clone();
        for change in self.history.range(..=revision).flat_map(|(_, changes)| changes) {
            replay(&mut keys, change);
        }
        Ok(listing(&keys, prefix, Position { cluster: self.cluster, revision }))
    }

    /// The changes under `prefix` after `after`, and the position up to which they are complete.
    pub(super) fn changes(&self, prefix: &str, after: Position) -> Result<(Vec<Change>, Position), Fault> {
        if after.cluster != self.cluster {
            return Err(Fault::ClusterChanged { seen: after, now: self.position() });
        }
        if after.revision > self.now.revision {
            return Err(Fault::Rewound { seen: after.revision, now: self.now.revision });
        }
        // The compacted revision itself must be known: etcd forgets the deletions in it (see `etcd::watch`).
        if after.revision < self.compacted {
            return Err(Fault::Compacted { at: self.compacted });
        }
        let next = Revision(after.revision.0 + 1)..;
        let of_prefix = |change: &&Change| change.key().starts_with(prefix);
        Ok((self.history.range(next).flat_map(|(_, c)| c).filter(of_prefix).cloned().collect(), self.position()))
    }

    pub(super) fn room(&self) -> Result<(), Fault> {
        let why = || "etcdserver: mvcc: database space exceeded".to_owned();
        if self.full { Err(Fault::NoSpace { endpoint: "fake".into(), why: why() }) } else { Ok(()) }
    }

    pub(super) fn room_for(&self, ops: &[Op]) -> Result<(), Fault> {
        if ops.iter().any(|op| matches!(op, Op::Put { .. })) { self.room() } else { Ok(()) }
    }

    pub(super) fn txn(&mut self, when: &[Compare], ops: Vec<Op>) -> Result<bool, Fault> {
        let refused = |why: String| Fault::Refused { endpoint: "fake".into(), why };
        if ops.len().max(when.len()) > self.most_ops {
            return Err(refused(format!("too many operations in txn request: {}", ops.len())));
        }
        if let Some(key) = ops.iter().enumerate().find_map(|(n, op)| ops[..n].iter().find(|o| o.key() == op.key())) {
            return Err(refused(format!("duplicate key {:?} in one transaction", key.key())));
        }
        if !when.iter().all(|compare| self.holds(compare)) {
            return Ok(false);
        }
        let lost = |op: &Op| match op {
            Op::Put { lease: Some(id), .. } if !self.now.leases.contains_key(id) => Some(*id),
            _ => None,
        };
        if let Some(id) = ops.iter().find_map(lost) {
            return Err(Fault::LeaseLost(id));
        }
        let revision = Revision(self.now.revision.0 + 1);
        let change = |op| match op {
            Op::Put { key, value, lease } => {
                let created = self.now.keys.get(&key).map_or(revision, |old| old.created);
                Some(Change::Put(Entry { key, value, lease, created, modified: revision }))
            }
            Op::Delete { key } => self.now.keys.contains_key(&key).then_some(Change::Delete { key, revision }),
        };
        let changes = ops.into_iter().filter_map(change).collect();
        self.commit(revision, changes);
        Ok(true)
    }

    /// The keys of conditions that did not all hold, without their values.
    pub(super) fn found(&self, when: &[Compare]) -> Vec<Entry> {
        let keys: std::collections::BTreeSet<&Key> = when.iter().map(Compare::key).collect();
        let bare = |entry: &Entry| Entry { value: Vec::new().into(), ..entry.clone() };
        keys.into_iter().filter_map(|key| self.get(key).map(bare)).collect()
    }

    fn holds(&self, compare: &Compare) -> bool {
        let entry = self.get(compare.key());
        match compare {
            Compare::Absent(_) => entry.is_none(),
            Compare::ModifiedAt(_, revision) => entry.is_some_and(|e| e.modified == *revision),
            Compare::LeaseIs(_, lease) => entry.is_some_and(|e| e.lease == Some(*lease)),
        }
    }

    fn commit(&mut self, revision: Revision, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            replay(&mut self.now.keys, change);
        }
        self.now.revision = revision;
        self.history.insert(revision, changes);
    }

    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        self.last_lease += 1;
        let id = LeaseId(self.last_lease);
        self.now.leases.insert(id, FakeLease { ttl, ends: now + ttl });
        id
    }

    pub(super) fn renew(&mut self, id: LeaseId, now: Instant) -> Option<Duration> {
        let lease = self.now.leases.get_mut(&id)?;
        lease.ends = now + lease.ttl;
        Some(lease.ttl)
    }

    pub(super) fn remaining(&self, id: LeaseId, now: Instant) -> Option<Duration> {
        self.now.leases.get(&id).map(|lease| lease.ends.saturating_duration_since(now))
    }

    pub(super) fn lease_ids(&self) -> Vec<LeaseId> {
        self.now.leases.keys().copied().collect()
    }

    /// Ends a lease: its keys go at one revision.
    pub(super) fn revoke(&mut self, id: LeaseId) -> bool {
        let known = self.now.leases.remove(&id).is_some();
        let revision = Revision(self.now.revision.0 + 1);
        let gone = self.now.keys.values().filter(|entry| entry.lease == Some(id));
        let changes = gone.map(|entry| Change::Delete { key: entry.key.clone(), revision }).collect();
        self.commit(revision, changes);
        known
    }

    /// Ends what has outlived its time, in that order; tells whether anything did.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut ended = false;
        while let Some((_, id)) = self.now.leases.iter().map(|(id, l)| (l.ends, *id)).min().filter(|(e, _)| *e <= now) {
            ended |= self.revoke(id);
        }
        ended
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.now.leases.values().map(|lease| lease.ends).min()
    }

    pub(super) fn compact(&mut self, at: Revision) {
        let at = at.min(self.now.revision).max(self.compacted);
        let kept = self.history.split_off(&Revision(at.0 + 1));
        for change in std::mem::replace(&mut self.history, kept).values().flatten() {
            replay(&mut self.base, change);
        }
        self.compacted = at;
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.now.clone()
    }

    pub(super) fn restore(&mut self, snapshot: Snapshot, other_cluster: bool, now: Instant) {
        self.now = snapshot;
        // Source: etcd renews every lease when a leader is elected.
        for lease in self.now.leases.values_mut() {
            lease.ends = now + lease.ttl;
        }
        self.history.clear();
        self.base = self.now.keys.clone();
        self.compacted = self.now.revision;
        self.epoch += 1;
        self.cluster += u64::from(other_cluster);
    }
}

fn replay(keys: &mut BTreeMap<Key, Entry>, change: &Change) {
    match change {
        Change::Put(entry) => drop(keys.insert(entry.key.clone(), entry.clone())),
        Change::Delete { key, .. } => drop(keys.remove(key)),
    }
}

fn listing(keys: &BTreeMap<Key, Entry>, prefix: &str, at: Position) -> Listing {
    let mut entries: Vec<_> = keys.values().filter(|entry| entry.key.starts_with(prefix)).cloned().collect();
    entries.sort_by_key(|entry| entry.created); // stable: the map's order by key decides the rest
    Listing { entries, at }
}
