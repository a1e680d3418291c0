use std::sync::Arc;

use model::{Backend, Pool, Routes};
use proptest::prelude::*;

use super::*;
use crate::edge::Lost;
use crate::edge::Way;
use crate::edge::decide::Why;
use crate::edge::settings::{ConfigRule, Ownership};
use crate::generators::haproxy::file::edge::map::RuleMap;

/// A service's pool: for each of its backends the routes.
type Raw = Vec<Vec<(String, Option<i32>)>>;

fn pool(raw: &Raw, created: u64) -> Arc<Pool> {
    Arc::new(Pool::new(raw.iter().enumerate().map(|(n, routes)| {
        let id = format!("b{n}").parse().unwrap();
        let mut backend = Backend::new(id, "127.0.0.1".parse().unwrap(), 9.try_into().unwrap());
        let route = |(place, priority): &(String, Option<i32>)| {
            let at = place.find('/').unwrap();
            let route = model::Route::new(place[..at].parse().unwrap(), place[at..].parse().unwrap());
            model::Route { priority: *priority, ..route }
        };
        backend.routes = Routes::new(routes.iter().map(route)).0;
        backend.created = Some(created + n as u64);
        Arc::new(backend)
    })))
}

fn any_pool() -> impl Strategy<Value = Raw> {
    let place = "[a-c]\\.example(/[x-y]){0,2}/";
    let route = (place, prop::option::weighted(0.2, 0..20i32));
    prop::collection::vec(prop::collection::vec(route, 0..3), 1..3)
}

/// The rules, and what came to nothing and why. Several shorter paths may take a path's requests: which one of them is named is left open.
fn said(routing: &Routing) -> impl PartialEq + std::fmt::Debug + use<> {
    let why = |lost: &Lost| match &lost.why {
        Why::Shadowed { .. } => format!("{} ({}): shadowed", lost.place, lost.service),
        _ => lost.to_string(),
    };
    (routing.rules.clone(), routing.lost.iter().map(why).collect::<BTreeSet<String>>())
}

proptest! {
    /// What is decided host by host, change after change, is what is decided at once.
    #[test]
    fn hosts_are_decided_alone(
        changes in prop::collection::vec(("[p-s]", prop::option::weighted(0.8, any_pool())), 1..12), holds in any::<bool>(), own in any::<bool>(),
    ) {
        let rule = || ConfigRule { service: "p".parse().unwrap(), way: Way::Http, route: model::Route::new("a.example".parse().unwrap(), "/x".parse().unwrap()) };
        let settings = EdgeSettings {
            rules: own.then(rule).into_iter().collect(),
            ownership: holds.then_some(Ownership::Host),
            suffixes: vec!["local".parse().unwrap()],
            ..EdgeSettings::default()
        };
        let (mut asking, mut services, mut running) = (Asking::default(), ServiceMap::new(), Layout::default());
        for (n, (service, raw)) in changes.into_iter().enumerate() {
            let service: ServiceName = service.parse().unwrap();
            match raw {
                Some(raw) => _ = services.insert(service, pool(&raw, 10 * n as u64)),
                None => _ = services.remove(&service),
            }
            let was = asking.routing().clone();
            asking.route(&services, &running, &settings, Mode::Http, n == 0);
            let own: Vec<Claim> = of_config(&settings).collect();
            let all = own.iter().chain(asking.asked.values().flat_map(|asks| asks.claims.values()));
            let before = |place: &Place| running.rules.as_ref().and_then(|rules| rules.service_at(place));
            let at_once = decide(all, &settings, before);
            prop_assert_eq!(said(asking.routing()), said(&at_once), "before: {:?}", was);
            running.rules = Some(Arc::new(RuleMap::of(asking.routing(), &settings, [], |_| None)));
            // The same again changes nothing, and is the very same.
            let now = asking.routing().clone();
            prop_assert!(!asking.route(&services, &running, &settings, Mode::Http, false));
            prop_assert!(Arc::ptr_eq(&now, asking.routing()));
            let askers: BTreeSet<&HostPattern> = asking.askers.keys().collect();
            let claimed: BTreeSet<&HostPattern> =
                asking.asked.values().flat_map(|asks| asks.claims.keys().map(|place| &place.host)).collect();
            prop_assert_eq!(askers, claimed);
        }
    }
}
