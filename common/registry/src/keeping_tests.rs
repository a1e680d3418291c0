//! Who keeps an id, and which port counts when its key is no good.

use super::super::Owned;
use super::tests::{addresses, at, entry};
use super::*;
use crate::store::Position;
use proptest::prelude::*;

fn put(table: &mut Table, entries: &[Entry]) {
    let changes = entries.iter().cloned().map(Change::Put).collect();
    let last = entries.iter().map(|e| e.modified).max().unwrap();
    table.apply(&Batch { changes, at: Position { cluster: 1, revision: last } }, &HashSet::new());
}

fn delete(table: &mut Table, key: &str, revision: i64) {
    let changes = vec![Change::Delete { key: key.into(), revision: Revision(revision) }];
    table.apply(&Batch { changes, at: at(revision) }, &HashSet::new());
}

fn reason(table: &Table, key: &str) -> Option<String> {
    table.snapshot().quarantined.get(key).map(|q| q.reason.clone())
}

fn ports(table: &Table, service: &str) -> Vec<Option<u16>> {
    let pool = table.snapshot().services[service].clone();
    pool.backends().iter().map(|b| b.service_port.map(u16::from)).collect()
}

#[test]
fn the_last_good_port_counts_while_backends_live_whatever_becomes_of_its_key() {
    for bad in [None, Some(""), Some("abc"), Some("0"), Some("70000")] {
        let mut table = Table::new(Prefix::default());
        put(
            &mut table,
            &[
                entry("/backends/web/port", "80", 1, 0),
                entry("/backends/web/a", "h1:1", 2, 7),
                entry("/backends/web/b", "h2", 3, 7),
            ],
        );
        match bad {
            None => delete(&mut table, "/backends/web/port", 4),
            Some(value) => put(&mut table, &[entry("/backends/web/port", value, 4, 0)]),
        }
        put(&mut table, &[entry("/backends/web/c", "h3:3", 5, 7)]);
        assert_eq!(ports(&table, "web"), [Some(80); 3], "{bad:?}");
        assert_eq!(addresses(&table, "web"), ["h1:1", "h2:80", "h3:3"], "{bad:?}");
        let shown = reason(&table, "/backends/web/port").unwrap();
        assert!(shown.contains("last good") && shown.contains("80"), "{bad:?}: {shown}");
        if bad.is_some() {
            delete(&mut table, "/backends/web/port", 6);
            assert_eq!(ports(&table, "web"), [Some(80); 3], "{bad:?}, then gone");
            assert!(reason(&table, "/backends/web/port").unwrap().contains("is gone"), "{bad:?}");
        }
        put(&mut table, &[entry("/backends/web/port", "81", 7, 0)]);
        assert_eq!((ports(&table, "web"), reason(&table, "/backends/web/port")), (vec![Some(81); 3], None));
        delete(&mut table, "/backends/web/port", 8);
        for (key, revision) in [("a", 9), ("b", 10), ("c", 11)] {
            delete(&mut table, &format!("/backends/web/{key}"), revision);
        }
        assert!(table.snapshot().quarantined.is_empty(), "{bad:?}: nobody needs it any more");
        put(&mut table, &[entry("/backends/web/a", "h1:1", 12, 7)]);
        assert_eq!(ports(&table, "web"), [None], "{bad:?}: a service that comes anew has no last port");
    }
}

#[test]
fn a_port_key_that_is_missed_in_a_new_listing_counts_like_one_that_was_deleted() {
    let (port, a) = (entry("/backends/web/port", "80", 1, 0), entry("/backends/web/a", "h1:1", 2, 7));
    let mut table = Table::new(Prefix::default());
    let listing = |entries: &[Entry], revision| Listing { entries: entries.to_vec(), at: at(revision) };
    table.replace(&listing(&[port, a.clone()], 3), &HashSet::new(), false);
    for revision in [4, 5] {
        table.replace(&listing(std::slice::from_ref(&a), revision), &HashSet::new(), false);
        assert_eq!(ports(&table, "web"), [Some(80)]);
        assert!(reason(&table, "/backends/web/port").unwrap().contains("is gone"));
    }
}

#[test]
fn an_id_belongs_to_the_older_key_under_a_lease_and_the_other_is_shown() {
    let (flat, host) = ("/backends/web/x", "/backends/@h/web/x");
    for (first, second) in [(flat, host), (host, flat)] {
        for (leases, winner) in [((7, 8), first), ((0, 8), second), ((7, 0), first), ((0, 0), first)] {
            for swapped in [false, true] {
                let mut both = [entry(first, "first:1", 2, leases.0), entry(second, "second:1", 3, leases.1)];
                if swapped {
                    both.reverse();
                }
                let mut table = Table::new(Prefix::default());
                put(&mut table, &both);
                let (address, loser) = if winner == first { ("first:1", second) } else { ("second:1", first) };
                assert_eq!(addresses(&table, "web"), [address], "{first} {leases:?}");
                let shown = table.snapshot().quarantined.clone();
                assert_eq!(shown.keys().map(|k| &**k).collect::<Vec<_>>(), [loser]);
                assert!(shown[loser].reason.contains(winner), "{}", shown[loser].reason);
                delete(&mut table, winner, 9);
                assert_eq!(addresses(&table, "web").len(), 1, "the other has its turn");
                assert!(table.snapshot().quarantined.is_empty());
            }
        }
    }
}

#[test]
fn what_an_owned_service_says_counts_from_its_nodes_alone_its_port_too() {
    let owners = ["pay-*=a,b", "*=z"].map(|e| e.parse::<Owned>().unwrap());
    let mut table = Table::new(Prefix::default()).with_owners(Owners::new(owners));
    put(
        &mut table,
        &[
            entry("/backends/@evil/pay-web/port", "22", 1, 0),
            entry("/backends/@evil/pay-web/x", "evil:1", 2, 7),
            entry("/backends/pay-web/y", r#"{"host":"flat","port":1,"node":"a","labels":{"node":"a"}}"#, 3, 7),
            entry("/backends/@a/pay-web/port", "80", 4, 0),
            entry("/backends/@a/pay-web/x", "good:1", 5, 7),
            entry("/backends/@b/pay-web/z", "good:2", 6, 7),
        ],
    );
    assert_eq!(addresses(&table, "pay-web"), ["good:1", "good:2"]);
    assert_eq!(ports(&table, "pay-web"), [Some(80); 2]);
    let shown = table.snapshot().quarantined.clone();
    assert_eq!(shown.len(), 3);
    assert!(shown["/backends/@evil/pay-web/x"].reason.contains("node evil may not register"));
    assert!(shown["/backends/pay-web/y"].reason.contains("names no node"));
}

proptest! {
    /// Whatever the order in which they arrive, equal keys come to equal pools and quarantines.
    #[test]
    fn the_order_of_arrival_decides_nothing(
        keys in prop::collection::btree_map((0u8..3, 0u8..3), (1i64..9, 0i64..3), 1..8),
        order in any::<u64>(),
    ) {
        let entries: Vec<Entry> = keys.iter().map(|((node, id), (created, lease))| {
            let key = if *node == 0 { format!("/backends/web/b{id}") } else { format!("/backends/@n{node}/web/b{id}") };
            entry(&key, &format!("h{node}:{}", id + 1), *created, *lease)
        }).collect();
        let seen = |entries: &[Entry]| {
            let mut table = Table::new(Prefix::default());
            entries.iter().for_each(|e| put(&mut table, std::slice::from_ref(e)));
            let shown: Vec<_> = table.snapshot().quarantined.iter().map(|(k, q)| (k.to_string(), q.reason.clone())).collect();
            (addresses(&table, "web"), shown)
        };
        let mut other = entries.clone();
        other.sort_by_key(|e| e.key.bytes().fold(order, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into())));
        prop_assert_eq!(seen(&entries), seen(&other));
    }
}
