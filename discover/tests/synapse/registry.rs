use super::*;

fn world() -> World {
    World::of(json!({}), json!({"haproxy": {"port": 1, "server_options": "check", "listen": ["mode http"]}}))
}

const LINES: [&str; 6] = [
    "frontend s",
    "\tbind localhost:2",
    "\tdefault_backend s",
    "backend s",
    "\tbalance source",
    "\tserver 10.0.0.1:80 10.0.0.1:80 id 1 cookie 10.0.0.1:80",
];

#[test]
fn a_section_from_the_registry_takes_the_place_of_the_configs() {
    let mut world = world();
    assert!(world.file(Some(hosts(&[1]))).contains("mode http"));
    world.hears(json!({"haproxy": {"port": 2, "backend": "balance source"}}));
    assert_eq!(bare(&world.file(Some(hosts(&[1]))))[4..], LINES, "nothing of the config's own section is left");
    // Synapse keeps it when the registry falls silent, and when it holds nothing.
    world.configs.clear();
    assert_eq!(bare(&world.file(Some(hosts(&[1]))))[4..], LINES);
    world.hears(json!({"haproxy": {"disabled": true}}));
    assert!(!world.file(Some(hosts(&[1]))).contains("backend s"));
}

#[test]
fn other_generators_keep_their_sections_and_follow_the_registrys() {
    let mut config = config_of(json!({}), json!({"haproxy": {"port": 1}, "nginx": {"port": 81}}));
    config["file_output"] = json!({"output_directory": "x"});
    let mut world = World::new(load(&config).unwrap().config, None);
    world.hears(json!({"haproxy": {"port": 2}, "file_output": {"disabled": true}, "pigeon": {"a": 1}}));
    let desired = world.desired(None);
    let service = &desired.configured[0];
    assert_eq!((service.nginx.port.clone(), service.file_output_disabled), (Some(Some("81".into())), true));
    assert_eq!(service.raw["haproxy"], json!({"port": "2"}), "templates see it, too");
    assert_eq!(service.raw["discovery"]["method"], "base");
}

#[test]
fn a_bad_section_is_refused_whole_and_the_last_good_one_stays() {
    let mut world = world();
    world.hears(json!({"haproxy": {"port": 2, "backend": "balance source"}}));
    world.file(None);
    for bad in [
        json!({"haproxy": {"port": 3, "backend": "balance source\nserver evil 10.9.9.9:1"}}),
        json!({"haproxy": {"port": "x"}}),
        json!({"haproxy": {"listen": ["mode http", "listen evil"]}}),
        json!({"haproxy": {"backend": ["server evil 10.9.9.9:1"]}}),
        json!({"haproxy": {"listen": ["errorfile 503 /etc/shadow"]}}),
        json!({"haproxy": {"server_options": "check crt /etc/shadow"}}),
        json!({"haproxy": {"server_options": "check # evil"}}),
        json!({"haproxy": {"port": 4, "bind_options": "ssl # evil"}}),
        json!({"haproxy": 7}),
        json!({"nginx": {"server": ["return 200 x; } evil {"]}}),
    ] {
        world.hears(bad.clone());
        let desired = world.desired(Some(hosts(&[1])));
        assert_eq!(desired.refused.len(), 1, "{bad}");
        assert_eq!(bare(&world.file(Some(hosts(&[1]))))[4..], LINES, "{bad}");
    }
    world.hears(json!({"haproxy": {"port": 5}}));
    assert!(world.desired(None).refused.is_empty(), "a good one ends it");
}

#[test]
fn a_section_from_the_registry_takes_no_other_services_name_or_port() {
    let mut config = config_of(json!({}), json!({"haproxy": {"port": 1}}));
    config["services"]["t"] = json!({"discovery": {"method": "base"}, "haproxy": {"port": 2}});
    let mut world = World::new(load(&config).unwrap().config, None);
    for (taken, word) in [(json!({"port": 2}), "localhost:2"), (json!({"backend_name": "t"}), "section t")] {
        world.hears(json!({"haproxy": taken}));
        let refused = world.desired(None).refused;
        assert!(refused.values().any(|why| why.contains(word)), "{refused:?}");
    }
    world.hears(json!({"haproxy": {"port": 2, "bind_address": "127.0.0.2"}}));
    assert!(world.desired(None).refused.is_empty());
}
