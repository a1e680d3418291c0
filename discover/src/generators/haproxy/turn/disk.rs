//! haproxy.cfg on disk, and how far it is what runs.
//!
//! The file always equals what runs or will run. A large one is written at most ten times a second. Between two writes it is
//! *unwritten*: what runs is known from memory only. Whatever happens in between (a kill, somebody else's reload) is found by the
//! next look at what runs, and mended.

use std::sync::Arc;
use std::time::Duration;

use agent::files::FileError;
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::files::ConfigFiles;
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
    pace: WritePace,
    writes: Counter,
}

impl Disk {
    /// Nothing is known of these files. Does no I/O.
    pub fn new(files: ConfigFiles, writes: Counter) -> Self {
        let (rules, retired, unwritten, pace) = (None, Retired::new(), false, WritePace::default());
        Self { files, rules, retired, unwritten, pace, writes }
    }

    /// Whether the file has yet to become what is applied.
    pub fn is_unwritten(&self) -> bool {
        self.unwritten
    }

    /// When it may, if that is not now.
    pub fn next_write(&self, now: Instant) -> Option<Instant> {
        self.pace.wait(now).filter(|_| self.unwritten)
    }

    /// Writes the file, or leaves that to a later turn when it is large and was written a moment ago.
    ///
    /// # Errors
    /// [`FileError`]; the file stays unwritten.
    pub fn write(&mut self, layout: &Layout) -> Result<(), FileError> {
        let now = Instant::now();
        self.unwritten = true;
        if self.pace.wait(now).is_some() {
            return Ok(());
        }
        self.files.write_live(layout)?;
        let rules = self.write_rules(layout.rules.as_ref())?;
        self.unwritten = false;
        self.pace.wrote(layout.pieces().iter().map(|piece| piece.len()).sum::<usize>() + rules, now);
        self.writes.inc();
        Ok(())
    }

    /// Writes the edge's rules, unless they are on disk; gives the number of bytes written.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_rules(&mut self, rules: Option<&Arc<RuleMap>>) -> Result<usize, FileError> {
        let Some(rules) = rules.filter(|rules| self.rules.as_ref() != Some(rules)) else { return Ok(0) };
        self.rules = None;
        let bytes = self.files.write_rules(rules)?;
        self.rules = Some(rules.clone());
        Ok(bytes)
    }

    /// Notes the servers that linger.
    ///
    /// # Errors
    /// [`FileError`].
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
    }

    /// Writes what the pace has held back: a stop does not wait.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn finish(&mut self, layout: &Layout) -> Result<(), FileError> {
        if self.next_write(Instant::now()).is_some() {
            self.write_rules(layout.rules.as_ref())?;
            self.files.write_live(layout)?;
        }
        Ok(())
    }
}

/// Files above this many bytes are large.
const LARGE: usize = 1_000_000;
/// From one write of a large file to the next.
const PACE: Duration = Duration::from_millis(100);

/// When the file may be written: a small one at once. Runtime operations never wait for it.
#[derive(Debug, Default)]
struct WritePace(Option<(Instant, usize)>);

impl WritePace {
    /// When the next write may be, if not at once.
    fn wait(&self, now: Instant) -> Option<Instant> {
        let (at, bytes) = self.0?;
        Some(at + PACE).filter(|due| bytes > LARGE && *due > now)
    }

    /// This many bytes were written.
    fn wrote(&mut self, bytes: usize, now: Instant) {
        self.0 = Some((now, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_large_file_waits() {
        let (mut pace, now) = (WritePace::default(), Instant::now());
        assert_eq!(pace.wait(now), None);
        pace.wrote(LARGE, now);
        assert_eq!(pace.wait(now), None);
        pace.wrote(LARGE + 1, now);
        assert_eq!(pace.wait(now), Some(now + PACE));
        assert_eq!(pace.wait(now + PACE), None);
    }
}
