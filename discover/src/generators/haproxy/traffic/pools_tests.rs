use std::sync::Arc;

use model::{Backend, BackendId, Pool};

use super::*;
use crate::haproxy::api::stats::stat;

fn rows(sections: &[(&str, u64)]) -> Vec<StatRow> {
    let rows: Vec<String> = sections.iter().map(|(name, usable)| format!("{name},BACKEND,1,UP,{usable},0,")).collect();
    stat(&format!("# pxname,svname,type,status,act,bck,\n{}\n", rows.join("\n"))).unwrap()
}

fn services(with_backends: &[(&str, usize)]) -> ServiceMap {
    let backend = |n: usize| {
        let id: BackendId = format!("b{n}").parse().unwrap();
        Arc::new(Backend::new(id, "10.0.0.1".parse().unwrap(), 80.try_into().unwrap()))
    };
    let pool = |n: usize| Arc::new((0..n).map(backend).collect::<Pool>());
    with_backends.iter().map(|(name, n)| (name.parse().unwrap(), pool(*n))).collect()
}

/// The names of those that were lost, and of those that are back.
fn changes(
    pools: &mut Pools,
    sections: &[(&str, u64)],
    services: &ServiceMap,
    edge: &EdgePlaces<'_>,
) -> [Vec<String>; 2] {
    let changes = pools.look(&rows(sections), services, &Places::Native, edge);
    [changes.lost, changes.back].map(|names| names.iter().map(ToString::to_string).collect())
}

#[test]
fn a_loss_and_its_end_are_told_once_each() {
    let (mut pools, none) = (Pools::default(), EdgePlaces::default());
    let all = services(&[("web", 2), ("db", 1), ("empty", 0)]);
    let mut look = |sections: &[(&str, u64)]| {
        let [lost, back] = changes(&mut pools, sections, &all, &none);
        format!("-{} +{}", lost.join(","), back.join(","))
    };
    assert_eq!(look(&[("web", 2), ("db", 0), ("empty", 0), ("stats", 0)]), "-db +", "dead from the first look on");
    assert_eq!(look(&[("web", 1), ("db", 0), ("empty", 0)]), "- +");
    assert_eq!(look(&[("web", 0), ("db", 0), ("empty", 0)]), "-web +");
    assert_eq!(look(&[("web", 0), ("db", 0), ("empty", 0)]), "- +");
    assert_eq!(look(&[("web", 0), ("db", 3), ("empty", 0)]), "- +db");
    assert_eq!(look(&[("web", 1), ("db", 3), ("empty", 1)]), "- +web");
    assert_eq!(look(&[("web", 1), ("db", 3), ("empty", 0)]), "-empty +");
}

#[test]
fn a_service_that_either_section_serves_is_not_lost() {
    let mut pools = Pools::default();
    let all = services(&[("web", 1)]);
    let sections = [("web".parse().unwrap(), ["edge:4".to_owned()].into())].into();
    let edge = EdgePlaces(vec![&sections]);
    let mut look = |sections: &[(&str, u64)]| changes(&mut pools, sections, &all, &edge).map(|names| names.len());
    assert_eq!(look(&[("web", 1), ("edge:4", 1), ("edge:5", 0)]), [0, 0]);
    assert_eq!(look(&[("web", 0), ("edge:4", 1), ("edge:5", 0)]), [0, 0]);
    assert_eq!(look(&[("web", 0), ("edge:4", 0), ("edge:5", 0)]), [1, 0]);
    assert_eq!(look(&[("web", 0), ("edge:4", 1), ("edge:5", 0)]), [0, 1]);
}

#[test]
fn a_section_that_goes_is_forgotten() {
    let (mut pools, none) = (Pools::default(), EdgePlaces::default());
    let (all, without) = (services(&[("web", 1), ("db", 1)]), services(&[("db", 1)]));
    assert_eq!(changes(&mut pools, &[("web", 0), ("db", 1)], &all, &none), [vec!["web".to_owned()], vec![]]);
    assert_eq!(changes(&mut pools, &[("db", 1)], &without, &none), [vec![], vec![]] as [Vec<String>; 2]);
    assert_eq!(changes(&mut pools, &[("web", 1), ("db", 1)], &all, &none), [vec![], vec![]] as [Vec<String>; 2]);
}
