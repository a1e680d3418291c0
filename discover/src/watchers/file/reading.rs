//! Reads the files, each only when it has changed, and keeps what each last said while it cannot be read.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::ServiceName;

use super::content::{Item, items};

/// The largest file: 20,000 registrations have some 4 MB.
const MOST_BYTES: u64 = 64 << 20;
/// At the start nobody can say whether a file as young as this has been written to its end.
const YOUNG: Duration = Duration::from_millis(100);
/// The most files of a directory.
const MOST_FILES: usize = 10_000;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It, or its directory, cannot be read.
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A pipe, a device, a socket.
    #[error("reading {}: not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Larger than any list of backends.
    #[error("reading {}: {bytes} bytes are above the limit of {MOST_BYTES}", path.display())]
    TooLong { path: PathBuf, bytes: u64 },
    /// More files than any directory of backends has.
    #[error("reading {}: more than {MOST_FILES} files", .0.display())]
    TooMany(PathBuf),
    /// Its writer has not finished, and nothing is known from before.
    #[error("reading {}: it is being written", .0.display())]
    BeingWritten(PathBuf),
    /// It says nothing that could be meant.
    #[error("{}: {why}", path.display())]
    Content { path: PathBuf, why: String },
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SeenStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl SeenStamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What a file last said, and how it looked then.
#[derive(Debug)]
struct Seen {
    stamp: SeenStamp,
    items: Arc<Vec<Item>>,
}

/// All that the files say.
#[derive(Debug)]
pub struct Read {
    /// File by file.
    pub contents: Vec<Arc<Vec<Item>>>,
    /// Files of a directory that cannot be read now, with the reason; what they last said is in `contents`.
    pub faults: Vec<(String, String)>,
}

/// A file, or the files of a directory.
#[derive(Debug)]
pub struct Reading {
    path: PathBuf,
    service: ServiceName,
    seen: HashMap<PathBuf, Seen>,
    /// Something has been read: from then on signals tell of writers.
    begun: bool,
}

impl Reading {
    /// Nothing is read yet.
    pub fn new(path: PathBuf, service: ServiceName) -> Self {
        Self { path, service, seen: HashMap::new(), begun: false }
    }

    /// Reads what has changed; files in `being_written` count as they were before. Blocks.
    ///
    /// # Errors
    /// [`FileFault`] for a single file, or for the directory as a whole; a bad file of a directory is one of its faults.
    pub fn read(&mut self, being_written: &HashSet<PathBuf>) -> Result<Read, FileFault> {
        let path = self.path.clone();
        let meta = fs::metadata(&path).map_err(|source| FileFault::Read { path: path.clone(), source })?;
        if !meta.is_dir() {
            let contents = vec![self.file(&path, being_written)?];
            self.begun = true;
            return Ok(Read { contents, faults: Vec::new() });
        }
        let files = listed(&path)?;
        self.seen.retain(|path, _| files.contains(path));
        let mut read = Read { contents: Vec::new(), faults: Vec::new() };
        for path in files {
            match self.file(&path, being_written) {
                Ok(items) => read.contents.push(items),
                Err(fault @ FileFault::BeingWritten(_)) if !self.begun => return Err(fault), // soon it is all there
                Err(fault) => {
                    read.contents.extend(self.seen.get(&path).map(|seen| seen.items.clone()));
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    read.faults.push((name, agent::telemetry::Chain(&fault).to_string()));
                }
            }
        }
        self.begun = true;
        Ok(read)
    }

    fn file(&mut self, path: &Path, being_written: &HashSet<PathBuf>) -> Result<Arc<Vec<Item>>, FileFault> {
        let error = |source| FileFault::Read { path: path.to_owned(), source };
        let real = fs::canonicalize(path).map_err(error)?;
        let meta = fs::metadata(&real).map_err(error)?;
        if !meta.is_file() {
            return Err(FileFault::NotRegular(path.to_owned())); // before it is opened: a pipe would wait for its writer
        }
        let stamp = SeenStamp::of(&meta);
        if let Some(seen) = self.seen.get(path).filter(|seen| seen.stamp == stamp) {
            return Ok(seen.items.clone());
        }
        let unfinished = || match self.seen.get(path) {
            Some(seen) => Ok(seen.items.clone()),
            None => Err(FileFault::BeingWritten(path.to_owned())),
        };
        let young = || meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age < YOUNG));
        if being_written.contains(&real) || being_written.contains(path) || (!self.begun && young()) {
            return unfinished();
        }
        if stamp.bytes > MOST_BYTES {
            return Err(FileFault::TooLong { path: path.to_owned(), bytes: stamp.bytes });
        }
        let text = fs::read(&real).map_err(error)?;
        if SeenStamp::of(&fs::metadata(&real).map_err(error)?) != stamp {
            return unfinished(); // written while it was read; its writer's last step is a signal
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let content = String::from_utf8(text).map_err(|_| "is not UTF-8".to_owned());
        let items = content.and_then(|text| items(&name, &text, &self.service));
        let items = Arc::new(items.map_err(|why| FileFault::Content { path: path.to_owned(), why })?);
        self.seen.insert(path.to_owned(), Seen { stamp, items: items.clone() });
        Ok(items)
    }
}

/// The JSON and YAML files of a directory, by name. Hidden ones are somebody's temporary files, or a ConfigMap's insides.
fn listed(directory: &Path) -> Result<Vec<PathBuf>, FileFault> {
    let error = |source| FileFault::Read { path: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let wanted = path.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml");
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if wanted && !hidden {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            return Err(FileFault::TooMany(directory.to_owned()));
        }
    }
    files.sort();
    Ok(files)
}
