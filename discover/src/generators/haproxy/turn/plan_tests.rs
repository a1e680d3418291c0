use super::*;
use crate::generators::haproxy::file::server::Own;
use crate::haproxy::api::version::Version;
use proptest::prelude::*;

fn can(version: &str) -> Capabilities {
    Capabilities::of(&Version::parse(version).unwrap())
}

fn server(name: &str, port: u16) -> Server {
    Server {
        name: name.into(),
        address: ([127, 0, 0, 1], port).into(),
        id: None,
        params: "check inter 2s".into(),
        weight: 1,
        maint: false,
        line: None,
        own: Own::default(),
    }
}

fn section(name: &str, port: u16, servers: Vec<Server>) -> Arc<Section> {
    Arc::new(Section {
        name: name.into(),
        skeleton: format!("listen {name}\n\tbind :{port}\n").into(),
        servers,
        inherited: "".into(),
        text: Default::default(),
    })
}

/// A section that HAProxy 3.4 makes at run time.
fn made(name: &str, servers: Vec<Server>) -> Arc<Section> {
    let skeleton = format!("backend {name} from base\n").into();
    Arc::new(Section { skeleton, ..(*section(name, 1, servers)).clone() })
}

fn layout(sections: Vec<Arc<Section>>) -> Layout {
    Layout { header: "global\n".into(), sections, ..Layout::default() }
}

fn applied(layout: Layout) -> Applied {
    Applied { layout, ..Applied::default() }
}

/// The pure twin of what HAProxy does with a plan's operations.
fn replay(mut applied: Applied, plan: &Plan) -> Applied {
    let live = match plan {
        Plan::Unchanged => return applied,
        Plan::Reload { layout, .. } => return self::applied(layout.clone()),
        Plan::Live(live) => live,
    };
    let mut running: BTreeMap<(Arc<str>, Arc<str>), Server> = BTreeMap::new();
    let mut names: BTreeSet<Arc<str>> = applied.layout.sections.iter().map(|section| section.name.clone()).collect();
    for new in &live.sections.come {
        assert_eq!((names.insert(new.name.clone()), &*new.defaults), (true, "base"));
    }
    for gone in &live.sections.go {
        let section = applied.layout.sections.iter().find(|section| section.name == *gone).unwrap();
        assert!(names.remove(gone) && section.servers.is_empty() && !applied.lingering.contains_key(gone));
    }
    assert_eq!(names, live.layout.sections.iter().map(|section| section.name.clone()).collect());
    for section in &applied.layout.sections {
        running.extend(section.servers.iter().map(|s| ((section.name.clone(), s.name.clone()), s.clone())));
    }
    for step in &live.ops {
        match &step.change {
            ServerChange::Add(now) => {
                assert!(running.insert((step.section.clone(), now.name.clone()), now.clone()).is_none());
            }
            ServerChange::Revive { now, .. } => {
                assert!(applied.lingering.get_mut(&step.section).unwrap().remove(&now.name).is_some());
                running.insert((step.section.clone(), now.name.clone()), now.clone());
            }
            ServerChange::Alter { was, now } | ServerChange::Replace { was, now } => {
                let before = running.insert((step.section.clone(), now.name.clone()), now.clone());
                // What is replaced may have lingered: it was not listed then.
                let lingered = || applied.lingering.get_mut(&step.section).and_then(|l| l.remove(&now.name));
                let before = before.or_else(lingered).map(|b| Server { maint: was.maint, ..b });
                assert_eq!(before.as_ref(), Some(was));
            }
            ServerChange::Retire(was) => {
                running.remove(&(step.section.clone(), was.name.clone()));
                applied.lingering.entry(step.section.clone()).or_default().insert(was.name.clone(), was.clone());
            }
        }
    }
    let mut sorted = live.layout.clone();
    for section in &mut sorted.sections {
        let servers = section.servers.iter().map(|s| running.remove(&(section.name.clone(), s.name.clone())).unwrap());
        *section = Arc::new(Section { servers: servers.collect(), ..(**section).clone() });
    }
    assert!(running.is_empty(), "servers run that the file does not list: {running:?}");
    Applied { layout: sorted, ..applied }
}

prop_compose! {
    fn any_server()(name in "[a-e]", port in 1u16..4, weight in 0u16..3, maint in any::<bool>(), other in any::<bool>()) -> Server {
        let params: &str = if other { "check inter 9s" } else { "check inter 2s" };
        Server { weight, maint, params: params.into(), ..server(&name, port) }
    }
}
prop_compose! {
    fn any_layout()(raw in prop::collection::btree_map("[x-z]", (0u16..3, prop::collection::vec(any_server(), 0..5)), 0..3)) -> Layout {
        layout(raw.into_iter().map(|(name, (port, servers))| {
            let mut seen = BTreeSet::new();
            let servers = servers.into_iter().filter(|s| seen.insert(s.name.clone())).collect();
            if port == 0 { made(&name, servers) } else { section(&name, port, servers) }
        }).collect())
    }
}

proptest! {
    #[test]
    fn a_plan_reaches_what_is_desired_and_then_there_is_nothing_to_do(
        history in prop::collection::vec(any_layout(), 1..6), version in 0usize..3,
    ) {
        let can = can(["2.6.12", "3.0.11", "3.4.7"][version]);
        let mut running = applied(history[0].clone());
        for desired in &history[1..] {
            running = replay(running.clone(), &plan(desired, &running, &can));
            prop_assert_eq!(&running.layout, desired);
            prop_assert_eq!(plan(desired, &running, &can), Plan::Unchanged);
        }
    }
}

#[test]
fn a_server_that_comes_or_goes_needs_no_reload() {
    let was = applied(layout(vec![section("web", 80, vec![server("a", 1), server("b", 2)])]));
    let desired = layout(vec![section("web", 80, vec![server("b", 3), server("c", 4)])]);
    let Plan::Live(live) = plan(&desired, &was, &can("2.6.12")) else { panic!() };
    let ops: Vec<String> = live.ops.iter().flat_map(|s| s.ops().unwrap()).map(|op| op.to_string()).collect();
    assert_eq!(
        ops,
        [
            "add server web/c 127.0.0.1:4 check inter 2s",
            "enable health web/c",
            "set server web/c state ready",
            "set server web/b addr 127.0.0.1 port 3",
            "set server web/a state maint",
        ]
    );
}

#[test]
fn a_cookie_that_means_nothing_is_left_out_where_it_is_refused() {
    let line = || Some("server a 127.0.0.1:1 id 1 cookie x check".into());
    let with = |name: &str| Server { params: "id 1 cookie x check".into(), line: line(), ..server(name, 1) };
    let was = applied(layout(vec![section("web", 80, vec![])]));
    let desired = layout(vec![section("web", 80, vec![with("a")])]);
    for (version, want) in
        [("2.6.12", "pool-purge-delay 5s pool-max-conn 100 id 1 check"), ("3.0.11", "id 1 cookie x check")]
    {
        let Plan::Live(live) = plan(&desired, &was, &can(version)) else { panic!() };
        assert_eq!(live.ops[0].ops().unwrap()[0].to_string(), format!("add server web/a 127.0.0.1:1 {want}"));
    }
    let cookies = |mut layout: Layout| {
        layout.header = "defaults\n\tcookie S insert\n".into();
        layout
    };
    let was = applied(cookies(was.layout));
    let Plan::Reload { reasons, .. } = plan(&cookies(desired), &was, &can("2.6.12")) else { panic!() };
    assert_eq!(Vec::from_iter(reasons), [ReloadReason::ServerChanged]);
}

#[test]
fn a_reload_names_every_reason_and_changes_servers_meanwhile() {
    let was = applied(layout(vec![section("gone", 1, vec![]), section("web", 80, vec![server("a", 1)])]));
    let mut desired = layout(vec![section("new", 2, vec![]), section("web", 80, vec![server("b", 2)])]);
    desired.header = "global\n\tmaxconn 9\n".into();
    let Plan::Reload { interim, reasons, layout } = plan(&desired, &was, &can("3.0.11")) else { panic!() };
    use ReloadReason::*;
    assert_eq!(Vec::from_iter(reasons), [Header, SectionAdded, SectionRemoved]);
    assert_eq!(layout, desired);
    let interim = interim.unwrap();
    assert_eq!(interim.ops.len(), 2);
    assert_eq!(interim.layout.sections.iter().map(|s| &*s.name).collect::<Vec<_>>(), ["gone", "web"]);
    assert_eq!(interim.layout.header, was.layout.header);
}

#[test]
fn a_server_that_lingers_is_enabled_again_and_not_added() {
    let mut was = applied(layout(vec![section("web", 80, vec![])]));
    was.lingering.entry("web".into()).or_default().insert("a".into(), server("a", 1));
    let desired = layout(vec![section("web", 80, vec![server("a", 2)])]);
    let Plan::Live(live) = plan(&desired, &was, &can("3.0.11")) else { panic!() };
    assert!(matches!(live.ops[0].change, ServerChange::Revive { .. }), "{:?}", live.ops);
}

#[test]
fn what_can_only_come_with_a_reload_is_waited_for_before_the_last_server_goes() {
    let mut was = applied(layout(vec![section("web", 80, vec![server("a", 1)])]));
    let other = Server { params: "".into(), ..server("b", 2) };
    was.lingering.entry("web".into()).or_default().insert("b".into(), other);
    let desired = |more: Vec<Server>| layout(vec![section("web", 80, [vec![server("b", 2)], more].concat())]);
    let Plan::Reload { interim, .. } = plan(&desired(vec![]), &was, &can("2.6.12")) else { panic!() };
    assert_eq!(interim, None, "`a` serves until the reload");
    let Plan::Reload { interim, .. } = plan(&desired(vec![server("c", 3)]), &was, &can("2.6.12")) else { panic!() };
    assert_eq!(interim.unwrap().ops.len(), 2, "`c` serves, so `a` goes at once");
}

#[test]
fn below_3_0_lingering_servers_are_collected_by_a_reload() {
    let servers = |n: u16| (0..n).map(|i| server(&format!("s{i}"), i + 1)).collect::<Vec<_>>();
    let was = applied(layout(vec![section("web", 80, servers(65))]));
    let desired = layout(vec![section("web", 80, vec![])]);
    let Plan::Reload { reasons, .. } = plan(&desired, &was, &can("2.6.12")) else { panic!() };
    assert_eq!(Vec::from_iter(reasons), [ReloadReason::Lingering]);
    assert!(matches!(plan(&desired, &was, &can("3.0.11")), Plan::Live(_)));
}

#[test]
fn from_3_4_on_a_section_made_from_defaults_alone_comes_and_goes_without_a_reload() {
    let (web, one) = (section("web", 1, vec![server("a", 1)]), made("one", vec![server("b", 2)]));
    let (was, desired) = (applied(layout(vec![web.clone()])), layout(vec![one.clone(), web.clone()]));
    let Plan::Live(live) = plan(&desired, &was, &can("3.4.7")) else { panic!() };
    assert_eq!(live.sections.come, [NewSection { name: "one".into(), defaults: "base".into() }]);
    assert_eq!((live.ops.len(), &live.layout), (1, &desired), "its server comes at once");
    for (was, desired, version) in [
        (was.clone(), desired.clone(), "3.2.0"),
        // The defaults that it is made from are not those that run.
        (was.clone(), Layout { header: "other\n".into(), ..desired.clone() }, "3.4.7"),
        (was, layout(vec![section("one", 1, vec![]), web.clone()]), "3.4.7"),
    ] {
        let Plan::Reload { interim, reasons, .. } = plan(&desired, &was, &can(version)) else { panic!() };
        assert!(interim.is_none() && reasons.contains(&ReloadReason::SectionAdded), "{version}");
    }
    // Another section that needs a reload does not keep this one waiting.
    let both = layout(vec![one.clone(), section("two", 2, vec![]), web.clone()]);
    let Plan::Reload { interim, .. } = plan(&both, &applied(layout(vec![web.clone()])), &can("3.4.7")) else {
        panic!()
    };
    assert_eq!(interim.unwrap().sections.come.len(), 1);

    let empty = applied(layout(vec![made("one", vec![]), web.clone()]));
    let without = layout(vec![web]);
    let Plan::Live(live) = plan(&without, &empty, &can("3.4.7")) else { panic!() };
    assert_eq!((live.sections.go, live.layout), (vec!["one".into()], without.clone()));
    let lingering = [("one".into(), [("b".into(), server("b", 2))].into())].into();
    for busy in [applied(desired), Applied { lingering, ..empty }] {
        assert!(matches!(plan(&without, &busy, &can("3.4.7")), Plan::Reload { .. }), "it has servers");
    }
}
