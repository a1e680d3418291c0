//! The config, key by key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use model::desired::{CheckKind, PeerTls, Secret};
use serde_json::{Value, json};
use tempfile::TempDir;
use testing::keys::{Reference, json_schema, page, takes};

use super::keys::ROOT;
use super::{Loaded, load_with};
use crate::nerve::reporters::AnyTarget;
use crate::nerve::reporters::etcd::Target;

/// A config's file, and what else lies beside it.
struct Files(TempDir);

impl Files {
    fn new(config: &Value) -> Self {
        let files = Self(TempDir::new().unwrap());
        files.write("nerve.conf.json", &config.to_string());
        files
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("nerve.conf.json")
    }

    fn load(&self) -> Result<Loaded, String> {
        load_with(&self.path(), None, &|name| (name == "PORT").then(|| "8080".to_owned())).map_err(|e| e.to_string())
    }
}

fn load(config: &Value) -> Loaded {
    Files::new(config).load().unwrap()
}

/// A config with one service, `web`, that says `more`.
fn web(more: Value) -> Value {
    let mut service =
        json!({"host": "10.0.0.1", "port": 80, "reporter_type": "etcd", "etcd_host": "e", "etcd_port": 1});
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"instance_id": "i-1", "services": {"web": service}})
}

fn service(more: Value) -> std::sync::Arc<super::Service> {
    let loaded = load(&web(more));
    assert!(loaded.wrong.is_empty(), "{:?}", loaded.wrong);
    loaded.config.services["web"].clone()
}

/// What is wrong with `web`, each by its key path.
fn wrong(more: Value) -> Vec<String> {
    let loaded = load(&web(more));
    assert!(loaded.config.services.is_empty());
    loaded.wrong["web"].iter().map(|note| format!("{}: {}", note.path, note.text)).collect()
}

#[test]
fn instance_id_is_required_and_the_flag_wins() {
    let files = Files::new(&json!({"services": {}}));
    assert!(files.load().unwrap_err().contains("instance_id: is required"));
    let given = load_with(&files.path(), Some("i-9"), &|_| None).unwrap();
    assert_eq!(&*given.config.instance, "i-9");
    for bad in ["a/b", "a b", "..", "é", ""] {
        let error = Files::new(&json!({"instance_id": bad, "services": {}})).load().unwrap_err();
        assert!(error.contains("instance_id: "), "{error}");
    }
}

#[test]
fn a_file_without_services_or_of_another_shape_is_refused() {
    for (text, said) in [
        (r#"{"instance_id": "i"}"#, "services: is required"),
        (r#"{"instance_id": "i", "services": []}"#, "services: is not an object but a list"),
        ("[1]", "is not an object"),
        ("{\"instance_id\": \"<%= x %>\"}", "ERB"),
        ("{", "line"),
        (r#"{"instance_id": "i", "services": {}, "heartbeat_path": []}"#, "heartbeat_path: "),
        (r#"{"instance_id": "i", "services": {}, "service_conf_dir": "/nonexistent"}"#, "service_conf_dir: reading"),
    ] {
        let files = Files::new(&json!({}));
        files.write("nerve.conf.json", text);
        let error = files.load().unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn service_conf_dir_adds_and_replaces_services() {
    let mut config = web(json!({}));
    let files = Files::new(&json!({}));
    config["service_conf_dir"] = files.0.path().join("d").to_str().unwrap().into();
    files.write("nerve.conf.json", &format!("// Nerve's\n{config}\n# the end"));
    files.write("d/web.json", r#"{"host": "10.0.0.2", "port": 81, "reporter_type": "base"}"#);
    files.write("d/more.yaml", "host: h\nport: ${PORT}\nreporter_type: base\n");
    files.write("d/bad.json", "{");
    files.write("d/passed-over.yml", "host: h\n");
    let loaded = files.load().unwrap();
    let addresses: Vec<_> = loaded.config.services.values().map(|s| format!("{} {}", s.name, s.address)).collect();
    assert_eq!(addresses, ["more h:8080", "web 10.0.0.2:81"]);
    assert!(loaded.wrong.keys().eq(["bad"].map(std::sync::Arc::from).iter()), "{:?}", loaded.wrong);
    assert!(loaded.warnings.iter().any(|w| w.text.contains("passed-over.yml")), "{:?}", loaded.warnings);
    assert!(loaded.files.iter().any(|f| f.ends_with("d")) && loaded.files.len() == 5, "{:?}", loaded.files);
}

#[test]
fn top_level_keys_have_their_defaults_and_values() {
    let plain = load(&web(json!({}))).config;
    assert_eq!((plain.max_failures, plain.statsd, plain.heartbeat_path), (10, None, None));
    let mut config = web(json!({}));
    config["max_repeated_report_failures"] = "3".into();
    config["statsd"] = json!({});
    config["heartbeat_path"] = "/run/beat".into();
    let config = load(&config).config;
    assert_eq!((config.max_failures, config.statsd), (3, Some(("localhost".to_owned(), 8125))));
    assert_eq!(config.heartbeat_path.as_deref(), Some(Path::new("/run/beat")));
}

#[test]
fn listen_port_and_unknown_keys_are_tolerated() {
    let mut config = web(json!({"wieght": 3}));
    config["listen_port"] = 1234.into();
    config["unheard_of"] = json!({"x": 1});
    let loaded = load(&config);
    let warned: Vec<_> = loaded.warnings.iter().map(|w| format!("{}: {}", w.path, w.text)).collect();
    let expected =
        ["services.web.wieght: unknown key; did you mean weight?", "unheard_of: unknown key; it has no effect"];
    assert_eq!(warned, expected);
}

#[test]
fn the_payload_is_nerves_byte_for_byte() {
    let full = json!({
        "labels": {"az": "x", "n": [1, null]}, "haproxy_server_options": "maxconn 5 id %{x}", "weight": "07",
        "port": "8080", "host": "Host.example",
    });
    assert_eq!(
        &*service(full).payload,
        r#"{"host":"Host.example","port":"8080","name":"i-1","weight":7,"haproxy_server_options":"maxconn 5 id %{x}","labels":{"az":"x","n":[1,null]}}"#
    );
    assert_eq!(&*service(json!({})).payload, r#"{"host":"10.0.0.1","port":80,"name":"i-1"}"#);
    assert_eq!(wrong(json!({"weight": -1}))[0], "services.web.weight: -1 is not a whole number from 0 on");
    let several = wrong(json!({"host": "a b", "port": 0, "labels": [], "weight": "much"}));
    assert_eq!(several.len(), 4, "all of them at once: {several:?}");
    let missing = wrong(json!({"host": null, "port": null}));
    assert_eq!(missing, ["services.web.host: is required", "services.web.port: is required"]);
}

#[test]
fn a_service_that_is_wrong_is_left_out_and_the_rest_runs() {
    let mut config = web(json!({}));
    config["services"]["web.main"] = json!({"host": "h", "port": 80, "reporter_type": "carrier-pigeon"});
    config["services"]["odd"] = json!(7);
    config["services"]["slow"] = json!({"host": "h", "port": 1, "reporter_type": "base", "check_interval": "soon"});
    let loaded = load(&config);
    assert!(loaded.config.services.keys().eq(["web"].map(std::sync::Arc::from).iter()));
    let said: Vec<_> = loaded.wrong.values().flatten().map(|n| format!("{}: {}", n.path, n.text)).collect();
    let expected = [
        "services.odd: is not an object but 7",
        "services.slow.check_interval: \"soon\" is not a number from 0 on",
        "services.web.main.reporter_type: \"carrier-pigeon\" is none of zookeeper, etcd, base",
    ];
    assert_eq!(said, expected);
}

#[test]
fn a_payload_that_nobody_would_read_is_refused_before_it_harms_others() {
    let said = wrong(json!({"labels": {"long": "x".repeat(60_000)}}));
    assert!(said[0].starts_with("services.web: would be 60") && said[0].contains("49152"), "{said:?}");
}

#[test]
fn a_service_may_have_several_reporters() {
    let etcd = |servers: &[&str], path: &str| AnyTarget::Etcd(Target::new(servers, path));
    let list = service(
        json!({"reporters": [{"etcd_path": "/a"}, {"etcd_path": "/b", "etcd_host": ["f", "g"]}, {"reporter_type": "base"}]}),
    );
    assert_eq!(list.targets, [etcd(&["http://e:1"], "/a"), etcd(&["http://f:1", "http://g:1"], "/b")]);
    let words = service(json!({"reporter_type": ["etcd", "base", "etcd"]}));
    assert_eq!(words.targets, [etcd(&["http://e:1"], "/")]);
    let bad = wrong(json!({"reporters": [{"etcd_path": "/a"}, {"reporter_type": "x", "etcd_path": " "}]}));
    assert!(bad[0].starts_with("services.web.reporters[1].reporter_type: "), "{bad:?}");
}

#[test]
fn load_test_concurrency_makes_copies() {
    let services = load(&web(json!({"load_test_concurrency": 3}))).config.services;
    assert_eq!(services.keys().map(|k| &**k).collect::<Vec<_>>(), ["web_0", "web_1", "web_2"]);
    assert_eq!(services["web_2"].payload, services["web_0"].payload);
}

#[test]
fn rate_limits_are_read_with_nerves_defaults() {
    let none = service(json!({})).limit;
    assert!(none.shadow && none.average.is_infinite() && none.burst.is_infinite());
    let some = service(json!({"rate_limiting": {"average_rate": 0.5, "max_burst": "3"}})).limit;
    assert_eq!((some.shadow, some.average, some.burst), (true, 0.5, 3.0));
    assert!(!service(json!({"rate_limiting": {"shadow_mode": false}})).limit.shadow);
    assert!(wrong(json!({"rate_limiting": {"max_burst": 0.5}}))[0].starts_with("services.web.rate_limiting.max_burst"));
}

#[test]
fn an_unknown_check_names_the_known_ones() {
    let bad = wrong(json!({"checks": [{"type": "tcp"}, {"type": "smtp", "module": "nerve-watcher-smtp"}, {}]}));
    assert!(bad[0].starts_with(r#"services.web.checks[1].type: "smtp" is none of tcp, http, "#), "{bad:?}");
    assert!(bad[0].contains("nerve-watcher-smtp") && bad[1].starts_with("services.web.checks[2].type: is required"));
    let base = service(json!({"checks": {"type": "base"}}));
    assert!(base.checks[0].hopeless);
}

#[test]
fn each_check_has_its_options() {
    let checks = service(json!({"checks": [
        {"type": "tcp", "port": "81", "timeout": 0.2, "rise": 3, "fall": "2", "name": "mine"},
        {"type": "http", "uri": "/health?x=1", "host": "api.example", "port": 8443, "ssl": true, "ssl_verify": false,
         "headers": {"X-Key": "a b"}, "expect": "ok", "read_timeout": 3, "open_timeout": 0.5, "ca_file": "/ca.pem"},
        {"type": "rabbitmq"},
        {"type": "rabbitmq", "username": "u", "password": "p", "vhost": "/v"},
        {"type": "redis", "password": "s"},
        {"type": "grpc", "service": "pkg.S", "ssl": "yes"},
        {"type": "exec", "command": "test -f /ok"},
        {"type": "exec", "command": ["/bin/check", "it"]},
        {"type": "noop"},
    ]}))
    .checks
    .clone();
    let tcp = &checks[0];
    assert_eq!((tcp.kind.clone(), tcp.port.get(), tcp.timeout), (CheckKind::Tcp, 81, Duration::from_millis(200)));
    assert_eq!((tcp.rise, tcp.fall, tcp.name.as_str(), tcp.host.to_string().as_str()), (3, 2, "mine", "10.0.0.1"));
    let CheckKind::Http(http) = &checks[1].kind else { panic!("{checks:?}") };
    let peer = PeerTls { ca: Some("/ca.pem".into()), sni: Some("api.example".to_owned()), insecure: true };
    assert_eq!((http.path.as_str(), http.host.as_deref()), ("/health?x=1", Some("api.example:8443")));
    assert_eq!(http.tls, Some(peer));
    assert_eq!((http.body.as_deref(), http.headers[0].1.0.as_str()), (Some("ok"), "a b"));
    let phases = checks[1].phases.unwrap();
    assert_eq!((phases.open.as_millis(), phases.tls.as_millis(), phases.read.as_millis()), (500, 1000, 3000));
    assert_eq!(checks[1].timeout, Duration::from_millis(4500), "as long as all phases");
    let rabbit = |user: &str, password: &str, vhost: &str| CheckKind::Rabbitmq {
        user: Some(user.to_owned()),
        password: Some(Secret(password.to_owned())),
        vhost: vhost.to_owned(),
    };
    assert_eq!((&checks[2].kind, &checks[3].kind), (&rabbit("guest", "guest", "/"), &rabbit("u", "p", "/v")));
    assert_eq!(checks[4].kind, CheckKind::Redis { password: Some(Secret("s".to_owned())) });
    let own = PeerTls { sni: Some("10.0.0.1".to_owned()), ..PeerTls::default() };
    assert_eq!(checks[5].kind, CheckKind::Grpc { service: "pkg.S".to_owned(), tls: Some(own) });
    let exec = |words: &[&str]| CheckKind::Exec { command: words.iter().map(|w| (*w).to_owned()).collect() };
    assert_eq!(checks[6].kind, exec(&["sh", "-c", "test -f /ok"]));
    assert_eq!((&checks[7].kind, &checks[8].kind), (&exec(&["/bin/check", "it"]), &CheckKind::Noop));
    for (bad, key) in [
        (json!({"type": "http"}), "uri"),
        (json!({"type": "http", "uri": "health"}), "uri"),
        (json!({"type": "http", "uri": "/", "headers": {"a b": "x"}}), "headers.a b"),
        (json!({"type": "tcp", "timeout": 0}), "timeout"),
        (json!({"type": "tcp", "timeout": "soon"}), "timeout"),
        (json!({"type": "tcp", "rise": 0}), "rise"),
        (json!({"type": "tcp", "port": 70_000}), "port"),
        (json!({"type": "tcp", "host": "a b"}), "host"),
        (json!({"type": "exec"}), "command"),
    ] {
        let said = wrong(json!({"checks": [bad]}));
        assert!(said[0].starts_with(&format!("services.web.checks[0].{key}: ")), "{said:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_config_panics(text in "\\PC{0,60}", key in proptest::sample::select(vec!["host", "port", "checks", "reporters", "labels", "weight", "rate_limiting", "etcd_host", "etcd_path", "reporter_type"])) {
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text.clone()));
        let files = Files::new(&web(json!({key: value})));
        let _ = files.load();
        files.write("nerve.conf.json", &text);
        let _ = files.load();
    }
}

fn reference() -> Reference<'static> {
    Reference::of(ROOT, include_str!("../../../tests/nerve/keys.txt"))
}

fn sources(under: &Path, text: &mut String) {
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_key_has_a_test() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    ["src", "tests"].iter().for_each(|part| sources(&crate_dir.join(part), &mut text));
    for (name, row) in reference().rows() {
        assert!(text.contains(&format!("fn {}(", row.test)), "{name} names {}, which is not there", row.test);
    }
}

/// What the reader refuses the schema refuses, too, where a schema can say it.
#[test]
fn the_schema_finds_what_a_schema_can_find_and_takes_what_is_right() {
    let schema = json_schema(ROOT, &reference(), "");
    // A service that is wrong is left out alone.
    let refused = |config: &Value| match Files::new(config).load() {
        Ok(loaded) => loaded.wrong.values().flatten().map(|note| format!("{note}\n")).collect(),
        Err(refused) => refused,
    };
    for right in [web(json!({})), web(json!({"port": "80", "check_interval": "0.5", "strange": 1}))] {
        assert!(takes(&schema, &right) && refused(&right).is_empty(), "{right}");
    }
    for (wrong, at) in [
        (web(json!({"port": "abc"})), "services.web.port"),
        (web(json!({"port": 70_000})), "services.web.port"),
        (web(json!({"check_interval": "soon"})), "services.web.check_interval"),
        (web(json!({"host": {}})), "services.web.host"),
        (web(json!({"checks": [{"timeout": 1}]})), "services.web.checks[0].type"),
        (web(json!({"checks": [{"type": "tcp", "rise": -1}]})), "services.web.checks[0].rise"),
        (json!({"instance_id": "i", "services": {"web": {"port": 80}}}), "services.web.host"),
        (json!({"instance_id": "i", "services": {"web": {"host": "h"}}}), "services.web.port"),
        (json!({"instance_id": "i", "services": []}), "services"),
    ] {
        assert!(!takes(&schema, &wrong), "{at}: {wrong}");
        assert!(refused(&wrong).contains(at), "{at} is not named: {}", refused(&wrong));
    }
}

#[test]
fn the_reference_and_the_schema_in_the_docs_are_current() {
    let title = "# Every key of Nerve's config file\n\n*For users.* Generated: what the program itself takes.\n\n";
    testing::is_current("docs/configuration-nerve.md", &format!("{title}{}\n", page(ROOT, &reference(), "register")));
    let schema = json_schema(ROOT, &reference(), "register's config of services without Docker: Nerve's, extended");
    testing::is_current("docs/register.schema.json", &format!("{}\n", serde_json::to_string_pretty(&schema).unwrap()));
}
