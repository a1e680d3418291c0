//! docs/migration.md against the tests that it names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(under: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("target") => {}
            true => sources(&path, found),
            false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            false => {}
        }
    }
}

#[test]
fn every_test_that_this_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for part in ["common", "register", "discover", "e2e"] {
        sources(&root.join(part), &mut files);
    }
    let mut known = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let name = |rest: &str| rest.split(['(', '<']).next().unwrap_or_default().to_owned();
        known.extend(text.split("fn ").skip(1).map(name));
    }
    let page = std::fs::read_to_string(root.join("docs/migration.md")).unwrap();
    // The rows of every table whose last column is for tests.
    let mut rows = Vec::new();
    let (mut shown, mut last) = (false, "");
    for line in page.lines() {
        match line {
            line if line.starts_with("|---") => shown = last.ends_with("| test |") || last.ends_with("| shown by |"),
            line if line.starts_with("| ") && shown => rows.push(line),
            line if !line.starts_with('|') => shown = false,
            _ => {}
        }
        last = line;
    }
    assert!(rows.len() >= 50, "{} rows", rows.len());
    for row in rows {
        let shown = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).filter(|name| !name.contains(' ')).collect();
        assert!(!names.is_empty(), "no test beside {row}");
        for name in names {
            assert!(known.contains(name), "there is no test {name}, which is named beside {row}");
        }
    }
}
