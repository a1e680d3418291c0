//! What changed, when and why: an agent's last changes.
//!
//! | part | what it does | I/O |
//! |---|---|---|
//! | [`History`], [`Change`] | keeps the last [`MOST`] changes as text and answers questions about them | no |
//! | `file` | the same on disk, so that they outlive a restart | files |
//! | [`serve`] | `/history` of the admin server | no |
//! | [`client`] | the command `history` | asks the agent |
//!
//! # The form of a change
//! A JSON object: `at_unix_ms`, `what` (a word of the agent's closed set), and as far as they apply `service`, `backend`, `name`, `address`, `reason` (a word of
//! the log's closed sets), `why` (for people) and `took_ms` (from the moment at which the agent heard of the cause until the change was made).

pub mod client;
mod file;
pub mod serve;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::file::HistoryFile;
pub use self::file::MOST;
use crate::clock;
use crate::sync::lock;
use crate::trouble::{News, Trouble};
use crate::watch::{Inlet, Observation};

/// Changes are gathered for so long before they are written.
const GATHER: Duration = Duration::from_secs(1);
/// The most characters of one text within a change.
const LONGEST_TEXT: usize = 240;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change(Map<String, Value>);

impl Change {
    /// A change that happens now; `what` is a word of the agent's closed set.
    pub fn new(what: &'static str) -> Self {
        Self::at(what, clock::millis(clock::now()))
    }

    /// A change that happened at that time, in milliseconds since 1970.
    pub fn at(what: &'static str, unix_ms: u64) -> Self {
        Self([("at_unix_ms".to_owned(), unix_ms.into()), ("what".to_owned(), what.into())].into_iter().collect())
    }

    /// With one more fact. Nothing and the empty text are left out; a text becomes one line, and is cut where it is long.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        let value = match value.into() {
            Value::Null => return self,
            Value::String(text) if text.is_empty() => return self,
            Value::String(text) => one_line(&text).into(),
            value => value,
        };
        self.0.insert(key.to_owned(), value);
        self
    }

    /// With the time that it took, if that is known.
    #[must_use]
    pub fn took(self, took: Option<Duration>) -> Self {
        // Tenths of a millisecond are as fine as anybody reads.
        self.with("took_ms", took.map(|took| (took.as_secs_f64() * 10_000.0).round() / 10.0))
    }
}

/// A text on one line, cut where it is too long.
fn one_line(text: &str) -> String {
    let mut line: String = text.split_whitespace().flat_map(|word| [word, " "]).collect();
    line.pop();
    match line.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Which changes are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those at or after this time, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// At most so many, the newest.
    pub most: Option<usize>,
}

/// An agent's last changes; clones share them.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    noted: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    /// Each a JSON object, the oldest first.
    lines: VecDeque<Box<str>>,
    /// How many of the newest are not on disk yet.
    unwritten: usize,
    /// How many were ever noted by this run.
    count: u64,
}

impl Kept {
    fn push(&mut self, line: Box<str>) {
        if self.lines.len() >= MOST {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

impl History {
    /// Notes a change. It is on disk within about a second, where there is a file.
    pub fn note(&self, change: Change) {
        let line = Value::Object(change.0).to_string().into_boxed_str();
        let mut kept = lock(&self.0.kept);
        kept.push(line);
        kept.count += 1;
        kept.unwritten = (kept.unwritten + 1).min(kept.lines.len());
        drop(kept);
        self.0.noted.notify_one();
    }

    /// How many changes this run has noted: who shows them looks again when it grows.
    pub fn count(&self) -> u64 {
        lock(&self.0.kept).count
    }

    /// How many changes are kept, and when the oldest of them happened.
    pub fn extent(&self) -> (usize, Option<u64>) {
        let kept = lock(&self.0.kept);
        let oldest = kept.lines.front().and_then(|line| serde_json::from_str::<Value>(line).ok());
        (kept.lines.len(), oldest.and_then(|change| change["at_unix_ms"].as_u64()))
    }

    /// The changes that are asked for, the newest first.
    pub fn read(&self, query: &Query) -> Vec<Value> {
        let lines: Vec<Box<str>> = match query {
            // Most ask for the newest few: only these are copied.
            Query { service: None, most: Some(most), .. } => {
                lock(&self.0.kept).lines.iter().rev().take(*most).cloned().collect()
            }
            _ => lock(&self.0.kept).lines.iter().rev().cloned().collect(),
        };
        let changes = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let recent = changes.filter(|change| change["at_unix_ms"].as_u64() >= Some(query.since_unix_ms));
        let wanted = recent.filter(|change| {
            query.service.as_deref().is_none_or(|service| change["service"].as_str() == Some(service))
        });
        wanted.take(query.most.unwrap_or(MOST)).collect()
    }

    /// Goes on from the file at `path`, and keeps it until `cancel`. A file that cannot be read begins anew; one that cannot be written is tried again
    /// with the next change, and its directory is never made.
    pub async fn keep(self, path: PathBuf, cancel: CancellationToken) -> Result<(), Infallible> {
        if !path.parent().is_some_and(Path::is_dir) {
            info!(path = %path.display(), "The history is in memory alone: its directory is not there.");
            cancel.cancelled().await;
            return Ok(());
        }
        let mut file = HistoryFile::new(path);
        let loaded = on_disk(move || {
            let lines = file.load();
            (file, lines)
        });
        let lines;
        (file, lines) = loaded.await;
        self.go_on_from(lines);
        let mut trouble = Trouble::default();
        loop {
            let ends = cancel.run_until_cancelled(self.0.noted.notified()).await.is_none();
            if !ends {
                cancel.run_until_cancelled(sleep(GATHER)).await;
            }
            let (text, lines) = self.unwritten();
            let written;
            (file, written) = on_disk(move || {
                let written = file.append(&text, lines);
                (file, written)
            })
            .await;
            match written {
                Ok(()) => _ = trouble.end(),
                Err(error) => {
                    self.give_back(lines);
                    if trouble.fail(&error.to_string()) != News::None {
                        warn!(path = %file.path().display(), %error, "The history is not written; it stays in memory.");
                    }
                }
            }
            if ends {
                return Ok(());
            }
        }
    }

    /// Notes as `[away, back]` when the source goes stale, and when it is current again, until it ends.
    pub async fn follow<T>(self, name: Arc<str>, mut source: Inlet<T>, words: [&'static str; 2]) {
        let mut was_stale = false;
        loop {
            self.note_standing(&name, &source.borrow_and_update(), &mut was_stale, words);
            if source.changed().await.is_err() {
                return;
            }
        }
    }

    /// Notes as `[away, back]` that the source is stale now and was not, or the other way round.
    pub fn note_standing<T>(
        &self,
        name: &str,
        now: &Observation<T>,
        was_stale: &mut bool,
        [away, back]: [&'static str; 2],
    ) {
        let is_stale = now.stale_since().is_some();
        if is_stale != std::mem::replace(was_stale, is_stale) {
            self.note(Change::new(if is_stale { away } else { back }).with("name", name).with("why", now.error()));
        }
    }

    /// Puts what the file had before what happened since.
    fn go_on_from(&self, lines: Vec<Box<str>>) {
        let mut kept = lock(&self.0.kept);
        let room = MOST.saturating_sub(kept.lines.len());
        lines.into_iter().rev().take(room).for_each(|line| kept.lines.push_front(line));
    }

    /// The text of what is not on disk, and how many lines it has: they count as written from now on.
    fn unwritten(&self) -> (String, usize) {
        let mut kept = lock(&self.0.kept);
        let lines = std::mem::take(&mut kept.unwritten);
        let news = kept.lines.range(kept.lines.len() - lines..);
        (news.flat_map(|line| [&**line, "\n"]).collect(), lines)
    }

    /// They are not written after all.
    fn give_back(&self, lines: usize) {
        let mut kept = lock(&self.0.kept);
        kept.unwritten = (kept.unwritten + lines).min(kept.lines.len());
    }
}

/// Does what may wait for a disk.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests;
