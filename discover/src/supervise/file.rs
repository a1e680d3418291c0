//! A config file that others write: when has it changed, and has its writer finished?
//!
//! Polled, because that notices everything: a rename over it, a write in place, a symbolic link turned elsewhere (as in a mounted Kubernetes
//! ConfigMap, where a link one directory up is swapped), and also what happens behind a bind mount.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two looks.
pub const POLL: Duration = Duration::from_millis(200);

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    target: PathBuf,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Look {
    fn at(path: &Path) -> io::Result<Self> {
        let target = fs::canonicalize(path)?;
        let m = fs::metadata(&target)?;
        let modified = (m.mtime(), m.mtime_nsec());
        Ok(Self { target, device: m.dev(), inode: m.ino(), modified, size: m.size() })
    }
}

/// What a look at the file found.
#[derive(Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nothing new, or it is still being written.
    Quiet,
    /// New bytes, and the file has not changed between two looks.
    New(Vec<u8>),
    /// The file has become unreadable or has gone; said once.
    Lost(String),
}

/// Watches one file; call [`look`](Self::look) each [`POLL`].
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    /// The look before, which the next one must equal for the file to be stable.
    last: Option<Look>,
    /// What was read last, and its look.
    seen: Option<(Look, Vec<u8>)>,
    lost: bool,
}

impl FileWatch {
    /// Watches `path`; the first stable state counts as new. Does no I/O.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), last: None, seen: None, lost: false }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks once. Reads the file only when it has changed and then kept still from one look to the next.
    pub fn look(&mut self) -> Sight {
        let read = Look::at(&self.path).and_then(|look| {
            let stable = self.last.replace(look.clone()) == Some(look.clone());
            let known = self.seen.as_ref().is_some_and(|(seen, _)| *seen == look);
            if !stable || known {
                return Ok(None);
            }
            let bytes = fs::read(&self.path)?;
            // Written while it was read: the next look will differ, and then it is read again.
            Ok((Look::at(&self.path)? == look).then_some((look, bytes)))
        });
        match read {
            Ok(None) => Sight::Quiet,
            Ok(Some((look, bytes))) => {
                // A file that was away and is the same again is no news; nor is one that was only touched.
                let same = self.seen.as_ref().is_some_and(|(_, seen)| *seen == bytes);
                self.lost = false;
                self.seen = Some((look, bytes.clone()));
                if same { Sight::Quiet } else { Sight::New(bytes) }
            }
            Err(e) => {
                self.last = None;
                if std::mem::replace(&mut self.lost, true) { Sight::Quiet } else { Sight::Lost(e.to_string()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    fn new(bytes: &[u8]) -> Sight {
        Sight::New(bytes.to_vec())
    }

    #[test]
    fn each_way_of_replacing_a_file_is_seen_once_it_is_stable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        fs::write(&path, "1").unwrap();
        let mut watch = FileWatch::new(&path);
        let mut settle = || (watch.look(), watch.look(), watch.look());
        let expect = |text: &str| (Sight::Quiet, new(text.as_bytes()), Sight::Quiet);
        assert_eq!(settle(), expect("1"), "the first state is news");
        fs::write(&path, "in place").unwrap();
        assert_eq!(settle(), expect("in place"));
        fs::write(dir.path().join("t"), "renamed").unwrap();
        fs::rename(dir.path().join("t"), &path).unwrap();
        assert_eq!(settle(), expect("renamed"));
        assert_eq!(settle(), (Sight::Quiet, Sight::Quiet, Sight::Quiet));
        fs::write(&path, "renamed").unwrap();
        assert_eq!(settle(), (Sight::Quiet, Sight::Quiet, Sight::Quiet), "the same bytes are no news");
    }

    #[test]
    fn a_config_maps_swapped_link_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("c"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/c", at("c")).unwrap();
        let mut watch = FileWatch::new(at("c"));
        assert_eq!((watch.look(), watch.look()), (Sight::Quiet, new(b"one")));
        symlink("..2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert_eq!((watch.look(), watch.look()), (Sight::Quiet, new(b"two")));
    }

    #[test]
    fn a_file_that_is_still_being_written_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let mut file = fs::File::create(&path).unwrap();
        let mut watch = FileWatch::new(&path);
        for n in 0..5 {
            write!(file, "part {n},").unwrap();
            assert_eq!(watch.look(), Sight::Quiet);
        }
        assert!(matches!(watch.look(), Sight::New(bytes) if bytes.ends_with(b"part 4,")));
    }

    #[test]
    fn a_lost_file_is_said_once_and_is_no_news_when_it_is_back_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        fs::write(&path, "1").unwrap();
        let mut watch = FileWatch::new(&path);
        assert_eq!((watch.look(), watch.look()), (Sight::Quiet, new(b"1")));
        fs::remove_file(&path).unwrap();
        assert!(matches!(watch.look(), Sight::Lost(_)));
        assert_eq!(watch.look(), Sight::Quiet);
        fs::write(&path, "1").unwrap();
        assert_eq!((watch.look(), watch.look()), (Sight::Quiet, Sight::Quiet));
        fs::write(&path, "2!").unwrap();
        assert_eq!((watch.look(), watch.look()), (Sight::Quiet, new(b"2!")));
    }
}
