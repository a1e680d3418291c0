//! Every dependency's licence is one that deny.toml allows; the part of `cargo deny check` that needs no extra tool.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The `allow` list of deny.toml, which is the only record of it.
fn allowed(deny: &str) -> Vec<String> {
    let list = deny.lines().find_map(|line| line.strip_prefix("allow = ")).unwrap_or_default();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Splits an SPDX expression into brackets and words; the old `MIT/Apache-2.0` means `OR`.
fn words(expression: &str) -> Vec<String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// Whether the allowed licences satisfy an SPDX expression. `AND` binds more closely than `OR`, `WITH` most closely.
fn satisfied(words: &mut &[String], allowed: &[String]) -> bool {
    let mut any = all_of(words, allowed);
    while next_is(words, "OR") {
        any |= all_of(words, allowed);
    }
    any
}

fn all_of(words: &mut &[String], allowed: &[String]) -> bool {
    let mut all = one(words, allowed);
    while next_is(words, "AND") {
        all &= one(words, allowed);
    }
    all
}

fn one(words: &mut &[String], allowed: &[String]) -> bool {
    if next_is(words, "(") {
        let inner = satisfied(words, allowed);
        return next_is(words, ")") && inner;
    }
    let Some((first, rest)) = words.split_first() else { return false };
    *words = rest;
    let mut name = first.clone();
    if next_is(words, "WITH")
        && let Some((exception, rest)) = words.split_first()
    {
        name = format!("{first} WITH {exception}");
        *words = rest;
    }
    allowed.contains(&name)
}

/// Takes the next word if it is `wanted`.
fn next_is(words: &mut &[String], wanted: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if first == wanted => {
            *words = rest;
            true
        }
        _ => false,
    }
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    let cases = [
        ("MIT", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT OR Apache-2.0 AND GPL-3.0", true),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("(MIT OR GPL-3.0) AND Zlib", false),
        ("MIT WITH some-exception", false),
        ("", false),
    ];
    for (expression, expected) in cases {
        let words = words(expression);
        let mut rest = words.as_slice();
        assert_eq!(satisfied(&mut rest, &allowed), expected, "{expression}");
        assert!(rest.is_empty(), "{expression}: {rest:?} not read");
    }
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let allowed = allowed(&std::fs::read_to_string(root().join("deny.toml")).unwrap());
    assert!(allowed.contains(&"MIT".to_owned()), "deny.toml has no list of allowed licences: {allowed:?}");
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &target])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let refused: Vec<_> = packages
        .iter()
        .filter(|package| {
            let words = words(package["license"].as_str().unwrap_or_default());
            let mut rest = words.as_slice();
            !satisfied(&mut rest, &allowed) || !rest.is_empty()
        })
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "licences that deny.toml does not allow: {refused:#?}");
}
