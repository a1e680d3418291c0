//! The agents' clock of the day, apart from the machine's: it jumps while they run. What runs steadily (`CLOCK_MONOTONIC`) stays.
//!
//! Source: libfaketime(1) and its README: `FAKETIME_TIMESTAMP_FILE` is read again while a program runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::{Context, Lab, Result};

/// Where Debian's package `libfaketime` (by `faketime`) puts it, below a directory named after the machine's kind.
const LIBRARIES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A clock for programs of this run.
#[derive(Debug, Clone)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// One that is right so far; `None` where the library is missing.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn new(lab: &Lab) -> Result<Option<Self>> {
        let kinds = fs::read_dir(LIBRARIES).into_iter().flatten().flatten();
        let Some(library) = kinds.map(|kind| kind.path().join(LIBRARY)).find(|path| path.exists()) else {
            return Ok(None);
        };
        let clock = Self { library, file: lab.dir().join("clock") };
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// A script that runs `program` by the machine's clock, although what starts it goes by this one: a HAProxy with a libc of its own
    /// cannot load the library.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn spare(&self, program: &Path) -> Result<PathBuf> {
        let path = self.file.with_extension("sh");
        let text = format!("#!/bin/sh\nunset LD_PRELOAD\nexec '{}' \"$@\"\n", program.display());
        fs::write(&path, text).during("writing a script")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).during("making a script executable")?;
        Ok(path)
    }

    /// What the command line of a program begins with that is to go by it. What it starts goes by it, too.
    pub fn under(&self) -> Vec<String> {
        let set = |name: &str, value: &str| format!("{name}={value}");
        vec![
            "env".to_owned(),
            set("LD_PRELOAD", &self.library.to_string_lossy()),
            set("FAKETIME_TIMESTAMP_FILE", &self.file.to_string_lossy()),
            set("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            set("FAKETIME_CACHE_DURATION", "1"),
            set("NO_FAKE_STAT", "1"),
        ]
    }

    /// From now on, within a second, it differs by so many seconds from the machine's.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n")).during("writing a clock's file")?;
        fs::rename(&next, &self.file).during("replacing a clock's file")
    }
}
