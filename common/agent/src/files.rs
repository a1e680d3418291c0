//! Replaces a file in one step: readers see the old bytes or the new, and a failure leaves the old ones.
//!
//! Everything here blocks: call it from `spawn_blocking` where the file is large or the disk may be slow.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use tracing::warn;

/// Mode of a new file when none is asked for.
const DEFAULT_MODE: u32 = 0o644;
/// As many links as Linux itself follows (`path_resolution(7)`).
const MAX_LINKS: usize = 40;
/// Bytes of the target's name kept in the temporary one: with the rest it stays below NAME_MAX (255).
const KEPT_NAME: usize = 200;

/// What the new file shall be like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replace {
    /// Permission bits; `None` keeps those of the old file, or 0644 for a new one.
    pub mode: Option<u32>,
    /// User and group ids; `None` keeps the old file's as far as we may, and is the process's own for a new one.
    pub owner: Option<(u32, u32)>,
    /// Whether the bytes and the new name must be on disk on return. Not needed against a crash of the process, only of the machine.
    pub sync: bool,
}

/// A path with something behind its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

/// What failed, and on which file; the old file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// One step of the replacement failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// Such as "writing".
        operation: &'static str,
        /// The file that the step was for.
        path: PathBuf,
        source: io::Error,
    },
    /// The target is a directory, a device, a socket or a pipe, which a rename would destroy or cannot replace.
    #[error("replacing {}: not a regular file", path.display())]
    NotRegular { path: PathBuf },
    /// The target is itself a mount point, as with `docker run -v FILE:FILE`.
    #[error("replacing {}: it is a mount point and cannot be renamed over; mount its directory instead", path.display())]
    Mounted {
        path: PathBuf,
        /// The system's answer (EBUSY).
        source: io::Error,
    },
    /// Links that lead to each other.
    #[error("resolving {}: more than {MAX_LINKS} symbolic links", path.display())]
    Links { path: PathBuf },
}

/// Names the operation and the file of a system error.
fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { operation, path, source }
}

/// Replaces the file at `path` by `bytes`. A symbolic link stays one: what it points to is replaced.
///
/// # Errors
/// Names the path and the step; the old file is intact and the temporary one is gone.
pub fn replace(path: &Path, bytes: &[u8], how: Replace) -> Result<(), FileError> {
    replace_with(path, how, |file| file.write_all(bytes))
}

/// As [`replace`], unless the file holds `bytes` already; says whether it was written. A given mode or owner is set in either case.
///
/// # Errors
/// As [`replace`], and when the old file cannot be read.
pub fn write_if_changed(path: &Path, bytes: &[u8], how: Replace) -> Result<bool, FileError> {
    let target = resolve(path)?;
    let Some(old) = inspect(&target)? else { return replace(&target, bytes, how).map(|()| true) };
    let same_mode = how.mode.is_none_or(|m| m == old.mode() & 0o7777);
    let same_owner = how.owner.is_none_or(|o| o == (old.uid(), old.gid()));
    let len_matches = u64::try_from(bytes.len()).is_ok_and(|n| n == old.len());
    if same_mode && same_owner && len_matches && fs::read(&target).map_err(at("reading", &target))? == bytes {
        return Ok(false);
    }
    replace(&target, bytes, how).map(|()| true)
}

/// As [`replace`], the bytes written by `write`, so that a large file need not be in memory at once.
///
/// # Errors
/// As [`replace`]; an error of `write` becomes one of writing.
pub fn replace_with(
    path: &Path,
    how: Replace,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), FileError> {
    let target = resolve(path)?;
    let old = inspect(&target)?;
    let mut temp = Temp::create(&target)?;
    write(&mut temp.file).map_err(at("writing", &target))?;
    own(&temp.file, &target, how.owner, old.as_ref())?;
    // After the owner: chown clears set-id bits.
    let mode = how.mode.or(old.map(|o| o.mode() & 0o7777)).unwrap_or(DEFAULT_MODE);
    temp.file.set_permissions(Permissions::from_mode(mode)).map_err(at("setting the permissions of", &target))?;
    if how.sync {
        temp.file.sync_all().map_err(at("syncing", &target))?;
    }
    temp.rename(&target)?;
    if how.sync {
        let dir = parent(&target);
        File::open(dir).and_then(|d| d.sync_all()).map_err(at("syncing directory", dir))?;
    }
    Ok(())
}

/// The file behind any symbolic links, which need not exist yet.
fn resolve(path: &Path) -> Result<PathBuf, FileError> {
    let mut at_path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&at_path) {
            Ok(to) => at_path = parent(&at_path).join(to),
            // EINVAL: exists and is no link. What is missing or unreadable is named by the step that needs it.
            Err(_) => return Ok(at_path),
        }
    }
    Err(FileError::Links { path: path.to_owned() })
}

/// The old file's metadata; `None` when there is none.
fn inspect(target: &Path) -> Result<Option<fs::Metadata>, FileError> {
    match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_file() => Ok(Some(meta)),
        Ok(_) => Err(FileError::NotRegular { path: target.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at("inspecting", target)(e)),
    }
}

fn own(file: &File, target: &Path, given: Option<(u32, u32)>, old: Option<&fs::Metadata>) -> Result<(), FileError> {
    let change = at("setting the owner of", target);
    let now = file.metadata().map_err(at("inspecting", target))?;
    if let Some((user, group)) = given {
        return if (user, group) == (now.uid(), now.gid()) {
            Ok(())
        } else {
            fchown(file, Some(user), Some(group)).map_err(change)
        };
    }
    let Some(old) = old.filter(|o| (o.uid(), o.gid()) != (now.uid(), now.gid())) else { return Ok(()) };
    // Keeping the owner needs a privilege that we may lack; the group alone is often allowed and is what lets HAProxy read the file.
    if let Err(e) = fchown(file, Some(old.uid()), Some(old.gid())).or_else(|_| fchown(file, None, Some(old.gid()))) {
        warn!(path = %target.display(), uid = old.uid(), gid = old.gid(), error = %e, "Cannot keep the file's owner.");
    }
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file beside the target, removed again unless it was renamed.
struct Temp {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Temp {
    fn create(target: &Path) -> Result<Self, FileError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = target.file_name().ok_or_else(|| FileError::NotRegular { path: target.to_owned() })?;
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent(target).join(temp_name(name, n));
            // 0600 until the owner is right: the file may hold what its mode hides.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok(Self { file, path, renamed: false }),
                // Left by a killed process of the same id (in a container it is often the same): take another name.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(at("creating a temporary file beside", target)(e)),
            }
        }
    }

    fn rename(mut self, target: &Path) -> Result<(), FileError> {
        fs::rename(&self.path, target).map_err(|e| match e.kind() {
            io::ErrorKind::ResourceBusy => FileError::Mounted { path: target.to_owned(), source: e },
            _ => at("replacing", target)(e),
        })?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path); // best effort: the error that brought us here is the one to tell
        }
    }
}

fn temp_name(name: &OsStr, n: u32) -> OsString {
    let bytes = name.as_bytes();
    let mut temp = OsString::from(".");
    temp.push(OsStr::from_bytes(bytes.get(..KEPT_NAME).unwrap_or(bytes)));
    temp.push(format!(".{}-{n}.tmp", process::id()));
    temp
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn dir() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn names(dir: &TempDir) -> Vec<OsString> {
        let mut all: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_new_file_gets_the_given_mode_or_0644() {
        let d = dir();
        let (a, b) = (d.path().join("a"), d.path().join("b"));
        replace(&a, b"1", Replace::default()).unwrap();
        replace(&b, b"2", Replace { mode: Some(0o600), sync: true, ..Replace::default() }).unwrap();
        assert_eq!((mode(&a), mode(&b)), (0o644, 0o600));
        assert_eq!(names(&d), ["a", "b"]);
    }

    #[test]
    fn replacing_keeps_the_mode_and_leaves_open_readers_their_bytes() {
        let d = dir();
        let path = d.path().join("f");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let reader = File::open(&path).unwrap();
        replace(&path, b"new", Replace::default()).unwrap();
        assert_eq!(io::read_to_string(reader).unwrap(), "old");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("new", 0o640));
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_no_temporary_one() {
        let d = dir();
        let path = d.path().join("f");
        fs::write(&path, "old").unwrap();
        let err = replace_with(&path, Replace::default(), |file| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(matches!(&err, FileError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull));
        assert_eq!(err.to_string(), format!("writing {}", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(&d), ["f"]);
    }

    #[test]
    fn links_stay_links() {
        let d = dir();
        let (link, hop, real) = (d.path().join("link"), d.path().join("hop"), d.path().join("real"));
        symlink("hop", &link).unwrap();
        symlink(&real, &hop).unwrap();
        replace(&link, b"1", Replace::default()).unwrap(); // dangling: the target is created
        assert!(write_if_changed(&link, b"2", Replace::default()).unwrap());
        assert_eq!(fs::read_to_string(&real).unwrap(), "2");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(&d), ["hop", "link", "real"]);
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let d = dir();
        symlink("b", d.path().join("a")).unwrap();
        symlink("a", d.path().join("b")).unwrap();
        assert!(matches!(replace(&d.path().join("a"), b"", Replace::default()), Err(FileError::Links { .. })));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let d = dir();
        assert!(matches!(replace(d.path(), b"", Replace::default()), Err(FileError::NotRegular { .. })));
        assert!(matches!(replace(Path::new("/dev/null"), b"", Replace::default()), Err(FileError::NotRegular { .. })));
        let err = replace(&d.path().join("no/such"), b"", Replace::default()).unwrap_err();
        assert!(err.to_string().starts_with("creating a temporary file beside "), "{err}");
    }

    #[test]
    fn a_left_over_temporary_file_is_no_obstacle() {
        let d = dir();
        for n in 0..400 {
            fs::write(d.path().join(temp_name(OsStr::new("f"), n)), "").unwrap();
        }
        replace(&d.path().join("f"), b"1", Replace::default()).unwrap();
        assert_eq!(fs::read(d.path().join("f")).unwrap(), b"1");
    }

    #[test]
    fn the_longest_name_works() {
        let d = dir();
        replace(&d.path().join("x".repeat(255)), b"1", Replace::default()).unwrap();
    }

    #[test]
    fn unchanged_bytes_are_not_written_but_a_given_mode_is_set() {
        let d = dir();
        let path = d.path().join("f");
        assert!(write_if_changed(&path, b"1", Replace::default()).unwrap());
        let inode = fs::metadata(&path).unwrap().ino();
        assert!(!write_if_changed(&path, b"1", Replace::default()).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert!(write_if_changed(&path, b"1", Replace { mode: Some(0o600), ..Replace::default() }).unwrap());
        assert_eq!(mode(&path), 0o600);
    }

    proptest! {
        #[test]
        fn the_file_holds_the_last_bytes_and_is_written_for_changes_only(
            contents in prop::collection::vec(prop::collection::vec(0_u8..3, 0..3), 1..12)
        ) {
            let d = dir();
            let path = d.path().join("f");
            let mut old: Option<Vec<u8>> = None;
            for bytes in contents {
                let written = write_if_changed(&path, &bytes, Replace::default()).unwrap();
                prop_assert_eq!(written, old.as_ref() != Some(&bytes));
                prop_assert_eq!(&fs::read(&path).unwrap(), &bytes);
                old = Some(bytes);
            }
            prop_assert_eq!(names(&d).len(), 1);
        }
    }
}
