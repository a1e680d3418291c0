//! A test that is passed over says so, aloud and where it is counted.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;

/// Names the running test and why it is passed over: on standard error, and in the file that `SKIPPED_TESTS` names, whose lines
/// `make test` counts.
pub fn skipped(why: impl Display) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {why}\n", thread.name().unwrap_or("a test"));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("SKIPPED_TESTS") {
        let file = File::options().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
    }
}
