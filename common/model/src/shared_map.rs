//! A sorted map whose copies share what has not changed: a copy costs little, and what differs between two costs what differs.
//!
//! The pairs lie in leaves of at most [`LEAF`]. A copy shares them all; a change copies the one leaf that it falls into.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

/// The most pairs in one leaf: a change copies about as many pairs as a copy of the map has pointers, at 1,000 to 10,000 pairs.
const LEAF: usize = 32;

type Leaf<K, V> = Arc<Vec<(K, V)>>;

/// A sorted map, cheap to copy and to compare with its own past.
pub struct SharedMap<K, V> {
    /// Never empty ones; each holds lower keys than the next.
    leaves: Arc<Vec<Leaf<K, V>>>,
    size: usize,
}

impl<K, V> SharedMap<K, V> {
    /// A map without pairs.
    pub fn new() -> Self {
        Self { leaves: Arc::default(), size: 0 }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// All pairs, by key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        self.iter_from(0, 0)
    }

    fn iter_from(&self, leaf: usize, pair: usize) -> Iter<'_, K, V> {
        let mut leaves = self.leaves.get(leaf..).unwrap_or_default().iter();
        let pairs = leaves.next().and_then(|leaf| leaf.get(pair..)).unwrap_or_default().iter();
        Iter { leaves, pairs }
    }

    /// The pairs from the first on whose key does not come `before` what is looked for.
    pub fn seek(&self, before: impl Fn(&K) -> bool) -> Iter<'_, K, V> {
        let leaf = self.leaves.partition_point(|leaf| leaf.last().is_some_and(|(last, _)| before(last)));
        let pair = self.leaves.get(leaf).map_or(0, |leaf| leaf.partition_point(|(key, _)| before(key)));
        self.iter_from(leaf, pair)
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, by key.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// The leaf in which `key` lies or would lie.
    fn leaf_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let begins_before = |leaf: &Leaf<K, V>| leaf.first().is_some_and(|(first, _)| first.borrow() <= key);
        self.leaves.partition_point(begins_before).saturating_sub(1)
    }

    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: Borrow<Q>,
    {
        let leaf = self.leaf_of(key);
        let found = self.leaves.get(leaf).map_or(Err(0), |l| l.binary_search_by(|(k, _)| k.borrow().cmp(key)));
        (leaf, found)
    }

    /// The value of `key`.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (leaf, found) = self.find(key);
        Some(&self.leaves.get(leaf)?.get(found.ok()?)?.1)
    }

    /// Whether `key` has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).1.is_ok()
    }

    /// The pairs whose keys are not below `key`.
    pub fn from_key<Q: Ord + ?Sized>(&self, key: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        self.seek(|other| other.borrow() < key)
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// The value of `key`, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (leaf, Ok(place)) = self.find(key) else { return None };
        let leaf = Arc::make_mut(&mut self.leaves).get_mut(leaf)?;
        Arc::make_mut(leaf).get_mut(place).map(|(_, value)| value)
    }

    /// All values, by key, to be changed: this copy shares nothing after that.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        Arc::make_mut(&mut self.leaves)
            .iter_mut()
            .flat_map(|leaf| Arc::make_mut(leaf).iter_mut().map(|(_, value)| value))
    }

    /// Puts `value` under `key`; gives the value that it replaces.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (at, found) = self.find(&key);
        let leaves = Arc::make_mut(&mut self.leaves);
        let last = at + 1 >= leaves.len();
        let Some(shared) = leaves.get_mut(at) else {
            leaves.push(Arc::new(vec![(key, value)]));
            self.size += 1;
            return None;
        };
        let leaf = Arc::make_mut(shared);
        match found {
            Ok(place) => leaf.get_mut(place).map(|(_, old)| std::mem::replace(old, value)),
            Err(place) => {
                self.size += 1;
                if leaf.len() < LEAF {
                    leaf.insert(place, (key, value));
                } else if last && place == leaf.len() {
                    // Keys that come in order fill their leaves.
                    leaves.push(Arc::new(vec![(key, value)]));
                } else {
                    let mut upper = leaf.split_off(LEAF / 2);
                    let half = if place > LEAF / 2 { &mut upper } else { leaf };
                    let place = if place > LEAF / 2 { place - LEAF / 2 } else { place };
                    half.insert(place, (key, value));
                    leaves.insert(at + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    /// Takes `key` out; gives its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (at, Ok(place)) = self.find(key) else { return None };
        let leaves = Arc::make_mut(&mut self.leaves);
        let leaf = Arc::make_mut(leaves.get_mut(at)?);
        let (_, value) = leaf.remove(place);
        self.size -= 1;
        let left = leaf.len();
        if left == 0 {
            leaves.remove(at);
        } else if left < LEAF / 4 {
            let next = leaves.get(at + 1).filter(|next| next.len() + left <= LEAF / 2);
            if next.is_some() {
                let next = leaves.remove(at + 1);
                if let Some(leaf) = leaves.get_mut(at) {
                    Arc::make_mut(leaf).extend(next.iter().cloned());
                }
            }
        }
        Some(value)
    }

    /// Keeps the pairs that `keep` wants.
    pub fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        let gone: Vec<K> = self.iter().filter(|(key, value)| !keep(key, value)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| drop(self.remove(key)));
    }
}

impl<K: Ord, V: PartialEq> SharedMap<K, V> {
    /// The keys, in order, under which `self` and `newer` hold different values, or of which one of them has none.
    pub fn differences<'a>(&'a self, newer: &'a Self) -> Differences<'a, K, V> {
        let one = Cursor { leaves: &self.leaves, leaf: 0, pair: 0 };
        Differences {
            same: Arc::ptr_eq(&self.leaves, &newer.leaves),
            one,
            other: Cursor { leaves: &newer.leaves, ..one },
        }
    }
}

/// All pairs of a map, by key.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    leaves: std::slice::Iter<'a, Leaf<K, V>>,
    pairs: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.pairs.next() {
                return Some((key, value));
            }
            self.pairs = self.leaves.next()?.iter();
        }
    }
}

/// A place in a map.
#[derive(Debug)]
struct Cursor<'a, K, V> {
    leaves: &'a [Leaf<K, V>],
    leaf: usize,
    pair: usize,
}

impl<K, V> Clone for Cursor<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Cursor<'_, K, V> {}

impl<'a, K, V> Cursor<'a, K, V> {
    /// The leaf, where this is its first pair.
    fn whole(&self) -> Option<&'a Leaf<K, V>> {
        self.leaves.get(self.leaf).filter(|_| self.pair == 0)
    }

    fn pair(&self) -> Option<&'a (K, V)> {
        self.leaves.get(self.leaf)?.get(self.pair)
    }

    fn step(&mut self) {
        self.pair += 1;
        if self.leaves.get(self.leaf).is_none_or(|leaf| self.pair >= leaf.len()) {
            (self.leaf, self.pair) = (self.leaf + 1, 0);
        }
    }
}

/// What differs between two maps; see [`SharedMap::differences`].
#[derive(Debug)]
pub struct Differences<'a, K, V> {
    same: bool,
    one: Cursor<'a, K, V>,
    other: Cursor<'a, K, V>,
}

impl<'a, K: Ord, V: PartialEq> Iterator for Differences<'a, K, V> {
    type Item = &'a K;
    fn next(&mut self) -> Option<&'a K> {
        if self.same {
            return None;
        }
        loop {
            if let (Some(one), Some(other)) = (self.one.whole(), self.other.whole())
                && Arc::ptr_eq(one, other)
            {
                self.one.leaf += 1;
                self.other.leaf += 1;
                continue;
            }
            let (key, order) = match (self.one.pair(), self.other.pair()) {
                (None, None) => return None,
                (Some((key, _)), None) => (key, std::cmp::Ordering::Less),
                (None, Some((key, _))) => (key, std::cmp::Ordering::Greater),
                (Some((one, _)), Some((other, _))) => (one.min(other), one.cmp(other)),
            };
            match order {
                std::cmp::Ordering::Less => self.one.step(),
                std::cmp::Ordering::Greater => self.other.step(),
                std::cmp::Ordering::Equal => {
                    let same = self.one.pair().map(|(_, value)| value) == self.other.pair().map(|(_, value)| value);
                    self.one.step();
                    self.other.step();
                    if same {
                        continue;
                    }
                }
            }
            return Some(key);
        }
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { leaves: Arc::clone(&self.leaves), size: self.size }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size && self.differences(other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for SharedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;
    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<T: IntoIterator<Item = (K, V)>>(&mut self, pairs: T) {
        pairs.into_iter().for_each(|(key, value)| drop(self.insert(key, value)));
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(pairs: T) -> Self {
        let mut map = Self::new();
        map.extend(pairs);
        map
    }
}

impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for SharedMap<K, V> {
    type Output = V;
    #[expect(clippy::expect_used, reason = "as every map's index")]
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("no such key")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Copies at some moments, and what happens between them.
    fn any_life() -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
        let key = prop_oneof![0..40u16, 0..2000u16];
        prop::collection::vec((key, prop::option::weighted(0.6, 0..3u8)), 0..600)
    }

    proptest! {
        #[test]
        fn it_is_as_any_sorted_map_and_tells_what_differs_from_its_past(life in any_life(), at in 0..600usize, from in 0..2000u16) {
            let (mut map, mut model) = (SharedMap::new(), BTreeMap::new());
            let (mut past, mut past_model) = (map.clone(), model.clone());
            for (step, (key, value)) in life.into_iter().enumerate() {
                if step == at {
                    (past, past_model) = (map.clone(), model.clone());
                }
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
            }
            prop_assert!(map.iter().eq(&model) && map.len() == model.len() && past.iter().eq(&past_model));
            prop_assert!(map.from_key(&from).eq(model.range(from..)));
            prop_assert!(map.leaves.iter().all(|leaf| (1..=LEAF).contains(&leaf.len())));
            for key in 0..40 {
                prop_assert_eq!(map.get(&key), model.get(&key));
            }
            let mut keys: Vec<u16> = model.keys().chain(past_model.keys()).copied().collect();
            keys.sort_unstable();
            keys.dedup();
            keys.retain(|key| model.get(key) != past_model.get(key));
            prop_assert!(past.differences(&map).eq(&keys) && map.differences(&past).eq(&keys));
            prop_assert_eq!(map == past, keys.is_empty());
            prop_assert_eq!(&model.into_iter().collect::<SharedMap<_, _>>(), &map);
        }
    }

    #[test]
    fn a_change_copies_one_leaf_and_the_rest_is_not_even_compared() {
        #[derive(Debug, Clone)]
        struct Loud(u32);
        impl PartialEq for Loud {
            fn eq(&self, other: &Self) -> bool {
                COMPARED.with(|n| n.set(n.get() + 1));
                self.0 == other.0
            }
        }
        thread_local!(static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });
        let old: SharedMap<u32, Loud> = (0..10_000).map(|n| (n, Loud(0))).collect();
        let mut new = old.clone();
        new.insert(5000, Loud(1));
        let shared = old.leaves.iter().filter(|leaf| new.leaves.iter().any(|other| Arc::ptr_eq(leaf, other))).count();
        assert_eq!(shared, old.leaves.len() - 1);
        assert_eq!(old.differences(&new).collect::<Vec<_>>(), [&5000]);
        assert!(COMPARED.with(std::cell::Cell::get) <= LEAF);
    }
}
