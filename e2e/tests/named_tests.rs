//! The pages that name a test beside each row, against the tests that there are.

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

/// Pages with tables whose last column names tests, and how many such rows they have at least.
const PAGES: [(&str, usize); 4] =
    [("docs/configuration.md", 9), ("docs/migration.md", 50), ("docs/reliability.md", 50), ("docs/security.md", 10)];

#[test]
fn every_test_that_a_page_names_exists() {
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
    for (page, at_least) in PAGES {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let rows = rows(&text);
        assert!(rows.len() >= at_least, "{} rows in {page}", rows.len());
        for row in rows {
            let shown = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
            let names: Vec<&str> = shown.split('`').skip(1).step_by(2).filter(|name| !name.contains(' ')).collect();
            assert!(!names.is_empty(), "{page}: no test beside {row}");
            for name in names {
                assert!(known.contains(name), "{page}: there is no test {name}, which is named beside {row}");
            }
        }
    }
}

/// The rows of every table whose last column is for tests.
fn rows(page: &str) -> Vec<&str> {
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
    rows
}
