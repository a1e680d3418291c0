//! HAProxy's program as a file: it may be replaced by another version under a running discover.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What tells a file from the one that was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// When its content or its inode changed, in seconds and nanoseconds.
    changed: (i64, i64),
}

/// The file, as it was at the last look.
#[derive(Debug, Default)]
pub struct ProgramFile {
    /// Nothing before the first look; `Some(None)` where there was no file.
    seen: Option<Option<Stamp>>,
}

impl ProgramFile {
    /// Looks at the file; tells whether it is another one than at the last look, or is there no more, or again.
    pub fn is_replaced(&mut self, program: &Path) -> bool {
        let now = find(program).and_then(|path| std::fs::metadata(path).ok()).map(|file| Stamp {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            changed: (file.ctime(), file.ctime_nsec()),
        });
        self.seen.replace(now).is_some_and(|before| before != now)
    }
}

/// Where a program is: a name without a slash is looked for in PATH, as execvp(3) does.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return Some(program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_is_noticed_once_and_the_same_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let (program, other) = (dir.path().join("haproxy"), dir.path().join("other"));
        std::fs::write(&program, "one").unwrap();
        let mut file = ProgramFile::default();
        assert!(!file.is_replaced(&program) && !file.is_replaced(&program));
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &program).unwrap();
        assert!(file.is_replaced(&program) && !file.is_replaced(&program));
        std::fs::remove_file(&program).unwrap();
        assert!(file.is_replaced(&program) && !file.is_replaced(&program));
        std::fs::write(&program, "three").unwrap();
        assert!(file.is_replaced(&program));
    }

    #[test]
    fn a_bare_name_is_found_on_the_path() {
        assert!(find(Path::new("sh")).is_some_and(|path| path.is_absolute()));
        assert_eq!(find(Path::new("no-such-program-anywhere")), None);
    }
}
