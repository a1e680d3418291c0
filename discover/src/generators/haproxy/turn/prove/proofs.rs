//! What is proved of a layout: nothing of registrants' words goes live before `haproxy -c` has passed a whole file with them. Pure, with
//! injected time.
//!
//! ```text
//!           passed                        runs already, in the same words
//! unproved ───────▶ proved ◀───────────────────────────────────────────── (a restart)
//!    │  ▲
//!    │  └──────── other words, or after a pause
//!    └──────────▶ refused (why)
//! ```
//!
//! Only proved words are in the layout that turns plan with, so neither a runtime operation nor a reload carries others. A server that
//! runs keeps its running form until its newer words are judged. [`super::proving`] does the judging, beside the turns.
//!
//! It also has the sections whose structure HAProxy refused: see [`super::misfits`].

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::ledger::{Ledger, Standing};
use super::misfits::Misfits;
use super::trial::{Blamed, Suspect, Trial, Words, in_running_form, kind};
use crate::generators::haproxy::file::edge::RuleMap;
use crate::generators::haproxy::file::layout::{Layout, Section};
use crate::generators::haproxy::file::server::Server;
use crate::haproxy::api::version::Version;
use crate::haproxy::process::blame::Finding;

/// How many different words are judged together, at most.
const BATCH: usize = 512;
/// How long a reload waits for new words that are being judged, so that it takes them in.
const HOLD: Duration = Duration::from_millis(500);
/// What became of a section the last time. As long as it is the very same, nothing of it is looked at again.
#[derive(Debug)]
struct Seen {
    section: Arc<Section>,
    admitted: Arc<Section>,
    /// Servers that are left out or keep an older form, and their words.
    held: Vec<(Arc<str>, Words)>,
    generation: u64,
}

/// Words to be judged, in a file.
#[derive(Debug)]
pub struct Batch {
    /// The file.
    pub trial: Trial,
    /// Some were never tried before.
    pub is_new: bool,
}

/// The [`Ledger`] of words, and what is held back for it.
#[derive(Debug, Default)]
pub struct Proofs {
    words: Ledger,
    pub(in super::super) misfits: Misfits,
    seen: Vec<Seen>,
    /// What was composed last, with the words that wait.
    composed: Layout,
    /// Grows with each verdict.
    generation: u64,
    told: u64,
    header: Arc<str>,
    version: Option<Version>,
    /// Since when a reload waits.
    held_since: Option<Instant>,
}

impl Proofs {
    /// Takes out of `layout` what is not proved; tells whether something else is out than the last time.
    pub fn admit(&mut self, layout: &mut Layout, running: &Layout, now: Instant) -> bool {
        if self.header != layout.header {
            self.header = layout.header.clone();
            self.words.hurry(now);
            self.misfits.hurry(now);
        }
        let out = self.misfits.leave_out(layout, running, now);
        let mut changed = std::mem::replace(&mut self.told, self.generation) != self.generation;
        changed |= self.misfits.are_out(out);
        self.composed = layout.clone();
        let by_name = OnceCell::new();
        let running = || {
            by_name.get_or_init(|| {
                running.sections.iter().map(|s| (&*s.name, s)).collect::<HashMap<&str, &Arc<Section>>>()
            })
        };
        let mut before = std::mem::take(&mut self.seen).into_iter();
        for section in &mut layout.sections {
            let seen = match before.next() {
                Some(seen) if Arc::ptr_eq(&seen.section, section) && seen.generation == self.generation => seen,
                old => {
                    let runs = || running().get(&*section.name).copied();
                    let seen = self.look(section, runs, now);
                    changed |= old.is_none_or(|old| old.held != seen.held || old.section.name != section.name);
                    seen
                }
            };
            *section = seen.admitted.clone();
            self.seen.push(seen);
        }
        changed |= before.any(|gone| !gone.held.is_empty());
        changed
    }

    fn look<'a>(&mut self, section: &Arc<Section>, runs: impl Fn() -> Option<&'a Arc<Section>>, now: Instant) -> Seen {
        let whole =
            |generation| Seen { section: section.clone(), admitted: section.clone(), held: Vec::new(), generation };
        if !section.has_own_words() {
            return whole(self.generation);
        }
        let kind = kind(section);
        let runs: HashMap<&str, &Server> = match runs() {
            Some(runs) if super::trial::kind(runs) == kind => runs.servers.iter().map(|s| (&*s.name, s)).collect(),
            _ => HashMap::new(),
        };
        let (mut servers, mut held, mut waits) = (Vec::with_capacity(section.servers.len()), Vec::new(), false);
        for server in &section.servers {
            let Some(words) = Words::of(kind, server) else {
                servers.push(server.clone());
                continue;
            };
            let running = runs.get(&*server.name);
            let run = running.is_some_and(|running| running.params == server.params);
            match (self.words.look_up(&words, run, now), running) {
                (Standing::Proved, _) => {
                    servers.push(server.clone());
                    continue;
                }
                (Standing::Unproved(_), running) => {
                    waits = true;
                    servers.extend(running.map(|running| in_running_form(server, running)));
                }
                (Standing::Refused(_), _) => {}
            }
            held.push((server.name.clone(), words));
        }
        if held.is_empty() {
            return whole(self.generation);
        }
        let admitted = Arc::new(Section { servers, ..(**section).clone() });
        // What waits may run in another form the next time.
        let generation = if waits { self.generation.wrapping_sub(1) } else { self.generation };
        Seen { section: section.clone(), admitted, held, generation }
    }

    /// Words to be judged now, if any: those of many services before many of one, and new ones first.
    pub fn batch(&mut self, now: Instant) -> Option<Batch> {
        let (mut due, mut taken) = (Vec::new(), HashSet::new());
        for seen in self.seen.iter().filter(|seen| !seen.held.is_empty()) {
            let mut rank = 0;
            for (_, words) in &seen.held {
                let Some(was_tried) = self.words.is_due(words, now) else { continue };
                if taken.insert(words) {
                    due.push((was_tried, rank, words));
                    rank += 1;
                }
            }
        }
        let is_new = due.iter().any(|(tried, ..)| !tried);
        due.sort();
        due.truncate(BATCH);
        let suspects: Vec<Words> = due.into_iter().map(|(.., words)| words.clone()).collect();
        if suspects.is_empty() {
            return None;
        }
        let trial = Trial::of_words(self.composed.clone(), suspects, |words| self.words.is_proved(words));
        self.forget_unused();
        Some(Batch { trial, is_new })
    }

    /// The edge's rules of the file with the words that wait.
    pub fn rules(&self) -> Option<&Arc<RuleMap>> {
        self.composed.rules.as_ref()
    }

    fn forget_unused(&mut self) {
        self.misfits.forget_unused();
        let composed = &self.composed;
        self.words.forget_unused(|| {
            let sections = composed.sections.iter().filter(|section| section.has_own_words());
            let of = |section: &Arc<Section>| {
                let kind = kind(section);
                section.servers.iter().filter_map(|server| Words::of(kind, server)).collect::<Vec<_>>()
            };
            sections.flat_map(of).collect()
        });
    }

    /// Takes down what was found out about a file's suspects; tells whom to blame, each once.
    pub fn judged(&mut self, trial: &Trial, finding: Finding, now: Instant) -> Vec<Blamed> {
        self.generation += 1;
        for words in finding.good.iter().filter_map(|n| trial.suspect(*n)).filter_map(Suspect::words) {
            self.words.proved(words, now);
        }
        let undecided = "haproxy -c refuses a file with this and others; the tries did not suffice to find out which";
        let guilty = finding.guilty.into_iter().map(|(n, why)| (n, Some(why)));
        let mut blamed = Vec::new();
        for (n, why) in guilty.chain(finding.undecided.into_iter().map(|n| (n, None))) {
            match trial.suspect(n) {
                Some(Suspect::Words(words)) => match why {
                    Some(why) if self.words.refused(words, why.clone(), now) => {
                        blamed.push(self.blame_words(words, why));
                    }
                    Some(_) => {}
                    None => self.words.undecided(words, undecided, now),
                },
                Some(Suspect::Section(name)) => {
                    let Some(section) = trial.section(name) else { continue };
                    let why = why.unwrap_or_else(|| undecided.into());
                    if self.misfits.refused(section, trial.instead(name).cloned(), why.clone(), now) {
                        blamed.push(Blamed::section(name, why));
                    }
                }
                None => {}
            }
        }
        blamed
    }

    fn blame_words(&self, words: &Words, why: String) -> Blamed {
        let (mut example, mut servers) = (String::new(), 0);
        for section in self.composed.sections.iter().filter(|section| section.has_own_words()) {
            let kind = kind(section);
            for server in section.servers.iter().filter(|s| Words::of(kind, s).as_ref() == Some(words)) {
                if servers == 0 {
                    example = format!("{}/{}", section.name, server.name);
                }
                servers += 1;
            }
        }
        Blamed { example, servers, words: words.text.clone(), why }
    }

    /// Nobody can judge: what the grammar lets through counts.
    pub fn trust(&mut self, trial: &Trial, now: Instant) {
        let good = (0..trial.suspects()).collect();
        self.judged(trial, Finding { good, ..Finding::default() }, now);
    }

    /// The words of this file could not be judged now; they are tried again after a pause.
    pub fn put_off(&mut self, trial: &Trial, why: &str, now: Instant) {
        for words in (0..trial.suspects()).filter_map(|n| trial.suspect(n)).filter_map(Suspect::words) {
            self.words.put_off(words, why, now);
        }
        self.generation += 1;
    }

    /// This version answers. Another one than before judges all words anew; what it has loaded is proved.
    pub fn suit(&mut self, version: Option<&Version>) {
        let Some(version) = version.filter(|version| self.version.as_ref() != Some(version)) else { return };
        if self.version.replace(version.clone()).is_some() {
            self.forget();
        }
    }

    /// Another program judges: all words are new to it.
    pub fn forget(&mut self) {
        self.words.clear();
        self.misfits.clear();
        self.generation += 1;
    }

    /// Until when a reload waits for new words that are being judged.
    pub fn hold(&mut self, now: Instant) -> Option<Instant> {
        let until = *self.held_since.get_or_insert(now) + HOLD;
        (until > now).then_some(until)
    }

    /// A reload was tried.
    pub fn release(&mut self) {
        self.held_since = None;
    }

    /// What is left out, and why: `section/server`, or a section.
    pub fn reasons(&self) -> impl Iterator<Item = (String, String)> {
        let held = self.seen.iter().flat_map(|seen| seen.held.iter().map(move |held| (&seen.section.name, held)));
        let refused = held.filter_map(|(section, (server, words))| match self.words.standing(words)? {
            Standing::Refused(why) | Standing::Unproved(Some(why)) => {
                Some((format!("{section}/{server}"), why.clone()))
            }
            _ => None,
        });
        refused.chain(self.misfits.reasons())
    }

    /// How many servers wait for the first judgement of their words.
    pub fn waiting(&self) -> usize {
        let held = self.seen.iter().flat_map(|seen| &seen.held);
        held.filter(|(_, words)| self.words.standing(words) == Some(&Standing::Unproved(None))).count()
    }
}

#[cfg(test)]
#[path = "proofs_tests.rs"]
mod tests;
