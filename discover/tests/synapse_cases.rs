//! Synapse's own output for given inputs, and ours: the same but for comments, blanks at the end and the final newline.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy excuses only functions marked as tests"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn normal(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim_end);
    lines.filter(|l| !l.is_empty() && !l.trim_start().starts_with('#')).map(str::to_owned).collect()
}

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    cases
}

#[test]
fn every_case_gives_what_synapse_gives() {
    assert!(cases().len() >= 4);
    for case in cases() {
        let out = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_discover"));
        command.current_dir(&case).args(["render", "--config", "config.json", "--backends", "backends.json", "--out"]);
        let output = command.arg(out.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", case.display());
        let expected = std::fs::read_to_string(case.join("expected.cfg")).unwrap();
        let got = String::from_utf8(output.stdout).unwrap();
        assert_eq!(normal(&got), normal(&expected), "{}", case.display());
        assert!(got.ends_with('\n') && !got.ends_with("\n\n"), "{}", case.display());
        if let Ok(files) = std::fs::read_dir(case.join("out")) {
            for file in files.map(|f| f.unwrap().path()) {
                let got = std::fs::read_to_string(out.path().join(file.file_name().unwrap())).unwrap();
                assert_eq!(got, std::fs::read_to_string(&file).unwrap(), "{}", file.display());
            }
            let count = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
            assert_eq!(count(out.path()), count(&case.join("out")), "{}", case.display());
        }
    }
}

#[test]
fn a_config_with_removed_directives_is_refused_with_their_modern_form() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("synapse.json");
    let text = r#"{"haproxy": {"global": ["nbproc 2"], "defaults": ["contimeout 5s"], "do_writes": false, "do_socket": false, "do_reloads": false},
        "services": {"a": {"discovery": {"method": "base"}, "haproxy": {"listen": "reqadd X-A:\\ b"}}}}"#;
    std::fs::write(&config, text).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_discover")).args(["check", "--config"]).arg(&config).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr);
    for wanted in [
        "synapse.json: haproxy.global[0]:",
        "haproxy.defaults[0]:",
        "timeout connect TIME",
        "services.a.haproxy.listen[0]:",
        "http-request add-header",
    ] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}

/// Offline no name is looked up, so that only `localhost` is known to be where HAProxy listens.
#[test]
fn a_host_name_with_the_services_own_port_is_no_loop() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"haproxy": {"global": [], "defaults": [], "do_writes": false, "do_socket": false, "do_reloads": false},
        "services": {"db": {"discovery": {"method": "base"}, "haproxy": {"port": 3306}}}}"#;
    let backends = r#"{"db": [{"host": "db1.internal", "port": 3306}, {"host": "db2", "port": 3306},
        {"host": "localhost", "port": 3306}]}"#;
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    std::fs::write(dir.path().join("backends.json"), backends).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_discover"));
    command.current_dir(dir.path()).args(["render", "--config", "config.json", "--backends", "backends.json"]);
    let output = command.output().unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(" db1.internal:3306 ") && text.contains(" db2:3306 "), "{text}{said}");
    assert_eq!((text.matches("\tserver ").count(), said.lines().count()), (2, 1), "{text}{said}");
    assert!(said.contains("localhost:3306 is left out: 127.0.0.1:3306: HAProxy itself listens there"), "{said}");
}

/// Synapse's SDK goes on without them, and discover with a warning.
#[test]
fn a_config_without_aws_region_or_half_of_its_keys_is_good_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("synapse.json");
    let text = r#"{"haproxy": {"global": [], "defaults": [], "do_writes": false, "do_socket": false, "do_reloads": false},
        "services": {"a": {"backend_port_override": 80, "haproxy": {}, "discovery": {"method": "multi", "resolver": {"method": "union"},
            "watchers": {"ec2": {"method": "ec2tag", "tag_name": "n", "tag_value": "v", "aws_access_key_id": "k"}}}}}}"#;
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_discover"));
    let output = command.args(["check", "--config"]).arg(&config).env_clear().output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    for key in ["aws_region", "aws_secret_access_key"] {
        assert!(said.contains(&format!("services.a.discovery.watchers.ec2.{key}: is not given")), "{key}: {said}");
    }
}
