//! A config that HAProxy refuses, without whom it refuses it for: servers with some words, or whole sections. Pure.
//!
//! Who writes the file may not know this HAProxy's version (files mode, two containers), and a registration may have brought words that it
//! does not take. Suspects are the servers and sections that the last good file does not have; what fails without all of them is the
//! fault of the whole file. [`crate::haproxy::process::blame`] finds the guilty ones.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use crate::haproxy::process::blame::complaints;

/// The file with its suspects. What is left out becomes comments, so that every line keeps its number.
#[derive(Debug)]
pub struct Sparing<'a> {
    lines: Vec<Line<'a>>,
    count: usize,
}

#[derive(Debug)]
struct Line<'a> {
    text: &'a str,
    section: &'a str,
    is_server: bool,
    /// The section's structure, as a suspect.
    of_section: Option<usize>,
    /// The server's words, as a suspect.
    of_words: Option<usize>,
}

/// One section's text: where its lines are, what it is called, and what it says besides its servers.
struct Block<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

/// Sections that can be left out: all but `global`, `defaults` and what else counts for others.
const KINDS: [&str; 3] = ["listen", "backend", "frontend"];

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = vec![Block { name: "", lines: Vec::new() }];
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if !line.starts_with(char::is_whitespace) && !first.is_empty() && !first.starts_with('#') {
            let name = if KINDS.contains(&first) { words.next().unwrap_or_default() } else { "" };
            blocks.push(Block { name, lines: Vec::new() });
        }
        if let Some(block) = blocks.last_mut() {
            block.lines.push(line);
        }
    }
    blocks
}

/// What a `server` line says behind its name and address.
fn words_of(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    (words.next() == Some("server")).then(|| words.skip(2).collect::<Vec<_>>().join(" "))
}

impl<'a> Block<'a> {
    fn structure(&self) -> Vec<&'a str> {
        let is_ours = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        self.lines.iter().copied().filter(is_ours).filter(|line| words_of(line).is_none()).collect()
    }

    /// The same without names and addresses: servers of equal kinds are judged together.
    fn kind(&self) -> Vec<&'a str> {
        self.structure().into_iter().skip(1).filter(|line| !line.trim_start().starts_with("bind ")).collect()
    }
}

impl<'a> Sparing<'a> {
    /// The suspects of `text`; `good` is the last good file, empty when there is none.
    pub fn new(text: &'a str, good: &str) -> Self {
        let known_blocks = blocks(good);
        let known: HashMap<&str, &Block<'_>> = known_blocks.iter().map(|block| (block.name, block)).collect();
        let (mut lines, mut numbers, mut suspects) = (Vec::new(), HashMap::new(), 0..);
        for block in blocks(text) {
            let before = known.get(block.name);
            let is_new = !block.name.is_empty() && before.is_none_or(|before| before.structure() != block.structure());
            let of_section = if is_new { suspects.next() } else { None };
            let servers: HashSet<&str> = before.into_iter().flat_map(|before| before.lines.iter().copied()).collect();
            let kind = block.kind();
            for text in block.lines {
                let words = words_of(text).filter(|_| !block.name.is_empty());
                let is_server = words.is_some();
                let words = words.filter(|words| !words.is_empty() && (is_new || !servers.contains(text)));
                let of_words =
                    words.and_then(|words| *numbers.entry((kind.clone(), words)).or_insert_with(|| suspects.next()));
                lines.push(Line { text, section: block.name, is_server, of_section, of_words });
            }
        }
        Self { lines, count: suspects.start }
    }

    /// How many suspects there are.
    pub fn suspects(&self) -> usize {
        self.count
    }

    fn is_there(line: &Line<'_>, there: &BTreeSet<usize>) -> bool {
        [line.of_section, line.of_words].into_iter().flatten().all(|suspect| there.contains(&suspect))
    }

    /// The file with these suspects only.
    pub fn with(&self, there: &BTreeSet<usize>) -> String {
        let mut text = String::new();
        for line in &self.lines {
            match Self::is_there(line, there) {
                true => text.push_str(line.text),
                false => text.extend(["# left out: ", line.text.trim()]),
            }
            text.push('\n');
        }
        text
    }

    /// The suspects whose lines HAProxy's words about `file` name; and the words for each.
    pub fn named(&self, there: &BTreeSet<usize>, file: &Path, said: &str) -> BTreeMap<usize, String> {
        let mut named = BTreeMap::new();
        for (number, why) in complaints(file, said) {
            let line = number.checked_sub(1).and_then(|at| self.lines.get(at));
            let suspect = line.and_then(|line| line.of_words.or(line.of_section));
            if let Some(suspect) = suspect.filter(|suspect| there.contains(suspect)) {
                named.entry(suspect).or_insert(why);
            }
        }
        named
    }

    /// Whether any server is left with these suspects only: a file that serves nobody is no better than none.
    pub fn serves(&self, there: &BTreeSet<usize>) -> bool {
        self.lines.iter().any(|line| line.is_server && Self::is_there(line, there))
    }

    /// What is left out for these, `section/server` or a section, and why.
    pub fn left_out(&self, guilty: &BTreeMap<usize, String>) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for line in &self.lines {
            if let Some(why) = line.of_section.and_then(|suspect| guilty.get(&suspect)) {
                out.insert(line.section.to_owned(), why.clone());
            } else if let Some(why) = line.of_words.and_then(|suspect| guilty.get(&suspect)) {
                let server = line.text.split_whitespace().nth(1).unwrap_or_default();
                out.insert(format!("{}/{server}", line.section), why.clone());
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::haproxy::process::blame::{Judge, NoFinding, Verdict, find};

    const FILE: &str = "/d/copy.cfg.candidate";
    const TEXT: &str = "global\n\tmaxconn 9\nlisten web\n\tserver a h:1 check\n\tserver b h:2 what 7\nlisten api\n\tserver c h:3 odd\n";

    /// A HAProxy that refuses texts: with the line, or without one.
    struct Script<'a>(&'a Sparing<'a>, Vec<(&'static str, bool)>);

    impl Judge for Script<'_> {
        async fn with(&mut self, suspects: &BTreeSet<usize>) -> Option<Verdict> {
            let text = self.0.with(suspects);
            let lines = || text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
            let hits = |bad: &str| lines().find(|(_, line)| line.contains(bad)).map(|(n, _)| n + 1);
            let hit = self.1.iter().find_map(|(bad, by_line)| Some((bad, by_line, hits(bad)?)));
            let Some((bad, by_line, n)) = hit else { return Some(Verdict::Good) };
            let said = match by_line {
                true => format!("[ALERT]    (9) : config : parsing [{FILE}:{n}] : {bad}.\n"),
                false => format!("[ALERT]    (9) : config : {bad}.\n"),
            };
            Some(Verdict::Bad { named: self.0.named(suspects, Path::new(FILE), &said), why: said })
        }
    }

    async fn out(good: &str, bad: &[(&'static str, bool)]) -> Result<Vec<String>, NoFinding> {
        let sparing = Sparing::new(TEXT, good);
        let finding = find(sparing.suspects(), 32, &mut Script(&sparing, bad.to_vec())).await?;
        let left = sparing.left_out(&finding.guilty).into_keys().collect();
        assert_eq!(sparing.with(&finding.good).lines().count(), TEXT.lines().count(), "lines keep their numbers");
        Ok(left)
    }

    #[tokio::test]
    async fn whoever_is_refused_is_left_out_alone_with_a_line_and_without_one() {
        for by_line in [true, false] {
            for good in ["", "global\n\tmaxconn 9\nlisten web\n\tserver a h:1 check\n"] {
                assert_eq!(out(good, &[("what", by_line)]).await, Ok(vec!["web/b".to_owned()]), "{by_line} {good}");
                assert_eq!(out(good, &[("odd", by_line)]).await, Ok(vec!["api/c".to_owned()]));
                assert_eq!(out(good, &[("listen api", by_line)]).await, Ok(vec!["api".to_owned()]));
                let both = out(good, &[("what", by_line), ("odd", !by_line)]).await;
                assert_eq!(both, Ok(vec!["api/c".to_owned(), "web/b".to_owned()]));
            }
        }
        assert_eq!(out("", &[]).await, Ok(vec![]));
    }

    #[tokio::test]
    async fn what_the_file_says_for_all_is_nobodys_fault() {
        for by_line in [true, false] {
            assert!(matches!(out("", &[("maxconn", by_line)]).await, Err(NoFinding::NotTheirs(_))));
        }
    }

    #[test]
    fn a_file_without_any_server_serves_nobody() {
        let sparing = Sparing::new(TEXT, "");
        assert!(sparing.serves(&(0..sparing.suspects()).collect()) && !sparing.serves(&BTreeSet::new()));
        assert!(Sparing::new(TEXT, TEXT).suspects() == 0, "what is good is not suspected");
        assert_eq!((sparing.lines.iter().filter(|line| line.is_server).count(), sparing.suspects()), (3, 5));
    }
}
