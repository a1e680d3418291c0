//! What is beyond a limit is left out; what is served stays.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;

use discover::reconcile::Limits;
use model::{Backend, Pool, Port, ServiceMap, Transport};
use proptest::prelude::*;

const LIMITS: Limits = Limits { max_services: 4, max_backends: 5, max_all_backends: 12 };

fn pool(size: usize) -> Arc<Pool> {
    let backend = |n: usize| {
        let port = Port::new(u16::try_from(n + 1).unwrap()).unwrap();
        Arc::new(Backend::new(format!("b{n}").parse().unwrap(), "10.0.0.1".parse().unwrap(), port))
    };
    Arc::new((0..size).map(backend).collect())
}

fn map(sizes: &[(&str, usize)]) -> ServiceMap {
    sizes.iter().map(|(name, size)| (name.parse().unwrap(), pool(*size))).collect()
}

fn sizes(services: &ServiceMap) -> Vec<(String, usize)> {
    services.iter().map(|(name, pool)| (name.to_string(), pool.len())).collect()
}

#[test]
fn newcomers_beyond_a_limit_are_left_out_and_told_and_what_is_served_stays() {
    let served = map(&[("m", 3), ("z", 4)]);
    let mut services = map(&[("a", 9), ("b", 1), ("c", 1), ("m", 3), ("z", 4)]);
    let left_out = LIMITS.cut(&mut services, || served.clone());
    assert_eq!(sizes(&services), [("a".into(), 5), ("m".into(), 3), ("z".into(), 4)]);
    let told: Vec<_> = left_out.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    assert_eq!(told[0], "a: 4 of 9 backends are left out: too many (--max-backends)");
    assert_eq!(told[1], "b: 1 of 1 backends are left out: too many (--max-all-backends, --max-services)");
    assert_eq!(told.len(), 3);
    let mut few = map(&[("a", 5), ("b", 5)]);
    assert!(LIMITS.cut(&mut few, || panic!("nobody needs to know")).is_empty());
    assert_eq!(few, map(&[("a", 5), ("b", 5)]));
}

#[test]
fn udp_alone_takes_no_place_of_what_is_served() {
    let udp = |size: usize| -> Arc<Pool> {
        let of_udp = |b: &Arc<Backend>| Arc::new(Backend { transport: Transport::Udp, ..(**b).clone() });
        Arc::new(pool(size).backends().iter().map(of_udp).collect())
    };
    let mut flood: ServiceMap = ["a", "b", "c", "d", "e"].map(|name| (name.parse().unwrap(), udp(3))).into();
    flood.extend(map(&[("v", 3), ("w", 3), ("x", 3), ("y", 3), ("z", 3)]));
    let left_out = LIMITS.cut(&mut flood, ServiceMap::new);
    let names: Vec<_> = sizes(&flood).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "b", "c", "d", "v", "w", "x", "y"], "as many of each");
    assert_eq!(left_out.len(), 2);
    // One backend of TCP makes a service that is served.
    let mixed = Arc::new(udp(1).backends().iter().chain(pool(2).backends()).cloned().collect::<Pool>());
    flood.insert("d".parse().unwrap(), mixed);
    let left_out = LIMITS.cut(&mut flood, || map(&[("v", 3), ("w", 3), ("x", 3), ("y", 3)]));
    assert!(left_out.contains_key("d") && flood.contains_key("y"), "{left_out:?}");
}

fn any_map() -> impl Strategy<Value = ServiceMap> {
    let raw = prop::collection::btree_map("[a-h]", 0_usize..8, 0..8);
    raw.prop_map(|sizes| sizes.into_iter().map(|(name, size)| (name.parse().unwrap(), pool(size))).collect())
}

proptest! {
    /// From turn to turn, whatever the sources say: no limit is passed, and no pool loses what it had while its source has it.
    #[test]
    fn no_flood_takes_anything_from_what_is_served(turns in prop::collection::vec(any_map(), 1..6)) {
        let mut served = ServiceMap::new();
        for told in turns {
            let mut now = told.clone();
            let left_out = LIMITS.cut(&mut now, || served.clone());
            prop_assert!(now.len() <= LIMITS.max_services);
            prop_assert!(now.values().all(|pool| pool.len() <= LIMITS.max_backends));
            prop_assert!(now.values().map(|pool| pool.len()).sum::<usize>() <= LIMITS.max_all_backends);
            for (name, pool) in &told {
                let before = served.get(name).map_or(0, |pool| pool.len());
                let after = now.get(name).map_or(0, |pool| pool.len());
                prop_assert!(after >= before.min(pool.len()), "{name}");
                prop_assert_eq!(after < pool.len() || !now.contains_key(name), left_out.contains_key(name), "{}", name);
            }
            served = now;
        }
    }
}
