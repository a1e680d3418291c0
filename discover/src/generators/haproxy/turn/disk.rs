//! haproxy.cfg on disk, and how far it is what runs.
//!
//! The file always equals what runs or will run. A small one is written before the operations. A large one is written after them, beside the
//! turns, and at most ten times a second for a megabyte. Until then it is *unwritten*: what runs is known from memory only. Whatever happens
//! in between (a kill, somebody else's reload) is found by the next look at what runs, and mended.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::files::FileError;
use agent::sync::lock;
use futures_util::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::files::{ConfigFiles, Stamp};
use crate::generators::haproxy::file::edge::RuleMap;
use crate::generators::haproxy::file::layout::{Layout, Retired};

/// What is on disk.
pub struct Disk {
    pub(super) files: ConfigFiles,
    /// The edge's rules, as far as is known.
    rules: Option<Arc<RuleMap>>,
    /// The servers that linger.
    retired: Retired,
    /// The file is not yet what is applied.
    unwritten: bool,
    /// The live file as we left it.
    left: Option<Stamp>,
    /// Grows with what is to be written.
    version: u64,
    /// A large file that is being written beside the turns, and its version.
    writing: Option<(JoinHandle<Result<Written, FileError>>, u64)>,
    /// The versions below this one need not be written any more; held while one is.
    outdated: Arc<Mutex<u64>>,
    pace: WritePace,
    writes: Counter,
}

/// A file that was written: its length, and what it is known by.
type Written = Option<(usize, Option<Stamp>)>;

impl Disk {
    /// Nothing is known of these files. Does no I/O.
    pub fn new(files: ConfigFiles, writes: Counter) -> Self {
        let (rules, retired, unwritten, pace) = (None, Retired::new(), false, WritePace::default());
        let (left, version, writing, outdated) = (None, 0, None, Arc::default());
        Self { files, rules, retired, unwritten, left, version, writing, outdated, pace, writes }
    }

    /// Whether the file has yet to become what is applied.
    pub fn is_unwritten(&self) -> bool {
        self.unwritten
    }

    /// Whether the live file is the one that we left: nobody has edited or replaced it, and no reload was begun.
    pub fn is_as_left(&self) -> bool {
        self.left.is_some() && self.left == self.files.stamp()
    }

    /// Whether somebody else changed the live file since we left it, and it is not about to be written anyway.
    pub fn was_touched(&self) -> bool {
        !self.unwritten && self.left.is_some() && self.left != self.files.stamp() && self.files.can_be_there()
    }

    /// Whether the file is so large that HAProxy does not wait for it.
    pub fn is_large(&self) -> bool {
        self.left.as_ref().is_some_and(|left| left.bytes > LARGE)
    }

    /// The live file as it is now is about to be read.
    pub fn left_so(&mut self) {
        self.left = self.files.stamp();
    }

    /// When the file may be written, if it has to be.
    pub fn next_write(&self, now: Instant) -> Option<Instant> {
        let due = self.pace.wait(now);
        match &self.writing {
            _ if !self.unwritten => None,
            Some((_, version)) if *version == self.version => None,
            Some(_) => due.max(Some(now + BUSY)),
            None => due,
        }
    }

    /// Writes the file, or leaves that to a later turn when it is large and was written a moment ago. A large one is written beside the
    /// turns.
    ///
    /// # Errors
    /// [`FileError`]; the file stays unwritten.
    pub fn write(&mut self, layout: &Layout) -> Result<(), FileError> {
        self.version += 1;
        self.unwritten = true;
        self.catch_up(layout)
    }

    /// Goes on writing what is applied, which is `layout`, if it is not on disk.
    ///
    /// # Errors
    /// As [`write`](Self::write), also of a file that was begun before.
    pub fn catch_up(&mut self, layout: &Layout) -> Result<(), FileError> {
        self.hear()?;
        let now = Instant::now();
        if !self.unwritten || self.writing.is_some() || self.pace.wait(now).is_some() {
            return Ok(());
        }
        let rules = self.write_rules(layout.rules.as_ref())?;
        let (files, layout, version, outdated) =
            (self.files.clone(), layout.clone(), self.version, self.outdated.clone());
        let job = move || {
            let outdated = lock(&outdated);
            match version < *outdated {
                true => Ok(None),
                false => files.write_live(&layout).map(|bytes| Some((bytes + rules, files.stamp()))),
            }
        };
        match self.is_large() {
            true => {
                self.pace.began(now);
                self.writing = Some((spawn_blocking(job), version));
            }
            false => {
                let written = job()?;
                self.wrote(written, version);
            }
        }
        Ok(())
    }

    fn wrote(&mut self, written: Written, version: u64) {
        let Some((bytes, left)) = written else { return };
        self.pace.wrote(bytes, Instant::now());
        self.left = left;
        self.unwritten = version != self.version;
        self.writes.inc();
    }

    /// Takes note of a large file that has been written.
    fn hear(&mut self) -> Result<(), FileError> {
        let Some((job, version)) = self.writing.take_if(|(job, _)| job.is_finished()) else { return Ok(()) };
        self.ended(job.now_or_never(), version)
    }

    fn ended(
        &mut self,
        job: Option<Result<Result<Written, FileError>, JoinError>>,
        version: u64,
    ) -> Result<(), FileError> {
        // One that panicked or was cut off has written nothing that counts.
        if let Some(Ok(written)) = job {
            self.wrote(written?, version);
        }
        Ok(())
    }

    /// Waits until no file is being written any more: another one is about to take its place.
    ///
    /// # Errors
    /// [`FileError`] of that file.
    pub async fn rest(&mut self) -> Result<(), FileError> {
        let Some((job, version)) = self.writing.take() else { return Ok(()) };
        let job = job.await;
        self.ended(Some(job), version)
    }

    /// Writes the edge's rules, unless they are on disk; gives the number of bytes written.
    pub fn write_rules(&mut self, rules: Option<&Arc<RuleMap>>) -> Result<usize, FileError> {
        let Some(rules) = rules.filter(|rules| self.rules.as_ref() != Some(rules)) else { return Ok(0) };
        self.rules = None;
        let bytes = self.files.write_rules(rules)?;
        self.rules = Some(rules.clone());
        Ok(bytes)
    }

    /// Notes the servers that linger.
    pub fn write_retired(&mut self, retired: &Retired) -> Result<(), FileError> {
        if self.retired != *retired {
            self.files.write_retired(retired)?;
            self.retired = retired.clone();
        }
        Ok(())
    }

    /// Rereads the rules on disk. Others than those that run must be written again.
    pub fn reread_rules(&mut self, running: &Arc<RuleMap>) {
        let on_disk = self.files.read_rules().ok().flatten();
        self.unwritten |= on_disk.as_ref() != Some(&**running);
        self.rules = on_disk.map(Arc::new);
    }

    /// Makes the candidate live.
    ///
    /// # Errors
    /// [`FileError`]; the old file is live.
    pub fn promote(&mut self) -> Result<(), FileError> {
        self.files.promote()?;
        self.writes.inc();
        Ok(())
    }

    /// HAProxy has loaded the live file.
    pub fn loaded(&mut self) {
        self.files.settle();
        self.unwritten = false;
        self.left_so();
    }

    /// Writes what the pace has held back: a stop does not wait.
    pub fn finish(&mut self, layout: &Layout) -> Result<(), FileError> {
        if self.pace.wait(Instant::now()).is_some() && self.unwritten || self.writing.is_some() {
            self.write_rules(layout.rules.as_ref())?;
            // One that is being written ends first, and one that has not begun never does.
            let mut outdated = lock(&self.outdated);
            *outdated = u64::MAX;
            self.files.write_live(layout)?;
        }
        Ok(())
    }
}

/// Files above this many bytes are large.
const LARGE: u64 = 1_000_000;
/// From one write of a large file to the next, for each [`LARGE`] bytes that it has.
const PACE: Duration = Duration::from_millis(100);
/// When to look again whether a file has been written that takes longer than its pace.
const BUSY: Duration = Duration::from_millis(20);

/// When the file may be written: a small one at once. Runtime operations never wait for it.
#[derive(Debug, Default)]
struct WritePace(Option<(Instant, u64)>);

impl WritePace {
    /// When the next write may be, if not at once.
    fn wait(&self, now: Instant) -> Option<Instant> {
        let (at, bytes) = self.0.filter(|(_, bytes)| *bytes > LARGE)?;
        let pace = PACE * u32::try_from(bytes / LARGE).unwrap_or(u32::MAX);
        Some(at + pace).filter(|due| *due > now)
    }

    /// A write begins.
    fn began(&mut self, now: Instant) {
        self.0 = self.0.map(|(_, bytes)| (now, bytes));
    }

    /// This many bytes were written.
    fn wrote(&mut self, bytes: usize, now: Instant) {
        self.0 = Some((now, bytes as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::haproxy::file::layout::Section;

    #[tokio::test(start_paused = true)]
    async fn only_a_large_file_waits_the_longer_the_larger_it_is() {
        let (mut pace, now) = (WritePace::default(), Instant::now());
        assert_eq!(pace.wait(now), None);
        pace.wrote(1_000_000, now);
        assert_eq!(pace.wait(now), None);
        pace.wrote(1_000_001, now);
        assert_eq!(pace.wait(now), Some(now + PACE));
        assert_eq!(pace.wait(now + PACE), None);
        pace.wrote(8_500_000, now);
        assert_eq!(pace.wait(now), Some(now + PACE * 8));
    }

    fn layout(name: &str, bytes: usize) -> Layout {
        let skeleton = format!("listen {name}\n\t# {}\n", "x".repeat(bytes)).into();
        let section = Section {
            name: name.into(),
            skeleton,
            servers: Vec::new(),
            inherited: "".into(),
            text: Default::default(),
        };
        Layout { header: "global\n".into(), sections: vec![Arc::new(section)], ..Layout::default() }
    }

    #[tokio::test]
    async fn a_large_file_is_written_beside_the_turns_and_the_newest_one_stays_whenever_discover_ends() {
        let dir = tempfile::tempdir().unwrap();
        let files = ConfigFiles::new(dir.path().join("haproxy.cfg"));
        let on_disk = || files.read().unwrap().layout;
        let mut disk = Disk::new(files.clone(), Counter::default());
        let [first, second, third] = ["a", "b", "c"].map(|name| layout(name, 1_200_000));
        disk.write(&first).unwrap();
        assert_eq!((on_disk(), disk.is_unwritten()), (Some(first), false), "the first one at once");
        assert!(disk.is_large() && disk.is_as_left());
        tokio::time::sleep(PACE).await;
        disk.write(&second).unwrap();
        assert!(disk.is_unwritten(), "it is being written");
        disk.write(&third).unwrap();
        disk.rest().await.unwrap();
        assert_eq!(on_disk(), Some(second));
        assert!(disk.is_unwritten() && disk.is_as_left());
        tokio::time::sleep(PACE).await;
        disk.catch_up(&third).unwrap();
        let last = layout("d", 1_200_000);
        disk.write(&last).unwrap();
        disk.finish(&last).unwrap();
        disk.rest().await.unwrap();
        assert_eq!(on_disk(), Some(last), "none is written over the newest one");
    }

    #[tokio::test]
    async fn a_file_that_somebody_touched_is_not_as_it_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let files = ConfigFiles::new(dir.path().join("haproxy.cfg"));
        let mut disk = Disk::new(files.clone(), Counter::default());
        assert!(!disk.is_as_left(), "there is none");
        disk.write(&layout("a", 1)).unwrap();
        assert!(disk.is_as_left());
        let text = std::fs::read_to_string(files.live()).unwrap();
        std::fs::write(files.live(), text.replace('x', "y")).unwrap();
        assert!(!disk.is_as_left(), "edited, as long as before");
        disk.left_so();
        assert!(disk.is_as_left());
        std::fs::remove_file(files.live()).unwrap();
        assert!(!disk.is_as_left());
    }
}
