//! From root to a user that can do little: what is left is the group of Docker's socket.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, User, chown, getuid, setgroups, setresgid, setresuid};

/// Why the privileges could not be dropped. Going on as root would be worse than ending.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// There is no such user.
    #[error("--user {0:?} is no user of this system")]
    UnknownUser(String),
    /// The user database cannot be read.
    #[error("looking up --user {user:?}")]
    Lookup { user: String, source: nix::Error },
    /// A file that the user must reach.
    #[error("making {} usable for {user:?}", path.display())]
    File { path: PathBuf, user: String, source: io::Error },
    /// Refused by the kernel: a capability is missing.
    #[error("becoming {user:?} (the capabilities SETUID and SETGID are needed)")]
    Refused { user: String, source: nix::Error },
}

/// Becomes `user` with the group of `socket`, if this process is root; otherwise does nothing. `own` is a directory for
/// the user, made if it is missing. Call it before other threads start.
pub fn drop_to(user: &str, socket: Option<&Path>, own: Option<&Path>) -> Result<(), PrivilegesError> {
    if !getuid().is_root() {
        return Ok(());
    }
    let lookup = User::from_name(user).map_err(|source| PrivilegesError::Lookup { user: user.to_owned(), source })?;
    let account = lookup.ok_or_else(|| PrivilegesError::UnknownUser(user.to_owned()))?;
    let file = |path: &Path, source| PrivilegesError::File { path: path.to_owned(), user: user.to_owned(), source };
    let mut groups = vec![account.gid];
    if let Some(socket) = socket {
        let group = std::fs::metadata(socket).map_err(|e| file(socket, e))?.gid();
        groups.push(Gid::from_raw(group));
    }
    // Only a directory that is made here is given away. A read-only container may have no place for it: the control
    // socket then says so itself.
    if let Some(own) = own.filter(|own| !own.exists())
        && std::fs::create_dir_all(own).is_ok()
    {
        let _ = chown(own, Some(account.uid), Some(account.gid));
    }
    let refused = |source| PrivilegesError::Refused { user: user.to_owned(), source };
    setgroups(&groups).map_err(refused)?;
    setresgid(account.gid, account.gid, account.gid).map_err(refused)?;
    setresuid(account.uid, account.uid, account.uid).map_err(refused)
}
