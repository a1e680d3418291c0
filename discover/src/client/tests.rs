//! The client over a registry in memory.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Changes, Client};
use model::{Prefix, ServiceName};
use registry::store::{Op, Revision, Store};
use testing::fake::{Cut, FakeStore};

const SOON: Duration = Duration::from_secs(60);

fn client(store: &FakeStore) -> Client<FakeStore> {
    Client::registry(store.peer(), Prefix::default())
}

fn changes(store: &FakeStore, after: Option<i64>) -> Changes<FakeStore> {
    client(store).changes(after.map(Revision)).unwrap()
}

/// The next line, each backend by its address and status alone.
async fn line(changes: &mut Changes<FakeStore>) -> Value {
    let told = timeout(SOON, changes.next()).await.expect("a change").unwrap();
    brief(serde_json::to_value(told).unwrap())
}

fn brief(value: Value) -> Value {
    match value {
        Value::Object(b) if b.contains_key("host") => {
            let status = b["status"].as_str().filter(|s| *s != "up").map(|s| format!(" {s}")).unwrap_or_default();
            format!("{}:{}{status}", b["host"].as_str().unwrap(), b["port"]).into()
        }
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, brief(v))).collect(),
        Value::Array(all) => all.into_iter().map(brief).collect(),
        other => other,
    }
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_whole_state_comes_first_then_each_change() {
    let store = FakeStore::new();
    let r = store.put("/backends/web/a", *b"h1:80").0;
    let mut watching = changes(&store, None);
    assert_eq!(line(&mut watching).await, json!({"revision": r, "services": {"web": ["h1:80"]}}));
    store.put("/backends/web/b", *b"h2:80");
    assert_eq!(line(&mut watching).await, json!({"revision": r + 1, "service": "web", "added": ["h2:80"], "live": 2}));
    store.put("/backends/web/b", *br#"{"host":"h2","port":80,"status":"draining"}"#);
    let draining = json!({"revision": r + 2, "service": "web", "changed": ["h2:80 draining"], "live": 1});
    assert_eq!(line(&mut watching).await, draining);
    store.delete("/backends/web/b");
    store.delete("/backends/web/a");
    let gone = json!({"revision": r + 3, "service": "web", "removed": ["h2:80 draining"], "live": 1});
    assert_eq!(line(&mut watching).await, gone);
    assert_eq!(line(&mut watching).await["live"], 0);
}

#[tokio::test(start_paused = true)]
async fn resumed_at_a_revision_it_tells_each_one_after_it() {
    let store = FakeStore::new();
    let r = store.put("/backends/web/a", *b"h1:80").0;
    store.put("/backends/web/b", *b"h2:80");
    store.put("/backends/db/a", *b"h3:5432");
    store.delete("/backends/web/b");
    let mut watching = changes(&store, Some(r)).only([name("web")]);
    assert_eq!(line(&mut watching).await, json!({"revision": r + 1, "service": "web", "added": ["h2:80"], "live": 2}));
    assert_eq!(
        line(&mut watching).await,
        json!({"revision": r + 3, "service": "web", "removed": ["h2:80"], "live": 1})
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_compacted_or_never_was_gives_the_whole_state_and_says_why() {
    let store = FakeStore::new();
    let old = store.put("/backends/web/a", *b"h1:80");
    let now = store.put("/backends/web/a", *b"h2:80");
    store.compact(now);
    let mut watching = changes(&store, Some(old.0));
    let whole = json!({"revision": now.0, "reset": "compacted", "services": {"web": ["h2:80"]}});
    assert_eq!(line(&mut watching).await, whole);
    store.put("/backends/web/b", *b"h3:80");
    assert_eq!(line(&mut watching).await["added"], json!(["h3:80"]));
    let mut watching = changes(&store, Some(now.0 + 1_000));
    assert_eq!(line(&mut watching).await["reset"], "rewound");
}

#[tokio::test(start_paused = true)]
async fn a_compaction_during_an_outage_is_told_as_a_change_and_another_cluster_as_a_whole() {
    let store = FakeStore::new();
    let peer = store.peer();
    store.put("/backends/web/a", *b"h1:80");
    let empty = FakeStore::new().snapshot();
    let mut watching = Client::registry(peer.clone(), Prefix::default()).changes(None).unwrap();
    line(&mut watching).await;
    peer.cut(Cut::Refused);
    assert!(timeout(Duration::from_secs(30), watching.next()).await.is_err(), "an outage is no change");
    store.delete("/backends/web/a");
    store.put("/backends/web/b", *b"h2:80");
    let now = store.put("/backends/db/c", *b"h3:80");
    store.compact(now);
    peer.heal();
    assert_eq!(line(&mut watching).await, json!({"revision": now.0, "service": "db", "added": ["h3:80"], "live": 1}));
    let web = json!({"revision": now.0, "service": "web", "added": ["h2:80"], "removed": ["h1:80"], "live": 1});
    assert_eq!(line(&mut watching).await, web);
    store.restore(empty, true);
    store.put("/backends/new/a", *b"h9:80");
    let mut whole = line(&mut watching).await;
    while whole.get("reset").is_none() || whole["services"] == json!({}) {
        whole = line(&mut watching).await;
    }
    assert_eq!(whole["services"], json!({"new": ["h9:80"]}));
}

#[tokio::test(start_paused = true)]
async fn a_view_waits_for_live_backends_and_keeps_them_while_the_registry_fails() {
    let store = FakeStore::new();
    let peer = store.peer();
    let mut view = Client::registry(peer.clone(), Prefix::default()).view();
    let web = name("web");
    store.put("/backends/web/a", *br#"{"host":"h1","port":80,"status":"draining"}"#);
    assert!(timeout(SOON, view.wait_for(|s| s.live(&web).count() >= 1)).await.is_err(), "it drains");
    store.put("/backends/web/b", *b"h2:80");
    timeout(SOON, view.wait_for(|s| s.live(&web).count() >= 1)).await.unwrap().unwrap();
    assert_eq!(view.services().live(&web).map(|b| b.address()).collect::<Vec<_>>(), ["h2:80"]);
    peer.cut(Cut::Refused);
    while view.error().is_none() {
        timeout(SOON, view.changed()).await.unwrap().unwrap();
    }
    assert_eq!(view.services().live(&web).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_one_change_of_each_service() {
    let store = FakeStore::new();
    let mut watching = changes(&store, None);
    assert_eq!(line(&mut watching).await["services"], json!({}));
    let put = |key: &str| Op::put(key, *b"h:80", None);
    store.txn(Vec::new(), vec![put("/backends/b/1"), put("/backends/b/2"), put("/backends/a/1")]).await.unwrap();
    let (a, b) = (line(&mut watching).await, line(&mut watching).await);
    assert_eq!((a["service"].as_str(), b["service"].as_str()), (Some("a"), Some("b")));
    assert_eq!((&a["revision"], b["added"].as_array().unwrap().len()), (&b["revision"], 2));
}

mod laws {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::changes::difference;
    use model::{Backend, Pool, ServiceMap};

    prop_compose! {
        fn any_map()(raw in prop::collection::btree_map(0u8..5, prop::collection::btree_map(0u8..5, 1u16..4, 0..5), 0..5)) -> ServiceMap {
            let backend = |(id, port): (u8, u16)| {
                let host = "127.0.0.1".parse().unwrap();
                Arc::new(Backend::new(format!("b{id}").parse().unwrap(), host, port.try_into().unwrap()))
            };
            let pool = |pool: BTreeMap<u8, u16>| Arc::new(pool.into_iter().map(backend).collect::<Pool>());
            raw.into_iter().map(|(s, p)| (format!("s{s}").parse().unwrap(), pool(p))).collect()
        }
    }

    proptest! {
        #[test]
        fn what_is_told_leads_from_one_state_to_the_next(old in any_map(), new in any_map()) {
            let mut map = old.clone();
            for change in difference(&old, &new, &BTreeSet::new(), 1) {
                let pool = map.remove(&change.service).unwrap_or_default();
                let gone: BTreeSet<_> = change.removed.iter().chain(&change.changed).map(|b| b.id.clone()).collect();
                let kept = pool.backends().iter().filter(|b| !gone.contains(&b.id)).cloned();
                let pool: Pool = kept.chain(change.changed).chain(change.added).collect();
                prop_assert_eq!(change.live, pool.len());
                map.insert(change.service, Arc::new(pool));
            }
            map.retain(|_, pool| !pool.is_empty());
            let mut new = new;
            new.retain(|_, pool| !pool.is_empty());
            prop_assert_eq!(map, new);
        }
    }
}
