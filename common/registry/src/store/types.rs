//! What the registry holds and what may be asked of it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of keys and values that [`chunks`] packs into one transaction; a single larger operation still goes out alone,
/// for the store to judge.
///
/// Source: etcd's default `--max-request-bytes` is 1.5 MiB; the rest is room for framing.
pub const MAX_TXN_BYTES: usize = 1024 * 1024;

/// A key. Ours are text; a foreign one that is not UTF-8 is shown with replacement characters.
pub type Key = Arc<str>;

/// A value: any bytes.
pub type Value = Arc<[u8]>;

/// A version of the whole store; each transaction that changes something makes the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease's number; never 0, which stands for "no lease" in etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    /// Sixteen hexadecimal digits, as etcdctl shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A revision, and the cluster that counts it: revisions of two clusters do not compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// The cluster's id.
    pub cluster: u64,
    /// Everything up to and including this revision is known.
    pub revision: Revision,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{:x}", self.revision, self.cluster)
    }
}

/// One key with all that the store knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Key,
    pub value: Value,
    /// The lease with which the key goes, if any.
    pub lease: Option<LeaseId>,
    /// When the key came to be (again).
    pub created: Revision,
    /// When it was last written.
    pub modified: Revision,
}

/// All keys under a prefix, as they were at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// By creation revision, then key.
    pub entries: Vec<Entry>,
    /// The revision of the listing: a watch that follows it begins here.
    pub at: Position,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was written; [`Entry::created`] tells whether it is new.
    Put(Entry),
    /// The key was deleted, or its lease ended.
    Delete {
        key: Key,
        /// The revision of the deletion: what went with it carries the same.
        revision: Revision,
    },
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision at which it changed.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(entry) => entry.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }
}

/// What one message of a watch brought: all changes of one or more whole revisions. Without changes it only says
/// that the stream is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order of their revisions.
    pub changes: Vec<Change>,
    /// Where a watch that resumes after this message begins.
    pub at: Position,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a key.
    Put {
        key: Key,
        value: Value,
        /// The lease with which it goes; `None` detaches it from one that it had.
        lease: Option<LeaseId>,
    },
    /// Deletes a key; one that does not exist is no error, and makes no revision.
    Delete { key: Key },
}

impl Op {
    /// A write of `value` under `key`.
    pub fn put(key: impl Into<Key>, value: impl Into<Value>, lease: Option<LeaseId>) -> Self {
        Self::Put { key: key.into(), value: value.into(), lease }
    }

    /// A deletion of `key`.
    pub fn delete(key: impl Into<Key>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// The key that it concerns.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(Key),
    /// The key exists and was last written at this revision.
    ModifiedAt(Key, Revision),
    /// The key exists and hangs on this lease.
    LeaseIs(Key, LeaseId),
}

impl Compare {
    /// The key that it concerns.
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key) | Self::ModifiedAt(key, _) | Self::LeaseIs(key, _) => key,
        }
    }
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Whether its conditions held, and so its operations happened.
    pub succeeded: bool,
    /// The store's position after it.
    pub at: Position,
    /// Where a condition did not hold: the keys of all conditions as they were at that moment, with empty values. A key
    /// that is not among them did not exist. Otherwise nothing.
    pub found: Vec<Entry>,
}

/// A lease as granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// How long it lives after each beat; may be more than was asked for.
    pub ttl: Duration,
}

/// Packs operations into transactions of at most `most` and [`MAX_TXN_BYTES`] without changing their order; no
/// transaction holds a key twice.
pub fn chunks(ops: Vec<Op>, most: usize) -> Vec<Vec<Op>> {
    let mut chunks: Vec<Vec<Op>> = Vec::new();
    let (mut keys, mut bytes) = (HashSet::<Key>::new(), 0);
    for op in ops {
        let full = keys.len() >= most || bytes + op.size() > MAX_TXN_BYTES || keys.contains(op.key());
        if full || chunks.is_empty() {
            chunks.push(Vec::new());
            keys.clear();
            bytes = 0;
        }
        keys.insert(op.key().clone());
        bytes += op.size();
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(op);
        }
    }
    chunks
}

/// Whole seconds to ask etcd for, rounded up so that the lease outlives `ttl`; at least 1 s, at most etcd's limit.
///
/// Source: etcd v3 API, `LeaseGrantRequest.TTL` (seconds, `int64`); `lease.MaxLeaseTTL` is 9,000,000,000 s.
pub fn whole_seconds(ttl: Duration) -> i64 {
    let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    i64::try_from(whole).unwrap_or(i64::MAX).clamp(1, 9_000_000_000)
}

/// What a transaction concerns, for its errors: its first key, and how many more there are.
pub fn subject(when: &[Compare], ops: &[Op]) -> String {
    let first = ops.first().map(Op::key).or_else(|| when.first().map(Compare::key));
    match (first, ops.len()) {
        (None, _) => "nothing".to_owned(),
        (Some(key), 0 | 1) => key.to_string(),
        (Some(key), n) => format!("{key} and {} more", n - 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::MAX_TXN_OPS;
    use super::*;

    fn any_op() -> impl Strategy<Value = Op> {
        let key = prop_oneof![3 => (0..400u32).prop_map(|n| format!("/k/{n}")), 1 => Just("/k/again".to_owned())];
        (key, prop_oneof![9 => 0..200usize, 1 => 0..2 * MAX_TXN_BYTES], any::<bool>())
            .prop_map(|(key, size, put)| if put { Op::put(key, vec![0; size], None) } else { Op::delete(key) })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn chunks_keep_the_order_and_the_limits(ops in prop::collection::vec(any_op(), 0..400)) {
            let packed = chunks(ops.clone(), MAX_TXN_OPS);
            prop_assert_eq!(packed.concat(), ops);
            for chunk in &packed {
                prop_assert!((1..=MAX_TXN_OPS).contains(&chunk.len()));
                prop_assert!(chunk.len() == 1 || chunk.iter().map(Op::size).sum::<usize>() <= MAX_TXN_BYTES);
                let keys: HashSet<_> = chunk.iter().map(Op::key).collect();
                prop_assert_eq!(keys.len(), chunk.len());
            }
        }
    }

    #[test]
    fn chunks_are_as_few_as_fit() {
        let ops: Vec<_> = (0..300).map(|n| Op::put(format!("/k/{n}"), *b"v", None)).collect();
        assert_eq!(chunks(ops, MAX_TXN_OPS).iter().map(Vec::len).collect::<Vec<_>>(), [128, 128, 44]);
    }
}
