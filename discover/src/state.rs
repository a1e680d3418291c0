//! The state file: what must outlive a restart of discover, written at most once a second. What changes goes into a journal beside it, so that
//! a change costs what changed; the whole is written anew when the journal has become as long.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::clock;
use agent::files::{FileError, Replace, beside, replace};
use agent::telemetry::Chain;
use model::ServiceMap;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::reconcile::{Memory, MemoryError, Stamp};

/// The least time between two writes.
const EVERY: Duration = Duration::from_secs(1);
/// How both files are written.
const PRIVATE: Replace = Replace { mode: Some(0o640), owner: None, sync: false };
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

/// A journal may always be so long, in bytes.
const SHORT: u64 = 64 * 1024;

/// The file, and what was written to it last.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    written: Option<u64>,
    /// What is on disk; none where that is not known.
    base: Option<Base>,
    not_before: Option<Instant>,
    failing: bool,
}

/// A whole state on disk, and the journal behind it.
#[derive(Debug, Clone)]
struct Base {
    id: u64,
    /// What the sources had told, by both.
    told: ServiceMap,
    /// How long the journal is, and may become.
    journal: u64,
    most: u64,
}

impl StateFile {
    /// A file at `path`; does no I/O.
    pub fn new(path: PathBuf) -> Self {
        Self { path, written: None, base: None, not_before: None, failing: false }
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
        // Without a journal the whole counts as it is.
        let changes = std::fs::read(journal(&self.path)).unwrap_or_default();
        match Memory::from_base(&bytes, &changes, now()) {
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

    async fn write(&mut self, memory: Memory) -> Result<(), StateError> {
        // Whatever fails, the whole is written the next time.
        let (path, base) = (self.path.clone(), self.base.take());
        let write = move || -> Result<Base, StateError> {
            let changes = base.filter(|base| base.journal < base.most && path.exists());
            match changes.map(|base| append(&path, base, &memory)) {
                Some(Ok(base)) => Ok(Base { told: memory.told, ..base }),
                Some(Err(_)) | None => begin(&path, memory),
            }
        };
        self.base = Some(tokio::task::spawn_blocking(write).await??);
        Ok(())
    }

    /// The next [`save`](Self::save) writes at once: discover ends.
    pub fn hurry(&mut self) {
        self.not_before = None;
    }
}

/// Where the changes are.
fn journal(path: &Path) -> PathBuf {
    beside(path, ".journal")
}

/// Writes the whole. The journal of the one before does not belong to it, so it is no matter when that goes.
fn begin(path: &Path, memory: Memory) -> Result<Base, StateError> {
    let now = now();
    // Another one each time: nobody writes two states in one nanosecond.
    let id = u64::try_from(now.unix.as_nanos()).unwrap_or(u64::MAX);
    let text = memory.to_base(Some(id), now)?;
    replace(path, &text, PRIVATE)?;
    replace(&journal(path), &[], PRIVATE)?;
    Ok(Base { id, told: memory.told, journal: 0, most: SHORT.max(text.len() as u64) })
}

/// Appends what has changed since.
fn append(path: &Path, base: Base, memory: &Memory) -> Result<Base, StateError> {
    let line = memory.to_changes(base.id, &base.told, now())?;
    let path = journal(path);
    let failed = |source| FileError::Io { operation: "appending to", path: path.clone(), source };
    let mut file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
    file.write_all(&line).map_err(failed)?;
    Ok(Base { journal: base.journal + line.len() as u64, ..base })
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
    use std::sync::Arc;

    use model::{Backend, Pool};

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
    async fn a_change_is_appended_and_the_whole_is_written_when_the_journal_is_as_long() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = StateFile::new(dir.path().join("state.json"));
        let service = |n: usize| format!("service-{n}").parse().unwrap();
        let pool = |host: &str| {
            let all = (0..10).map(|id| {
                let id = format!("b{id}").parse().unwrap();
                Arc::new(Backend::new(id, host.parse().unwrap(), 80.try_into().unwrap()))
            });
            Arc::new(Pool::new(all))
        };
        let told = (0..100).map(|n| (service(n), pool("10.0.0.1"))).collect();
        let mut memory = Memory { told, ..Memory::default() };
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let (mut wholes, mut longest) = (0, 0);
        let mut now = Instant::now();
        for n in 0..150_usize {
            memory.told.insert(service(n % 100), pool(&format!("10.0.1.{}", n % 200)));
            if n % 3 == 0 {
                memory.told.remove(&service(n % 7));
            }
            let before = length(&journal(&file.path));
            now += EVERY;
            assert_eq!(file.save(n as u64, || memory.clone(), now).await, None);
            let after = length(&journal(&file.path));
            wholes += usize::from(after == 0);
            longest = longest.max(after);
            assert!(after == 0 || after - before < 20_000, "a change costs what changed");
            if n % 25 == 0 {
                assert_eq!(StateFile::new(file.path.clone()).load().told, memory.told, "after change {n}");
            }
        }
        assert!((2..20).contains(&wholes), "{wholes}");
        assert!(longest < 2 * length(&file.path).max(SHORT), "{longest}");
        // One that was cut off by a kill, or that another discover's journal is beside, is read as far as it goes.
        std::fs::write(journal(&file.path), b"{\"version\":1,").unwrap();
        assert!(!StateFile::new(file.path.clone()).load().told.is_empty());
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
