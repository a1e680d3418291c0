//! A history's file: lines are appended, and a full file becomes the older of two.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tracing::warn;

use crate::files::beside;

/// How many changes are kept.
pub const MOST: usize = 10_000;
/// The most bytes of one of the two files.
const FULL: u64 = 8 << 20;

/// The two files. Everything here blocks.
#[derive(Debug)]
pub(super) struct HistoryFile {
    path: PathBuf,
    lines: usize,
    bytes: u64,
}

impl HistoryFile {
    /// The newer one is at `path`. No I/O.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, lines: 0, bytes: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn older(&self) -> PathBuf {
        beside(&self.path, ".1")
    }

    /// All lines, the oldest first. What a crash cut off at the end is dropped; files that hold anything else than changes are removed, with a warning.
    pub(super) fn load(&mut self) -> Vec<Box<str>> {
        let both = [self.older(), self.path.clone()].map(|path| read(&path).map_err(|why| (path, why)));
        match both {
            [Ok(older), Ok(newer)] => {
                self.lines = newer.lines.len();
                self.bytes = newer.bytes;
                older.lines.into_iter().chain(newer.lines).collect()
            }
            [older, newer] => {
                for (path, why) in [older.err(), newer.err()].into_iter().flatten() {
                    warn!(path = %path.display(), %why, "The history cannot be read: it begins anew.");
                }
                for path in [self.older(), self.path.clone()] {
                    _ = fs::remove_file(path); // what stays is found again at the next start
                }
                Vec::new()
            }
        }
    }

    /// Adds so many lines of text.
    ///
    /// # Errors
    /// The system's; nothing of the text counts as written then.
    pub(super) fn append(&mut self, text: &str, lines: usize) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if self.lines + lines > MOST || self.bytes > FULL {
            fs::rename(&self.path, self.older()).or_else(|e| match e.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(e),
            })?;
            (self.lines, self.bytes) = (0, 0);
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        // A write that stopped half-way, or a crash, may have left a part of a line.
        file.set_len(self.bytes)?;
        file.write_all(text.as_bytes())?;
        self.lines += lines;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<Box<str>>,
    /// Of all whole lines.
    bytes: u64,
}

/// The whole lines of one file; none where there is none.
fn read(path: &Path) -> Result<Lines, String> {
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Lines::default()),
        Err(e) => return Err(e.to_string()),
    };
    if !about.is_file() || about.len() > 4 * FULL {
        return Err("it is no file of a history".to_owned());
    }
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let text = std::str::from_utf8(&bytes[..whole]).map_err(|e| e.to_string())?;
    let is_change = |line: &str| {
        serde_json::from_str::<Value>(line)
            .is_ok_and(|change| change["at_unix_ms"].is_u64() && change["what"].is_string())
    };
    match text.lines().position(|line| !is_change(line)) {
        Some(n) => Err(format!("line {} is no change", n + 1)),
        None => Ok(Lines { lines: text.lines().map(Into::into).collect(), bytes: whole as u64 }),
    }
}
