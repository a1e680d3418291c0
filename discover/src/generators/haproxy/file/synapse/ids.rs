//! HAProxy's numeric server ids: stable as long as a server is known, explicit ones first.

use std::sync::Arc;

use foldhash::{HashMap, HashSet};

/// The ids of one service's servers, by their names; kept for the process.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    by_name: HashMap<Arc<str>, Slot>,
    round: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    id: u32,
    /// The last round in which its server was there.
    round: u64,
}

/// One server that needs an id.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    pub name: &'a Arc<str>,
    /// What its registration asks for; nobody else gets it.
    pub explicit: Option<u32>,
    /// What the state file remembers.
    pub remembered: Option<u32>,
}

impl Ids {
    /// Takes over ids that are known from elsewhere.
    pub fn remember(&mut self, ids: impl IntoIterator<Item = (Arc<str>, u32)>) {
        let round = self.round;
        self.by_name.extend(ids.into_iter().map(|(name, id)| (name, Slot { id, round })));
    }

    /// Gives each server an id of 1 to `highest`, or none when they are used up. Explicit ids are reserved before any
    /// other; a server keeps the id that it had; the rest get the lowest free one, in their order. The ids of servers that
    /// are no longer there are free from the next round on.
    pub fn assign(&mut self, wishes: &[Wish<'_>], highest: u32) -> Vec<Option<u32>> {
        self.round += 1;
        let round = self.round;
        let mut used: HashSet<u32> = wishes.iter().filter_map(|w| w.explicit).collect();
        let keep = |wish: &Wish<'_>| {
            let slot = self.by_name.get_mut(wish.name);
            let before = slot.as_ref().map(|s| s.id).or(wish.remembered).filter(|id| (1..=highest).contains(id));
            let id = wish.explicit.or_else(|| before.filter(|id| used.insert(*id)))?;
            match slot {
                Some(slot) => *slot = Slot { id, round },
                None => _ = self.by_name.insert(wish.name.clone(), Slot { id, round }),
            }
            Some(id)
        };
        let mut ids: Vec<Option<u32>> = wishes.iter().map(keep).collect();
        // This round's departures still hold theirs.
        used.extend(self.by_name.values().filter(|s| s.round != round).map(|s| s.id));
        let mut free = (1..=highest).filter(|id| !used.contains(id));
        for (wish, id) in wishes.iter().zip(&mut ids).filter(|(_, id)| id.is_none()) {
            let Some(next) = free.next() else { break };
            *id = Some(next);
            self.by_name.insert(wish.name.clone(), Slot { id: next, round });
        }
        self.by_name.retain(|_, slot| slot.round == round);
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(ids: &mut Ids, names: &[&str]) -> Vec<Option<u32>> {
        assign(ids, &names.iter().map(|n| (*n, None)).collect::<Vec<_>>(), 65_535)
    }

    fn assign(ids: &mut Ids, wishes: &[(&str, Option<u32>)], highest: u32) -> Vec<Option<u32>> {
        let names: Vec<Arc<str>> = wishes.iter().map(|(name, _)| (*name).into()).collect();
        let wishes = wishes.iter().zip(&names);
        let wishes = wishes.map(|((_, explicit), name)| Wish { name, explicit: *explicit, remembered: None });
        ids.assign(&wishes.collect::<Vec<_>>(), highest)
    }

    #[test]
    fn ids_are_kept_and_freed_a_round_later() {
        let mut ids = Ids::default();
        assert_eq!(round(&mut ids, &["a", "b"]), [Some(1), Some(2)]);
        assert_eq!(round(&mut ids, &["b", "c"]), [Some(2), Some(3)], "a's id is not free yet");
        assert_eq!(round(&mut ids, &["b", "c", "d"]), [Some(2), Some(3), Some(1)]);
    }

    #[test]
    fn explicit_ids_come_first_and_take_an_assigned_one() {
        let mut ids = Ids::default();
        let first = [("a", None), ("b", Some(1)), ("c", None)];
        assert_eq!(assign(&mut ids, &first, 9), [Some(2), Some(1), Some(3)]);
        let then = [("a", None), ("b", Some(1)), ("c", None), ("d", Some(2))];
        assert_eq!(assign(&mut ids, &then, 9), [Some(4), Some(1), Some(3), Some(2)]);
    }

    #[test]
    fn ids_run_out() {
        assert_eq!(assign(&mut Ids::default(), &[("a", None), ("b", None)], 1), [Some(1), None]);
    }
}
