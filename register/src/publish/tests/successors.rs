//! Two agents of one name: which of them goes on, and with what.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_successor_adopts_the_lease_and_writes_only_what_differs() {
    let store = FakeStore::new();
    let mut former = Agent::start(&store, "m1");
    former.publish(registrations([1, 2])).await;
    let (lease, before) = (store.leases(), store.entries("/backends/"));
    former.kill().await;

    let way = store.peer();
    let mut agent = Agent::start(&way, "m1");
    let claimed = timeout(Duration::from_secs(5), agent.state.wait_for(|p| p.found.is_some())).await.unwrap();
    assert_eq!(claimed.unwrap().found.as_ref().unwrap().len(), 2);
    agent.publish(registrations([1, 2])).await;
    assert_eq!(store.entries("/backends/"), before, "not even rewritten");
    assert_eq!(store.leases(), lease);
    assert_eq!(way.counts().writes(), 1, "the registrar's key alone");

    agent.publish(registrations([2])).await;
    assert_eq!((ids(&store), way.counts().deletes), (vec!["c2".to_owned()], 1));
    sleep(TTL * 3).await;
    assert_eq!(store.leases(), lease, "kept alive by the successor");
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_token_was_replaced_stands_down_and_leaves_the_lease() {
    let store = FakeStore::new();
    let mut former = Agent::start(&store.peer(), "m1");
    former.publish(registrations([1])).await;
    let mut agent = Agent::start(&store, "m1");
    agent.publish(registrations([1])).await;
    let error = former.error().await;
    assert!(matches!(error, PublishError::Claim(ClaimError::Replaced { .. })), "{error}");
    assert_eq!(ids(&store), ["c1"]);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_agent_that_was_cut_off_stands_down_when_it_returns() {
    let store = FakeStore::new();
    let way = store.peer();
    let mut former = Agent::start(&way, "m1");
    former.publish(registrations([1])).await;
    way.cut(Cut::Silent);
    sleep(TTL * 2).await;
    let mut agent = Agent::start(&store, "m1");
    agent.publish(registrations([2])).await;
    way.heal();
    let error = former.error().await;
    assert!(matches!(error, PublishError::Claim(ClaimError::Replaced { .. })), "{error}");
    assert_eq!(ids(&store), ["c2"]);
}

#[tokio::test(start_paused = true)]
async fn another_machine_of_the_same_name_does_not_start() {
    let store = FakeStore::new();
    let mut first = Agent::start(&store, "m1");
    first.publish(registrations([1])).await;
    let error = Agent::start(&store, "m2").error().await.to_string();
    assert!(error.contains("\"n1\"") && error.contains("\"m1\"") && error.contains("/registrars/n1"), "{error}");
    sleep(TTL * 2).await;
    assert_eq!(ids(&store), ["c1"], "the first is not disturbed");
}

#[tokio::test(start_paused = true)]
async fn a_restored_record_of_the_former_self_is_no_successor() {
    let store = FakeStore::new();
    let mut former = Agent::start(&store, "m1");
    former.publish(registrations([1])).await;
    let snapshot = store.snapshot();
    former.kill().await;
    let later = |s: &mut PublisherSettings| s.identity.started += Duration::from_secs(5);
    let mut agent = Agent::start_as(&store, "m1", later);
    agent.publish(registrations([1, 2])).await;
    store.restore(snapshot, true);
    sleep(Duration::from_secs(30)).await;
    assert!(!agent.task.is_finished(), "nobody has taken over");
    assert_eq!(ids(&store), ["c1", "c2"]);
}

/// The value of the agent's own key.
fn record(store: &FakeStore, key: &str) -> serde_json::Value {
    let entries = store.entries(key);
    serde_json::from_slice(&entries.iter().find(|e| *e.key == *key).unwrap().value).unwrap()
}

async fn waits(agent: &mut Agent) {
    let rival = timeout(Duration::from_secs(10), agent.state.wait_for(|p| p.rival.is_some())).await.unwrap().unwrap();
    let (said, _) = rival.rival.clone().unwrap();
    assert!(said.contains("/registrars/n1") && said.contains("--node-name"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn once_two_agents_of_one_name_met_the_next_one_waits_until_the_other_is_gone() {
    let store = FakeStore::new();
    let mut first = Agent::start(&store, "m1");
    first.publish(registrations([1])).await;
    let mut second = Agent::start(&store, "m1");
    second.publish(registrations([1])).await;
    first.error().await;
    let (lease, mark) = (store.leases(), record(&store, "/registrars/n1"));
    assert!(mark["contested"].is_string(), "{mark}");

    let way = store.peer();
    let mut third = Agent::start(&way, "m1");
    let wanted = third.want(registrations([1, 2]));
    waits(&mut third).await;
    sleep(TTL * 20).await;
    assert!(!third.task.is_finished() && third.state.borrow().phase == Phase::NoLease);
    assert_eq!((way.counts().writes(), record(&store, "/registrars/n1")), (0, mark), "the second is not disturbed");
    second.publish(registrations([3])).await;

    second.kill().await;
    third.published(&wanted).await;
    assert!(third.state.borrow().rival.is_none());
    assert_eq!((ids(&store), store.leases()), (vec!["c1".to_owned(), "c2".to_owned()], lease), "the lease never ended");
    let mut fourth = Agent::start(&store, "m1");
    waits(&mut fourth).await;
    sleep(TTL * 3).await;
    assert!(!third.task.is_finished() && !fourth.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_quarrel_of_long_ago_holds_nobody_up() {
    let store = FakeStore::new();
    let mut first = Agent::start(&store, "m1");
    first.publish(registrations([1])).await;
    let mut second = Agent::start(&store, "m1");
    second.publish(registrations([1])).await;
    first.error().await;
    let (key, lease) = ("/registrars/n1", store.leases()[0]);
    let mut marked = record(&store, key);
    marked["contested"] = "2020-01-01T00:00:00Z".into();
    second.kill().await;
    store.put_under(key, marked.to_string().as_bytes(), lease);
    let mut third = Agent::start(&store, "m1");
    let wanted = third.want(registrations([1]));
    timeout(Duration::from_millis(100), third.published(&wanted)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn agents_of_one_host_with_prefixes_of_their_own_do_not_meet() {
    let store = FakeStore::new();
    let with = |prefix: &'static str| {
        move |s: &mut PublisherSettings| {
            s.form.prefix = prefix.parse().unwrap();
            s.metadata = Some(Duration::from_secs(1));
        }
    };
    let mut agents = Vec::new();
    for prefix in ["/backends", "/ext", "/int"] {
        let mut agent = Agent::start_as(&store, "m1", with(prefix));
        agent.publish(registrations([1])).await;
        agents.push(agent);
    }
    sleep(TTL * 3).await;
    assert!(agents.iter().all(|agent| !agent.task.is_finished()));
    assert_eq!(store.leases().len(), 3);
    for dir in ["/registrars/", "/metadata/"] {
        let mut keys: Vec<_> = store.entries(dir).iter().map(|e| e.key.to_string()).collect();
        keys.sort();
        assert_eq!(keys, ["ext/n1", "int/n1", "n1"].map(|key| format!("{dir}{key}")));
    }
    for prefix in ["/backends/", "/ext/", "/int/"] {
        assert_eq!(store.entries(prefix).len(), 1, "{prefix}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_key_of_an_older_version_is_adopted_by_the_agent_of_its_prefix_alone() {
    for (of, adopted) in [("/ext", true), ("/backends", false)] {
        let store = FakeStore::new();
        let lease = store.grant(TTL).await.unwrap().id;
        let old = format!(
            r#"{{"machine_id":"m1","token":"t","lease":"1","version":"0","started":"2026-01-01T00:00:00Z","prefix":"{of}"}}"#
        );
        store.put_under("/registrars/n1", old.as_bytes(), lease);
        store.put_under("/ext/web/c1", *br#"{"host":"10.0.0.1","port":1,"name":"c1"}"#, lease);
        let mut agent = Agent::start_as(&store, "m1", |s| s.form.prefix = "/ext".parse().unwrap());
        let claimed = timeout(TTL, agent.state.wait_for(|p| p.found.is_some())).await.unwrap().unwrap().clone();
        assert_eq!((claimed.lease == Some(lease), claimed.found.unwrap().len()), (adopted, usize::from(adopted)));
        let token = |key: &str| record(&store, key)["token"].clone();
        assert_eq!(
            token("/registrars/n1") == token("/registrars/ext/n1"),
            adopted,
            "an old agent that lives hears of it"
        );
        agent.publish(registrations([2])).await;
        sleep(TTL * 3).await;
        assert!(!agent.task.is_finished());
        assert_eq!(store.entries("/registrars/").len(), if adopted { 2 } else { 1 }, "the other one's lease ran out");
    }
}
