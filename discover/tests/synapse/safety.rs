use super::*;
use proptest::prelude::*;

#[test]
fn registry_options_that_reach_elsewhere_are_quarantined() {
    for options in [
        "crt /etc/x",
        "addr 10.9.9.9",
        "redir http://x",
        "resolvers r",
        "agent-check",
        "source 1.2.3.4",
        "quux",
        "check # x",
        "weight 9999",
    ] {
        let mut world = World::of(json!({}), json!({}));
        let lines = world
            .servers(json!([{"host": "a", "port": 1, "haproxy_server_options": options}, {"host": "b", "port": 1}]));
        assert_eq!(lines.len(), 1, "{options}");
        assert_eq!(world.quarantined().len(), 1, "{options}");
    }
    let mut world = World::of(json!({"allow_registry_options": ["addr"]}), json!({}));
    assert_eq!(world.servers(json!([{"host": "a", "port": 1, "haproxy_server_options": "addr 10.9.9.9"}])).len(), 1);
}

/// Texts that look like trouble.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,20}",
        Just("a\nlisten evil".to_owned()),
        Just("check\r\n\tserver evil 10.9.9.9:1".to_owned()),
        Just("check\u{2028}backend x".to_owned()),
        Just("%{host}%{port}".to_owned()),
        Just("check addr 10.9.9.9".to_owned()),
        Just("id 1 id 2".to_owned()),
        Just("check; server x".to_owned()),
        Just("\"check inter".to_owned()),
        Just("cookie x # rest".to_owned()),
        Just("$HOME ${HOME}".to_owned()),
        "(check|backup|weight 7|inter 2s|id [0-9]{1,3}| |  ){0,5}",
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        hostile().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
        Just(json!([])),
        Just(json!({"a": "b\n"}))
    ]
}

prop_compose! {
    fn registration()(host in prop_oneof![Just(json!("10.0.0.1")), Just(json!("h1")), any_value()], port in prop_oneof![Just(json!(80)), any_value()],
        name in any_value(), options in any_value(), weight in any_value(), id in any_value(), labels in any_value()) -> Value {
        json!({"host": host, "port": port, "name": name, "haproxy_server_options": options, "weight": weight, "haproxy_server_id": id, "labels": labels})
    }
}

proptest! {
    /// Whatever registrations say: the file has the lines that it has without them, and one `server` line for each that is
    /// taken, made of the config's words, the registration's place and server keywords alone.
    #[test]
    fn no_registry_value_adds_a_line_a_section_or_a_keyword(all in prop::collection::vec(registration(), 0..6)) {
        let make = || World::of(json!({"use_nerve_weights": true}), json!({"use_previous_backends": false, "haproxy": {"port": 1, "server_options": "check", "backend_order": "asc"}}));
        let without = make().file(None);
        let mut world = make();
        let file = world.file(Some(Value::Array(all.clone())));
        let others: Vec<&str> = bare(&file).into_iter().filter(|l| !l.starts_with("\tserver ")).collect();
        prop_assert_eq!(others, bare(&without));
        let lines = servers(&file);
        prop_assert!(lines.len() <= all.len());
        let mut ids = std::collections::HashSet::new();
        for line in &lines {
            prop_assert!(line.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{line}");
            prop_assert!(!line.contains(['#', '"', '\'', '\\', ';']), "{line}");
            let words: Vec<&str> = line.split_whitespace().collect();
            for denied in ["addr", "crt", "redir", "source", "resolvers"] {
                prop_assert!(!words.contains(&denied), "{line}");
            }
            for pair in words.windows(2).filter(|w| w[0] == "id") {
                prop_assert!(ids.insert(pair[1].to_owned()) , "{line}");
            }
        }
        // And it is read back as what it is.
        let layout = discover::generators::haproxy::file::layout::Layout::parse(&file);
        prop_assert_eq!(layout.map(|l| l.render()), Some(file));
    }
}
