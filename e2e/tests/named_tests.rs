//! The users' pages make promises; docs/promises.md names the tests of each. Both are compared with each other and with the tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The users' pages, and how many promises each makes at least.
const PAGES: [(&str, usize); 4] =
    [("configuration.md", 60), ("migration.md", 90), ("reliability.md", 65), ("security.md", 35)];

/// A table whose first column has this title makes promises only.
const PROMISING: [&str; 2] = ["fault", "threat"];

/// Promises that a page makes outside its tables.
const PROSE: &str = "In the text";

/// A row of a table in a page.
struct Row<'a> {
    /// The heading above it.
    section: &'a str,
    /// The number of its table in the page.
    table: usize,
    title: &'a str,
    cells: Vec<&'a str>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn page(name: &str) -> String {
    let path = root().join("docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

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

/// The names of all functions of the workspace.
fn functions() -> BTreeSet<String> {
    let mut files = Vec::new();
    for part in ["common", "register", "discover", "e2e"] {
        sources(&root().join(part), &mut files);
    }
    let mut known = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let name = |rest: &str| rest.split(['(', '<']).next().unwrap_or_default().to_owned();
        known.extend(text.split("fn ").skip(1).map(name));
    }
    known
}

fn cells(line: &str) -> Vec<&str> {
    let mut cells = Vec::new();
    let (mut start, mut before) = (1, '|');
    for (at, c) in line.char_indices().skip(1) {
        if c == '|' && before != '\\' {
            cells.push(line[start..at].trim());
            start = at + 1;
        }
        before = c;
    }
    cells
}

/// All rows of all tables.
fn rows(page: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let (mut section, mut table, mut title) = ("", 0, None);
    for line in page.lines() {
        match (line.strip_prefix('|'), title) {
            (None, _) => {
                title = None;
                if line.starts_with('#') {
                    section = line.trim_start_matches('#').trim();
                }
            }
            (Some(_), None) => {
                title = cells(line).first().copied();
                table += 1;
            }
            (Some(rest), Some(_)) if rest.starts_with("---") => {}
            (Some(_), Some(title)) => rows.push(Row { section, table, title, cells: cells(line) }),
        }
    }
    rows
}

/// The tests that a cell names.
fn tests(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).filter(|name| !name.contains(' ')).collect()
}

#[test]
fn every_test_that_a_page_names_exists() {
    let known = functions();
    for name in ["promises.md", "haproxy.md"] {
        let text = page(name);
        let rows = rows(&text).into_iter().filter(|row| name == "promises.md" || row.title == "trap");
        let mut count = 0;
        for row in rows {
            let named = tests(row.cells.last().unwrap());
            assert!(!named.is_empty(), "{name}: no test beside {}", row.cells[0]);
            for test in named {
                assert!(known.contains(test), "{name}: there is no test {test}, named beside {}", row.cells[0]);
            }
            count += 1;
        }
        assert!(count > 15, "{count} rows in {name}");
    }
}

#[test]
fn every_promise_of_the_users_pages_has_its_tests() {
    let text = page("promises.md");
    let mut parts: BTreeMap<&str, &str> =
        text.split("\n## ").skip(1).filter_map(|part| part.split_once('\n')).collect();
    for (name, at_least) in PAGES {
        let part = parts.remove(name).unwrap_or_else(|| panic!("promises.md has no heading {name}"));
        let held = rows(part).into_iter().filter(|row| row.section != PROSE).map(|row| (row.section, row.cells[0]));
        let held: Vec<(&str, &str)> = held.collect();
        assert!(held.len() >= at_least, "{} promises of {name}", held.len());
        compare(name, &held);
    }
    assert!(parts.is_empty(), "promises.md has headings of pages that are not compared: {:?}", parts.keys());
}

/// A table with one promise makes promises only, so each of its rows must be held.
fn compare(name: &str, held: &[(&str, &str)]) {
    let text = page(name);
    let rows = rows(&text);
    let known: BTreeSet<_> = held.iter().copied().collect();
    assert_eq!(known.len(), held.len(), "promises.md has a promise of {name} twice");
    let key = |row: &Row<'_>| known.contains(&(row.section, row.cells[0]));
    let promising: BTreeSet<usize> =
        rows.iter().filter(|row| PROMISING.contains(&row.title) || key(row)).map(|row| row.table).collect();
    let promised: Vec<&Row<'_>> = rows.iter().filter(|row| promising.contains(&row.table)).collect();
    for row in &promised {
        assert!(key(row), "{name}, {}: promises.md has no tests of {:?}", row.section, row.cells[0]);
    }
    let made: BTreeSet<_> = promised.iter().map(|row| (row.section, row.cells[0])).collect();
    assert_eq!(made.len(), promised.len(), "{name} makes a promise twice in one section");
    for promise in held {
        assert!(made.contains(promise), "{name} no longer makes the promise {promise:?}");
    }
}
