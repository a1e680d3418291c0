//! inotify: when names of interest have changed, and which files are being written in place.
//!
//! A look follows a writer's last step (close, rename, link), never one in the middle: a file that was begun and not
//! closed counts as [being written](Signals::being_written), and keeps its last content.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use tokio::time::Instant;
use tracing::warn;

use super::lookups::Lookups;

/// A writer that has not written for so long and keeps its file open has finished for now, as a log's does.
const WRITES_ON: Duration = Duration::from_secs(10);
/// Bytes of events taken at once; one with the longest name has 272.
const BUFFER: usize = 4096;

/// The signals of one watcher. They begin with the first [`cover`](Self::cover).
#[derive(Debug, Default)]
pub struct Signals {
    events: Option<EventStream<Vec<u8>>>,
    /// inotify cannot be had on this machine: the period alone has to do.
    refused: bool,
    covered: Lookups,
    watched: HashMap<WatchDescriptor, PathBuf>,
    /// Files that were begun and not closed, and when that was last seen.
    written: HashMap<PathBuf, Instant>,
}

impl Signals {
    /// Listens for changes of these names, and of no others. Cheap where nothing is new.
    pub fn cover(&mut self, lookups: Lookups) {
        if self.refused {
            return;
        }
        if self.events.is_none() {
            match Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; BUFFER])) {
                Ok(events) => self.events = Some(events),
                Err(error) => {
                    warn!(%error, "No inotify: files are looked at by their period alone.");
                    self.refused = true;
                }
            }
        }
        let Some(events) = &self.events else { return };
        let mut watches = events.watches();
        let unwanted = |(_, path): &(&WatchDescriptor, &PathBuf)| !lookups.0.contains_key(*path);
        let gone: Vec<WatchDescriptor> = self.watched.iter().filter(unwanted).map(|(wd, _)| wd.clone()).collect();
        for wd in gone {
            self.watched.remove(&wd);
            let _ = watches.remove(wd); // it may have ended with its directory
        }
        // Anew each time: the directory behind a name may be another one by now.
        for path in lookups.0.keys() {
            match watches.add(path, wanted()) {
                Ok(wd) => {
                    self.watched.retain(|other, at| at != path || *other == wd);
                    self.watched.insert(wd, path.clone());
                }
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(_) if self.covered.0.contains_key(path) => {} // said before
                Err(error) => {
                    warn!(path = %path.display(), %error, "No signals from this directory: it is looked at by its period.");
                }
            }
        }
        self.covered = lookups;
    }

    /// Completes when a name of interest has changed and its writer has finished. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let Some(events) = &mut self.events else { return std::future::pending().await };
            let Some(Ok(first)) = events.next().await else { return std::future::pending().await };
            let mut all = vec![first];
            // All that are there: none may be lost with the first one that counts.
            while let Some(Some(Ok(event))) = events.next().now_or_never() {
                all.push(event);
            }
            let mut news = false;
            for event in &all {
                news |= self.take(event);
            }
            if news {
                return;
            }
        }
    }

    fn take(&mut self, event: &EventOwned) -> bool {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return true;
        }
        let Some(directory) = self.watched.get(&event.wd) else { return false };
        let Some(name) = &event.name else { return true }; // the directory itself
        if !self.matters(directory, name) {
            return false;
        }
        let path = directory.join(name);
        let begun =
            event.mask.contains(EventMask::MODIFY) || (event.mask.contains(EventMask::CREATE) && is_new_file(&path));
        match begun {
            true => self.written.insert(path, Instant::now()),
            false => self.written.remove(&path),
        };
        !begun
    }

    fn matters(&self, directory: &Path, name: &OsStr) -> bool {
        match self.covered.0.get(directory) {
            Some(Some(names)) => names.contains(name),
            Some(None) => true,
            None => false,
        }
    }

    /// Files whose writers have not finished.
    pub fn being_written(&mut self) -> HashSet<PathBuf> {
        self.written.retain(|_, at| at.elapsed() < WRITES_ON);
        self.written.keys().cloned().collect()
    }
}

/// Made just now: its writer is about to write. A link to a file, of either kind, is whole when it is made.
fn is_new_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.nlink() == 1)
}

fn wanted() -> WatchMask {
    WatchMask::MODIFY
        | WatchMask::CLOSE_WRITE
        | WatchMask::ATTRIB
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}
