//! The lock beside haproxy.cfg: one agent for each.

use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::Failure;

/// Locks a haproxy.cfg: a second agent on one HAProxy would undo what the first one does.
pub(super) fn lock(config: &Path) -> Result<Flock<File>, Failure> {
    let path = config.with_extension("cfg.lock");
    // A user who can open it can lock it, and so keep every agent from starting: only its owner may.
    let open = || {
        let file =
            File::options().create(true).append(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW).open(&path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok::<_, std::io::Error>(file)
    };
    let file = open().map_err(|e| Failure::Usage(format!("opening {} for its owner alone: {e}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| {
        let config = config.display();
        Failure::Runtime(format!("another discover keeps {config} ({} is locked: {e})", path.display()).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_can_open_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let (config, path) = (dir.path().join("haproxy.cfg"), dir.path().join("haproxy.cfg.lock"));
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        drop(lock(&config).unwrap());
        assert_eq!(mode(), 0o600);
        for before in [0o644, 0o666, 0o640] {
            std::fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            let held = lock(&config).unwrap();
            assert_eq!(mode(), 0o600, "{before:o}");
            let second = lock(&config).unwrap_err().to_string();
            assert!(second.contains("another discover keeps"), "{second}");
            drop(held);
        }
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(lock(&config).is_err(), "what a link leads to is not ours to change");
    }
}
