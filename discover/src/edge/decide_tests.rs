use std::sync::Arc;

use model::{Backend, Mode, Pool, Routes};
use proptest::prelude::*;

use super::super::claims::{of_config, of_service};
use super::super::settings::{ConfigRule, Owners};
use super::*;

/// Routes as a registration has them: `a.example/api`, or with a priority `a.example/api 7`.
fn route(text: &str) -> Route {
    let (place, priority) = text.split_once(' ').map_or((text, None), |(place, priority)| (place, Some(priority)));
    let at = place.find('/').unwrap();
    let route = Route::new(place[..at].parse().unwrap(), place[at..].parse().unwrap());
    Route { priority: priority.map(|p| p.parse().unwrap()), ..route }
}

fn claims(service: &str, created: Option<u64>, routes: &[&str], settings: &EdgeSettings) -> Vec<Claim> {
    let mut backend = Backend::new("b".parse().unwrap(), "127.0.0.1".parse().unwrap(), 9.try_into().unwrap());
    backend.routes = Routes::new(routes.iter().map(|r| route(r))).0;
    backend.created = created;
    let pool = Arc::new(Pool::new([Arc::new(backend)]));
    of_service(&service.parse().unwrap(), &pool, settings, Mode::Tcp, None).claims.into_values().collect()
}

fn decided(of: &[(&str, Option<u64>, &[&str])], settings: &EdgeSettings) -> Routing {
    let all: Vec<Claim> =
        of.iter().flat_map(|(service, created, routes)| claims(service, *created, routes, settings)).collect();
    decide(of_config(settings).collect::<Vec<_>>().iter().chain(&all), settings, |_| None)
}

fn shown(routing: &Routing) -> (Vec<String>, Vec<String>) {
    let rules = routing.rules.iter().map(|(place, rule)| format!("{place} {}", rule.service)).collect();
    let lost = routing.lost.iter().map(|lost| format!("{} {}: {}", lost.place, lost.service, lost.why)).collect();
    (rules, lost)
}

#[test]
fn of_two_claims_to_one_place_the_oldest_counts_and_the_other_is_told_whose_it_is() {
    let settings = EdgeSettings::default();
    let at: &[&str] = &["a.example/"];
    let (rules, lost) = shown(&decided(&[("a", Some(7), at), ("z", Some(3), at), ("b", None, at)], &settings));
    assert_eq!(rules, ["a.example/ z"]);
    assert_eq!(lost, ["a.example/ a: it is service z's", "a.example/ b: it is service z's"]);
    assert_eq!(shown(&decided(&[("z", None, at), ("a", None, at)], &settings)).0, ["a.example/ a"], "the lowest name");
    let both: Vec<Claim> = ["z", "a"].iter().flat_map(|s| claims(s, None, at, &settings)).collect();
    let kept = decide(&both, &settings, |_| Some("z".parse().unwrap()));
    assert_eq!(shown(&kept).0, ["a.example/ z"], "who had it before, where no age is known");
}

#[test]
fn the_configs_rules_come_before_registrations_and_those_before_names() {
    let own = ConfigRule { service: "mine".parse().unwrap(), way: Way::Http, route: route("a.local/api") };
    let settings =
        EdgeSettings { rules: vec![own], suffixes: vec!["local".parse().unwrap()], ..EdgeSettings::default() };
    let (rules, lost) = shown(&decided(&[("a", Some(1), &["b.local/"]), ("b", Some(0), &["a.local/api"])], &settings));
    assert_eq!(rules, ["a.local/ a", "a.local/api mine", "b.local/ a"]);
    assert_eq!(lost, ["a.local/api b: it is service mine's", "b.local/ b: it is service a's"]);
}

#[test]
fn hosts_of_the_config_and_whole_hosts_are_their_owners() {
    let owners = Owners::new([("shop.example".parse().unwrap(), vec!["shop-*".parse().unwrap()])].into());
    let settings = EdgeSettings { owners, ..EdgeSettings::default() };
    let of: &[(&str, Option<u64>, &[&str])] = &[
        ("evil", Some(1), &["shop.example/pay", "shop.example/ 999", "free.example/x"]),
        ("shop-v1", Some(9), &["shop.example/", "free.example/"]),
    ];
    let (rules, lost) = shown(&decided(of, &settings));
    assert_eq!(rules, ["free.example/ shop-v1", "free.example/x evil", "shop.example/ shop-v1"]);
    assert!(lost.iter().all(|l| l.contains("edge.hosts")) && lost.len() == 2, "{lost:?}");
    let (rules, lost) = shown(&decided(of, &EdgeSettings { ownership: Some(Ownership::Host), ..settings }));
    assert_eq!(rules, ["free.example/x evil", "shop.example/ shop-v1"]);
    assert!(lost[0].contains("free.example/ shop-v1: service evil holds the whole host"), "{lost:?}");
}

#[test]
fn a_longer_path_is_shadowed_by_a_higher_priority_of_who_comes_before_only() {
    let settings = EdgeSettings::default();
    let longer: &[&str] = &["a.example/api/v1"];
    let (rules, lost) = shown(&decided(&[("a", Some(1), &["a.example/api 100"]), ("b", Some(2), longer)], &settings));
    assert_eq!(rules, ["a.example/api a"]);
    assert!(lost[0].contains("/api of service a has a higher priority"), "{lost:?}");
    for first in ["a.example/api 1", "a.example/apis 999", "a.example/api"] {
        assert_eq!(decided(&[("a", Some(1), &[first]), ("b", Some(2), longer)], &settings).rules.len(), 2, "{first}");
    }
    let younger = decided(&[("a", Some(3), &["a.example/api 100"]), ("b", Some(2), longer)], &settings);
    assert_eq!(younger.rules.len(), 2, "a newcomer takes no path from who was there");
    let deep = Route { strip_prefix: true, ..route("a.example/1/2/3/4/5/6/7/8/9") };
    let claim =
        Claim { route: deep.clone(), ..claims("a", None, &["a.example/1/2/3/4/5/6/7/8/9"], &settings).remove(0) };
    assert_eq!(decide([&claim], &settings, |_| None).lost.first().unwrap().why, Why::TooDeep);
}

/// The next decision, or one after a restart, finds both in the map, whether their ages are known or not.
#[test]
fn who_had_a_longer_path_keeps_it_from_an_equals_priority_ever_after() {
    let settings = EdgeSettings::default();
    for ages in [[None, None], [Some(1), Some(2)]] {
        let both: Vec<Claim> = [("c", "a.example/ 99"), ("d", "a.example/x")]
            .into_iter()
            .zip(ages)
            .flat_map(|((service, at), age)| claims(service, age, &[at], &settings))
            .collect();
        let when = |in_map: &'static [&'static str]| {
            let of = |place: &Place| if place.path.is_root() { "c" } else { "d" };
            let before = |place: &Place| in_map.contains(&of(place)).then(|| of(place).parse().unwrap());
            shown(&decide(&both, &settings, before)).0
        };
        assert_eq!(when(&["d"]), ["a.example/ c", "a.example/x d"], "c comes");
        assert_eq!(when(&["c", "d"]), ["a.example/ c", "a.example/x d"], "and is there");
        assert_eq!(when(&["c"]), ["a.example/ c"], "d comes");
        assert_eq!(when(&[]), ["a.example/ c"], "both come at once");
    }
}

/// Claims to TLS of these names.
fn passing(service: &str, created: Option<u64>, names: &[&str]) -> Vec<Claim> {
    let claim = |name: &&str| {
        let route = route(&format!("{name}/"));
        let (place, origin) = (Place::sni(route.host.clone()), Origin::Registration);
        Claim { place, service: service.parse().unwrap(), origin, created, route, differing: None }
    };
    names.iter().map(claim).collect()
}

/// HTTPS and TLS that is passed through, on one port.
fn sharing(owners: Owners) -> EdgeSettings {
    let certificates = vec!["certs".into()].into();
    EdgeSettings { sni_port: 443.try_into().ok(), certificates, owners, ..EdgeSettings::default() }
}

#[test]
fn tls_of_a_host_goes_to_who_was_there_first_unless_the_operator_has_given_it_to_both() {
    let at = ["a.example"];
    let of = |web: Option<u64>, db: Option<u64>, settings: &EdgeSettings, before: Option<&str>| {
        let all = [claims("web", web, &["a.example/"], settings), passing("db", db, &at)].concat();
        let before = |place: &Place| before.filter(|_| place.way == Way::Sni).map(|name| name.parse().unwrap());
        let routing = decide(&all, settings, before);
        assert!(routing.rules.contains_key(&all[0].place), "plain HTTP is not touched");
        routing.rules.contains_key(&all[1].place)
    };
    let shared = sharing(Owners::default());
    assert!(!of(Some(1), Some(2), &shared, None) && of(Some(2), Some(1), &shared, None));
    assert!(!of(None, None, &shared, None) && of(None, None, &shared, Some("db")), "without ages who was there stays");
    let given =
        Owners::new([("a.example".parse().unwrap(), vec!["web".parse().unwrap(), "db".parse().unwrap()])].into());
    assert!(of(Some(1), Some(2), &sharing(given), None));
    let apart = EdgeSettings { sni_port: 8443.try_into().ok(), ..shared.clone() };
    assert!(of(Some(1), Some(2), &apart, None), "nothing is shared on another port");
    let whole = EdgeSettings { ownership: Some(Ownership::Host), ..apart };
    assert!(!of(Some(1), Some(2), &whole, None), "all of the host is web's");
    let off = EdgeSettings { sni_port: None, ..shared };
    let lost = decide(&passing("db", None, &at), &off, |_| None).lost;
    assert_eq!(
        lost.first().map(ToString::to_string).as_deref(),
        Some("TLS of a.example (db): no TLS is passed through here (--edge-sni)")
    );
}

prop_compose! {
    fn any_claims()(
        raw in prop::collection::vec(("[a-d]", prop::option::of(0u64..4), "(\\*\\.)?([ab]\\.)?shop\\.example(/[xy]){0,2}", prop::option::of(-2i32..99), any::<bool>()), 0..12)
    ) -> Vec<Claim> {
        raw.into_iter().map(|(service, created, place, priority, tls)| {
            let text = if place.contains('/') { place } else { format!("{place}/") };
            let route = Route { priority, ..route(&text) };
            let place = match tls {
                true => Place::sni(route.host.clone()),
                false => Place::http(route.host.clone(), route.path.clone()),
            };
            Claim { place, service: service.parse().unwrap(), origin: Origin::Registration, created, route, differing: None }
        }).collect()
    }
}

proptest! {
    /// Whatever strangers ask for, the owner of a host gets what it would get without them, and they get nothing of it.
    #[test]
    fn no_registration_takes_a_rule_away_from_an_owner(all in any_claims()) {
        let owned = ["shop.example", "*.a.shop.example"];
        let owner: ServiceName = "a".parse().unwrap();
        let owners = Owners::new(owned.map(|host| (host.parse().unwrap(), vec!["a".parse().unwrap()])).into());
        let settings = sharing(owners);
        let (own, _): (Vec<Claim>, Vec<Claim>) = all.iter().cloned().partition(|claim| claim.service == owner);
        let of_owned = |routing: &Routing| -> Vec<(Place, Rule)> {
            let mine = |place: &Place| owned.contains(&place.host.as_str());
            routing.rules.iter().filter(|(place, _)| mine(place)).map(|(p, r)| (p.clone(), r.clone())).collect()
        };
        let (with, without) = (decide(&all, &settings, |_| None), decide(&own, &settings, |_| None));
        prop_assert_eq!(of_owned(&with), of_owned(&without));
        prop_assert!(of_owned(&with).iter().all(|(_, rule)| rule.service == owner));
    }

    /// The order in which claims are heard does not count, and each comes to a rule or to a reason.
    #[test]
    fn the_outcome_is_the_same_in_any_order(all in any_claims(), by in 0usize..12) {
        let mut all: Vec<Claim> = all;
        all.sort_by(|a, b| (&a.place, &a.service).cmp(&(&b.place, &b.service)));
        all.dedup_by(|a, b| (&a.place, &a.service) == (&b.place, &b.service));
        let settings = sharing(Owners::default());
        let routing = decide(&all, &settings, |_| None);
        let mut turned = all.clone();
        turned.rotate_left(by % all.len().max(1));
        prop_assert_eq!(&decide(&turned, &settings, |_| None), &routing);
        for claim in &all {
            let has = routing.rules.get(&claim.place).is_some_and(|rule| rule.service == claim.service);
            let lost = routing.lost.iter().any(|l| l.place == claim.place && l.service == claim.service);
            prop_assert!(has != lost, "{claim:?}");
        }
    }
}
