use model::Route;
use proptest::prelude::*;

use super::*;
use crate::edge::claims::{Claim, Origin};
use crate::edge::decide;
use crate::edge::settings::Owners;

prop_compose! {
    fn any_map()(raw in prop::collection::btree_map("[a-c](/[a-b]){0,2}/", "edge:[1-3]\\|[-s]\\|[x-z]|nobody", 0..6)) -> RuleMap {
        RuleMap::of_entries(raw)
    }
}

proptest! {
    #[test]
    fn a_change_leads_to_the_other_map_and_equal_maps_need_none(old in any_map(), new in any_map()) {
        let new = Arc::new(new);
        prop_assert_eq!(new.change_to(&new), None);
        let mut replayed = old.entries.clone();
        match old.change_to(&new) {
            None => {}
            Some(RuleChange::Swap(_)) => prop_assert!(false, "few changes"),
            Some(RuleChange::Keys(keys)) => for (key, value, is_new) in keys {
                prop_assert_eq!(is_new, value.is_some() && !replayed.contains_key(&key));
                match value {
                    Some(value) => _ = replayed.insert(key, value),
                    None => prop_assert!(replayed.remove(&key).is_some()),
                }
            },
        }
        prop_assert_eq!(&replayed, &new.entries);
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written(map in any_map()) {
        prop_assert_eq!(RuleMap::parse(&map.render()), map);
    }

    #[test]
    fn a_key_is_read_back_as_its_place(host in "(\\*\\.)?[a-z]{1,5}\\.example", path in "(/[a-z%2]{1,3}){0,3}") {
        let name = Place::sni(host.parse().unwrap());
        prop_assert_eq!(place(&key(&name)), Some(name));
        if let Ok(path) = format!("{path}/").parse() {
            let at = Place::http(host.parse().unwrap(), path);
            prop_assert_eq!(place(&key(&at)), Some(at));
        }
    }
}

#[test]
fn a_key_that_haproxy_has_twice_has_the_whole_map_replaced() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let map = RuleMap::of_entries([pair("a/", "edge:1|-|a"), pair("a/", "edge:2|-|b")]);
    let to = Arc::new(RuleMap::of_entries([pair("a/", "edge:2|-|b")]));
    assert_eq!(map.change_to(&to), Some(RuleChange::Swap(to.clone())));
    let many = Arc::new(RuleMap::of_entries((0..600).map(|n| pair(&format!("h{n}/"), "edge:1|-|a"))));
    assert!(matches!(to.change_to(&many), Some(RuleChange::Swap(_))));
}

#[test]
fn what_points_to_a_section_that_does_not_run_stays_as_it_is_until_it_does() {
    let map = |to: [&str; 2]| {
        let keys = ["a/", "b/"].map(str::to_owned);
        RuleMap::of_entries(keys.into_iter().zip(to.map(|section| format!("{section}|-|x"))))
    };
    let within = map(["edge:2", "edge:1"]).within(&map(["edge:1", "edge:3"]), |section| section == "edge:1");
    assert_eq!(within, map(["edge:1", "edge:1"]));
}

/// Claims of `service` to hosts (`a.example`) and to names of TLS (`sni=a.example`).
fn claims(service: &str, places: &[&str]) -> Vec<Claim> {
    let claim = |text: &&str| {
        let place = place(&format!("{text}/")).unwrap();
        let route = Route::new(place.host.clone(), place.path.clone());
        Claim {
            place,
            service: service.parse().unwrap(),
            origin: Origin::Registration,
            created: None,
            route,
            differing: None,
        }
    };
    places.iter().map(claim).collect()
}

/// The map of these claims, where HTTPS and TLS that is passed through share a port, and `hosts` are `owner`'s.
fn map_of(claims: &[Claim], hosts: &[&str], owner: &str) -> RuleMap {
    let owned = |host: &&str| (host.parse().unwrap(), vec![owner.parse().unwrap()]);
    let owners = Owners::new(hosts.iter().map(owned).collect());
    let (sni_port, certificates) = (443.try_into().ok(), vec!["certs".into()].into());
    let settings = EdgeSettings { sni_port, certificates, owners, ..EdgeSettings::default() };
    RuleMap::of(&decide(claims, &settings, |_| None), &settings, &[], |_| None)
}

#[test]
fn a_wildcard_of_tls_catches_no_host_that_has_routes_or_an_owner() {
    let all =
        [claims("web", &["a.example/x", "*.b.example", "a.other"]), claims("db", &["sni=*.example", "sni=c.example"])];
    let map = map_of(&all.concat(), &["own.example"], "own");
    let lines = map.entries().map(|(k, v)| format!("{k} {v}"));
    let of_tls: Vec<String> = lines.filter(|line| line.starts_with("sni=")).collect();
    assert_eq!(
        of_tls,
        [
            "sni=*.b.example/ nobody",
            "sni=*.example/ edge:sni:none|-|db",
            "sni=a.example/ nobody",
            "sni=c.example/ edge:sni:none|-|db",
            "sni=own.example/ nobody",
        ]
    );
}

proptest! {
    /// A host with an owner answers for itself, so that no wildcard gets its requests.
    #[test]
    fn a_host_with_an_owner_is_in_the_map_whatever_strangers_ask_for(
        raw in prop::collection::vec(("[a-d]", "(sni=)?(\\*\\.)?([ab]\\.)?shop\\.example"), 0..12)
    ) {
        let all: Vec<Claim> = raw.iter().flat_map(|(service, at)| claims(service, &[at])).collect();
        let owned = ["shop.example", "*.a.shop.example"];
        let map = map_of(&all, &owned, "a");
        for root in owned.iter().flat_map(|host| [format!("{host}/"), format!("sni={host}/")]) {
            prop_assert!(map.entries().any(|(key, _)| **key == *root));
        }
    }
}
