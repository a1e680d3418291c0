//! `method: file`: one service's backends from a file, or from all JSON and YAML files of a directory.
//!
//! Signals come from inotify (`signals`), which directories they must cover from the path itself (`lookups`: a mounted
//! ConfigMap swaps a link one directory up), what the files say from `content`; `reading` keeps each file's last good
//! content. A period backs the signals up, for file systems without any.

mod content;
mod lookups;
mod reading;
mod signals;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use tokio::task::{JoinError, spawn_blocking};

use super::findings::Findings;
use super::poll::{Look, Pace, Poll, Polled};
use super::{About, BoxWatcher, Context, Fault, Faults, Method, MethodInput};
use lookups::Lookups;
use reading::{FileFault, Reading};
use signals::Signals;

/// Between two looks without a signal, unless the config says otherwise.
const EVERY_SECONDS: u64 = 10;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    path: Option<PathBuf>,
    check_interval: Option<f64>,
    discovery_jitter: Option<f64>,
}

/// Which file or directory, and how often it is looked at without a signal.
#[derive(Debug, Clone)]
pub struct File {
    about: About,
    path: PathBuf,
    pace: Pace,
}

impl File {
    /// The backends of a service in the file or directory `path`.
    pub fn new(about: About, path: PathBuf, pace: Pace) -> Self {
        Self { about, path, pace }
    }

    /// The watcher itself.
    pub fn polled(&self) -> Polled<FileSource> {
        let reading = Reading::new(self.path.clone(), self.about.service.clone());
        let source = FileSource {
            about: self.about.clone(),
            path: self.path.clone(),
            signals: Signals::default(),
            reading: Arc::new(Mutex::new(reading)),
        };
        Polled::new(source, self.about.source.clone(), self.pace)
    }
}

impl Method for File {
    fn read(asked: &MethodInput<'_>) -> Result<Self, Faults> {
        let keys: Keys = asked.keys()?;
        let path = keys.path.filter(|p| !p.as_os_str().is_empty()).ok_or_else(|| Fault::new("path", "is required"))?;
        let pace = Pace::every(keys.check_interval, EVERY_SECONDS).starting_within(keys.discovery_jitter);
        Ok(Self::new(asked.about.clone(), path, pace))
    }

    fn watcher(&self, _: &mut Context) -> BoxWatcher {
        Box::new(self.polled())
    }

    fn servers(&self) -> Vec<String> {
        vec![self.path.display().to_string()]
    }
}

/// Why a look failed; what was known stays.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file, or the whole directory.
    #[error(transparent)]
    Fault(#[from] FileFault),
    /// An earlier look has not come back from the file system.
    #[error("reading {}: an earlier read hangs", .0.display())]
    Hangs(PathBuf),
    /// The task that reads was lost.
    #[error("reading in the background")]
    Task(#[from] JoinError),
}

/// The files, as a source that can be looked at.
#[derive(Debug)]
pub struct FileSource {
    about: About,
    path: PathBuf,
    signals: Signals,
    reading: Arc<Mutex<Reading>>,
}

impl FileSource {
    async fn lookups(&self) -> Result<Lookups, JoinError> {
        let path = self.path.clone();
        spawn_blocking(move || Lookups::of(&path)).await
    }
}

impl Poll for FileSource {
    type Error = FileError;

    async fn look(&mut self) -> Result<Look, FileError> {
        // Signals first, then what they are about: nothing that happens in between is missed.
        let lookups = self.lookups().await?;
        self.signals.cover(lookups);
        let being_written = self.signals.being_written();
        let reading = self.reading.clone();
        let read = spawn_blocking(move || {
            let mut reading = match reading.try_lock() {
                Ok(reading) => reading,
                // What a panic left behind is only a cache.
                Err(std::sync::TryLockError::Poisoned(e)) => PoisonError::into_inner(e),
                Err(std::sync::TryLockError::WouldBlock) => return None,
            };
            Some(reading.read(&being_written))
        });
        let read = read.await?.ok_or_else(|| FileError::Hangs(self.path.clone()))??;
        let mut findings = Findings::new(&self.about);
        for (what, why) in read.faults {
            findings.left_out(&what, why);
        }
        for item in read.contents.iter().flat_map(|content| content.iter()) {
            match &item.registration {
                Ok(map) => findings.registration(&item.what, map),
                Err(why) => findings.left_out(&item.what, why),
            }
        }
        Ok(findings.answer().into())
    }

    async fn nudged(&mut self) {
        self.signals.changed().await;
    }
}
