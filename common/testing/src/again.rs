//! A test that runs again in a mount namespace of its own, so that what it mounts goes with it.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// Runs the test of this name again with `variable` set to `path`, and gives `None` once that has passed; in the copy, the path.
pub fn in_own_mounts(test: &str, variable: &str, path: &Path) -> Option<OsString> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path);
    }
    let mut unshare = Command::new("unshare");
    if !nix::unistd::Uid::effective().is_root() {
        unshare.arg("--map-root-user");
    }
    let copy = unshare.arg("--mount").arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let ended = copy.env(variable, path).status().unwrap();
    assert!(ended.success(), "the copy of this test in a mount namespace of its own: {ended}");
    None
}
