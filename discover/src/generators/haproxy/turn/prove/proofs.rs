//! The ledger of registrants' words: nothing of them goes live before `haproxy -c` has passed a whole file with them. Pure, with
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
//! The ledger also knows the sections whose structure HAProxy refused: a new one is left out, one that runs keeps its form.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::trial::{Suspect, Trial, Words, in_form_of, kind};
use crate::generators::haproxy::file::edge::RuleMap;
use crate::generators::haproxy::file::layout::{Layout, Section};
use crate::generators::haproxy::file::server::Server;
use crate::generators::haproxy::turn::plan::Applied;
use crate::haproxy::api::version::Version;
use crate::haproxy::process::blame::Finding;

/// How many different words are judged together, at most.
const BATCH: usize = 512;
/// From a refusal to the next try of the same words or section: at first, and at most. What made them wrong may be elsewhere.
const REFUSED_FOR: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3600)];
/// The same for words on which the tries of one search did not suffice.
const UNDECIDED_FOR: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(600)];
/// How long a reload waits for new words that are being judged, so that it takes them in.
const HOLD: Duration = Duration::from_millis(500);
/// Words that nobody uses are kept up to this number.
const KEPT: usize = 4096;

/// Where words stand.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Proved,
    /// With what is known of them: why they could not be judged yet.
    Unproved(Option<String>),
    /// With HAProxy's words.
    Refused(String),
}

#[derive(Debug)]
struct Entry {
    standing: Standing,
    again: Again,
}

/// When something is tried again.
#[derive(Debug, Clone, Copy)]
struct Again {
    due: Instant,
    pause: Duration,
}

impl Again {
    fn now(now: Instant) -> Self {
        Self { due: now, pause: Duration::ZERO }
    }

    fn later(self, now: Instant, [first, most]: [Duration; 2]) -> Self {
        let pause = (self.pause * 2).clamp(first, most);
        Self { due: now + pause, pause }
    }
}

/// A section whose structure HAProxy refused.
#[derive(Debug)]
struct Misfit {
    skeleton: Arc<str>,
    /// The form in which it ran.
    instead: Option<Arc<Section>>,
    why: String,
    again: Again,
}

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

/// The ledger.
#[derive(Debug, Default)]
pub struct Proofs {
    words: HashMap<Words, Entry>,
    misfits: BTreeMap<Arc<str>, Misfit>,
    /// Those of them that are left out, or kept in an older form.
    out: BTreeSet<Arc<str>>,
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
    pub fn admit(&mut self, layout: &mut Layout, applied: &Applied, now: Instant) -> bool {
        if self.header != layout.header {
            self.header = layout.header.clone();
            self.words.values_mut().for_each(|entry| entry.again.due = now);
            self.misfits.values_mut().for_each(|misfit| misfit.again.due = now);
        }
        let out = self.leave_out_misfits(layout, applied, now);
        let mut changed = std::mem::replace(&mut self.told, self.generation) != self.generation || out != self.out;
        self.out = out;
        self.composed = layout.clone();
        let running = OnceCell::new();
        let running = || {
            running.get_or_init(|| {
                applied.layout.sections.iter().map(|s| (&*s.name, s)).collect::<HashMap<&str, &Arc<Section>>>()
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
            let entry = self
                .words
                .entry(words.clone())
                .or_insert_with(|| Entry { standing: Standing::Unproved(None), again: Again::now(now) });
            if running.is_some_and(|running| running.params == server.params) {
                // HAProxy has loaded them.
                entry.standing = Standing::Proved;
            }
            match (&entry.standing, running) {
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
                let Some(entry) = self.words.get(words).filter(|entry| entry.again.due <= now) else { continue };
                if entry.standing != Standing::Proved && taken.insert(words) {
                    due.push((!entry.again.pause.is_zero(), rank, words));
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
        let proved = |words: &Words| self.words.get(words).is_some_and(|entry| entry.standing == Standing::Proved);
        let trial = Trial::of_words(self.composed.clone(), suspects, proved);
        self.forget_unused();
        Some(Batch { trial, is_new })
    }

    /// The edge's rules of the file with the words that wait.
    pub fn rules(&self) -> Option<&Arc<RuleMap>> {
        self.composed.rules.as_ref()
    }

    fn forget_unused(&mut self) {
        if self.misfits.len() > KEPT {
            self.misfits.retain(|name, _| self.out.contains(name));
        }
        if self.words.len() <= KEPT {
            return;
        }
        let mut used = HashSet::new();
        for section in self.composed.sections.iter().filter(|section| section.has_own_words()) {
            let kind = kind(section);
            used.extend(section.servers.iter().filter_map(|server| Words::of(kind, server)));
        }
        if self.words.len() > 2 * used.len() {
            self.words.retain(|words, _| used.contains(words));
        }
    }

    /// Takes down what was found out about a file's suspects; tells whom to blame, each once.
    pub fn judged(&mut self, trial: &Trial, finding: Finding, now: Instant) -> Vec<Blamed> {
        self.generation += 1;
        for words in finding.good.iter().filter_map(|n| trial.suspect(*n)).filter_map(Suspect::words) {
            self.words.insert(words.clone(), Entry { standing: Standing::Proved, again: Again::now(now) });
        }
        let undecided = "haproxy -c refuses a file with this and others; the tries did not suffice to find out which";
        let guilty = finding.guilty.into_iter().map(|(n, why)| (n, Some(why)));
        let mut blamed = Vec::new();
        for (n, why) in guilty.chain(finding.undecided.into_iter().map(|n| (n, None))) {
            match trial.suspect(n) {
                Some(Suspect::Words(words)) => {
                    let known = self.words.get(words);
                    let again = known.map_or(Again::now(now), |entry| entry.again);
                    let was_refused = known.is_some_and(|entry| matches!(entry.standing, Standing::Refused(_)));
                    let (standing, again) = match &why {
                        Some(why) => (Standing::Refused(why.clone()), again.later(now, REFUSED_FOR)),
                        None => (Standing::Unproved(Some(undecided.into())), again.later(now, UNDECIDED_FOR)),
                    };
                    blamed.extend(why.filter(|_| !was_refused).map(|why| self.blame_words(words, why)));
                    self.words.insert(words.clone(), Entry { standing, again });
                }
                Some(Suspect::Section(name)) => {
                    let Some(section) = self.composed.sections.iter().find(|s| s.name == *name) else { continue };
                    let known = self.misfits.get(name).filter(|misfit| misfit.skeleton == section.skeleton);
                    let again = known.map_or(Again::now(now), |misfit| misfit.again).later(now, REFUSED_FOR);
                    let why = why.unwrap_or_else(|| undecided.into());
                    if known.is_none() {
                        blamed.push(Blamed {
                            example: name.to_string(),
                            servers: 0,
                            words: "".into(),
                            why: why.clone(),
                        });
                    }
                    let (skeleton, instead) = (section.skeleton.clone(), trial.instead(name).cloned());
                    self.misfits.insert(name.clone(), Misfit { skeleton, instead, why, again });
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
        let good = (0..trial.len()).collect();
        self.judged(trial, Finding { good, ..Finding::default() }, now);
    }

    /// The words of this file could not be judged now; they are tried again after a pause.
    pub fn put_off(&mut self, trial: &Trial, why: &str, now: Instant) {
        for words in (0..trial.len()).filter_map(|n| trial.suspect(n)).filter_map(Suspect::words) {
            if let Some(entry) = self.words.get_mut(words) {
                if let Standing::Unproved(known) = &mut entry.standing {
                    *known = Some(why.to_owned());
                }
                entry.again = entry.again.later(now, UNDECIDED_FOR);
            }
        }
        self.generation += 1;
    }

    /// This version answers. Another one than before judges all words anew; what it has loaded is proved.
    pub fn suit(&mut self, version: Option<&Version>) {
        let Some(version) = version.filter(|version| self.version.as_ref() != Some(version)) else { return };
        if self.version.replace(version.clone()).is_some() {
            self.words.clear();
            self.misfits.clear();
            self.generation += 1;
        }
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

    fn leave_out_misfits(&self, layout: &mut Layout, applied: &Applied, now: Instant) -> BTreeSet<Arc<str>> {
        let mut out = BTreeSet::new();
        if self.misfits.is_empty() {
            return out;
        }
        layout.sections.retain_mut(|section| {
            let misfit = self.misfits.get(&section.name).filter(|misfit| misfit.skeleton == section.skeleton);
            let Some(misfit) = misfit.filter(|misfit| misfit.again.due > now) else { return true };
            out.insert(section.name.clone());
            let before = applied.layout.sections.iter().find(|before| before.name == section.name);
            let before = before.or(misfit.instead.as_ref());
            before.map(|before| *section = in_form_of(section, before)).is_some()
        });
        out
    }

    /// What is left out, and why: `section/server`, or a section.
    pub fn reasons(&self) -> impl Iterator<Item = (String, String)> {
        let held = self.seen.iter().flat_map(|seen| seen.held.iter().map(move |held| (&seen.section.name, held)));
        let refused = held.filter_map(|(section, (server, words))| match &self.words.get(words)?.standing {
            Standing::Refused(why) | Standing::Unproved(Some(why)) => {
                Some((format!("{section}/{server}"), why.clone()))
            }
            _ => None,
        });
        let misfits = self.out.iter().filter_map(|name| Some((name.to_string(), self.misfits.get(name)?.why.clone())));
        refused.chain(misfits)
    }

    /// How many servers wait for the first judgement of their words.
    pub fn waiting(&self) -> usize {
        let held = self.seen.iter().flat_map(|seen| &seen.held);
        held.filter(|(_, words)| self.words.get(words).is_some_and(|e| e.standing == Standing::Unproved(None))).count()
    }
}

/// Who is to blame.
#[derive(Debug, PartialEq, Eq)]
pub struct Blamed {
    /// The first server with these words, `section/server`; or the section.
    pub example: String,
    /// How many servers have them; none for a section's structure.
    pub servers: usize,
    /// The words.
    pub words: Arc<str>,
    /// HAProxy's words.
    pub why: String,
}

impl Suspect {
    fn words(&self) -> Option<&Words> {
        match self {
            Self::Words(words) => Some(words),
            Self::Section(_) => None,
        }
    }
}

/// The server as it runs, but for what HAProxy need not know words for: its address, weight and maintenance.
fn in_running_form(server: &Server, running: &Server) -> Server {
    let place = |s: &Server| (s.address, s.weight, s.maint);
    match place(server) == place(running) {
        true => running.clone(),
        false => Server { params: running.params.clone(), own: running.own.clone(), line: None, ..server.clone() },
    }
}

#[cfg(test)]
#[path = "proofs_tests.rs"]
mod tests;
