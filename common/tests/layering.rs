//! `common::model` and `common::desired` are pure: they name neither tokio nor I/O nor a clock. `common::containers` knows no
//! registry.

#![allow(clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// What pure code has no use for.
const FOREIGN: &[&str] = &[
    "tokio",
    "async ",
    ".await",
    "std::fs",
    "std::io",
    "std::process",
    "std::env",
    "std::thread",
    "TcpStream",
    "UdpSocket",
    "Instant::now",
    "SystemTime",
    "rand::",
    "reqwest",
    "crate::containers",
    "crate::store",
    "crate::admin",
    "crate::watch",
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the module's directory").flatten() {
        let path = entry.path();
        match path.file_stem() {
            Some(name) if name == "tests" => {} // may look at clocks
            _ if path.is_dir() => sources(&path, found),
            _ => found.push(path),
        }
    }
}

/// Fails where a file of `module` names one of `foreign` outside of comments and tests.
fn names_none(module: &str, foreign: &[&str]) {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module), &mut files);
    assert!(files.len() > 3, "{module} is where it was");
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let named = foreign.iter().find(|word| line.contains(**word));
            assert!(named.is_none(), "{}: {named:?} in {line:?}", file.display());
        }
    }
}

#[test]
fn the_pure_modules_name_nothing_that_acts() {
    for module in ["model", "desired"] {
        names_none(module, FOREIGN);
    }
}

#[test]
fn containers_know_no_registry() {
    names_none("containers", &["crate::store", "crate::registry", "crate::admin", "crate::client"]);
}
