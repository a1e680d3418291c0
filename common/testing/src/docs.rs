//! Documents that are made of the code.

use std::path::Path;

/// The file at this path of the repository is what the code gives; `UPDATE_DOCS=1` writes it.
pub fn is_current(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == text, "{path} is not current: run this test again with UPDATE_DOCS=1");
}
