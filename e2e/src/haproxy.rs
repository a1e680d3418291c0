//! The HAProxy versions that tests run against.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{LabError, Result};

/// One HAProxy of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Haproxy {
    /// Major and minor version, such as `3.0`.
    pub version: String,
    /// The program.
    pub path: PathBuf,
}

/// Those that are here, newest first: HAPROXY_BIN alone if it is set, else the lab's (`make lab`), else the one on PATH.
///
/// # Errors
/// When there is none.
pub fn all() -> Result<Vec<Haproxy>> {
    let candidates = match std::env::var_os("HAPROXY_BIN") {
        Some(path) => vec![path.into()],
        None => {
            let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab/bin");
            ["haproxy-3.0", "haproxy-2.6"].map(|name| lab.join(name)).to_vec()
        }
    };
    let mut found: Vec<_> = candidates.iter().filter_map(|path| probe(path)).collect();
    if found.is_empty() {
        found.extend(["haproxy", "/usr/sbin/haproxy"].iter().find_map(|path| probe(Path::new(path))));
    }
    if found.is_empty() {
        return Err(LabError::new("there is no HAProxy: run `make lab`, or set HAPROXY_BIN"));
    }
    Ok(found)
}

/// The newest of [`all`].
///
/// # Errors
/// When there is none.
pub fn newest() -> Result<Haproxy> {
    all().map(|mut all| all.remove(0))
}

fn probe(path: &Path) -> Option<Haproxy> {
    let output = Command::new(path).arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().nth(2)?; // "HAProxy version 3.0.11-1+deb13u1 2025/…"
    let mut parts = version.split('.');
    Some(Haproxy { version: format!("{}.{}", parts.next()?, parts.next()?), path: path.to_owned() })
}
