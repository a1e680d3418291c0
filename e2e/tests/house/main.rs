//! The house keeps its plan (docs/architecture.md): arrows run down, between crates, rooms and files.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod graph;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use graph::{Graph, code, sources};

/// Each crate of ours, and which of them it may use.
const CRATES: [(&str, &[&str]); 8] = [
    ("common/model", &[]),
    ("common/agent", &[]),
    ("common/containers", &["agent", "model"]),
    ("common/registry", &["agent", "model"]),
    ("common/zookeeper", &["agent", "model"]),
    ("common/testing", &["agent", "containers", "model", "registry", "zookeeper"]),
    ("register", &["agent", "containers", "model", "registry", "zookeeper"]),
    ("discover", &["agent", "containers", "model", "registry", "zookeeper"]),
];

/// discover's rooms from the top floor down: what stands on one line uses only what stands below, or beside in its own room.
const FLOORS: [&[&str]; 7] = [
    &["cli"],
    &["agent", "api"],
    &["turns"],
    &["status"],
    &["generators", "watchers", "supervise", "state"],
    &["reconcile", "certificates", "client"],
    &["synapse", "edge", "haproxy", "names", "metrics", "debounce", "addresses", "seniority"],
];

/// Arrows between rooms of one floor.
const BESIDE: [(&str, &str); 6] = [
    ("edge", "addresses"),
    ("edge", "seniority"),
    ("names", "addresses"),
    ("synapse", "addresses"),
    ("synapse", "edge"),
    ("synapse", "haproxy"),
];

/// What pure code has no use for.
const IMPURE: [&str; 14] = [
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
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn each_crate_uses_what_stands_below_it() {
    let ours: BTreeSet<&str> = CRATES.iter().filter_map(|(path, _)| path.rsplit('/').next()).collect();
    for (path, may_use) in CRATES {
        let manifest = fs::read_to_string(root().join(path).join("Cargo.toml")).expect("a manifest");
        let (_, dependencies) = manifest.split_once("\n[dependencies]\n").expect("dependencies");
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        let named = dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        let uphill: Vec<&str> = named.filter(|name| ours.contains(name) && !may_use.contains(name)).collect();
        assert!(uphill.is_empty(), "{path} may use {may_use:?}, and uses {uphill:?}");
    }
}

#[test]
fn the_model_names_nothing_that_acts() {
    let manifest = fs::read_to_string(root().join("common/model/Cargo.toml")).expect("a manifest");
    assert!(!manifest.contains("tokio"), "the model needs no tokio");
    for file in sources(&root().join("common/model/src")) {
        for line in code(&file).lines() {
            let named = IMPURE.iter().find(|word| line.contains(**word));
            assert!(named.is_none(), "{}: {named:?} in {line:?}", file.display());
        }
    }
}

#[test]
fn discovers_rooms_use_what_stands_below_them() {
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    for (module, taken) in Graph::of(&root().join("discover")).arrows {
        let Some(room) = module.first() else { continue };
        let own = floor(room).unwrap_or_else(|| panic!("the room {room} has no floor"));
        for other in taken.iter().filter_map(|other| other.first()).filter(|other| *other != room) {
            let beside = BESIDE.contains(&(room.as_str(), other.as_str()));
            assert!(beside || floor(other).is_some_and(|f| f > own), "{} takes from {other}", module.join("::"));
        }
    }
}

/// Every other program gets an environment made for it, which tells no secret.
#[test]
fn no_program_is_started_but_by_these_functions() {
    for (path, _) in CRATES.iter().filter(|(path, _)| *path != "common/testing") {
        for file in sources(&root().join(path).join("src")) {
            let text = code(&file);
            let imports = text.lines().any(|line| line.contains("process::") && line.contains("Command"));
            let starts = text.contains("process::Command::new(") || imports && text.contains("Command::new(");
            assert!(!starts || file.ends_with("agent/src/environment.rs"), "{}", file.display());
        }
    }
}

#[test]
fn publishing_knows_no_nerve() {
    for (module, taken) in Graph::of(&root().join("register")).arrows {
        let nerves = taken.iter().any(|other| other.first().is_some_and(|room| room == "nerve"));
        assert!(
            !nerves || module.first().is_none_or(|room| room != "publish"),
            "{} takes from nerve",
            module.join("::")
        );
    }
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    for (path, _) in CRATES {
        for circle in Graph::of(&root().join(path)).circles() {
            let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
            // `multi` holds watchers, which are of any method.
            let recursion = names.iter().any(|name| name.starts_with("watchers::multi"));
            assert!(recursion, "{path}: {}", names.join(", "));
        }
    }
}

/// But for what tests write, or compare with other pages row by row.
#[test]
fn no_page_of_the_docs_is_too_long_to_read() {
    for entry in fs::read_dir(root().join("docs")).expect("docs").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if name != "configuration-flags.md" && name != "promises.md" && path.extension().is_some_and(|e| e == "md") {
            let lines = fs::read_to_string(&path).expect("a page").lines().count();
            assert!(lines <= 400, "{} has {lines} lines", path.display());
        }
    }
}
