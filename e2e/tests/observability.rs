//! deploy/observability: the rules do what their tests say, and name metrics that the agents have.

#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join("deploy/observability").join(name)).expect(name)
}

/// Names of metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = |word: &&str| ["discover_", "register_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    words.filter(ours).map(str::to_owned).collect()
}

/// Every text in double quotes in the sources that register metrics.
fn literals() -> BTreeSet<String> {
    let (mut all, mut rooms) =
        (BTreeSet::new(), ["common", "discover/src", "register/src"].map(|room| root().join(room)).to_vec());
    while let Some(room) = rooms.pop() {
        for entry in fs::read_dir(room).expect("a room").map(|entry| entry.expect("an entry").path()) {
            match entry.extension().and_then(|e| e.to_str()) {
                None if entry.is_dir() => rooms.push(entry),
                Some("rs") => {
                    let text = fs::read_to_string(&entry).expect("a source");
                    if text.contains("prometheus_client") {
                        all.extend(text.split('"').skip(1).step_by(2).map(str::to_owned));
                    }
                }
                _ => {}
            }
        }
    }
    all
}

#[test]
fn every_metric_of_the_rules_and_the_dashboard_is_one_of_ours() {
    let (literals, mut unknown) = (literals(), BTreeSet::new());
    for file in ["rules.yml", "rules_test.yml", "dashboard.json"] {
        for name in named(&read(file)) {
            let mut stem = name.as_str();
            for end in ["_bucket", "_total", "_count", "_sum"] {
                stem = stem.strip_suffix(end).unwrap_or(stem);
            }
            let short = stem.trim_start_matches("discover_").trim_start_matches("register_");
            let without_unit = short.trim_end_matches("_seconds");
            if ![stem, short, without_unit].iter().any(|known| literals.contains(*known)) {
                unknown.insert(format!("{file}: {name}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// The form that Grafana 10 and later load: panels with places that do not overlap, each with targets of the dashboard's own source.
#[test]
fn the_dashboard_has_the_form_that_grafana_loads() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    assert!(
        dashboard["schemaVersion"].as_u64() >= Some(36) && dashboard["title"].is_string() && dashboard["id"].is_null()
    );
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(names, ["source", "instance", "service"]);
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24 && at("h") > 0, "{panel}");
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "two panels at {cell:?}: {panel}");
        }
        for target in panel["targets"].as_array().expect("targets") {
            assert!(target["expr"].is_string() && target["refId"].is_string(), "{target}");
            assert_eq!(target["datasource"]["uid"], "${source}");
        }
    }
}

/// promtool: PROMTOOL_BIN, else one in target or on PATH (Debian's package prometheus).
fn promtool() -> Option<PathBuf> {
    let given = std::env::var_os("PROMTOOL_BIN").map(PathBuf::from);
    let own = ["target/lab/bin/promtool", "target/promtool/promtool"].map(|path| root().join(path));
    let all = given.into_iter().chain(own).chain([PathBuf::from("promtool")]);
    all.into_iter().find(|program| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success()))
}

#[test]
fn each_alert_fires_and_resolves_as_its_test_says() {
    let rules = read("rules.yml");
    let tests = read("rules_test.yml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 15);
    for alert in alerts {
        let tried = tests.lines().filter(|line| line.trim() == format!("alertname: {alert}")).count();
        assert_eq!(tried, 2, "{alert} fires once and resolves once");
    }
    let Some(promtool) = promtool() else {
        testing::skipped("promtool is not here (Debian's package prometheus, or PROMTOOL_BIN)".to_owned());
        return;
    };
    for args in [&["test", "rules", "rules_test.yml"][..], &["check", "config", "prometheus.yml"]] {
        let output = Command::new(&promtool).args(args).current_dir(root().join("deploy/observability")).output();
        let output = output.expect("promtool runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?}: {said}");
    }
}
