//! One container that cannot be described costs the others nothing, and a daemon that falls silent revives none.

use super::*;

/// The client's usual patience: an inspection's own deadline is the shorter one.
fn patient(api: &DockerApi) -> Docker {
    client_of(api).with_patience(Duration::from_secs(10))
}

fn is_refused(observation: &Observation<Containers>, number: usize, words: &str) -> bool {
    let reason = |s: &std::sync::Arc<Containers>| s.refused.get(id(number).as_str()).cloned();
    observation.snapshot().and_then(reason).is_some_and(|reason| reason.contains(words))
}

const MANNERS: [(Manner, &str, &str); 4] = [
    (Manner::Hangs, "Docker has not described c1 yet", "Docker has not described c1 for "),
    (Manner::Takes(Duration::from_secs(8)), "Docker has not described c1 yet", "Docker has not described c1 for "),
    (Manner::Answers(500), "Docker answered 500", "stumbled"),
    (Manner::Answers(403), "Docker answered 403", "stumbled"),
];

#[tokio::test]
async fn at_the_start_one_that_is_not_described_is_shown_and_the_others_are_known_after_a_second() {
    for (manner, first, later) in MANNERS {
        let api = DockerApi::start();
        (1..=100).for_each(|n| api.put(running(n, "web")));
        // A stranger without ports is no other case.
        let mut stranger = running(1, "web");
        stranger["NetworkSettings"]["Ports"] = json!({});
        stranger["Config"]["ExposedPorts"] = json!({});
        api.put(stranger);
        api.inspections_of(1, Some(manner));
        let (client, began) = (patient(&api), Instant::now());
        let mut lab = Lab::with_client(api, client, options());
        let others: Vec<usize> = (2..=100).collect();
        lab.until_running(&others).await;
        println!("{manner:?}: the first picture after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(4), "{manner:?}: {:?}", began.elapsed());
        assert!(is_refused(&lab.inlet.borrow(), 1, first), "{manner:?}: {:?}", lab.inlet.borrow());
        lab.until(later, |o| is_refused(o, 1, later)).await;
        lab.api.inspections_of(1, None);
        let all: Vec<usize> = (1..=100).collect();
        lab.until_running(&all).await;
        assert!(lab.inlet.borrow().snapshot().unwrap().refused.is_empty());
        lab.stop().await;
    }
}

#[tokio::test]
async fn later_one_that_is_not_described_stays_as_it_was_until_its_end_and_holds_up_nobody() {
    for (manner, _, words) in MANNERS {
        let api = DockerApi::start();
        (1..=3).for_each(|n| api.put(running(n, "web")));
        let client = patient(&api);
        let mut lab = Lab::with_client(api, client, options());
        lab.until_running(&[1, 2, 3]).await;
        lab.api.inspections_of(1, Some(manner));
        lab.api.emit(&[event(1, "rename"), event(1, "update")]);
        lab.until(words, |o| is_refused(o, 1, words)).await;
        lab.until_running(&[1, 2, 3]).await;
        // Starts, ends and signals of others count as ever, and so does its own end.
        let began = Instant::now();
        lab.api.put(running(4, "web"));
        lab.api.remove(2);
        lab.api.emit(&[event(4, "start"), event(2, "die")]);
        lab.until_running(&[1, 3, 4]).await;
        lab.api.emit(&[event(1, "kill"), event(1, "die")]);
        lab.until_running(&[3, 4]).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{manner:?}: {:?}", began.elapsed());
        let kill = EventKind::Kill { signal: Some(15) };
        let mut events = std::iter::from_fn(|| lab.events.try_recv().ok());
        assert!(events.any(|event| event.kind == kill), "{manner:?}");
        // Its end was told: that nobody describes it now does not bring it back.
        tokio::time::sleep(Duration::from_millis(2_200)).await;
        assert!(!is_refused(&lab.inlet.borrow(), 1, ""), "{manner:?}: {:?}", lab.inlet.borrow());
        assert_eq!(lab.api.requests("/events"), 1, "one subscription all the while");
        lab.api.inspections_of(1, None);
        lab.api.emit(&[event(1, "start")]);
        lab.until_running(&[1, 3, 4]).await;
        lab.stop().await;
    }
}

#[tokio::test]
async fn twenty_that_hang_keep_their_places_for_a_moment_only() {
    let api = DockerApi::start();
    (1..=60).for_each(|n| api.put(running(n, "web")));
    (1..=20).for_each(|n| api.inspections_of(n, Some(Manner::Hangs)));
    let (client, began) = (patient(&api), Instant::now());
    let mut lab = Lab::with_client(api, client, options());
    let others: Vec<usize> = (21..=60).collect();
    lab.until_running(&others).await;
    println!("20 of 60 hang: the first picture after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(4));
    assert_eq!(lab.inlet.borrow().snapshot().unwrap().refused.len(), 20);
    lab.stop().await;
}

#[tokio::test]
async fn an_end_counts_before_the_first_picture_of_a_new_subscription() {
    let api = DockerApi::start();
    (1..=2).for_each(|n| api.put(running(n, "web")));
    let client = patient(&api);
    let mut lab = Lab::with_client(api, client, Options { probe: Duration::from_secs(3600), ..options() });
    lab.until_running(&[1, 2]).await;
    (1..=2).for_each(|n| lab.api.inspections_of(n, Some(Manner::Hangs)));
    lab.api.cut();
    lab.until("stale", |o| o.standing() == "stale").await;
    while lab.api.streams() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lab.api.emit(&[event(1, "die")]);
    let alone = |o: &Observation<Containers>| o.snapshot().is_some_and(|s| s.running.len() == 1);
    let began = Instant::now();
    lab.until("one alone, and stale", |o| o.standing() == "stale" && alone(o)).await;
    assert!(began.elapsed() < Duration::from_millis(800), "{:?}", began.elapsed());
    lab.until_running(&[2]).await;
    lab.stop().await;
}

#[tokio::test]
async fn an_event_that_is_not_whole_after_two_seconds_is_a_broken_stream() {
    let api = DockerApi::start();
    api.put(running(1, "web"));
    let mut lab = Lab::start(api, options());
    lab.until_running(&[1]).await;
    let whole = event(1, "update").to_string();
    // In parts, but in time.
    for part in [&whole[..20], &whole[20..], "\n"] {
        lab.api.emit_raw(part);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!((lab.api.requests("/events"), lab.inlet.borrow().standing()), (1, "synced"));
    // Cut after a whole one, and left open; what happens behind it nobody tells.
    lab.api.emit_raw(&format!("{whole}\n{}", &whole[..20]));
    lab.api.put(running(2, "web"));
    let began = Instant::now();
    lab.until("the fault", |o| o.error().is_some_and(|e| e.contains("in the middle of an event"))).await;
    println!("half an event was noticed after {:?}", began.elapsed());
    assert!((1_900..4_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    lab.until_running(&[1, 2]).await;
    lab.stop().await;
}
