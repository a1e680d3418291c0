use super::super::settings::Ownership;
use super::super::{Routing, decide, upstreams};
use super::*;

/// A registration: its id, its age, whether it is on its way out, and its routes (`a.example/x`, with `strip`).
type Registration<'a> = (&'a str, u64, bool, &'a [&'a str]);

fn pool(of: &[Registration<'_>]) -> Arc<Pool> {
    let backend = |(id, created, draining, routes): &Registration<'_>| {
        let mut backend = Backend::new(id.parse().unwrap(), "127.0.0.1".parse().unwrap(), 9.try_into().unwrap());
        let route = |text: &&str| {
            let (place, strip) = text.split_once(' ').map_or((*text, false), |(place, _)| (place, true));
            let (host, path) = place.split_at(place.find('/').unwrap());
            Route { strip_prefix: strip, ..Route::new(host.parse().unwrap(), path.parse().unwrap()) }
        };
        backend.routes = model::Routes::new(routes.iter().map(route)).0;
        backend.created = Some(*created);
        backend.status = if *draining { Status::Draining } else { Status::Up };
        Arc::new(backend)
    };
    Arc::new(of.iter().map(backend).collect())
}

/// What services with these registrations ask for, and what came of it.
fn asked(of: &[(&str, &[Registration<'_>])], settings: &EdgeSettings) -> (HashMap<ServiceName, Asks>, Routing) {
    let asks = of.iter().map(|(name, registrations)| {
        let service: ServiceName = name.parse().unwrap();
        let asks = of_service(&service, &pool(registrations), settings, Mode::Http, None);
        (service, asks)
    });
    let asks: HashMap<ServiceName, Asks> = asks.collect();
    let all: Vec<Claim> = of_config(settings).chain(asks.values().flat_map(|a| a.claims.values().cloned())).collect();
    let routing = decide(&all, settings, |_| None);
    (asks, routing)
}

/// Each upstream as `PLACES: SERVICE/ID …`.
fn shown(of: &[(&str, &[Registration<'_>])], settings: &EdgeSettings) -> Vec<String> {
    let (asks, routing) = asked(of, settings);
    let show = |upstream: &super::super::Upstream| {
        let places: Vec<String> = upstream.places.iter().map(ToString::to_string).collect();
        let of = |(service, pool): &(ServiceName, Arc<Pool>)| {
            pool.backends().iter().map(|b| format!("{service}/{}", b.id)).collect::<Vec<_>>()
        };
        format!("{}: {}", places.join(" "), upstream.members.iter().flat_map(of).collect::<Vec<_>>().join(" "))
    };
    upstreams(&routing, |service| asks.get(service)).iter().map(show).collect()
}

#[test]
fn a_place_is_served_by_the_registrations_that_claim_it() {
    let settings = EdgeSettings::default();
    let two_tenants: &[Registration<'_>] = &[("a", 1, false, &["a.test/"]), ("b", 2, false, &["b.test/"])];
    assert_eq!(shown(&[("web", two_tenants)], &settings), ["a.test/: web/a", "b.test/: web/b"]);
    let replicas: &[Registration<'_>] =
        &[("a", 1, false, &["a.test/", "b.test/"]), ("b", 2, false, &["b.test/", "a.test/"])];
    assert_eq!(shown(&[("web", replicas)], &settings), ["a.test/ b.test/: web/a web/b"]);
    let one_more: &[Registration<'_>] =
        &[("a", 1, false, &["a.test/"]), ("b", 2, false, &["a.test/", "b.test/x"]), ("none", 3, false, &[])];
    assert_eq!(shown(&[("web", one_more)], &settings), ["a.test/: web/a web/b", "b.test/x: web/b"]);
    let of_the_config = super::super::settings::ConfigRule {
        service: "web".parse().unwrap(),
        way: super::super::Way::Http,
        route: Route::new("own.test".parse().unwrap(), PathPrefix::root()),
    };
    let all = EdgeSettings { rules: vec![of_the_config], suffixes: vec!["local".parse().unwrap()], ..settings };
    assert_eq!(
        shown(&[("web", one_more)], &all),
        ["a.test/: web/a web/b", "b.test/x: web/b", "own.test/ web.local/: web/a web/b web/none"],
        "a service's name, and a rule of the config, mean all of it"
    );
}

#[test]
fn services_that_claim_one_place_share_it_where_the_operator_says_so() {
    let blue: &[Registration<'_>] = &[("a", 1, false, &["a.test/"])];
    let green: &[Registration<'_>] = &[("a", 2, false, &["a.test/", "a.test/green"])];
    let of = [("green", green), ("blue", blue)];
    let alone = EdgeSettings::default();
    assert_eq!(shown(&of, &alone), ["a.test/: blue/a", "a.test/green: green/a"]);
    let shared = EdgeSettings { ownership: Some(Ownership::Shared), ..EdgeSettings::default() };
    assert_eq!(shown(&of, &shared), ["a.test/: blue/a green/a", "a.test/green: green/a"]);
    assert!(asked(&of, &shared).1.lost.is_empty());
    let given = [("a.test".parse().unwrap(), ["blue", "green"].map(|s| s.parse().unwrap()).to_vec())];
    for ownership in [None, Some(Ownership::Host)] {
        let owners = super::super::settings::Owners::new(given.clone().into());
        let named = EdgeSettings { owners, ownership, ..EdgeSettings::default() };
        assert_eq!(shown(&of, &named), ["a.test/: blue/a green/a", "a.test/green: green/a"], "{ownership:?}");
    }
}

#[test]
fn who_says_otherwise_what_a_backend_sees_of_the_path_does_not_serve_until_its_word_counts() {
    let settings = EdgeSettings { ownership: Some(Ownership::Shared), ..EdgeSettings::default() };
    for (old_is_draining, expected) in [(false, "a.test/x: web/old"), (true, "a.test/x: web/new")] {
        let of: &[Registration<'_>] =
            &[("old", 1, old_is_draining, &["a.test/x"]), ("new", 2, false, &["a.test/x strip"])];
        assert_eq!(shown(&[("web", of)], &settings), [expected], "draining: {old_is_draining}");
        let lost = asked(&[("web", of)], &settings).1.lost;
        assert!(lost.iter().all(|lost| lost.to_string().contains("whether the path is stripped")) && lost.len() == 1);
    }
    let (old, new): (&[Registration<'_>], &[Registration<'_>]) =
        (&[("a", 1, false, &["a.test/x"])], &[("b", 2, false, &["a.test/x strip"])]);
    assert_eq!(shown(&[("old", old), ("new", new)], &settings), ["a.test/x: old/a"]);
    assert_eq!(asked(&[("old", old), ("new", new)], &settings).1.lost.len(), 1);
}

#[test]
fn a_part_of_a_pool_that_has_not_changed_is_the_very_same() {
    let settings = EdgeSettings::default();
    let service: ServiceName = "web".parse().unwrap();
    let one = pool(&[("a", 1, false, &["a.test/"]), ("b", 2, false, &["b.test/"])]);
    let first = of_service(&service, &one, &settings, Mode::Http, None);
    let more =
        Pool::new(one.backends().iter().cloned().chain(pool(&[("c", 3, false, &["b.test/"])]).backends().to_vec()));
    let second = of_service(&service, &Arc::new(more), &settings, Mode::Http, Some(&first));
    let at = |asks: &Asks, host: &str| {
        asks.claimants(&Place::http(host.parse().unwrap(), PathPrefix::root())).unwrap().1.clone()
    };
    assert!(Arc::ptr_eq(&at(&first, "a.test"), &at(&second, "a.test")));
    assert_eq!((at(&first, "b.test").len(), at(&second, "b.test").len()), (1, 2));
}
