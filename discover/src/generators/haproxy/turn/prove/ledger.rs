//! Where registrants' words stand. Pure, with injected time.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::again::{Again, KEPT, REFUSED_FOR};
use super::trial::Words;

/// From one search whose tries did not suffice to the next: at first, and at most.
pub(super) const UNDECIDED_FOR: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(600)];

/// Where words stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// HAProxy takes them.
    Proved,
    /// With what is known of them: why they could not be judged yet.
    Unproved(Option<String>),
    /// With HAProxy's words.
    Refused(String),
}

/// All words that were ever seen, but for old ones that nobody uses.
#[derive(Debug, Default)]
pub struct Ledger(HashMap<Words, Entry>);

#[derive(Debug)]
struct Entry {
    standing: Standing,
    again: Again,
}

impl Ledger {
    /// Where `words` stand. New ones are unproved, unless they `run`: HAProxy has loaded them.
    pub fn look_up(&mut self, words: &Words, run: bool, now: Instant) -> &Standing {
        let new = || Entry { standing: Standing::Unproved(None), again: Again::now(now) };
        let entry = self.0.entry(words.clone()).or_insert_with(new);
        if run {
            entry.standing = Standing::Proved;
        }
        &entry.standing
    }

    /// Where `words` stand, if they are known.
    pub fn standing(&self, words: &Words) -> Option<&Standing> {
        self.0.get(words).map(|entry| &entry.standing)
    }

    /// Whether HAProxy takes them.
    pub fn is_proved(&self, words: &Words) -> bool {
        self.standing(words) == Some(&Standing::Proved)
    }

    /// Whether `words` are to be judged now, and if so whether they were before.
    pub fn is_due(&self, words: &Words, now: Instant) -> Option<bool> {
        let entry = self.0.get(words).filter(|entry| entry.standing != Standing::Proved && entry.again.is_due(now))?;
        Some(entry.again.was_tried())
    }

    /// HAProxy takes these.
    pub fn proved(&mut self, words: &Words, now: Instant) {
        self.0.insert(words.clone(), Entry { standing: Standing::Proved, again: Again::now(now) });
    }

    /// It does not take these; tells whether that is new.
    pub fn refused(&mut self, words: &Words, why: String, now: Instant) -> bool {
        let was_refused = matches!(self.standing(words), Some(Standing::Refused(_)));
        self.later(words, Standing::Refused(why), REFUSED_FOR, now);
        !was_refused
    }

    /// The tries did not suffice to find out.
    pub fn undecided(&mut self, words: &Words, why: &str, now: Instant) {
        self.later(words, Standing::Unproved(Some(why.to_owned())), UNDECIDED_FOR, now);
    }

    fn later(&mut self, words: &Words, standing: Standing, pauses: [Duration; 2], now: Instant) {
        let again = self.0.get(words).map_or(Again::now(now), |entry| entry.again).later(now, pauses);
        self.0.insert(words.clone(), Entry { standing, again });
    }

    /// These could not be judged now; they are tried again after a pause.
    pub fn put_off(&mut self, words: &Words, why: &str, now: Instant) {
        let Some(entry) = self.0.get_mut(words) else { return };
        if let Standing::Unproved(known) = &mut entry.standing {
            *known = Some(why.to_owned());
        }
        entry.again = entry.again.later(now, UNDECIDED_FOR);
    }

    /// All are tried again: what made them wrong may be elsewhere, and there something changed.
    pub fn hurry(&mut self, now: Instant) {
        self.0.values_mut().for_each(|entry| entry.again.hurry(now));
    }

    /// Forgets those that nobody uses, where there are too many.
    pub fn forget_unused(&mut self, used: impl FnOnce() -> HashSet<Words>) {
        if self.0.len() <= KEPT {
            return;
        }
        let used = used();
        if self.0.len() > 2 * used.len() {
            self.0.retain(|words, _| used.contains(words));
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
