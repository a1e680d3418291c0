//! A wrong config is refused by `check` and by `run` alike, with every problem's key path; and by the schema, where a schema can say it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::*;
use testing::keys::takes;

/// What is wrong, where, and whether the schema finds it.
struct Wrong {
    config: Value,
    /// The key paths, all of them.
    at: &'static [&'static str],
    schema: bool,
}

/// One of each kind of key, and of each method.
fn wrong() -> Vec<Wrong> {
    let file = |config: Value, at, schema| Wrong { config, at, schema };
    let top = |top: Value, at, schema| file(config_of(top, json!({})), at, schema);
    let service = |service: Value, at, schema| file(config_of(json!({}), service), at, schema);
    let found = |discovery: Value, at, schema| service(json!({"discovery": discovery}), at, schema);
    let zk = || json!({"method": "zookeeper", "hosts": ["h:1"], "path": "/p"});
    let with = |key: &str, value: Value| {
        let mut config = config_of(json!({}), json!({}));
        config[key] = value;
        config
    };
    vec![
        // Kinds.
        top(json!({"do_writes": "maybe"}), &["haproxy.do_writes"], true),
        top(json!({"restart_interval": -1}), &["haproxy.restart_interval"], true),
        top(json!({"restart_interval": "soon"}), &["haproxy.restart_interval"], true),
        top(json!({"restart_jitter": "some"}), &["haproxy.restart_jitter"], true),
        top(json!({"config_file_path": {}}), &["haproxy.config_file_path"], true),
        top(json!({"global": ["a\nb"]}), &["haproxy.global[0]"], true),
        top(json!({"defaults": [{}]}), &["haproxy.defaults[0]"], true),
        top(json!({"extra_sections": []}), &["haproxy.extra_sections"], true),
        service(json!({"haproxy": {"port": "abc"}}), &["services.s.haproxy.port"], true),
        service(json!({"haproxy": {"port": 70_000}}), &["services.s.haproxy.port"], true),
        service(json!({"haproxy": []}), &["services.s.haproxy"], true),
        service(json!({"backend_port_override": 70_000}), &["services.s.backend_port_override"], true),
        service(json!({"default_servers": [{"host": "h", "port": []}]}), &["services.s.default_servers[0]"], false),
        file(with("services", json!([])), &["services"], true),
        // Sections of our own are closed.
        file(
            with("template", json!({"t": {"sorce": "a"}})),
            &["template.t.sorce", "template.t.source", "template.t.destination"],
            true,
        ),
        file(
            with("prometheus", json!({"file": "/tmp/p.json", "lable_prefix": "x"})),
            &["prometheus.lable_prefix"],
            true,
        ),
        file(
            with("edge", json!({"rules": [{"host": "a.test", "service": "s", "stick": true}]})),
            &["edge.rules[0].stick"],
            true,
        ),
        // Words.
        service(json!({"nginx": {"mode": "udp"}}), &["services.s.nginx.mode"], true),
        found(json!({"method": "etdc", "path": "/p"}), &["services.s.discovery.method"], true),
        file(with("edge", json!({"ownership": "mine"})), &["edge.ownership"], true),
        // What is required.
        file(with("services", json!({"s": {"haproxy": {}}})), &["services.s.discovery"], true),
        found(json!({"hosts": ["h"]}), &["services.s.discovery.method"], true),
        file(with("haproxy", json!({"do_writes": false})), &["haproxy.global", "haproxy.defaults"], true),
        file(with("prometheus", json!({"label_prefix": "x"})), &["prometheus.file"], true),
        file(with("edge", json!({"rules": [{"path": "/"}]})), &["edge.rules[0].host", "edge.rules[0].service"], true),
        // Methods, each with everything that is wrong.
        found(
            json!({"method": "etcd", "hosts": ["h:x"]}),
            &["services.s.discovery.path", "services.s.discovery.hosts"],
            true,
        ),
        found(json!({"method": "file"}), &["services.s.discovery.path"], true),
        found(json!({"method": "zookeeper"}), &["services.s.discovery.hosts", "services.s.discovery.path"], true),
        found(
            json!({"method": "zookeeper_dns", "hosts": ["h"], "path": "/p", "nameserver": ["x"], "zk_auth": "me"}),
            &["services.s.discovery.zk_auth", "services.s.discovery.nameserver"],
            false,
        ),
        found(json!({"method": "dns"}), &["services.s.discovery.servers"], true),
        found(
            json!({"method": "dns", "servers": [{"host": ""}], "nameserver": ["x"]}),
            &[
                "services.s.discovery.servers[0].host",
                "services.s.discovery.servers[0].port",
                "services.s.discovery.nameserver",
            ],
            false,
        ),
        found(
            json!({"method": "docker"}),
            &["services.s.discovery.servers", "services.s.discovery.image_name", "services.s.discovery.container_port"],
            true,
        ),
        found(
            json!({"method": "ec2tag", "aws_region": "eu-west-1"}),
            &["services.s.discovery.tag_name", "services.s.discovery.tag_value", "services.s.discovery.method"],
            true,
        ),
        found(
            json!({"method": "marathon"}),
            &["services.s.discovery.application_name", "services.s.discovery.marathon_api_url"],
            true,
        ),
        found(
            json!({"method": "multi", "watchers": {"a": {"method": "file"}, "b": {"method": "zookeeper", "path": "/p"}}, "resolver": {"method": "best"}}),
            &[
                "services.s.discovery.watchers.a.path",
                "services.s.discovery.watchers.b.hosts",
                "services.s.discovery.resolver.method",
            ],
            false,
        ),
        found(
            json!({"method": "multi"}),
            &["services.s.discovery.watchers", "services.s.discovery.resolver.method"],
            true,
        ),
        service(
            json!({"discovery": zk(), "discovery_multi": {"method": "bogus", "watchers": {"b": zk()}, "resolver": {"method": "union"}}}),
            &["services.s.discovery_multi.method"],
            true,
        ),
        service(
            json!({"discovery": {"method": "file"}, "discovery_multi": {"watchers": {"b": {"method": "dns"}}, "resolver": {"method": "union"}}}),
            &["services.s.discovery.path", "services.s.discovery_multi.watchers.b.servers"],
            true,
        ),
        // Two services, and two kinds of problems, at once.
        file(
            json!({
                "haproxy": {"global": [], "defaults": [], "do_writes": 7, "do_socket": false, "do_reloads": false},
                "services": {"a": {"discovery": {"method": "file"}}, "b": {"discovery": {"method": "dns"}}}
            }),
            &["haproxy.do_writes", "services.a.discovery.path", "services.b.discovery.servers"],
            true,
        ),
    ]
}

fn program(dir: &Path, command: &str, flags: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_discover"));
    program.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
    program.arg(command).args(["--admin", "off"]).args(flags);
    for (flag, name) in [("--dir", "d"), ("--run-dir", "r"), ("--control", "control.sock")] {
        program.arg(flag).arg(dir.join(name));
    }
    program.output().unwrap()
}

/// What it says is wrong, line by line, as both must say it.
fn problems(ended: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    let said: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("discover: ")).collect();
    said.iter().map(|line| line.trim_start_matches("discover: ").to_owned()).collect()
}

#[test]
fn check_and_run_refuse_what_is_wrong_in_the_same_words() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("synapse.json");
    let shown = path.display().to_string();
    for Wrong { config, at, .. } in wrong() {
        std::fs::write(&path, config.to_string()).unwrap();
        let [check, run] = ["check", "run"].map(|command| program(dir.path(), command, &["--config", &shown]));
        assert_eq!((check.status.code(), run.status.code()), (Some(64), Some(64)), "{config}: {check:?} {run:?}");
        assert_eq!(problems(&check), problems(&run), "{config}");
        let named: Vec<String> = problems(&check)[1..].to_vec();
        for key in at {
            let line = format!("{shown}: {key}");
            assert!(named.iter().any(|said| said.starts_with(&line)), "{key} is not named: {named:#?}");
        }
        assert_eq!(named.len(), at.len(), "{config}: {named:#?}");
    }
}

#[test]
fn check_and_run_refuse_the_same_flags() {
    let dir = tempfile::tempdir().unwrap();
    for (flags, wanted) in [
        (["--check", "chekc inter 2s"].as_slice(), "\"chekc\" is no keyword"),
        (&["--check", "check inter 2s $x"], "has the character '$'"),
        (&["--templates", "/nowhere"], "/nowhere is no directory"),
        (&["--check", "chekc", "--templates", "/nowhere"], "/nowhere is no directory"),
        (&["--stats-auth-file", "/nowhere"], "/nowhere"),
        (&["--edge", "127.0.0.1:1", "--haproxy", "files"], "--haproxy files"),
    ] {
        let [check, run] = ["check", "run"].map(|command| program(dir.path(), command, flags));
        assert_eq!((check.status.code(), run.status.code()), (Some(64), Some(64)), "{flags:?}: {check:?} {run:?}");
        assert_eq!(problems(&check), problems(&run), "{flags:?}");
        assert!(problems(&check).join("\n").contains(wanted), "{flags:?}: {:?}", problems(&check));
    }
    let both = problems(&program(dir.path(), "check", &["--check", "chekc", "--templates", "/nowhere"]));
    assert_eq!(both.len(), 2, "every problem: {both:?}");
}

#[test]
fn the_schema_finds_what_a_schema_can_find_and_takes_what_is_right() {
    let schema = table::schema();
    for Wrong { config, at, schema: finds } in wrong() {
        assert_eq!(takes(&schema, &config), !finds, "{at:?}: {config}");
    }
    let zk = json!({"method": "zookeeper", "hosts": "h:1", "path": "/p", "zk_own": 1});
    for good in [
        config_of(json!({}), json!({})),
        config_of(json!({"restart_interval": "3", "do_writes": "no", "global": "daemon"}), json!({"discovery": zk})),
        config_of(json!({"extra_sections": {"a": null, "b": "c"}}), json!({"haproxy": {"port": "8000-8010"}})),
        config_of(json!({"not_of_ours": 1}), json!({"haproxy": {"port": null}, "nginx": {"mode": null}})),
    ] {
        assert!(takes(&schema, &good) && load(&good).is_ok(), "{good}");
    }
}
