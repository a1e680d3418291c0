//! Who is to blame for a config that `haproxy -c` does not take, whatever the form of its failure. Sans I/O: a [`Judge`] tries files.
//!
//! The file without every suspect is tried first: if that fails, no suspect is to blame. Then by line, as long as HAProxy names
//! suspects. What remains (an alert without a line, a time-out, a crash) is found by halving: a group that passes joins what is
//! known to be good, and is there in each later try, so that the accepted ones have been tried together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// Files that are tried, with some suspects and without the others. Suspects are numbers.
pub trait Judge {
    /// Tries the file with these suspects only. `None` when no judgement can be had (the program cannot be run).
    fn with(&mut self, suspects: &BTreeSet<usize>) -> impl Future<Output = Option<Verdict>> + Send;
}

/// What a try says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// HAProxy takes the file.
    Good,
    /// It does not.
    Bad {
        /// Its words, or how it failed.
        why: String,
        /// Suspects whose lines it names, with the words for each.
        named: BTreeMap<usize, String>,
    },
}

/// What is found out about all suspects; each is in one of the three.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Finding {
    /// The file is good with all of these together.
    pub good: BTreeSet<usize>,
    /// These are to blame, and why.
    pub guilty: BTreeMap<usize, String>,
    /// Not found out within the tries.
    pub undecided: BTreeSet<usize>,
}

/// Why nothing was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoFinding {
    /// The file fails without any suspect, too: with these words.
    NotTheirs(String),
    /// No judgement can be had.
    Unknown,
}

/// A group of suspects that waits for its try.
struct Group {
    members: Vec<usize>,
    /// Why the group that it was part of failed.
    why: String,
    /// The next group on the stack is the other half: if this one is good, that one is not.
    first_half: bool,
    /// Known to fail without a try.
    known: bool,
}

/// Finds out which of the suspects `0..count` HAProxy does not take, with at most `tries` tries.
pub async fn find(count: usize, tries: usize, judge: &mut impl Judge) -> Result<Finding, NoFinding> {
    let mut finding = Finding::default();
    match judge.with(&finding.good).await {
        None => return Err(NoFinding::Unknown),
        Some(Verdict::Bad { why, .. }) => return Err(NoFinding::NotTheirs(why)),
        Some(Verdict::Good) => {}
    }
    let all = Group { members: (0..count).collect(), why: String::new(), first_half: false, known: false };
    let (mut stack, mut tries) = (vec![all], tries.saturating_sub(1));
    while let Some(mut group) = stack.pop() {
        let why = loop {
            match group.members[..] {
                [] => break None,
                [one] if group.known => {
                    finding.guilty.insert(one, group.why.clone());
                    break None;
                }
                _ if group.known => break Some(group.why.clone()),
                _ => {}
            }
            if tries == 0 {
                finding.undecided.extend(&group.members);
                break None;
            }
            tries -= 1;
            let tried = finding.good.iter().chain(&group.members).copied().collect();
            match judge.with(&tried).await {
                None => return Err(NoFinding::Unknown),
                Some(Verdict::Good) => {
                    finding.good.extend(&group.members);
                    if let (true, Some(other)) = (group.first_half, stack.last_mut()) {
                        other.known = true;
                    }
                    break None;
                }
                Some(Verdict::Bad { why, mut named }) => {
                    named.retain(|suspect, _| group.members.contains(suspect));
                    group.members.retain(|suspect| !named.contains_key(suspect));
                    if !named.is_empty() {
                        // Both halves may have had some: what is known of the other one does not hold.
                        (group.first_half, group.known) = (false, false);
                        finding.guilty.extend(named);
                        continue;
                    }
                    if let [one] = group.members[..] {
                        finding.guilty.insert(one, why);
                        break None;
                    }
                    break Some(why);
                }
            }
        };
        if let Some(why) = why {
            let rest = group.members.split_off(group.members.len() / 2);
            let half = |members, first_half| Group { members, why: why.clone(), first_half, known: false };
            stack.extend([half(rest, false), half(group.members, true)]);
        }
    }
    Ok(finding)
}

/// The deadline for each try of a search: the first one has the whole time, and tells what later ones may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience(Duration);

impl Patience {
    /// A search whose tries may take at most this long.
    pub fn new(most: Duration) -> Self {
        Self(most)
    }

    /// What the next try may take.
    pub fn next(self) -> Duration {
        self.0
    }

    /// A try of a good file took this long: a bad one that takes ten times as long, and a second, is not waited for.
    pub fn took(&mut self, time: Duration) {
        self.0 = self.0.min((time * 10).max(Duration::from_secs(1)));
    }
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

/// What HAProxy says in a few words: its alerts without their heads, or all of it where there are none.
pub fn gist(said: &str) -> String {
    const MOST: usize = 400;
    let alert = |line: &str| {
        let text = line.split_once("[ALERT]")?.1.split_once(" : ")?.1;
        let closing = ["Fatal errors found in configuration", "Error(s) found in configuration file"];
        let closes = closing.iter().any(|words| text.contains(words));
        (!closes).then(|| text.trim_start_matches("config : ").trim().to_owned())
    };
    let alerts: Vec<String> = said.lines().filter_map(alert).collect();
    let text = if alerts.is_empty() { said.trim().to_owned() } else { alerts.join("; ") };
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{} …", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
#[path = "blame_tests.rs"]
mod tests;
