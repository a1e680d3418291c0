//! HAProxy's numeric server ids: stable as long as a server is known, explicit ones first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The ids of one service's servers, by their names; kept for the process.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    by_name: HashMap<Arc<str>, u32>,
}

/// One server that needs an id.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Its name.
    pub name: Arc<str>,
    /// What its registration asks for; nobody else gets it.
    pub explicit: Option<u32>,
    /// What the state file remembers.
    pub remembered: Option<u32>,
}

impl Ids {
    /// Takes over ids that are known from elsewhere.
    pub fn remember(&mut self, ids: impl IntoIterator<Item = (Arc<str>, u32)>) {
        self.by_name.extend(ids);
    }

    /// Gives each server an id of 1 to `highest`, or none when they are used up. Explicit ids are reserved before any
    /// other; a server keeps the id that it had; the rest get the lowest free one, in their order. The ids of servers that
    /// are no longer there are free from the next round on.
    pub fn assign(&mut self, wishes: &[Wish], highest: u32) -> Vec<Option<u32>> {
        let explicit: HashSet<u32> = wishes.iter().filter_map(|w| w.explicit).collect();
        let mut held: HashMap<Arc<str>, u32> = HashMap::new();
        let mut used = explicit.clone();
        for wish in wishes {
            let before =
                self.by_name.get(&wish.name).copied().or(wish.remembered).filter(|id| (1..=highest).contains(id));
            match (wish.explicit, before) {
                (Some(id), _) => _ = held.insert(wish.name.clone(), id),
                (None, Some(id)) if used.insert(id) => _ = held.insert(wish.name.clone(), id),
                _ => {}
            }
        }
        // This round's departures still hold theirs.
        let vanished: HashSet<u32> =
            self.by_name.iter().filter(|(name, _)| !held.contains_key(*name)).map(|(_, id)| *id).collect();
        let mut next = 1;
        let ids = wishes.iter().map(|wish| {
            if let Some(id) = held.get(&wish.name) {
                return Some(*id);
            }
            while used.contains(&next) || vanished.contains(&next) {
                next += 1;
            }
            (next <= highest).then(|| {
                used.insert(next);
                held.insert(wish.name.clone(), next);
                next
            })
        });
        let ids = ids.collect();
        self.by_name = held;
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(name: &str, explicit: Option<u32>) -> Wish {
        Wish { name: name.into(), explicit, remembered: None }
    }

    fn round(ids: &mut Ids, names: &[&str]) -> Vec<Option<u32>> {
        ids.assign(&names.iter().map(|n| wish(n, None)).collect::<Vec<_>>(), 65_535)
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
        let first = [wish("a", None), wish("b", Some(1)), wish("c", None)];
        assert_eq!(ids.assign(&first, 9), [Some(2), Some(1), Some(3)]);
        let then = [wish("a", None), wish("b", Some(1)), wish("c", None), wish("d", Some(2))];
        assert_eq!(ids.assign(&then, 9), [Some(4), Some(1), Some(3), Some(2)]);
    }

    #[test]
    fn ids_run_out() {
        let mut ids = Ids::default();
        assert_eq!(ids.assign(&[wish("a", None), wish("b", None)], 1), [Some(1), None]);
    }
}
