//! Servers that HAProxy itself refuses for words that their registrations brought: each is left out alone. Pure.
//!
//! `haproxy -c` names lines. A line of a server whose registration brought words of its own is tried without them: if
//! HAProxy takes that, the words were at fault and the server is left out; if not, the fault is the operator's, and the
//! whole file is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::layout::{Layout, Section};
use super::server::Server;

/// A server's place: its section and its name.
type Place = (Arc<str>, Arc<str>);

/// A server that HAProxy refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    place: Place,
    line: String,
    /// HAProxy's words.
    pub why: String,
}

impl fmt::Display for Culprit {
    /// `section/server`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.place.0, self.place.1)
    }
}

/// The servers that are left out, until their lines change.
#[derive(Debug, Default)]
pub struct Refused(BTreeMap<Place, Culprit>);

impl Refused {
    /// Leaves these out from now on.
    pub fn add(&mut self, culprits: Vec<Culprit>) {
        self.0.extend(culprits.into_iter().map(|culprit| (culprit.place.clone(), culprit)));
    }

    /// Takes them out of `layout`. One whose line is another now is tried anew; one that is gone is forgotten.
    pub fn leave_out(&mut self, layout: &mut Layout) {
        if self.0.is_empty() {
            return;
        }
        let mut still: BTreeSet<Place> = BTreeSet::new();
        for section in &mut layout.sections {
            let place = |server: &Server| (section.name.clone(), server.name.clone());
            let is_out = |s: &&Server| self.0.get(&place(s)).is_some_and(|culprit| culprit.line == s.to_string());
            let out: BTreeSet<Place> = section.servers.iter().filter(is_out).map(place).collect();
            if !out.is_empty() {
                let servers = section.servers.iter().filter(|s| !out.contains(&place(s))).cloned().collect();
                *section = Arc::new(Section { servers, ..(**section).clone() });
                still.extend(out);
            }
        }
        self.0.retain(|place, _| still.contains(place));
    }

    /// Those that are left out: `section/server`, and HAProxy's words.
    pub fn reasons(&self) -> impl Iterator<Item = (String, String)> {
        self.0.values().map(|c| (c.to_string(), c.why.clone()))
    }
}

/// The servers that HAProxy's words about `file`, which holds `layout`, name; they are bare in `layout` afterwards. `None`
/// when it names none, or one that is not to blame.
pub fn take_words(layout: &mut Layout, file: &Path, said: &str) -> Option<Vec<Culprit>> {
    let mut culprits: Vec<Culprit> = Vec::new();
    for (line, why) in complaints(file, said) {
        // What is no server's line is judged by the next try.
        let Some((at, nth)) = layout.server_at(line) else { continue };
        let section = &layout.sections[at];
        let server = &section.servers[nth];
        let place = (section.name.clone(), server.name.clone());
        if culprits.iter().any(|c| c.place == place) {
            continue; // it was named before, for another of its words
        }
        let bare = server.bare()?;
        culprits.push(Culprit { place, line: server.to_string(), why });
        let mut section = (**section).clone();
        section.servers[nth] = bare;
        layout.sections[at] = Arc::new(section);
    }
    (!culprits.is_empty()).then_some(culprits)
}

/// Line numbers and what is said about them: `[ALERT] (9) : config : parsing [FILE:LINE] : WORDS`.
pub fn complaints(file: &Path, said: &str) -> Vec<(usize, String)> {
    let mark = format!("[{}:", file.display());
    let complaint = |line: &str| {
        let (_, rest) = line.split_once("[ALERT]")?.1.split_once(&mark)?;
        let (number, words) = rest.split_once(']')?;
        let words = words.trim_start_matches([' ', ':']).trim_end();
        Some((number.parse().ok()?, words.to_owned()))
    };
    said.lines().filter_map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/d/haproxy.cfg.candidate";

    fn server(name: &str, own: &str) -> Server {
        let line = format!("server {name} 127.0.0.1:1 check inter 2s {own}");
        Server { line: None, ..Server::of_line(name.into(), ([127, 0, 0, 1], 1).into(), line.into()) }.with_own(own)
    }

    fn layout() -> Layout {
        let section = |name: &str, servers: Vec<Server>| {
            Arc::new(Section {
                name: name.into(),
                skeleton: format!("listen {name}\n\tbind :1\n").into(),
                servers,
                inherited: "".into(),
                text: Default::default(),
            })
        };
        let sections = vec![
            section("empty", vec![]),
            section("web", vec![server("a", ""), server("b", "init-state up weight 7"), server("c", "maxconn 9")]),
        ];
        Layout { header: "global\n\tmaxconn 9\n".into(), sections, ..Layout::default() }
    }

    fn alert(layout: &Layout, wanted: &str) -> String {
        let text = layout.render();
        let number = text.lines().position(|line| line.contains(wanted)).unwrap() + 1;
        format!(
            "[NOTICE] x\n[ALERT]    (9) : config : parsing [{FILE}:{number}] : 'server web/b' : unknown keyword 'init-state'.\n"
        )
    }

    #[test]
    fn the_server_that_brought_a_word_is_left_out_alone_until_its_line_changes() {
        let mut probe = layout();
        let said = alert(&probe, "server b");
        let culprits = take_words(&mut probe, Path::new(FILE), &said).unwrap();
        assert_eq!(probe.sections[1].servers[1].to_string(), "server b 127.0.0.1:1 check inter 2s weight 7");
        assert_eq!(probe.render().lines().count(), layout().render().lines().count(), "lines keep their numbers");
        let mut refused = Refused::default();
        refused.add(culprits);
        let mut left = layout();
        refused.leave_out(&mut left);
        assert_eq!(left.sections[1].servers.iter().map(|s| &*s.name).collect::<Vec<_>>(), ["a", "c"]);
        let why = "'server web/b' : unknown keyword 'init-state'.".to_owned();
        assert_eq!(refused.reasons().collect::<Vec<_>>(), [("web/b".to_owned(), why)]);
        let mut changed = layout();
        Arc::make_mut(&mut changed.sections[1]).servers[1] = server("b", "maxconn 3");
        let all = changed.clone();
        refused.leave_out(&mut changed);
        assert_eq!(changed, all, "another line is tried anew");
        assert_eq!(refused.reasons().count(), 0);
    }

    #[test]
    fn what_no_registration_brought_is_nobodys_fault() {
        for wanted in ["server a", "maxconn 9", "bind :1"] {
            let said = alert(&layout(), wanted);
            assert_eq!(take_words(&mut layout(), Path::new(FILE), &said), None, "{wanted}");
        }
        let both = alert(&layout(), "server b") + &alert(&layout(), "server a");
        assert_eq!(take_words(&mut layout(), Path::new(FILE), &both), None, "the operator's words are wrong, too");
        let bare = take_words(&mut layout(), Path::new(FILE), "[ALERT] config : Fatal errors found");
        assert_eq!(bare, None);
        let mut probe = layout();
        let said = alert(&probe, "server b");
        assert!(take_words(&mut probe, Path::new(FILE), &said).is_some());
        assert_eq!(take_words(&mut probe, Path::new(FILE), &said), None, "refused even without its own words");
    }
}
