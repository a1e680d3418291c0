use super::*;
use crate::store::Position;
use proptest::prelude::*;

pub(super) fn entry(key: &str, value: &str, revision: i64, lease: i64) -> Entry {
    let revision = Revision(revision);
    let lease = (lease != 0).then_some(LeaseId(lease));
    Entry { key: key.into(), value: value.as_bytes().into(), lease, created: revision, modified: revision }
}

pub(super) fn at(revision: i64) -> Position {
    Position { cluster: 1, revision: Revision(revision) }
}

fn listed(entries: &[Entry]) -> Table {
    let mut table = Table::new(Prefix::default());
    table.replace(&Listing { entries: entries.to_vec(), at: at(9) }, &HashSet::new(), false);
    table
}

pub(super) fn addresses(table: &Table, service: &str) -> Vec<String> {
    table.snapshot().services.get(service).map_or(Vec::new(), |p| p.backends().iter().map(|b| b.address()).collect())
}

#[test]
fn pools_are_in_order_of_creation_and_take_the_services_port() {
    let table = listed(&[
        entry("/backends/web/b", "h2:1", 2, 0),
        entry("/backends/web/a", "h1:1", 3, 0),
        entry("/backends/web/port", "80", 4, 0),
        entry("/backends/web/c", "h3", 5, 0),
    ]);
    assert_eq!(addresses(&table, "web"), ["h2:1", "h1:1", "h3:80"]);
    let snapshot = table.snapshot();
    assert!(snapshot.services["web"].backends().iter().all(|b| b.service_port.map(u16::from) == Some(80)));
    assert!(snapshot.quarantined.is_empty());
}

#[test]
fn one_bad_key_is_left_out_alone_and_comes_back_when_mended() {
    let mut table = listed(&[
        entry("/backends/web/a", "h1:1", 2, 0),
        entry("/backends/web/b", "rubbish rubbish", 3, 0),
        entry("/backends/web/c", "h3", 4, 0),
    ]);
    assert_eq!(addresses(&table, "web"), ["h1:1"]);
    assert_eq!(table.snapshot().quarantined.len(), 2);
    let mended = [entry("/backends/web/b", "h2:2", 10, 0), entry("/backends/web/port", "99", 11, 0)];
    let changes = mended.map(Change::Put).to_vec();
    table.apply(&Batch { changes, at: at(11) }, &HashSet::new());
    assert_eq!(addresses(&table, "web"), ["h1:1", "h3:99", "h2:2"]);
    assert!(table.snapshot().quarantined.is_empty());
}

#[test]
fn a_bad_route_is_shown_and_its_backend_serves() {
    let value = |path: &str| format!(r#"{{"host":"h1","port":1,"routes":[{{"host":"a.example","path":"{path}"}}]}}"#);
    let mut table = listed(&[entry("/backends/web/a", &value("/../x"), 2, 0)]);
    assert_eq!(addresses(&table, "web"), ["h1:1"]);
    let reason = table.snapshot().quarantined["/backends/web/a"].reason.clone();
    assert!(reason.starts_with(r#"routes[0]: path "/../x" is not "#), "{reason}");
    let mended = vec![Change::Put(entry("/backends/web/a", &value("/x"), 10, 0))];
    table.apply(&Batch { changes: mended, at: at(10) }, &HashSet::new());
    assert!(table.snapshot().quarantined.is_empty());
    let routes = table.snapshot().services["web"].backends()[0].routes.clone();
    assert_eq!(routes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a.example/x"]);
}

#[test]
fn a_departure_is_orderly_when_it_drained_or_its_agent_answers_for_it_or_it_had_no_lease() {
    let draining = r#"{"host":"h","port":1,"status":"draining"}"#;
    let mut table = listed(&[
        entry("/backends/web/drained", draining, 2, 7),
        entry("/backends/web/taken", "h:1", 3, 8),
        entry("/backends/web/expired", "h:2", 4, 7),
        entry("/backends/web/unowned", "h:3", 5, 0),
    ]);
    let delete = |id: &str| Change::Delete { key: format!("/backends/web/{id}").into(), revision: Revision(10) };
    let batch = Batch { changes: ["drained", "taken", "expired", "unowned"].map(delete).to_vec(), at: at(10) };
    assert_eq!(
        table.leases_taken(&batch),
        HashSet::from([LeaseId(7), LeaseId(8)]),
        "only leases of undrained backends matter"
    );
    table.apply(&batch, &HashSet::from([LeaseId(8)]));
    let snapshot = table.snapshot();
    let cause = |id: &str| snapshot.departed[&("web".parse().unwrap(), id.parse().unwrap())].cause;
    assert_eq!(["drained", "taken", "unowned"].map(cause), [DepartureCause::Orderly; 3]);
    assert_eq!(cause("expired"), DepartureCause::Expiry);
    assert!(!snapshot.services.contains_key("web"));
    table.apply(
        &Batch { changes: vec![Change::Put(entry("/backends/web/expired", "h:2", 12, 9))], at: at(12) },
        &HashSet::new(),
    );
    assert_eq!(table.snapshot().departed.len(), 3, "what came back has not departed");
}

proptest! {
    /// Whatever order changes come in, the table equals one made from a listing of the result, in which the last good port of a
    /// service with backends stands in for one that is gone or no good.
    #[test]
    fn watching_reaches_what_listing_shows(steps in prop::collection::vec((0u8..3, 0u8..4, prop::option::of(0u16..3)), 1..40)) {
        let mut live: BTreeMap<String, Entry> = BTreeMap::new();
        let mut table = Table::new(Prefix::default());
        let mut last_good: BTreeMap<String, Entry> = BTreeMap::new();
        for (n, (service, id, value)) in steps.into_iter().enumerate() {
            let revision = n as i64 + 10;
            let name = ["x", "y", "z", "port"][usize::from(id)];
            let key = format!("/backends/s{service}/{name}");
            let change = match value {
                None => {
                    live.remove(&key);
                    Change::Delete { key: key.as_str().into(), revision: Revision(revision) }
                }
                Some(port) => {
                    let value = if name == "port" { format!("{port}") } else if port == 2 { "h".into() } else { format!("h:{port}") };
                    let mut new = entry(&key, &value, revision, 0);
                    new.created = live.get(&key).map_or(new.created, |e| e.created);
                    live.insert(key.clone(), new.clone());
                    Change::Put(new)
                }
            };
            table.apply(&Batch { changes: vec![change], at: at(revision) }, &HashSet::new());
            let mut expected = live.clone();
            let mut no_good: BTreeSet<Key> = BTreeSet::new();
            for service in 0..3 {
                let (below, port) = (format!("/backends/s{service}/"), format!("/backends/s{service}/port"));
                let good = |e: &Entry| &*e.value != b"0" && !e.value.ends_with(b":0");
                let has_backends = live.iter().any(|(key, e)| key.starts_with(&below) && *key != port && good(e));
                match live.get(&port).filter(|e| good(e)) {
                    Some(now) => _ = last_good.insert(port, now.clone()),
                    None if !has_backends => _ = last_good.remove(&port),
                    None => if let Some(last) = last_good.get(&port) {
                        no_good.insert(port.as_str().into());
                        expected.insert(port, last.clone());
                    },
                }
            }
            let mut entries: Vec<Entry> = expected.values().cloned().collect();
            entries.sort_by_key(|e| (e.created, e.key.clone()));
            let fresh = listed(&entries).snapshot();
            let snapshot = table.snapshot();
            prop_assert_eq!(&snapshot.services, &fresh.services);
            no_good.extend(fresh.quarantined.keys().cloned());
            prop_assert_eq!(snapshot.quarantined.keys().collect::<Vec<_>>(), no_good.iter().collect::<Vec<_>>());
        }
    }
}
