use discover::haproxy::api::version::{Capabilities, Version};

use super::*;

#[test]
fn a_service_without_a_haproxy_section_gets_a_backend() {
    let file = World::of(json!({}), json!({})).file(Some(hosts(&[1])));
    let want = [
        "global",
        "\tmaxconn 9",
        "defaults",
        "\tmode http",
        "backend s",
        "\tserver 10.0.0.1:80 10.0.0.1:80 id 1 cookie 10.0.0.1:80",
    ];
    assert_eq!(bare(&file), want);
}

#[test]
fn disabled_services_are_left_out() {
    let file = World::of(json!({}), json!({"haproxy": {"disabled": true, "port": 1}})).file(Some(hosts(&[1])));
    assert!(!file.contains("frontend") && !file.contains("backend"), "{file}");
}

#[test]
fn backend_name_renames_the_section() {
    let file = World::of(json!({}), json!({"haproxy": {"port": 1, "backend_name": "pool"}})).file(Some(hosts(&[1])));
    assert_eq!(bare(&file)[4..8], ["frontend s", "\tbind localhost:1", "\tdefault_backend pool", "backend pool"]);
    let mut twice = config_of(json!({}), json!({"haproxy": {"backend_name": "t"}}));
    twice["services"]["t"] = json!({"discovery": {"method": "base"}});
    assert!(load(&twice).unwrap_err().to_string().contains("section t is service s's already"));
}

#[test]
fn a_haproxy_that_refuses_a_name_for_two_gets_a_frontend_with_a_name_of_its_own() {
    let mut world = World::of(json!({}), json!({"haproxy": {"port": 1}}));
    let as_synapse = world.file(Some(hosts(&[1])));
    for (version, frontend) in [("3.2.0", "frontend s"), ("3.3.0", "frontend s:frontend"), ("3.0.11", "frontend s")] {
        world.composer.suit(&Capabilities::of(&Version::parse(version).unwrap()));
        let file = world.file(Some(hosts(&[1])));
        assert_eq!(
            bare(&file)[4..8],
            [frontend, "\tbind localhost:1", "\tdefault_backend s", "backend s"],
            "{version}"
        );
        assert_eq!(file == as_synapse, frontend == "frontend s");
    }
    let mut named = World::of(json!({}), json!({"haproxy": {"port": 1, "backend_name": "pool"}}));
    named.composer.suit(&Capabilities::of(&Version::parse("3.4.7").unwrap()));
    assert_eq!(bare(&named.file(None))[4], "frontend s", "two names as they are");
}

#[test]
fn bind_addresses_and_ports() {
    for (top, own, want) in [
        (json!({}), json!({"port": 1}), "localhost:1"),
        (json!({"bind_address": "0.0.0.0"}), json!({"port": "2"}), "0.0.0.0:2"),
        (json!({"bind_address": "0.0.0.0"}), json!({"port": 3, "bind_address": "::1"}), "::1:3"),
        (
            json!({}),
            json!({"port": null, "bind_address": "/run/x.sock", "bind_options": "mode 666"}),
            "/run/x.sock mode 666",
        ),
        (json!({}), json!({"port": 4, "bind_options": "ssl crt /x"}), "localhost:4 ssl crt /x"),
    ] {
        let file = World::of(top, json!({"haproxy": own})).file(None);
        assert!(file.contains(&format!("\n\tbind {want}\n")), "{want}: {file}");
    }
    assert!(!World::of(json!({}), json!({"haproxy": {"bind_options": "x"}})).file(None).contains("bind"));
}

#[test]
fn own_lines_come_first_and_unknown_ones_are_dropped() {
    let own = json!({"port": 1, "frontend": ["timeout client 1s", "balance source", "quux"], "backend": ["option httpchk", "maxconn 3", "quux"],
        "listen": ["mode tcp", "bind-things 3"]});
    let mut world = World::of(json!({}), json!({"haproxy": own}));
    let file = world.file(None);
    let want = [
        "frontend s",
        "\ttimeout client 1s",
        "\tmode tcp",
        "\tbind-things 3",
        "\tbind localhost:1",
        "\tdefault_backend s",
        "backend s",
        "\toption httpchk",
        "\tmode tcp",
    ];
    assert_eq!(bare(&file)[4..], want);
    assert_eq!(world.composer.warnings().count(), 4);
}

#[test]
fn listen_lines_are_split() {
    let listen = [
        "mode http",
        "timeout client 1s",
        "timeout server  2s",
        "Option HttpLog",
        "retry-on all-retryable-errors",
        "no option nolinger",
        "quux 1",
    ];
    let mut world = World::of(json!({}), json!({"haproxy": {"port": 1, "listen": listen}}));
    let want = [
        "frontend s",
        "\tmode http",
        "\ttimeout client 1s",
        "\tOption HttpLog",
        "\tno option nolinger",
        "\tbind localhost:1",
        "\tdefault_backend s",
        "backend s",
        "\tmode http",
        "\ttimeout server  2s",
        "\tOption HttpLog",
        "\tretry-on all-retryable-errors",
        "\tno option nolinger",
        "\tquux 1",
    ];
    assert_eq!(bare(&world.file(None))[4..], want);
    assert_eq!(world.composer.warnings().count(), 1, "the line that we do not know");
}

#[test]
fn shared_frontend_gathers_lines() {
    let mut config = config_of(
        json!({"shared_frontend": ["bind :80", "balance source"]}),
        json!({"haproxy": {"shared_frontend": ["acl a path /a", "quux"]}}),
    );
    config["services"]["t"] =
        json!({"discovery": {"method": "base"}, "haproxy": {"shared_frontend": "use_backend t if a"}});
    config["services"]["off"] =
        json!({"discovery": {"method": "base"}, "haproxy": {"disabled": true, "shared_frontend": "acl b path /b"}});
    let file = World::new(load(&config).unwrap().config, None).file(None);
    let want =
        ["backend s", "backend t", "frontend shared-frontend", "\tbind :80", "\tacl a path /a", "\tuse_backend t if a"];
    assert_eq!(bare(&file)[4..], want);
    let mut without = World::of(json!({}), json!({"haproxy": {"shared_frontend": ["acl a path /a"]}}));
    assert!(!without.file(None).contains("acl"));
    assert_eq!(without.composer.warnings().count(), 1);
}

#[test]
fn extra_sections_and_their_old_titles() {
    let extra = json!({"listen stats :3212": ["stats enable"], "userlist u": "user a password b", "empty e": null});
    let config = load(&config_of(json!({"extra_sections": extra}), json!({}))).unwrap();
    assert_eq!(config.notices.len(), 1);
    let file = World::new(config.config, None).file(None);
    let want =
        ["listen stats", "\tbind :3212", "\tstats enable", "userlist u", "\tuser a password b", "empty e", "backend s"];
    assert_eq!(bare(&file)[4..], want);
}

#[test]
fn harden_adds_what_masks_a_dying_server() {
    let top = json!({"harden": true, "defaults": ["mode http", "no option redispatch", "timeout  connect 9s"]});
    let file = World::of(top, json!({})).file(None);
    let want = [
        "global",
        "\tmaxconn 9",
        "\thard-stop-after 15m",
        "defaults",
        "\tmode http",
        "\tno option redispatch",
        "\ttimeout  connect 9s",
        "\tbalance roundrobin",
        "\toption idle-close-on-response",
        "backend s",
        "\tretries 10",
        "\tretry-on conn-failure empty-response",
        "\thttp-request disable-l7-retry if !{ method GET HEAD OPTIONS }",
    ];
    assert_eq!(bare(&file), want);
}

/// A retry without the rule beside it could execute a POST twice; `defaults` takes no rules.
#[test]
fn what_harden_adds_never_repeats_what_is_not_idempotent() {
    for (defaults, backend, retries, rules) in [
        (json!(["mode http"]), json!([]), 1, 1),
        (json!(["mode tcp"]), json!(["mode http", "retries 2"]), 1, 1),
        (json!(["mode http"]), json!(["mode tcp"]), 0, 0),
        (json!(["mode tcp"]), json!([]), 0, 0),
        (json!(["mode http", "retry-on conn-failure"]), json!([]), 1, 0),
        (json!(["mode http"]), json!(["retry-on none"]), 1, 0),
    ] {
        let own = json!({"haproxy": {"backend": backend}});
        let file = World::of(json!({"harden": true, "defaults": defaults}), own).file(None);
        let count = |text: &str| file.lines().filter(|l| l.trim_start().starts_with(text)).count();
        assert_eq!((count("retry-on"), count("http-request disable-l7-retry")), (retries, rules), "{file}");
        assert!(count("retries") <= 1, "{file}");
    }
}

#[test]
fn both_options_are_templates() {
    let own = json!({"server_options": "check port %{port} 1%%"});
    let mut world = World::of(json!({"allow_registry_options": ["addr"]}), json!({"haproxy": own}));
    let lines = world.servers(json!([
        {"host": "h", "port": 80, "name": "n", "haproxy_server_options": "addr %{host} cookie %{name}"},
        {"host": "bad", "port": 80, "haproxy_server_options": "cookie 5%"},
    ]));
    assert_eq!(lines, ["n_h:80 h:80 id 1 cookie n_h:80 check port 80 1% addr h cookie n_h:80"]);
    assert_eq!(world.quarantined().len(), 1, "it alone suffers: {:?}", world.quarantined());
}

#[test]
fn options_that_are_no_text_are_passed_over() {
    for options in [json!(["check"]), json!({"a": 1}), json!(3)] {
        let mut world = World::of(json!({}), json!({"haproxy": {"server_options": options}}));
        let lines = world.servers(json!([{"host": "h", "port": 80, "haproxy_server_options": options}]));
        assert_eq!(lines, ["h:80 h:80 id 1 cookie h:80"]);
    }
}

#[test]
fn cookies() {
    let hashed = json!({"cookie_value_method": "hash"});
    let tcp = |line: &str| json!({"backend": [line]});
    for (own, want) in [
        (json!({}), " cookie h:1"),
        (json!({"cookie_value_method": "other"}), " cookie h:1"),
        (hashed, " cookie 7de163c3d17c7e11fe041733744da1439bf7c559"),
        (tcp("mode tcp"), ""),
        (tcp("mode  tcp"), " cookie h:1"),
        (json!({"listen": ["mode tcp"]}), ""),
    ] {
        let lines = World::of(json!({}), json!({"haproxy": own})).servers(json!([{"host": "h", "port": 1}]));
        let cookie = lines[0].strip_prefix("h:1 h:1 id 1").unwrap().trim_end();
        assert_eq!(cookie, want);
    }
}

#[test]
fn use_nerve_weights_moves_the_weight_to_the_end() {
    let own = json!({"server_options": "check weight 5  inter 2s", "backend_order": "asc"});
    let backends = json!([
        {"host": "a", "port": 1, "weight": 3, "haproxy_server_options": "weight 9 backup"},
        {"host": "b", "port": 1, "weight": "4"},
        {"host": "c", "port": 1, "weight": 2.5},
    ]);
    let mut world = World::of(json!({"use_nerve_weights": true}), json!({"haproxy": own.clone()}));
    assert_eq!(
        world.servers(backends.clone()),
        [
            "a:1 a:1 id 1 cookie a:1 check inter 2s backup weight 3",
            "b:1 b:1 id 2 cookie b:1 check weight 5  inter 2s",
            "c:1 c:1 id 3 cookie c:1 check weight 5  inter 2s",
        ]
    );
    let mut without = World::of(json!({}), json!({"haproxy": own}));
    assert!(without.servers(backends)[0].ends_with("check weight 5  inter 2s weight 9 backup"));
    let notice = load(&config_of(json!({}), json!({"haproxy": {"use_nerve_weights": true}}))).unwrap().notices;
    assert_eq!(notice[0].path, "services.s.haproxy.use_nerve_weights");
}

#[test]
fn orders() {
    let backends = json!([{"host": "10.0.0.10", "port": 1}, {"host": "10.0.0.9", "port": 1}, {"host": "B", "port": 1}, {"host": "a", "port": 1}]);
    for (order, want) in [
        ("asc", ["10.0.0.10:1", "10.0.0.9:1", "B:1", "a:1"]),
        ("desc", ["a:1", "B:1", "10.0.0.9:1", "10.0.0.10:1"]),
        ("no_shuffle", ["10.0.0.10:1", "10.0.0.9:1", "B:1", "a:1"]),
    ] {
        let mut world = World::of(json!({}), json!({"haproxy": {"backend_order": order}}));
        let names: Vec<String> =
            world.servers(backends.clone()).iter().map(|l| l.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(names, want, "{order}");
    }
}

#[test]
fn shuffles_as_ruby_does() {
    // The order of case 03-backend-order; a seed in digits is a number too.
    let names = ["h2", "h10", "x10", "a", "Zed", "abc"];
    let backends: Value = names.iter().map(|n| json!({"host": n, "port": 1})).collect();
    for seed in [json!(7), json!("7")] {
        let mut world = World::of(json!({"server_order_seed": seed}), json!({}));
        let got: Vec<String> =
            world.servers(backends.clone()).iter().map(|l| l.split(':').next().unwrap().to_owned()).collect();
        assert_eq!(got, ["a", "abc", "h2", "x10", "h10", "Zed"]);
    }
}

#[test]
fn ids_explicit_ones_first() {
    let mut world = World::of(json!({}), json!({"haproxy": {"backend_order": "no_shuffle"}}));
    let ids = |lines: Vec<String>| {
        lines
            .iter()
            .map(|l| l.split(" id ").nth(1).map(|r| r.split(' ').next().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let first = world.servers(json!([
        {"host": "a", "port": 1}, {"host": "b", "port": 1, "haproxy_server_id": 1}, {"host": "c", "port": 1, "haproxy_server_id": 9, "haproxy_server_options": "id 2"},
        {"host": "d", "port": 1, "haproxy_server_id": "4"},
    ]));
    assert!(first[2].ends_with("cookie c:1  id 2"), "{first:?}");
    assert_eq!(ids(first).into_iter().flatten().collect::<Vec<_>>(), ["3", "1", "2", "4"]);
    let then = world.servers(json!([{"host": "a", "port": 1}, {"host": "e", "port": 1, "haproxy_server_id": 3}, {"host": "f", "port": 1, "haproxy_server_id": 3}]));
    assert_eq!(
        ids(then).into_iter().flatten().collect::<Vec<_>>(),
        ["5", "3"],
        "an explicit id is never collided with"
    );
    assert_eq!(world.quarantined(), ["f:1: id 3 belongs to another registration"]);
}

#[test]
fn max_server_id_ends_the_ids() {
    let mut world = World::of(json!({"max_server_id": 1}), json!({"haproxy": {"backend_order": "no_shuffle"}}));
    assert_eq!(
        world.servers(hosts(&[1, 2])),
        ["10.0.0.1:80 10.0.0.1:80 id 1 cookie 10.0.0.1:80 ", "10.0.0.2:80 10.0.0.2:80 cookie 10.0.0.2:80 "]
    );
}

#[test]
fn server_backup_port_lists_every_backend_again() {
    let mut world = World::of(
        json!({}),
        json!({"haproxy": {"backend_order": "no_shuffle", "server_backup_port": "99", "server_options": "check"}}),
    );
    assert_eq!(
        world.servers(hosts(&[1, 2])),
        [
            "10.0.0.1:80 10.0.0.1:80 id 1 cookie 10.0.0.1:80 check",
            "10.0.0.1:99 10.0.0.1:99 backup id 2 cookie 10.0.0.1:99 check",
            "10.0.0.2:80 10.0.0.2:80 id 3 cookie 10.0.0.2:80 check",
            "10.0.0.2:99 10.0.0.2:99 backup id 4 cookie 10.0.0.2:99 check",
        ]
    );
}

fn state_world(text: &str) -> World {
    let top = json!({"state_file_path": "/nowhere/state", "state_file_ttl": 100});
    let config = config(top, json!({"haproxy": {"backend_order": "no_shuffle", "server_options": "check"}}));
    World::new(config, Some(State::parse(text, Some("/nowhere/state".into()), 100, 1000)))
}

#[test]
fn the_state_file_remembers_ids_and_servers() {
    let text = json!({"s": {"old:1": {"timestamp": 950, "haproxy_server_id": 5, "host": "old", "port": 1}, "10.0.0.1:80": {"timestamp": 950, "haproxy_server_id": 8, "host": "10.0.0.1", "port": 80}}});
    let mut world = state_world(&text.to_string());
    assert_eq!(
        world.servers(hosts(&[2, 1])),
        [
            "old:1 old:1 id 5 cookie old:1 check disabled",
            "10.0.0.1:80 10.0.0.1:80 id 8 cookie 10.0.0.1:80 check",
            "10.0.0.2:80 10.0.0.2:80 id 1 cookie 10.0.0.2:80 check",
        ]
    );
    // A vanished server stays, disabled, and takes its place and its id again.
    assert_eq!(
        world.servers(hosts(&[1])),
        [
            "old:1 old:1 id 5 cookie old:1 check disabled",
            "10.0.0.1:80 10.0.0.1:80 id 8 cookie 10.0.0.1:80 check",
            "10.0.0.2:80 10.0.0.2:80 id 1 cookie 10.0.0.2:80 check disabled",
        ]
    );
    let (path, written) = world.composer.changed_state(world.now).unwrap();
    assert_eq!(path, Path::new("/nowhere/state"));
    let again: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(again["s"]["old:1"], json!({"timestamp": 950, "haproxy_server_id": 5, "host": "old", "port": 1}));
    assert_eq!(again["s"]["10.0.0.2:80"]["timestamp"], 1000);
    assert_eq!(again["s"]["watcher_config_for_generator"]["server_options"], "check");
    assert_eq!(world.composer.changed_state(world.now), None, "nothing has changed since");
}

#[test]
fn the_state_file_forgets_after_its_ttl() {
    let text = json!({"s": {"old:1": {"timestamp": 899, "host": "old", "port": 1}, "mid:1": {"timestamp": 950, "host": "mid", "port": 1}}});
    let mut world = state_world(&text.to_string());
    assert_eq!(world.servers(hosts(&[1])).len(), 2, "the ttl counts when it is read, too");
    world.now = 1051;
    assert_eq!(world.servers(hosts(&[1])).len(), 1);
}

#[test]
fn equal_state_gives_equal_bytes_and_costs_no_rendering() {
    let mut world = World::of(json!({}), json!({"haproxy": {"port": 1}}));
    let services = world.services(Some(hosts(&[1, 2, 3])));
    let first = world.composer.compose(&services, None, 1000).render();
    let renders = world.composer.renders();
    assert_eq!(world.composer.compose(&services, None, 2000).render(), first);
    assert_eq!(world.composer.renders(), renders);
    assert!(!first.contains("2026") && first.ends_with('\n'));
}
