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
