//! The state file: what must outlive a restart of discover, written at most once a second.

use std::path::PathBuf;
use std::time::Duration;

use agent::clock;
use agent::files::{FileError, Replace, replace};
use agent::telemetry::Chain;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::reconcile::{Memory, MemoryError, Stamp};

/// The least time between two writes.
const EVERY: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(10);

/// Why the state could not be written.
#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error("making the state's text")]
    Text(#[from] MemoryError),
    #[error("writing the state")]
    Write(#[from] FileError),
    #[error("writing the state in the background")]
    Task(#[from] tokio::task::JoinError),
}

/// The file, and what was written to it last.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    written: Option<u64>,
    not_before: Option<Instant>,
    failing: bool,
}

impl StateFile {
    /// A file at `path`; does no I/O.
    pub fn new(path: PathBuf) -> Self {
        Self { path, written: None, not_before: None, failing: false }
    }

    /// What was remembered; nothing where there is no file, or not one of ours (which is said).
    pub fn load(&self) -> Memory {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Memory::default(),
            Err(e) => {
                warn!(path = %self.path.display(), error = %Chain(&e), "Cannot read the state; nothing is remembered.");
                return Memory::default();
            }
        };
        match Memory::from_json(&bytes, now()) {
            Ok(memory) => {
                let (services, held) = (memory.told.len(), memory.holding.len());
                info!(path = %self.path.display(), services, held, "State of before the restart.");
                memory
            }
            Err(e) => {
                warn!(path = %self.path.display(), error = %Chain(&e), "Unreadable state; nothing is remembered.");
                Memory::default()
            }
        }
    }

    /// Writes `memory`, unless `version` of it is written already or it is too soon; gives when to come again.
    pub async fn save(&mut self, version: u64, memory: impl FnOnce() -> Memory, now: Instant) -> Option<Instant> {
        if self.written == Some(version) {
            return None;
        }
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            return Some(at);
        }
        match self.write(memory()).await {
            Ok(()) => {
                self.written = Some(version);
                self.not_before = Some(now + EVERY);
                if std::mem::take(&mut self.failing) {
                    info!(path = %self.path.display(), "The state is written again.");
                }
                None
            }
            Err(e) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(error = %Chain(&e), "Cannot write the state; a restart now would not know what to hold.");
                }
                let at = now + RETRY;
                self.not_before = Some(at);
                Some(at)
            }
        }
    }

    async fn write(&self, memory: Memory) -> Result<(), StateError> {
        let path = self.path.clone();
        let write = move || -> Result<(), StateError> {
            let text = memory.to_json(now())?;
            Ok(replace(&path, &text, Replace { mode: Some(0o640), ..Replace::default() })?)
        };
        tokio::task::spawn_blocking(write).await?
    }

    /// The next [`save`](Self::save) writes at once: discover ends.
    pub fn hurry(&mut self) {
        self.not_before = None;
    }
}

/// This moment, by both clocks.
///
/// Source: proc(5) for `uptime`, in seconds since the machine's start, and random(4) for `boot_id`.
fn now() -> Stamp {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let run = read("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned());
    let uptime = read("/proc/uptime").and_then(|text| text.split_whitespace().next()?.parse().ok());
    let uptime = uptime.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Stamp { unix: clock::now(), boot: run.zip(uptime) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_written_at_most_once_a_second_and_only_when_something_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = StateFile::new(dir.path().join("state.json"));
        assert_eq!(file.load(), Memory::default());
        let now = Instant::now();
        assert_eq!(file.save(1, Memory::default, now).await, None);
        assert!(file.path.exists());
        std::fs::remove_file(&file.path).unwrap();
        assert_eq!(file.save(1, Memory::default, now + EVERY * 9).await, None);
        assert!(!file.path.exists(), "nothing has changed");
        assert_eq!(file.save(2, Memory::default, now).await, Some(now + EVERY));
        assert!(!file.path.exists());
        assert_eq!(file.save(2, Memory::default, now + EVERY).await, None);
        assert!(file.path.exists());
        file.hurry();
        assert_eq!(file.save(3, Memory::default, now + EVERY).await, None);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_tried_again_and_a_strange_one_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = StateFile::new(dir.path().join("missing/state.json"));
        let now = Instant::now();
        assert_eq!(file.save(1, Memory::default, now).await, Some(now + RETRY));
        std::fs::create_dir(dir.path().join("missing")).unwrap();
        assert_eq!(file.save(1, Memory::default, now + RETRY).await, None);
        std::fs::write(&file.path, "{\"version\":").unwrap();
        assert_eq!(file.load(), Memory::default());
    }
}
