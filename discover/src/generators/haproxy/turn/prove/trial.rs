//! A file with suspects: words that registrations brought, and sections that do not run yet. It can be had with some of the suspects
//! and without the others. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::generators::haproxy::file::layout::{Layout, Section};
use crate::generators::haproxy::file::server::{Server, checksum_of_text};
use crate::haproxy::process::blame::complaints;

/// What HAProxy judges together: a registration's words, in one kind of section. A server's name and address say nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Words {
    /// A checksum of the section's skeleton, without its name and its addresses.
    kind: u64,
    pub text: Arc<str>,
}

impl Words {
    /// The words that this server's registration brought, if any: weights are no words.
    pub fn of(kind: u64, server: &Server) -> Option<Self> {
        server.own_words().map(|text| Self { kind, text: text.clone() })
    }
}

/// What kind of section this is, for its servers: equal for sections that differ in their names and addresses only.
pub fn kind(section: &Section) -> u64 {
    let mut text = String::with_capacity(section.skeleton.len());
    for line in section.skeleton.lines().filter(|line| !line.trim_start().starts_with("bind ")) {
        for word in line.split_whitespace() {
            text.push_str(if *word == *section.name { "%" } else { word });
            text.push(' ');
        }
        text.push('\n');
    }
    checksum_of_text(text.as_bytes())
}

/// One suspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suspect {
    /// These words, wherever they stand.
    Words(Words),
    /// The structure of this section.
    Section(Arc<str>),
}

impl Suspect {
    /// The words, if it is some.
    pub fn words(&self) -> Option<&Words> {
        match self {
            Self::Words(words) => Some(words),
            Self::Section(_) => None,
        }
    }
}

/// Who is to blame.
#[derive(Debug, PartialEq, Eq)]
pub struct Blamed {
    /// The first server with these words, `section/server`; or the section.
    pub example: String,
    /// How many servers have them; none for a section's structure.
    pub servers: usize,
    pub words: Arc<str>,
    /// HAProxy's words.
    pub why: String,
}

impl Blamed {
    /// The structure of this section.
    pub fn section(name: &str, why: String) -> Self {
        Self { example: name.to_owned(), servers: 0, words: "".into(), why }
    }
}

/// A server's place in its section, its suspect if it has one, and its form without the words.
type Bare = (usize, Option<usize>, Server);

/// A file with suspects.
#[derive(Debug)]
pub struct Trial {
    /// The file with all of them.
    layout: Layout,
    /// By their numbers.
    suspects: Vec<Suspect>,
    /// Servers with words, by section: their places in it, their suspect, and their form without the words. Without a suspect they are bare
    /// in each try.
    bare: HashMap<Arc<str>, Vec<Bare>>,
    /// Sections that are suspects, and what takes their place.
    sections: HashMap<Arc<str>, (usize, Option<Arc<Section>>)>,
}

impl Trial {
    /// A file whose suspects are words. Words that `is_known` says stay in each try; those that are neither are in none.
    pub fn of_words(layout: Layout, suspects: Vec<Words>, is_known: impl Fn(&Words) -> bool) -> Self {
        let numbers: HashMap<&Words, usize> = suspects.iter().enumerate().map(|(n, words)| (words, n)).collect();
        let mut bare: HashMap<Arc<str>, Vec<_>> = HashMap::new();
        for section in layout.sections.iter().filter(|section| section.has_own_words()) {
            let kind = kind(section);
            for (at, server) in section.servers.iter().enumerate() {
                let Some(words) = Words::of(kind, server).filter(|words| !is_known(words)) else { continue };
                let Some(form) = server.bare() else { continue };
                bare.entry(section.name.clone()).or_default().push((at, numbers.get(&words).copied(), form));
            }
        }
        let suspects = suspects.iter().cloned().map(Suspect::Words).collect();
        Self { layout, suspects, bare, sections: HashMap::new() }
    }

    /// Everything in `layout` that is not the operator's or does not run yet: all words, and all sections that `runs` has in another form,
    /// or not at all. `samples` are sections of nobody's, which are there in each try: what fails with them is the operator's text.
    pub fn of_all(layout: &Layout, runs: &Layout, samples: impl IntoIterator<Item = Arc<Section>>) -> Self {
        let mut words = BTreeSet::new();
        for section in layout.sections.iter().filter(|section| section.has_own_words()) {
            let kind = kind(section);
            words.extend(section.servers.iter().filter_map(|server| Words::of(kind, server)));
        }
        let mut trial = Self::of_words(layout.clone(), words.into_iter().collect(), |_| false);
        let running: HashMap<&str, &Arc<Section>> = runs.sections.iter().map(|s| (&*s.name, s)).collect();
        for section in &layout.sections {
            let before = running.get(&*section.name);
            if before.is_none_or(|before| before.skeleton != section.skeleton) {
                let instead = before.map(|before| in_form_of(section, before));
                trial.sections.insert(section.name.clone(), (trial.suspects.len(), instead));
                trial.suspects.push(Suspect::Section(section.name.clone()));
            }
        }
        trial.layout.sections.extend(samples);
        trial
    }

    /// How many suspects there are.
    pub fn suspects(&self) -> usize {
        self.suspects.len()
    }

    /// A section of the file.
    pub fn section(&self, name: &str) -> Option<&Arc<Section>> {
        self.layout.sections.iter().find(|section| *section.name == *name)
    }

    /// The form in which a section goes on that is a suspect.
    pub fn instead(&self, section: &str) -> Option<&Arc<Section>> {
        self.sections.get(section)?.1.as_ref()
    }

    pub fn suspect(&self, number: usize) -> Option<&Suspect> {
        self.suspects.get(number)
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.layout.sections.iter().map(|section| section.servers.len()).sum()
    }

    /// The file with these suspects only.
    pub fn with(&self, there: &BTreeSet<usize>) -> Layout {
        let mut layout = self.layout.clone();
        layout.sections = self.layout.sections.iter().filter_map(|section| self.form(section, there)).collect();
        layout
    }

    fn form(&self, section: &Arc<Section>, there: &BTreeSet<usize>) -> Option<Arc<Section>> {
        let mut section = match self.sections.get(&section.name) {
            Some((number, instead)) if !there.contains(number) => instead.clone()?,
            _ => section.clone(),
        };
        for (at, number, bare) in self.bare.get(&section.name).into_iter().flatten() {
            if !number.is_some_and(|number| there.contains(&number)) {
                Arc::make_mut(&mut section).servers[*at] = bare.clone();
            }
        }
        Some(section)
    }

    /// The suspects whose lines HAProxy's words about `file` name, which holds `tried`; and the words for each.
    pub fn named(&self, tried: &Layout, there: &BTreeSet<usize>, file: &Path, said: &str) -> BTreeMap<usize, String> {
        let mut named = BTreeMap::new();
        for (line, why) in complaints(file, said) {
            let Some((section, server)) = tried.place_at(line) else { continue };
            let section = &tried.sections[section];
            let of_server = |nth: usize| self.bare.get(&section.name)?.iter().find(|(at, ..)| *at == nth)?.1;
            let of_section = || self.sections.get(&section.name).map(|(number, _)| *number);
            // A bare line that HAProxy does not take is nobody's words.
            let number = server.map_or_else(of_section, of_server);
            if let Some(number) = number.filter(|number| there.contains(number)) {
                named.entry(number).or_insert(why);
            }
        }
        named
    }
}

/// The servers of `section` in the structure that `before` has.
pub fn in_form_of(section: &Section, before: &Section) -> Arc<Section> {
    let (skeleton, inherited) = (before.skeleton.clone(), before.inherited.clone());
    Arc::new(Section { skeleton, inherited, ..section.clone() })
}

/// The server as it runs, but for what HAProxy need not know words for: its address, weight and maintenance.
pub fn in_running_form(server: &Server, running: &Server) -> Server {
    let place = |s: &Server| (s.address, s.weight, s.maint);
    match place(server) == place(running) {
        true => running.clone(),
        false => Server { params: running.params.clone(), own: running.own.clone(), line: None, ..server.clone() },
    }
}
