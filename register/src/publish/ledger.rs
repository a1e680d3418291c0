//! Which keys of the registry are this agent's, and which of those that it wants are somebody else's. No I/O, no clock.
//!
//! The rule: a key is this agent's while it hangs on its lease, or if it was created by this agent and changed since. Every
//! write carries the condition that makes this so in the store ([`Ledger::guard`]); what the store says instead is taken in
//! by [`Ledger::saw`].

use std::collections::{BTreeMap, BTreeSet};

use registry::store::{Compare, Entry, Key, LeaseId, Op, Revision, Value};

use super::keys::{Keys, is_shared};

/// The value of a key that nobody knows: no value of ours is empty.
pub fn unknown() -> Value {
    Value::from([])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Title {
    /// It was to be made, and no answer came.
    Open,
    /// It hangs on our lease.
    Held,
    /// We made it, and somebody changed it.
    Altered,
}

#[derive(Debug)]
struct Known {
    title: Title,
    /// [`unknown`] if it must be written.
    value: Value,
    created: Revision,
    modified: Revision,
    /// The rest was so at this revision.
    seen: Revision,
}

/// A key that is wanted and belongs to somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// The lease that it hangs on, if any.
    pub lease: Option<LeaseId>,
    modified: Revision,
    seen: Revision,
}

/// What a look at a key brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Nothing new.
    Same,
    /// It was somebody else's, and is gone.
    Freed,
    /// It was ours, and is gone.
    Deleted,
    /// It was ours, and was changed, by the holder of this lease if any.
    Changed(Option<LeaseId>),
    /// It is somebody else's.
    Taken,
}

/// What is known of this agent's keys.
#[derive(Debug)]
pub struct Ledger {
    lease: LeaseId,
    keys: BTreeMap<Key, Known>,
    foreign: BTreeMap<Key, Foreign>,
    /// Keys of which another thing is known than when they were last taken.
    touched: BTreeSet<Key>,
}

impl Ledger {
    /// The keys of `lease`, which were `entries` at `at`.
    pub fn new(lease: LeaseId, entries: Vec<Entry>, at: Revision) -> Self {
        let known = |e: Entry| {
            let Entry { key, value, created, modified, .. } = e;
            (key, Known { title: Title::Held, value, created, modified, seen: at })
        };
        let keys: BTreeMap<_, _> = entries.into_iter().map(known).collect();
        let touched = keys.keys().cloned().collect();
        Self { lease, keys, foreign: BTreeMap::new(), touched }
    }

    /// The lease of ours.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// What is in the registry of ours; [`unknown`] where it must be written again.
    pub fn published(&self) -> Keys {
        self.keys.iter().map(|(key, known)| (key.clone(), known.value.clone())).collect()
    }

    /// What [`Self::published`] has of `key`.
    pub fn value(&self, key: &Key) -> Option<&Value> {
        self.keys.get(key).map(|known| &known.value)
    }

    /// Wanted keys that belong to somebody else.
    pub fn foreign(&self) -> &BTreeMap<Key, Foreign> {
        &self.foreign
    }

    /// How many keys are ours.
    pub fn size(&self) -> usize {
        self.keys.len()
    }

    /// Forgets keys of others that are not wanted any more.
    pub fn want(&mut self, wanted: impl Fn(&Key) -> bool) {
        let Self { foreign, touched, .. } = self;
        foreign.retain(|key, _| {
            let kept = wanted(key);
            if !kept {
                touched.insert(key.clone());
            }
            kept
        });
    }

    /// Keys that may be [`watched`](Self::watched) from now on, or not any more. Each is given once.
    pub fn take_touched(&mut self) -> BTreeSet<Key> {
        std::mem::take(&mut self.touched)
    }

    /// Nobody hears of any key any more.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.keys.keys().chain(self.foreign.keys()).cloned());
    }

    /// The revision up to which `key` is known, if it is worth hearing of.
    pub fn watched(&self, key: &Key) -> Option<Revision> {
        let own = self.keys.get(key).filter(|known| known.title != Title::Open).map(|known| known.seen);
        own.or_else(|| self.foreign.get(key).map(|foreign| foreign.seen))
    }

    /// The condition under which `op` touches nothing but our own.
    pub fn guard(&self, op: &Op) -> Compare {
        let key = op.key().clone();
        match (self.keys.get(&key), op) {
            (Some(Known { title: Title::Altered, modified, .. }), _) => Compare::ModifiedAt(key, *modified),
            (Some(Known { title: Title::Held, .. }), _) | (_, Op::Delete { .. }) => Compare::LeaseIs(key, self.lease),
            (_, Op::Put { .. }) => Compare::Absent(key),
        }
    }

    /// `op` is being sent. Until the store has answered, its key may hold the old value or the new one.
    pub fn begin(&mut self, op: &Op) {
        if let Some(known) = self.keys.get_mut(op.key()) {
            known.value = unknown();
        } else if let Op::Put { key, .. } = op {
            let none = Revision::default();
            let open = Known { title: Title::Open, value: unknown(), created: none, modified: none, seen: none };
            self.keys.insert(key.clone(), open);
        }
    }

    /// `op` happened at `at`.
    pub fn done(&mut self, op: &Op, at: Revision) {
        self.touched.insert(op.key().clone());
        match op {
            Op::Put { key, value, .. } => {
                let old = self.keys.get(key).filter(|known| known.title != Title::Open);
                let created = old.map_or(at, |known| known.created);
                let value = value.clone();
                self.keys.insert(key.clone(), Known { title: Title::Held, value, created, modified: at, seen: at });
            }
            Op::Delete { key } => drop(self.keys.remove(key)),
        }
    }

    /// What was written is intact while these conditions hold.
    pub fn intact(&self) -> Vec<Compare> {
        let own = self.keys.iter().filter(|(_, known)| known.title == Title::Held && !known.value.is_empty());
        let own = own.map(|(key, known)| (key, known.modified));
        let all = own.chain(self.foreign.iter().map(|(key, f)| (key, f.modified)));
        all.map(|(key, modified)| Compare::ModifiedAt(key.clone(), modified)).collect()
    }

    /// The condition held at `at`.
    pub fn confirm(&mut self, condition: &Compare, at: Revision) {
        if let Some(known) = self.keys.get_mut(condition.key()) {
            known.seen = known.seen.max(at);
        }
        if let Some(foreign) = self.foreign.get_mut(condition.key()) {
            foreign.seen = foreign.seen.max(at);
        }
    }

    /// `key` was `entry` at `at`; the value counts only if it is `whole`.
    pub fn saw(&mut self, key: &Key, entry: Option<&Entry>, at: Revision, whole: bool) -> Finding {
        self.touched.insert(key.clone());
        let lease = self.lease;
        let Some(known) = self.keys.get_mut(key) else { return self.saw_other(key, entry, at) };
        if known.seen >= at {
            return Finding::Same; // an echo, or older than what is known
        }
        let open = known.title == Title::Open;
        let Some(entry) = entry else {
            // What is about to be written may have been deleted by ourselves, without an answer.
            let pending = known.value.is_empty();
            self.keys.remove(key);
            return if pending { Finding::Same } else { Finding::Deleted };
        };
        known.seen = at;
        let ours = entry.lease == Some(lease);
        let same = known.modified == entry.modified || (whole && known.value == entry.value);
        let made = !open && known.created == entry.created && !is_shared(key);
        if !ours && !made {
            self.keys.remove(key);
            return self.saw_other(key, Some(entry), at);
        }
        (known.created, known.modified) = (entry.created, entry.modified);
        if ours && same {
            known.title = Title::Held;
            return Finding::Same;
        }
        known.title = if ours { Title::Held } else { Title::Altered };
        let was_written = !std::mem::replace(&mut known.value, unknown()).is_empty();
        if open || !was_written { Finding::Same } else { Finding::Changed(entry.lease) }
    }

    fn saw_other(&mut self, key: &Key, entry: Option<&Entry>, at: Revision) -> Finding {
        let Some(entry) = entry else {
            let newer = self.foreign.get(key).is_some_and(|foreign| foreign.seen < at);
            return if newer && self.foreign.remove(key).is_some() { Finding::Freed } else { Finding::Same };
        };
        let (created, modified) = (entry.created, entry.modified);
        if entry.lease == Some(self.lease) {
            let known = Known { title: Title::Held, value: unknown(), created, modified, seen: at };
            self.foreign.remove(key);
            self.keys.insert(key.clone(), known);
            return Finding::Freed;
        }
        let old = self.foreign.insert(key.clone(), Foreign { lease: entry.lease, modified, seen: at });
        if old.is_some_and(|old| old.lease == entry.lease) { Finding::Same } else { Finding::Taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: LeaseId = LeaseId(1);

    fn entry(lease: i64, created: i64, modified: i64, value: &str) -> Entry {
        let lease = (lease != 0).then_some(LeaseId(lease));
        let (created, modified) = (Revision(created), Revision(modified));
        Entry { key: "/b/s/a".into(), value: value.as_bytes().into(), lease, created, modified }
    }

    fn key() -> Key {
        "/b/s/a".into()
    }

    fn ledger() -> Ledger {
        Ledger::new(OURS, vec![entry(1, 5, 7, "v")], Revision(9))
    }

    fn put() -> Op {
        Op::put("/b/s/a", *b"v", Some(OURS))
    }

    #[test]
    fn a_key_is_ours_by_its_lease_or_because_we_made_it_and_else_it_is_not_touched() {
        for (now, finding, guard) in [
            (Some(entry(1, 5, 7, "v")), Finding::Same, Compare::LeaseIs(key(), OURS)),
            (Some(entry(1, 5, 10, "v")), Finding::Same, Compare::LeaseIs(key(), OURS)),
            (Some(entry(1, 5, 10, "x")), Finding::Changed(Some(OURS)), Compare::LeaseIs(key(), OURS)),
            (Some(entry(1, 10, 10, "x")), Finding::Changed(Some(OURS)), Compare::LeaseIs(key(), OURS)),
            (Some(entry(0, 5, 10, "v")), Finding::Changed(None), Compare::ModifiedAt(key(), Revision(10))),
            (Some(entry(2, 5, 10, "v")), Finding::Changed(Some(LeaseId(2))), Compare::ModifiedAt(key(), Revision(10))),
            (Some(entry(2, 10, 10, "v")), Finding::Taken, Compare::Absent(key())),
            (Some(entry(0, 10, 10, "v")), Finding::Taken, Compare::Absent(key())),
            (None, Finding::Deleted, Compare::Absent(key())),
        ] {
            let mut ledger = ledger();
            assert_eq!(ledger.saw(&key(), now.as_ref(), Revision(10), true), finding, "{now:?}");
            assert_eq!(ledger.guard(&put()), guard, "{now:?}");
            assert_eq!(ledger.foreign().len(), usize::from(finding == Finding::Taken), "{now:?}");
            assert_eq!(ledger.saw(&key(), now.as_ref(), Revision(11), true), Finding::Same, "said once: {now:?}");
        }
    }

    #[test]
    fn what_is_older_than_our_own_write_says_nothing() {
        let mut ledger = ledger();
        ledger.begin(&put());
        ledger.done(&put(), Revision(20));
        assert_eq!(ledger.saw(&key(), None, Revision(19), true), Finding::Same);
        assert_eq!(ledger.saw(&key(), Some(&entry(2, 20, 20, "x")), Revision(20), true), Finding::Same);
        assert_eq!(ledger.published().len(), 1);
    }

    #[test]
    fn a_write_without_an_answer_is_found_out_by_the_next_one() {
        for (now, finding, guard) in [
            (None, Finding::Same, Compare::Absent(key())),
            (Some(entry(1, 5, 5, "v")), Finding::Same, Compare::LeaseIs(key(), OURS)),
            (Some(entry(2, 5, 5, "v")), Finding::Taken, Compare::Absent(key())),
        ] {
            let mut ledger = Ledger::new(OURS, Vec::new(), Revision(1));
            assert_eq!(ledger.guard(&put()), Compare::Absent(key()));
            ledger.begin(&put());
            assert_eq!(ledger.guard(&Op::delete("/b/s/a")), Compare::LeaseIs(key(), OURS));
            assert_eq!(ledger.saw(&key(), now.as_ref(), Revision(6), false), finding);
            assert_eq!(ledger.guard(&put()), guard);
        }
    }

    #[test]
    fn anothers_key_is_free_once_it_is_gone() {
        let mut ledger = Ledger::new(OURS, Vec::new(), Revision(1));
        assert_eq!(ledger.saw(&key(), Some(&entry(2, 5, 5, "v")), Revision(6), true), Finding::Taken);
        assert_eq!(ledger.saw(&key(), None, Revision(5), true), Finding::Same, "that is of the past");
        assert_eq!(ledger.saw(&key(), None, Revision(8), true), Finding::Freed);
        assert!(ledger.foreign().is_empty() && ledger.watched().next().is_none());
    }

    #[test]
    fn a_port_key_that_agents_share_is_nobodys_for_good() {
        let shared = Key::from("/b/s/port");
        let mine = Entry { key: shared.clone(), ..entry(1, 5, 7, "80") };
        let mut ledger = Ledger::new(OURS, vec![mine], Revision(9));
        let other = Entry { key: shared.clone(), ..entry(2, 5, 10, "80") };
        assert_eq!(ledger.saw(&shared, Some(&other), Revision(10), true), Finding::Taken, "although we made it");
    }
}
