use super::*;

fn errors(config: Value) -> Vec<String> {
    load(&config).unwrap_err().0.iter().map(|n| format!("{}: {}", n.path, n.text)).collect()
}

#[test]
fn services_keep_the_order_of_the_file() {
    let config = json!({"services": {"z": {"discovery": {"method": "base"}}, "a": {"discovery": {"method": "base"}}, "m": {"discovery": {"method": "base"}}}});
    let names: Vec<String> = load(&config).unwrap().config.services.iter().map(|s| s.name.to_string()).collect();
    assert_eq!(names, ["z", "a", "m"]);
}

#[test]
fn backend_networks_say_which_addresses_count() {
    let judged = |networks: &[&str], allow_loopback: bool, host: &str| {
        let config = load(&json!({"backend_networks": networks, "services": {}})).unwrap().config;
        let flags = AddressArgs { allow_loopback, ..AddressArgs::default() };
        flags.policy_with(&config.backend_networks).judge_host(&host.parse().unwrap()).is_ok()
    };
    assert!(judged(&[], false, "127.0.0.1") && judged(&[], false, "localhost"), "as Synapse has it");
    assert!(!judged(&[], false, "169.254.169.254"));
    assert!(!judged(&["10.0.0.0/8"], false, "127.0.0.1") && judged(&["10.0.0.0/8"], true, "127.0.0.1"));
    assert!(judged(&["10.0.0.0/8", "127.0.0.0/8"], false, "127.0.0.1"));
    assert!(judged(&["!10.0.9.0/24"], false, "10.0.8.1") && !judged(&["!10.0.9.0/24"], false, "10.0.9.1"));
    let flags = AddressArgs { backend_networks: vec!["11.0.0.1".parse().unwrap()], ..AddressArgs::default() };
    let of_config = ["10.0.0.0/8".parse().unwrap()];
    assert!(flags.policy_with(&of_config).judge("10.0.0.1".parse().unwrap()).is_err(), "flags come before the config");
    let wrong = errors(json!({"backend_networks": ["10.0.0.0/8", "10.0.0.0/99"], "services": {}}));
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].starts_with("backend_networks[1]: "), "{wrong:?}");
}

#[test]
fn service_conf_dir_adds_and_replaces_services() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("conf.d");
    std::fs::create_dir_all(conf.join("deeper")).unwrap();
    let put = |name: &str, text: &str| std::fs::write(conf.join(name), text).unwrap();
    put("a.json", r#"{"discovery": {"method": "base"}, "haproxy": {"port": 7}} // replaces"#);
    put("new.yaml", "discovery: {method: base}\n");
    put("old.yml", "discovery: {method: base}\n");
    put("deeper/x.json", r#"{"discovery": {"method": "base"}}"#);
    put("notes.txt", "{");
    let service = json!({"discovery": {"method": "base"}});
    let config = json!({"service_conf_dir": conf, "services": {"a": service, "b": service}});
    let loaded = load_in(dir.path(), &config).unwrap();
    let names: Vec<String> = loaded.config.services.iter().map(|s| s.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "new"]);
    assert_eq!(loaded.config.services[0].haproxy.port, Some(Some("7".into())));
    assert!(loaded.warnings.iter().any(|w| w.text.contains("old.yml")), "{:?}", loaded.warnings);

    put("bad.json", r#"{"haproxy": {"port": "x"}}"#);
    let error = load_in(dir.path(), &config).unwrap_err().to_string();
    assert!(
        error.contains("bad.json: services.bad.haproxy.port:") && error.contains("services.bad.discovery: is required"),
        "{error}"
    );
    assert_eq!(errors(json!({"service_conf_dir": "/nowhere/at/all"})).len(), 1);
}

#[test]
fn a_section_without_its_required_keys_is_named() {
    let all = errors(json!({
        "haproxy": {"do_writes": true, "do_socket": true, "do_reloads": true, "do_checks": true},
        "file_output": {}, "template": {"t": {"mode": "9"}}, "prometheus": {}, "services": {},
    }));
    for path in [
        "haproxy.global",
        "haproxy.defaults",
        "haproxy.config_file_path",
        "haproxy.socket_file_path",
        "haproxy.reload_command",
        "haproxy.check_command",
        "haproxy.candidate_config_file_path",
        "file_output.output_directory",
        "template.t.source",
        "template.t.destination",
        "template.t.mode",
        "prometheus.file",
    ] {
        assert!(all.iter().any(|e| e.starts_with(&format!("{path}: "))), "{path}: {all:?}");
    }
}

#[test]
fn a_service_without_discovery_is_named() {
    let all = errors(json!({"services": {"a": {}, "b": {"discovery": {}}, "c d": {"discovery": {"method": "base"}}}}));
    assert_eq!(all.len(), 3, "{all:?}");
    assert_eq!(&all[..2], ["services.a.discovery: is required", "services.b.discovery.method: is required"]);
    assert!(all[2].starts_with("services.c d: service name"));
}

#[test]
fn discovery_multi_is_read() {
    let loaded =
        load(&config_of(json!({}), json!({"discovery_multi": {"watchers": {}, "resolver": {"method": "union"}}})))
            .unwrap();
    assert_eq!(loaded.config.services[0].discovery.method, "multi");
    // Another watcher of that name counts for nothing.
    let multi = json!({"watchers": {"primary": "not even an object"}, "resolver": {"method": "union"}});
    let loaded = load(&config_of(json!({}), json!({"discovery_multi": multi}))).unwrap();
    assert_eq!(loaded.config.services[0].discovery.raw["watchers"]["primary"]["method"], "base");
    assert!(loaded.warnings[0].to_string().contains("services.s.discovery_multi.watchers.primary: is passed over"));
}

#[test]
fn load_test_concurrency_makes_copies() {
    let config = config(json!({}), json!({"load_test_concurrency": 3}));
    let names: Vec<String> = config.services.iter().map(|s| s.name.to_string()).collect();
    assert_eq!(names, ["s_0", "s_1", "s_2"]);
}

#[test]
fn statsd_is_tolerated() {
    let loaded =
        load(&json!({"services": {}, "statsd": {"host": "h", "port": 8125, "sample_rate": {"a": 0.1}}})).unwrap();
    assert_eq!(loaded.warnings, []);
}

#[test]
fn other_methods_keys_are_known() {
    let discovery = json!({"method": "base", "decode": {"method": "serverset"}, "retry_policy": {}, "discovery_jitter": 3,
        "generator_config_path": "disabled", "polling_interval_sec": 60, "nameserver": "n", "check_interval": 15.5, "servers": [],
        "image_name": "i", "container_port": 80, "tag_name": "t", "tag_value": "v", "aws_region": "r", "aws_access_key_id": "a",
        "aws_secret_access_key": "s", "marathon_api_url": "u", "marathon_api_path": "p", "application_name": "n", "port_index": 0,
        "watchers": {}, "resolver": {"method": "union"}});
    assert_eq!(load(&config_of(json!({}), json!({"discovery": discovery}))).unwrap().warnings, []);
}

#[test]
fn restart_interval_and_jitter_are_read() {
    let haproxy = config(json!({"restart_interval": "7", "restart_jitter": 0.5}), json!({})).haproxy.unwrap();
    assert_eq!((haproxy.restart_interval, haproxy.restart_jitter), (7, 0.5));
}

#[test]
fn do_switches() {
    let nothing = errors(json!({"haproxy": {"global": [], "defaults": []}, "services": {}}));
    assert!(nothing.len() == 1 && nothing[0].starts_with("haproxy: says nothing"), "{nothing:?}");
    let some = json!({"haproxy": {"global": [], "defaults": [], "reload_command": "true"}, "services": {}});
    let plain = load(&some).unwrap();
    let h = plain.config.haproxy.unwrap();
    assert_eq!((h.do_writes, h.do_socket, h.do_reloads, h.do_checks), (true, true, true, false));
    let missing: Vec<&str> = plain.warnings.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(missing, ["haproxy.config_file_path", "haproxy.socket_file_path"]);
}

#[test]
fn every_problem_of_a_config_is_told_at_once() {
    let all = errors(config_of(
        json!({"global": "bind-process 1"}),
        json!({
            "backend_port_override": "x", "default_servers": [{"host": "a b", "port": 1}, {"host": "a"}],
            "haproxy": {"server_options": "50% off", "backend_name": "a b", "bind_address": "a b", "backend": ["rspadd x"]},
        }),
    ));
    for path in [
        "haproxy.global[0]",
        "services.s.backend_port_override",
        "services.s.default_servers[0]",
        "services.s.default_servers[1]",
        "services.s.haproxy.server_options",
        "services.s.haproxy.backend_name",
        "services.s.haproxy.bind_address",
        "services.s.haproxy.backend[0]",
    ] {
        assert!(all.iter().any(|e| e.starts_with(&format!("{path}: "))), "{path}: {all:?}");
    }
}

#[test]
fn the_clay_io_sample_is_taken_as_it_is() {
    let text = r#"// a sample
        {"services": {"my": {"discovery": {"method": "ec2tag", "tag_name": "n", "tag_value": "true", "check_interval": 120.0},
            "haproxy": {"port": 50003, "listen": ["mode http"], "server_port_override": "50001", "server_backup_port": "50002", "server_options": "check"}}}, // here too
         "haproxy": {"reload_command": "echo noop", "config_file_path": "/x/haproxy.cfg", "socket_file_path": "/x/s", "do_writes": true,
            "do_reloads": true, "do_socket": false, "bind_address": "0.0.0.0", "global": ["daemon"], "defaults": ["option         redispatch"],
            "extra_sections": {"listen stats :1937": ["stats enable"]}}}"#;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("synapse.conf.json");
    std::fs::write(&path, text).unwrap();
    let loaded = load_with(&path, &|_| None).unwrap();
    assert_eq!(loaded.warnings, []);
    let service = &loaded.config.services[0];
    assert_eq!((service.backend_port_override, service.haproxy.server_backup_port), (Some(50001), Some(50002)));
}

/// Two services whose sections say where they listen, in a file with these words beside them.
fn two_places(a: &Value, b: &Value, beside: Value) -> Value {
    let service = |haproxy: &Value| json!({"discovery": {"method": "base"}, "haproxy": haproxy});
    let mut config = json!({"services": {"a": service(a), "b": service(b)}, "haproxy": {
        "global": [], "defaults": [], "do_writes": false, "do_socket": false, "do_reloads": false, "bind_address": "0.0.0.0",
    }});
    config.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
    config
}

#[test]
fn two_services_at_one_place_are_an_error_and_in_synapses_own_file_the_first_one_serves() {
    let ours = json!({"backend_networks": ["10.0.0.0/8"]});
    let at = |port: u16, address: &str| json!({"port": port, "bind_address": address});
    for (a, b, words) in [
        (
            at(81, "localhost"),
            at(81, "127.0.0.1"),
            ["b.haproxy.port: 127.0.0.1:81 is where services.a.haproxy.port listens"],
        ),
        (json!({"port": 81}), at(81, "*"), ["b.haproxy.port: *:81 is where services.a.haproxy.port listens"]),
        (
            json!({"port": 81, "frontend": ["bind 10.0.0.1:82 ssl crt /x"]}),
            json!({"port": 83, "listen": ["mode http", "bind 10.0.0.1:82,:84"]}),
            ["b.haproxy.listen[1]: 10.0.0.1:82 is where services.a.haproxy.frontend[0] listens"],
        ),
        (
            json!({"port": "8000-8010"}),
            json!({"port": 8010}),
            ["b.haproxy.port: *:8010 is where services.a.haproxy.port listens"],
        ),
    ] {
        let said = errors(two_places(&a, &b, ours.clone()));
        assert!(said.len() == words.len() && said.iter().zip(words).all(|(s, w)| s.contains(w)), "{said:?}");
        let loaded = load(&two_places(&a, &b, json!({}))).unwrap();
        let said: Vec<_> = loaded.warnings.iter().map(|n| format!("{}: {}", n.path, n.text)).collect();
        assert!(said.len() == words.len() && said.iter().zip(words).all(|(s, w)| s.contains(w)), "{said:?}");
        let [first, second] = &loaded.config.services[..] else { panic!() };
        assert!(first.haproxy.port.is_some() && second.haproxy.listen.len() < 2, "{:?}", second.haproxy);
        assert_eq!(second.haproxy.port.is_some(), b["listen"].is_array(), "its own place stays");
    }
    for (a, b) in [
        (at(81, "127.0.0.1"), at(81, "127.0.0.2")),
        (at(81, "127.0.0.1"), at(82, "127.0.0.1")),
        (json!({"port": 81}), json!({"port": 81, "disabled": true})),
        (json!({"port": 81}), json!({"frontend": ["bind :81"]})), // no port, no frontend
        (json!({"port": 81, "bind_options": "interface eth0"}), json!({"port": 81, "bind_options": "interface eth1"})),
        (json!({}), json!({})),
    ] {
        let loaded = load(&two_places(&a, &b, ours.clone())).unwrap();
        assert_eq!((loaded.warnings, loaded.notices), (vec![], vec![]), "{a} {b}");
    }
    let mut copies = two_places(&json!({"port": 81}), &json!({"port": 82}), ours);
    copies["services"]["a"]["load_test_concurrency"] = 3.into();
    assert!(load(&copies).is_ok(), "copies share one pool");
}
