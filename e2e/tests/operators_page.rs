//! What the programs say of themselves is explained: reasons and lines of a change of standing in docs/operations.md, metrics in
//! docs/metrics.md.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn page() -> String {
    read("docs/operations.md")
}

/// The Rust files below.
fn sources(under: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The words in quotes between `from` and `to` of a source.
fn words_between(path: &str, from: &str, to: &str) -> Vec<String> {
    let text = read(path);
    let part = text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap_or_else(|| panic!("{path}")).0;
    let words: Vec<String> = part.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(words.len() >= 3, "{path}: {words:?}");
    words
}

#[test]
fn each_reason_is_in_the_operators_page() {
    let page = page();
    let of_standings = words_between("common/containers/src/life/reason.rs", "pub fn as_str", "\n    }\n");
    // Such a container has no row, and no line.
    let left_out = words_between("common/model/src/desired/decision.rs", "pub fn as_str", "impl fmt::Display");
    let left_out = left_out.into_iter().filter(|word| word != "stopped");
    let reloads = words_between("discover/src/generators/haproxy/turn/reason.rs", "pub fn as_str", "\n    }\n");
    let not_ready = ["register/src/status.rs", "discover/src/status/mod.rs"]
        .map(|status| words_between(status, "fn reasons(", "\n    }\n"));
    let all = of_standings.into_iter().chain(left_out).chain(reloads).chain(not_ready.into_iter().flatten());
    let missing: Vec<String> = all.filter(|word| !page.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {missing:?}");
}

#[test]
fn each_line_of_a_change_of_standing_is_in_the_operators_page() {
    let page = page();
    for message in words_between("common/containers/src/life/standings.rs", "fn as_str", "\n    }\n") {
        assert!(page.contains(&format!("`{message}`")), "{message}");
    }
}

/// Names as they are registered, without the unit and `_total`.
fn metrics_in(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut names = BTreeSet::new();
    for call in [".register(", ".register_with_unit(", "show(&mut encoder,", "\n    ("] {
        for rest in code.split(call).skip(1) {
            let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            // A table's rows have more than names of metrics.
            names.extend(
                name.filter(|name| !call.ends_with('(') || call.contains("register") || name.starts_with("service_"))
                    .map(str::to_owned),
            );
        }
    }
    names
}

#[test]
fn each_metric_is_in_its_page() {
    let page = read("docs/metrics.md");
    let (mut missing, mut seen) = (Vec::new(), 0);
    for (folder, prefixes) in [
        ("register/src", &["register"][..]),
        ("discover/src", &["discover"]),
        ("common/containers/src", &["register"]),
        ("common/agent/src", &["register", "discover"]),
    ] {
        for path in sources(&root().join(folder)).iter().filter(|path| !path.ends_with("server_tests.rs")) {
            for name in metrics_in(&fs::read_to_string(path).unwrap()) {
                seen += 1;
                // Those of the process have the names that every program gives them.
                let standard = name.starts_with("process_") && page.contains(&format!("`{name}"));
                let known = |prefix: &&str| standard || page.contains(&format!("`{prefix}_{name}"));
                missing
                    .extend(prefixes.iter().filter(|prefix| !known(prefix)).map(|prefix| format!("{prefix}_{name}")));
            }
        }
    }
    assert!(seen > 40, "{seen}");
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
}
