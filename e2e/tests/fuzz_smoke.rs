//! What `make fuzz` feeds for minutes, fed for a second: the kept corpus, whole, cut off and spoilt.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");

type Target = fn(&[u8]);

/// Names of what is in a directory, without their extension.
fn names(path: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// What follows from one input: itself, its beginnings, and itself with one byte spoilt. At most some 80 of them.
fn variants(input: &[u8]) -> Vec<Vec<u8>> {
    let step = (input.len() / 40).max(1);
    let mut all = vec![input.to_vec()];
    for (n, at) in (0..input.len()).step_by(step).enumerate() {
        all.push(input[..at].to_vec());
        let mut spoilt = input.to_vec();
        spoilt[at] = [b'\n', b'"', b'{', 0, 0xff, b'%', b'9'][n % 7];
        all.push(spoilt);
    }
    all
}

#[test]
fn the_kept_corpus_and_what_follows_from_it_pass_every_target() {
    let targets: [(&str, Target); 5] = [
        ("config", |bytes| text(bytes, fuzz::config)),
        ("docker", fuzz::docker),
        ("haproxy", |bytes| text(bytes, fuzz::haproxy)),
        ("labels", |bytes| text(bytes, fuzz::labels)),
        ("values", fuzz::value),
    ];
    let known: Vec<&str> = targets.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(Path::new(DIRECTORY).join("src/bin")), known, "each target of the fuzzer is here");
    assert_eq!(names(Path::new(DIRECTORY).join("corpus")), known, "and has a corpus");
    let script = fs::read_to_string(Path::new(DIRECTORY).join("../../deploy/fuzz.sh")).unwrap();
    let list = script.lines().find(|line| line.contains("targets=(labels")).unwrap();
    for (name, target) in targets {
        assert!(list.contains(name), "deploy/fuzz.sh runs {name}");
        for entry in fs::read_dir(Path::new(DIRECTORY).join("corpus").join(name)).unwrap() {
            for input in variants(&fs::read(entry.unwrap().path()).unwrap()) {
                target(&input);
            }
        }
    }
}

/// The dependencies that a crate's Cargo.toml names, with whether each is optional.
fn declared(path: &str) -> BTreeMap<String, bool> {
    let toml = fs::read_to_string(Path::new(DIRECTORY).join("../..").join(path).join("Cargo.toml")).unwrap();
    let (_, table) = toml.split_once("[dependencies]\n").unwrap();
    let lines = table.lines().take_while(|line| !line.starts_with('['));
    let dependency = |line: &str| {
        let end = line.find(['.', ' ', '='])?;
        Some((line[..end].to_owned(), line.contains("optional = true")))
    };
    lines.filter_map(dependency).collect()
}

/// `deploy/fuzz.sh` builds with `--locked`: a dependency that came or went must be in the fuzzer's own lock file, too.
#[test]
fn the_fuzzers_lock_file_has_the_crates_dependencies() {
    let lock = fs::read_to_string(Path::new(DIRECTORY).join("Cargo.lock")).unwrap();
    let crates = [
        "common/agent",
        "common/containers",
        "common/model",
        "common/registry",
        "common/zookeeper",
        "discover",
        "register",
    ];
    for path in crates {
        let name = path.rsplit('/').next().unwrap();
        let block = lock.split("[[package]]").find(|block| block.contains(&format!("\nname = \"{name}\"\n"))).unwrap();
        let listed = block.lines().filter_map(|line| line.trim().strip_prefix('"')?.split(['"', ' ']).next());
        let listed: BTreeSet<&str> = listed.collect();
        let declared = declared(path);
        let missing: Vec<_> = declared.iter().filter(|(d, optional)| !**optional && !listed.contains(&***d)).collect();
        let unknown: Vec<_> = listed.iter().filter(|d| !declared.contains_key(**d)).collect();
        let advice = "run: cargo metadata --manifest-path e2e/fuzz/Cargo.toml >/dev/null";
        assert!(missing.is_empty() && unknown.is_empty(), "{name}: {missing:?} and {unknown:?} differ; {advice}");
    }
}

/// As libFuzzer feeds a target that takes text: what is none is passed over.
fn text(bytes: &[u8], target: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        target(text);
    }
}
