use super::*;

fn ports(world: &mut World, backends: Option<Value>) -> Vec<String> {
    let services = world.services(backends);
    services.values().next().unwrap().backends().iter().map(|b| b.address()).collect()
}

#[test]
fn default_servers_fill_in_for_no_answer_and_for_none() {
    let mut world = World::of(json!({}), json!({"default_servers": [{"name": "d", "host": "h", "port": "9"}]}));
    assert_eq!(ports(&mut world, None), ["h:9"]);
    assert_eq!(ports(&mut world, Some(hosts(&[1]))), ["10.0.0.1:80"]);
    assert_eq!(ports(&mut world, Some(json!([]))), ["h:9"]);
    assert_eq!(servers(&world.file(Some(json!([])))), ["d_h:9 h:9 id 1 cookie d_h:9 "]);
}

#[test]
fn keep_default_servers_adds_them_to_every_answer() {
    let service =
        json!({"default_servers": {"host": "h", "port": 9}, "keep_default_servers": true, "backend_port_override": 7});
    let mut world = World::of(json!({}), service);
    assert_eq!(ports(&mut world, None), ["h:9"], "before any answer they are as they were written");
    assert_eq!(ports(&mut world, Some(hosts(&[1]))), ["10.0.0.1:7", "h:7"]);
    assert_eq!(ports(&mut world, Some(json!([]))), ["h:7"]);
}

#[test]
fn use_previous_backends_keeps_the_last_ones() {
    let mut world = World::of(json!({}), json!({}));
    assert_eq!(ports(&mut world, Some(hosts(&[1, 2]))).len(), 2);
    assert_eq!(ports(&mut world, Some(json!([]))).len(), 2);
    assert_eq!(world.desired(Some(json!([]))).previous.len(), 1, "status and metrics tell since when");
    world.desired(Some(hosts(&[3])));
    assert!(world.desired(None).previous.is_empty());
    let mut world = World::of(json!({}), json!({"use_previous_backends": false}));
    assert_eq!(ports(&mut world, Some(hosts(&[1, 2]))).len(), 2);
    assert_eq!(ports(&mut world, Some(json!([]))).len(), 0);
}

#[test]
fn a_restart_or_another_config_forgets_no_backends() {
    let mut before = World::of(json!({}), json!({}));
    let routed = before.services(Some(hosts(&[1, 2])));
    let mut world = World::of(json!({}), json!({}));
    world.policies = Policies::new(&world.config).beginning_with(&routed);
    assert_eq!(ports(&mut world, None).len(), 2, "before discovery has answered");
    assert_eq!(ports(&mut world, Some(json!([]))).len(), 2, "and when it answers that there is none");
    assert_eq!(ports(&mut world, Some(hosts(&[3]))), ["10.0.0.3:80"]);
    let mut world = World::of(json!({}), json!({"default_servers": [{"host": "d", "port": 1}]}));
    world.policies = Policies::new(&world.config).beginning_with(&routed);
    assert_eq!(ports(&mut world, None), ["d:1"]);
}

#[test]
fn the_same_backends_in_another_order_are_no_change() {
    let mut world = World::of(json!({}), json!({}));
    assert_eq!(ports(&mut world, Some(hosts(&[1, 2]))), ports(&mut world, Some(hosts(&[2, 1]))));
}

#[test]
fn of_equal_host_port_and_name_the_first_counts() {
    let mut world = World::of(json!({}), json!({}));
    let twice = json!([{"host": "h", "port": 1, "weight": 1}, {"host": "h", "port": 1, "weight": 2}, {"host": "h", "port": 1, "name": "n"}]);
    assert_eq!(ports(&mut world, Some(twice)), ["h:1", "h:1"]);
}

#[test]
fn backend_port_override_and_its_old_spelling() {
    for service in [json!({"backend_port_override": "7"}), json!({"haproxy": {"server_port_override": 7}})] {
        let mut world = World::of(json!({}), service);
        assert_eq!(
            ports(&mut world, Some(json!([{"host": "h"}, {"host": "h", "port": 1, "name": "n"}]))),
            ["h:7", "h:7"]
        );
    }
    let both = json!({"backend_port_override": 8, "haproxy": {"server_port_override": 7}});
    assert_eq!(ports(&mut World::of(json!({}), both), Some(hosts(&[1]))), ["10.0.0.1:8"]);
}

#[test]
fn leader_election_keeps_the_lowest_id() {
    let service = || json!({"leader_election": true});
    let all = json!([{"host": "a", "port": 1, "id": 10}, {"host": "b", "port": 1, "id": 9}]);
    assert_eq!(ports(&mut World::of(json!({}), service()), Some(all)), ["b:1"]);
    let texts = json!([{"host": "a", "port": 1, "id": "i-9"}, {"host": "b", "port": 1, "id": "i-10"}]);
    assert_eq!(ports(&mut World::of(json!({}), service()), Some(texts)), ["b:1"], "texts by their letters");
    let some = json!([{"host": "a", "port": 1, "id": 10}, {"host": "b", "port": 1}]);
    assert_eq!(
        ports(&mut World::of(json!({}), service()), Some(some)),
        ["a:1", "b:1"],
        "without ids there is no leader"
    );
}

#[test]
fn label_filters_are_anded() {
    let all = json!([
        {"host": "a", "port": 1, "labels": {"az": "x", "canary": "no"}},
        {"host": "b", "port": 1, "labels": {"az": "x", "canary": "yes"}},
        {"host": "c", "port": 1, "labels": {"az": "y"}},
        {"host": "d", "port": 1},
    ]);
    let equals = |l: &str, v: &str| json!({"label": l, "value": v, "condition": "equals"});
    let not = |l: &str, v: &str| json!({"label": l, "value": v, "condition": "not-equals"});
    for (discovery, want) in [
        (json!({"label_filters": [equals("az", "x")]}), vec!["a:1", "b:1"]),
        (json!({"label_filters": [equals("az", "x"), not("canary", "yes")]}), vec!["a:1"]),
        (json!({"label_filters": not("canary", "yes")}), vec!["a:1", "c:1", "d:1"]),
        (json!({"label_filter": equals("az", "y")}), vec!["c:1"]),
        (json!({"label_filter": equals("az", "x"), "label_filters": [equals("canary", "yes")]}), vec!["b:1"]),
        (json!({"label_filters": [{"label": "az", "value": "x", "condition": "matches"}]}), vec![]),
        (json!({"label_filters": [{"label": "az", "value": "x"}]}), vec![]),
    ] {
        let mut discovery = discovery;
        discovery["method"] = json!("base");
        let mut world = World::of(json!({}), json!({"discovery": discovery}));
        assert_eq!(ports(&mut world, Some(all.clone())), want, "{discovery}");
    }
}

#[test]
fn an_unchanged_pool_stays_the_same_one() {
    let mut world = World::of(json!({}), json!({"backend_port_override": 7, "leader_election": true}));
    let answers = world.services(Some(hosts(&[1, 2])));
    let again = world.policies.apply(&ServiceMap::new(), Instant::now());
    assert!(std::sync::Arc::ptr_eq(answers.values().next().unwrap(), again.values().next().unwrap()));
}
