use super::*;

fn owned(owners: Value, discovery: Value) -> Result<LoadedConfig, ConfigError> {
    let mut config = config_of(json!({}), json!({ "discovery": discovery }));
    config["owners"] = owners;
    load(&config)
}

/// What the table does with registrations: `what_an_owned_service_says_counts_from_its_nodes_alone_its_port_too`.
#[test]
fn owners_are_read_and_only_their_nodes_registrations_count() {
    let at = |path: &str| json!({"method": "etcd", "hosts": ["127.0.0.1"], "path": path});
    let config = owned(json!({"pay-*": ["a", "b"], "s": "c"}), at("/backends/@c/s")).unwrap().config;
    let allowed = |service: &str, node: Option<&str>| {
        let node = node.map(|node| node.parse().unwrap());
        config.owners.check(&service.parse().unwrap(), node.as_ref()).is_ok()
    };
    assert!(allowed("pay-web", Some("a")) && allowed("pay-web", Some("b")) && allowed("s", Some("c")));
    assert!(!allowed("pay-web", Some("c")) && !allowed("pay-web", None) && !allowed("s", Some("a")));
    assert!(allowed("other", Some("x")) && allowed("other", None));
    assert!(owned(json!({}), json!({"method": "base"})).unwrap().config.owners == ::registry::Owners::default());
}

#[test]
fn what_owners_could_only_leave_out_is_a_fault_of_the_config() {
    let etcd = json!({"method": "etcd", "hosts": ["127.0.0.1"], "path": "/backends/s"});
    for (owners, discovery, why) in [
        (json!({"s": ["a"]}), etcd.clone(), "services.s.discovery"),
        (json!({"*": ["a"]}), json!({"method": "base"}), "services.s.discovery"),
        (json!({"x": []}), etcd.clone(), "names no node"),
        (json!({"x y": ["a"]}), etcd.clone(), "service name"),
        (json!({"x": ["a b"]}), etcd, "node name"),
    ] {
        let problems = owned(owners.clone(), discovery).unwrap_err().to_string();
        assert!(problems.contains(why), "{owners}: {problems}");
    }
}
