use proptest::prelude::*;

use super::*;
use crate::generators::haproxy::turn::plan::plan;
use crate::haproxy::api::version::{Capabilities, Version};

fn can() -> Capabilities {
    Capabilities::of(&Version::parse("3.0.0").unwrap())
}

fn server(name: &str, port: u16) -> Server {
    Server::parse(&format!("server {name} 127.0.0.1:{port} check")).unwrap()
}

fn section(name: &str, servers: Vec<Server>) -> Arc<Section> {
    let (skeleton, text) = (format!("listen {name}\n\tbind :1\n").into(), Default::default());
    Arc::new(Section { name: name.into(), skeleton, servers, inherited: "".into(), text })
}

fn layout(sections: Vec<Arc<Section>>) -> Layout {
    Layout { header: "global\n".into(), sections, ..Layout::default() }
}

fn many(prefix: &str, count: u16) -> Vec<Server> {
    (0..count).map(|n| server(&format!("{prefix}{n}"), 1000 + n)).collect()
}

/// What HAProxy is told, one step at a time; no pool that could have a server is ever without one.
fn tell(applied: &mut Applied, live: &Live, never_empty: &HashSet<Arc<str>>) {
    for step in live.steps() {
        let at = applied.layout.sections.iter_mut().find(|s| s.name == step.section).unwrap();
        let section = Arc::make_mut(at);
        let place = section.servers.iter().position(|s| s.name == step.change.server().name);
        let lingering = applied.lingering.entry(step.section.clone()).or_default();
        match (&step.change, place) {
            (ServerChange::Add(now), None) => section.servers.push(now.clone()),
            (ServerChange::Revive { was, now }, None) => {
                assert_eq!(lingering.remove(&now.name).as_ref(), Some(was));
                section.servers.push(now.clone());
            }
            (ServerChange::Alter { was, now } | ServerChange::Replace { was, now }, Some(at)) => {
                assert_eq!(&std::mem::replace(&mut section.servers[at], now.clone()), was);
            }
            (ServerChange::Replace { was, now }, None) => {
                assert_eq!(lingering.remove(&now.name).as_ref(), Some(was));
                section.servers.push(now.clone());
            }
            (ServerChange::Retire(was), Some(at)) => {
                assert_eq!(&section.servers.remove(at), was);
                lingering.insert(was.name.clone(), Server { maint: true, ..was.clone() });
            }
            (change, place) => panic!("{change:?} at {place:?}"),
        }
        assert!(!never_empty.contains(&step.section) || serving(section) > 0, "{} is empty", step.section);
    }
    applied.lingering.retain(|_, servers| !servers.is_empty());
}

/// The servers by section, in no order.
fn servers(layout: &Layout) -> BTreeMap<Arc<str>, BTreeMap<Arc<str>, Server>> {
    let servers = |s: &Arc<Section>| s.servers.iter().map(|server| (server.name.clone(), server.clone())).collect();
    layout.sections.iter().map(|s| (s.name.clone(), servers(s))).collect()
}

/// Slices until nothing is left; gives how many there were. After each the file says what HAProxy was told.
fn reach(mut applied: Applied, desired: &Layout, most: usize) -> usize {
    let is_served = |name: &str, layout: &Layout| layout.sections.iter().any(|s| &*s.name == name && serving(s) > 0);
    let both = desired.sections.iter().map(|s| s.name.clone());
    let both = both.filter(|name| is_served(name, &applied.layout) && is_served(name, desired)).collect();
    for nth in 0..10_000 {
        let live = match plan(desired, &applied, &can()) {
            Plan::Unchanged => {
                assert_eq!(&applied.layout, desired);
                return nth;
            }
            Plan::Live(live) => live,
            // All that is left are retired servers, which HAProxy deletes when they are idle.
            other => panic!("{other:?}"),
        };
        let (live, behind) = slice(live, &applied, most);
        assert!(live.steps().count() <= most, "{} > {most}", live.steps().count());
        let mut told = applied.clone();
        tell(&mut told, &live, &both);
        assert_eq!(servers(&told.layout), servers(&live.layout), "the file is what runs");
        applied = Applied { layout: live.layout, lingering: told.lingering, ..Applied::default() };
        if behind.is_empty() {
            // What was retired is deleted.
            applied.lingering.clear();
            assert_eq!(plan(desired, &applied, &can()), Plan::Unchanged);
        }
    }
    panic!("never done");
}

/// Servers of a section: which of twelve there are, and in what state.
fn pool() -> impl Strategy<Value = Vec<Server>> {
    prop::collection::btree_map(0u16..12, (0u16..3, prop::sample::select(vec![0u16, 1, 1, 5]), any::<bool>()), 0..10)
        .prop_map(|servers| {
            let made = |(n, (port, weight, maint)): (u16, (u16, u16, bool))| Server {
                weight,
                maint: maint && n % 3 == 0,
                ..server(&format!("s{n}"), 2000 + port)
            };
            servers.into_iter().map(made).collect()
        })
}

fn pools() -> impl Strategy<Value = [Vec<Vec<Server>>; 2]> {
    (1usize..5).prop_flat_map(|n| [prop::collection::vec(pool(), n), prop::collection::vec(pool(), n)])
}

fn named(pools: Vec<Vec<Server>>) -> Layout {
    layout(pools.into_iter().enumerate().map(|(n, servers)| section(&format!("p{n}"), servers)).collect())
}

proptest! {
    #[test]
    fn any_cut_reaches_the_state_wanted_and_the_file_says_what_runs_after_each([was, wanted] in pools(), most in 1usize..40) {
        let applied = Applied { layout: named(was), ..Applied::default() };
        reach(applied, &named(wanted), most);
    }

    #[test]
    fn another_services_lone_change_and_its_dead_are_in_the_first_slice(
        most in 16usize..300, big in 300u16..2000, gone in 0u16..300, change in 0usize..3,
    ) {
        let mut old = many("old", gone);
        old.extend(many("stays", 3));
        let before = [server("a", 1), server("b", 2)];
        let applied = Applied {
            layout: layout(vec![section("a-big", old), section("web", before.to_vec()), section("z-big", vec![])]),
            ..Applied::default()
        };
        let after = [vec![server("a", 1), server("b", 2), server("c", 3)], vec![server("a", 1)], vec![]];
        let mut new = many("stays", 3);
        new.extend(many("new", big));
        let desired = layout(vec![section("a-big", new), section("web", after[change].clone()), section("z-big", many("n", big))]);
        let Plan::Live(live) = plan(&desired, &applied, &can()) else { panic!() };
        let (live, behind) = slice(live, &applied, most);
        prop_assert!(behind.contains_key("z-big") && !behind.contains_key("web"), "{behind:?}");
        let web = live.layout.sections.iter().find(|s| &*s.name == "web").unwrap();
        prop_assert_eq!(&web.servers, &after[change]);
        let dead = live.first.iter().filter(|step| &*step.section == "web").count();
        prop_assert_eq!(dead, [0, 1, 2][change]);
        // Both that are large have their share.
        let share = |name: &str| live.steps().filter(|step| &*step.section == name).count();
        prop_assert!(share("z-big") + 4 >= (most / 4), "{} of {most}", share("z-big"));
    }

    #[test]
    fn a_dead_server_goes_before_any_newcomer_comes(big in 1u16..2000, most in 2usize..300) {
        let applied = Applied {
            layout: layout(vec![section("big", vec![]), section("web", vec![server("a", 1), server("b", 2)])]),
            ..Applied::default()
        };
        let drained = Server { weight: 0, ..server("b", 2) };
        let desired = layout(vec![section("big", many("n", big)), section("web", vec![server("a", 1), drained])]);
        let Plan::Live(live) = plan(&desired, &applied, &can()) else { panic!() };
        let (live, _) = slice(live, &applied, most);
        prop_assert_eq!(&*live.steps().next().unwrap().section, "web");
    }
}

#[test]
fn a_service_of_many_ports_has_one_share_of_a_slice_and_of_a_reload() {
    let empty = || layout((0..9).map(|n| section(&name(n), vec![])).chain([section("web", vec![])]).collect());
    fn name(n: u16) -> String {
        if n == 0 { "a".to_owned() } else { format!("a:port-{n}") }
    }
    let desired =
        layout((0..9).map(|n| section(&name(n), many("n", 300))).chain([section("web", many("n", 300))]).collect());
    let applied = Applied { layout: empty(), ..Applied::default() };
    let Plan::Live(live) = plan(&desired, &applied, &can()) else { panic!() };
    let (live, _) = slice(live, &applied, MOST);
    let of_web = live.steps().filter(|step| &*step.section == "web").count();
    assert_eq!((of_web, live.steps().count()), (MOST / 2, MOST));
    let (begun, _) = begin(desired, &applied, &BTreeSet::from([ReloadReason::SectionAdded]));
    let of = |service: &str| {
        begun.sections.iter().filter(|s| first_section(&s.name) == service).map(|s| s.servers.len()).sum::<usize>()
    };
    assert_eq!([of("a"), of("web")], [MOST, MOST]);
}

#[test]
fn thousands_come_in_slices_of_a_few_hundred() {
    let applied = Applied { layout: layout(vec![section("a", vec![server("x", 1)])]), ..Applied::default() };
    assert_eq!(reach(applied, &layout(vec![section("a", many("n", 3_000))]), MOST), 12);
}

#[test]
fn a_slice_shrinks_where_haproxy_is_slow_and_grows_again() {
    let mut slices = Slices::default();
    slices.took(256, Duration::from_millis(800));
    assert_eq!(slices.most, 64);
    slices.took(64, Duration::from_secs(60));
    assert_eq!(slices.most, FEWEST);
    slices.took(3, Duration::from_millis(1));
    assert_eq!(slices.most, FEWEST, "a few changes say nothing about many");
    for _ in 0..9 {
        slices.took(slices.most, Duration::from_millis(90));
    }
    assert_eq!(slices.most, MOST);
}

#[test]
fn a_reload_brings_the_first_servers_of_a_large_service_and_all_where_it_must() {
    let was = layout(vec![section("a", many("n", 300))]);
    let desired = layout(vec![section("a", many("n", 310)), section("b", many("n", 5000)), section("c", many("n", 2))]);
    let applied = Applied { layout: was, ..Applied::default() };
    let (begun, behind) = begin(desired.clone(), &applied, &BTreeSet::from([ReloadReason::SectionAdded]));
    let counts: Vec<usize> = begun.sections.iter().map(|s| s.servers.len()).collect();
    assert_eq!((counts, behind), (vec![310, MOST, 2], Behind::from([("b".into(), 5000 - MOST)])));
    for reason in [ReloadReason::Start, ReloadReason::Refused, ReloadReason::ServerChanged] {
        let (all, behind) = begin(desired.clone(), &applied, &BTreeSet::from([ReloadReason::SectionAdded, reason]));
        assert_eq!((all, behind.len()), (desired.clone(), 0));
    }
}
