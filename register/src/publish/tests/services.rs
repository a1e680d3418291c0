//! Services of a config, with keys numbered as Nerve has them.

use super::*;

/// Services without Docker, by name, each in a directory of its own, outside of the containers' prefix.
fn services(wants: &[(&str, Want)]) -> Slots {
    let one = |(name, want): &(&str, Want)| {
        let slot = Slot { service: (*name).into(), directory: format!("/nerve/{name}/i-1/").into() };
        (slot, want.clone())
    };
    wants.iter().map(one).collect()
}

fn values(store: &FakeStore) -> Vec<String> {
    let of = |e: registry::store::Entry| format!("{} {}", e.key, String::from_utf8_lossy(&e.value));
    store.entries("/nerve/").into_iter().map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn services_hang_on_the_containers_lease_keep_their_keys_over_a_restart_and_say_goodbye() {
    let store = FakeStore::new();
    let mut agent = Agent::start(&store, "m1");
    agent.publish(registrations([1])).await;
    let (a, b) = (r#"{"host":"h","port":1}"#, r#"{"host":"h","port":2,"weight":3}"#);
    let first = services(&[("a", Want::Publish(a.into())), ("b", Want::Publish(r#"{"host":"h","port":2}"#.into()))]);
    agent.services.send_replace(Arc::new(first));
    timeout(TTL, agent.state.wait_for(|p| p.slots.len() == 2)).await.unwrap().unwrap();
    assert_eq!(store.leases().len(), 1, "one lease for everything");
    let before = values(&store);
    assert!(before.len() == 2 && before[0].starts_with("/nerve/a/i-1/0000000000000000"), "{before:?}");

    // Killed and started again: nothing is known yet of a, b is of another weight, and nothing is known of containers.
    agent.kill().await;
    let known = services(&[("a", Want::Leave(a.into())), ("b", Want::Publish(b.into()))]);
    let mut agent = Agent::start_with(&store, "m1", |_| {}, known);
    timeout(TTL, agent.state.wait_for(|p| p.slots.len() == 2)).await.unwrap().unwrap();
    let after = values(&store);
    assert_eq!(after[0], before[0]);
    assert_eq!(after[1], before[1].replace("2}", r#"2,"weight":3}"#), "the same key");
    assert_eq!(ids(&store), ["c1"], "containers are not known, and so nothing is done about them");

    // b fails: it goes, and nobody takes it for a lease that ran out.
    let at = store.position("/").await.unwrap();
    let mut watch = store.watch("/nerve/b/", at).await.unwrap();
    agent.services.send_replace(Arc::new(services(&[("a", Want::Publish(a.into()))])));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let batch = timeout(TTL, registry::store::WatchStream::next(&mut watch)).await.unwrap().unwrap();
        seen.extend(batch.changes.into_iter().map(|change| match change {
            registry::store::Change::Put(entry) => String::from_utf8_lossy(&entry.value).into_owned(),
            registry::store::Change::Delete { .. } => "deleted".to_owned(),
        }));
    }
    assert_eq!(seen, [r#"{"host":"h","port":2,"weight":3,"status":"draining"}"#, "deleted"]);
    sleep(Duration::from_secs(90)).await;
    assert_eq!(values(&store), before[..1], "kept alive, and a dead one stays dead");
}

#[tokio::test(start_paused = true)]
async fn a_number_that_somebody_else_has_is_left_to_him() {
    let store = FakeStore::new();
    let mut agent = Agent::start(&store, "m1");
    agent.publish(registrations([])).await;
    let newest = store.position("/").await.unwrap().revision.0;
    // The next numbers are taken already, by who knows whom.
    for number in newest + 1..newest + 4 {
        store.put(format!("/nerve/a/i-1/{number:020}"), *b"mine");
    }
    agent.services.send_replace(Arc::new(services(&[("a", Want::Publish("{}".into()))])));
    timeout(TTL, agent.state.wait_for(|p| p.slots.len() == 1)).await.unwrap().unwrap();
    let values = values(&store);
    assert_eq!(values.iter().filter(|v| v.ends_with(" mine")).count(), 3, "{values:?}");
    assert_eq!(values.len(), 4, "{values:?}");
}
