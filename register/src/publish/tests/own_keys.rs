//! Whose a key is: hands and other agents at it.

use registry::store::{Entry, Fault, LeaseId, Operation};

use super::*;

/// An agent of another host.
fn other_host(settings: &mut PublisherSettings) {
    let node: model::NodeName = "n2".parse().unwrap();
    (settings.form.node, settings.identity.node) = (node.clone(), node);
}

/// Registrations as `registrations` has them, at another address.
fn elsewhere(ports: impl IntoIterator<Item = u16>) -> Registrations {
    let mut all = registrations(ports);
    all.values_mut().for_each(|backend| backend.host = "10.6.6.6".parse().unwrap());
    all
}

fn hosts(store: &FakeStore) -> Vec<String> {
    let host = |e: Entry| String::from_utf8_lossy(&e.value).contains("10.6.6.6");
    store
        .entries("/backends/")
        .into_iter()
        .map(|e| if host(e) { "other".to_owned() } else { "own".to_owned() })
        .collect()
}

async fn until(what: &str, most: Duration, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(most, wait).await.unwrap_or_else(|_| panic!("not within {most:?}: {what}"));
}

async fn refuses(agent: &mut Agent, keys: usize) -> Publication {
    let state = timeout(Duration::from_secs(5), agent.state.wait_for(|p| p.refused.len() == keys)).await;
    state.unwrap_or_else(|_| panic!("not {keys} refused")).unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn what_a_hand_deletes_or_changes_is_back_within_a_second() {
    let store = FakeStore::new();
    let mut agent = Agent::start(&store, "m1");
    agent.publish(registrations([1, 2, 3])).await;
    let (lease, third) = (store.leases()[0], store.entries("/backends/web/c3"));
    let values = || -> Vec<_> { store.entries("/backends/").into_iter().map(|e| (e.key, e.value)).collect() };
    let (mut before, intact) = (values(), |e: &Entry| e.lease == Some(lease));
    before.sort();
    let same = || {
        let mut now = values();
        now.sort();
        now == before && store.entries("/backends/").iter().all(intact)
    };
    let stranger = store.grant(Duration::from_secs(600)).await.unwrap().id;
    for hand in 0..5 {
        sleep(Duration::from_secs(130)).await; // what went before is forgotten
        match hand {
            0 => drop(store.delete("/backends/web/c1")),
            1 => drop(store.put("/backends/web/c2", *b"nonsense")),
            2 => store.put_under("/backends/web/c2", *b"nonsense", stranger),
            3 => store.put_under("/backends/web/c2", *b"nonsense", lease),
            // The same value, and nobody keeps it alive.
            _ => drop(store.put("/backends/web/c1", store.entries("/backends/web/c1")[0].value.clone())),
        }
        assert!(!same());
        until("all are back", Duration::from_secs(1), same).await;
    }
    assert_eq!(store.entries("/backends/web/c3"), third, "the third is not touched");
}

#[tokio::test(start_paused = true)]
async fn two_thousand_keys_are_back_within_three_seconds_and_an_idle_agent_asks_seldom() {
    let store = FakeStore::new();
    let way = store.peer();
    let mut agent = Agent::start(&way, "m1");
    agent.publish(registrations(1..=2000)).await;
    sleep(Duration::from_secs(1)).await;
    let before = way.counts();
    for entry in store.entries("/backends/") {
        store.delete(entry.key);
    }
    until("2,000 keys", Duration::from_secs(3), || ids(&store).len() == 2000).await;
    let (after, lease) = (way.counts(), store.leases());
    assert!(after.puts - before.puts == 2000 && after.txns - before.txns <= 18, "{before:?} {after:?}");
    assert_eq!(lease.len(), 1);
    sleep(Duration::from_secs(60)).await;
    let idle = way.counts();
    assert!(
        idle.txns - after.txns <= 34 && idle.gets == after.gets && idle.lists - after.lists <= 1,
        "{after:?} {idle:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_of_another_agent_is_never_written_or_deleted_whoever_came_first_by_name() {
    for turned in [false, true] {
        let store = FakeStore::new();
        let [first, second]: [fn(&mut PublisherSettings); 2] =
            if turned { [other_host, |_| {}] } else { [|_| {}, other_host] };
        let mut a = Agent::start_as(&store, "m1", first);
        a.publish(registrations([1])).await;
        let before = store.entries("/backends/");
        let mut b = Agent::start_as(&store, "m2", second);
        // One that is refused does not keep the others from being written.
        b.want(elsewhere(1..=300));
        let refused = refuses(&mut b, 1).await;
        until("the others", Duration::from_secs(5), || ids(&store).len() == 300).await;
        let (key, refusal) = refused.refused.first_key_value().unwrap();
        assert_eq!((&**key, refusal.registration.as_ref().unwrap().1.as_str()), ("/backends/web/c1", "c1"));
        let holder = if turned { "registrar n2" } else { "registrar n1" };
        assert!(refusal.holder.contains(holder), "{refusal:?}");
        let published = timeout(TTL, b.state.wait_for(|p| p.phase == Phase::Published)).await.unwrap().unwrap().clone();
        assert_eq!(published.published.unwrap().len(), 299, "it does not serve");
        // It drains, it changes, it goes, it comes back: nothing of that touches the other's key.
        let mut draining = elsewhere(1..=2);
        draining.values_mut().for_each(|backend| backend.status = Status::Draining);
        b.want(draining);
        sleep(TTL).await;
        b.want(elsewhere([]));
        sleep(TTL).await;
        b.want(elsewhere([1]));
        refuses(&mut b, 1).await;
        b.kill().await;
        let mut b = Agent::start_as(&store, "m2", second);
        b.want(elsewhere([1]));
        refuses(&mut b, 1).await;
        assert_eq!(store.entries("/backends/"), before);
        // The other one restarts meanwhile, and takes its own again.
        a.kill().await;
        let mut a = Agent::start_as(&store, "m1", first);
        a.publish(registrations([1])).await;
        assert_eq!(store.entries("/backends/"), before);
        // A hand may delete it: its holder is not slower than the one who waits, or else the other keeps it from then on.
        a.publish(registrations([])).await;
        until("it is free", Duration::from_secs(1), || hosts(&store) == ["other"]).await;
        refuses(&mut b, 0).await;
        a.want(registrations([1]));
        refuses(&mut a, 1).await;
        b.kill().await;
        until("the lease ran out", TTL * 2, || hosts(&store) == ["own"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_without_a_lease_that_a_hand_made_is_left_alone_until_it_goes() {
    let store = FakeStore::new();
    let made = store.put("/backends/web/c1", *b"10.0.0.9:1");
    let mut agent = Agent::start(&store, "m1");
    agent.want(registrations([1, 2]));
    let refused = refuses(&mut agent, 1).await;
    assert!(refused.refused.values().all(|r| r.holder.contains("by hand")), "{:?}", refused.refused);
    assert_eq!((ids(&store).len(), store.entries("/backends/web/c1")[0].modified), (2, made));
    agent.publish(registrations([])).await;
    assert_eq!(ids(&store), ["c1"], "nor is it deleted");
    agent.want(registrations([1]));
    refuses(&mut agent, 1).await;
    store.delete("/backends/web/c1");
    let ours = || store.entries("/backends/web/c1").iter().any(|e| e.lease.is_some());
    until("it is ours", Duration::from_secs(1), ours).await;
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_does_not_stop_is_fought_with_growing_pauses() {
    let store = FakeStore::new();
    let way = store.peer();
    let mut agent = Agent::start(&way, "m1");
    agent.publish(registrations([1, 2])).await;
    let before = way.counts().puts;
    for _ in 0..6000 {
        store.put("/backends/web/c1", *b"nonsense");
        sleep(Duration::from_millis(100)).await;
        if way.counts().puts - before == 30 {
            break;
        }
    }
    let rewrites = way.counts().puts - before;
    assert!((10..30).contains(&rewrites), "{rewrites} in ten minutes");
    // Others are served at once meanwhile.
    store.put("/backends/web/c1", *b"nonsense");
    agent.publish(registrations([1, 3])).await;
    assert_eq!(ids(&store), ["c1", "c3"]);
    until("peace", Duration::from_secs(70), || store.entries("/backends/web/c1")[0].lease.is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_deaf_agent_reads_its_keys_back() {
    let store = FakeStore::new();
    let way = store.peer();
    let mut agent = Agent::start(&way, "m1");
    agent.publish(registrations([1, 2])).await;
    for fault in [Fault::Ended("x".into()), Fault::Compacted { at: registry::store::Revision(1) }] {
        way.fail_next(Operation::Watch, fault.clone());
        way.cancel_watches(Fault::Ended("x".into()));
        store.delete("/backends/web/c1");
        until("it is back", Duration::from_secs(5), || ids(&store).len() == 2).await;
        sleep(Duration::from_secs(130)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_few_operations_in_one_transaction_gets_few() {
    for most in [1, 7, 8] {
        let store = FakeStore::new();
        store.limit_txns(most);
        let way = store.peer();
        let mut agent = Agent::start(&way, "m1");
        agent.publish(registrations(1..=100)).await;
        assert_eq!(ids(&store).len(), 100);
        let before = way.counts().txns;
        agent.publish(registrations(51..=110)).await;
        let (wanted, txns) = (60_usize.div_ceil(most / 2 + 1), usize::try_from(way.counts().txns - before).unwrap());
        assert!(ids(&store).len() == 60 && txns <= wanted * 2, "{txns} for {most}: it is remembered");
        store.delete("/backends/web/c60");
        until("it is back", Duration::from_secs(1), || ids(&store).len() == 60).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hand_at_the_registrars_key_changes_no_lease_and_rewrites_nothing() {
    for hand in 0..2 {
        let store = FakeStore::new();
        let mut agent = Agent::start(&store, "m1");
        agent.publish(registrations(1..=20)).await;
        let before = (store.entries("/backends/"), store.leases());
        if hand == 0 {
            store.delete("/registrars/n1");
        } else {
            store.put("/registrars/n1", *b"nonsense");
        }
        let is_back = || store.entries("/registrars/").iter().any(|e| e.lease.is_some());
        until("the claim is back", Duration::from_secs(1), is_back).await;
        sleep(TTL * 2).await;
        assert_eq!((store.entries("/backends/"), store.leases()), before);
        agent.publish(registrations([7])).await;
        assert_eq!(ids(&store), ["c7"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_nothing_behind_and_takes_nobody_elses() {
    for lost in 0..4 {
        let store = FakeStore::new();
        let way = store.peer();
        let mut agent = Agent::start(&way, "m1");
        agent.publish(registrations([1, 2])).await;
        way.lose_next_answer(Operation::Txn);
        match lost {
            0 => agent.publish(registrations([1, 2, 3])).await,
            1 => agent.publish(registrations([2])).await,
            // It was made, nobody knows of it, and it is not wanted any more.
            2 => {
                agent.want(registrations([1, 2, 3]));
                sleep(Duration::from_millis(10)).await;
                agent.publish(registrations([1, 2])).await;
            }
            _ => agent.publish(registrations([5])).await,
        }
        sleep(TTL).await;
        let expected: &[&str] = [&["c1", "c2", "c3"][..], &["c2"], &["c1", "c2"], &["c5"]][lost];
        assert_eq!(ids(&store), expected);
        assert!(agent.state.borrow().refused.is_empty());
        agent.kill().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shared_port_key_is_written_by_the_first_and_by_the_next_when_that_one_goes() {
    let store = FakeStore::new();
    let port = |mut registrations: Registrations, port: u16| -> Registrations {
        registrations.values_mut().for_each(|backend| backend.service_port = Port::new(port));
        registrations
    };
    let shared = || store.entries("/backends/web/port").first().map(|e| String::from_utf8_lossy(&e.value).into_owned());
    let mut a = Agent::start_as(&store, "m1", |s| s.form.service_ports = true);
    a.publish(port(registrations([1]), 80)).await;
    let mut b = Agent::start_as(&store, "m2", |s| {
        other_host(s);
        s.form.service_ports = true;
    });
    b.publish(port(registrations([2]), 81)).await;
    assert_eq!(shared().as_deref(), Some("80"));
    let lease = |key: &str| -> Option<LeaseId> { store.entries(key).first().and_then(|e| e.lease) };
    assert_eq!(lease("/backends/web/port"), lease("/backends/web/c1"));
    assert!(b.state.borrow().refused.is_empty(), "nobody is refused anything");
    a.publish(registrations([])).await;
    until("the other's", Duration::from_secs(1), || shared().as_deref() == Some("81")).await;
    b.publish(registrations([])).await;
    until("nobody's", Duration::from_secs(1), || shared().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn watches_that_fall_silent_again_and_again_are_no_trouble() {
    let store = FakeStore::new();
    let mut agent = Agent::start(&store, "m1");
    agent.publish(registrations([1])).await;
    for _ in 0..5 {
        sleep(Duration::from_secs(35)).await;
        agent.state.mark_unchanged();
        store.cancel_watches(Fault::Idle(Duration::from_secs(35)));
        let heard = timeout(Duration::from_secs(1), agent.state.wait_for(|p| p.away.is_some())).await;
        assert!(heard.is_err(), "the registry is said not to serve");
    }
    store.delete("/registrars/n1");
    until("the key is watched all the same", Duration::from_secs(1), || !store.entries("/registrars/n1").is_empty())
        .await;
}
