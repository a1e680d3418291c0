//! The source against a scripted daemon: what a real one will not do on demand.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use agent::watch::{self, Inlet, Observation, Watcher};
use testing::docker_api::{DockerApi, Manner, event, id, running};

mod connections;
mod neighbours;
mod replies;

/// A client of this crate for a scripted daemon, with little patience.
pub(super) fn client_of(api: &DockerApi) -> Docker {
    Docker::new(&Endpoint::Unix(api.socket())).unwrap().with_patience(Duration::from_millis(500))
}

struct Lab {
    api: DockerApi,
    inlet: Inlet<Containers>,
    events: mpsc::Receiver<Event>,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), DockerError>>,
}

/// Long periods, so that a test sees what events do; the daemon is asked for a sign of life often, to notice that it hangs.
fn options() -> Options {
    Options { resync: Duration::from_secs(3600), probe: Duration::from_millis(100), ..Options::default() }
}

impl Lab {
    fn start(api: DockerApi, options: Options) -> Self {
        let client = client_of(&api);
        Self::with_client(api, client, options)
    }

    fn with_client(api: DockerApi, client: Docker, options: Options) -> Self {
        Self::of(api, client, options, 4096)
    }

    fn with_room(api: DockerApi, options: Options, room: usize) -> Self {
        let client = client_of(&api);
        Self::of(api, client, options, room)
    }

    fn of(api: DockerApi, client: Docker, options: Options, room: usize) -> Self {
        let (out, inlet) = watch::channel();
        let (sender, events) = mpsc::channel(room);
        let cancel = CancellationToken::new();
        let source = DockerSource::new(client, options).with_events(sender);
        let task = tokio::spawn(source.run(out, cancel.clone()));
        Self { api, inlet, events, cancel, task }
    }

    /// Waits until the observation is so.
    async fn until(&mut self, what: &str, so: impl Fn(&Observation<Containers>) -> bool) {
        let wait = self.inlet.wait_for(|observation| so(observation));
        if tokio::time::timeout(Duration::from_mins(1), wait).await.is_err() {
            panic!("not seen within a minute: {what}; instead {:?}", &*self.inlet.borrow());
        }
    }

    async fn until_running(&mut self, numbers: &[usize]) {
        let mut wanted: Vec<String> = numbers.iter().map(|n| id(*n)).collect();
        wanted.sort();
        self.until(&format!("{numbers:?} running"), |observation| names(observation) == Some(wanted.clone())).await;
    }

    async fn stop(self) {
        self.cancel.cancel();
        let end = tokio::time::timeout(Duration::from_secs(1), self.task).await;
        assert!(matches!(end, Ok(Ok(Ok(())))), "ends within a second of its cancellation: {end:?}");
    }
}

fn names(observation: &Observation<Containers>) -> Option<Vec<String>> {
    match observation {
        Observation::Synced { snapshot } => Some(snapshot.running.keys().map(|id| id.as_str().to_owned()).collect()),
        _ => None,
    }
}

#[tokio::test]
async fn the_first_picture_is_complete() {
    let api = DockerApi::start();
    (1..=50).for_each(|n| api.put(running(n, "web")));
    api.inspections_take(Duration::from_millis(2));
    let mut lab = Lab::start(api, options());
    lab.inlet.changed().await.unwrap();
    assert_eq!(names(&lab.inlet.borrow_and_update()).map(|names| names.len()), Some(50));
    lab.stop().await;
}

#[tokio::test]
async fn a_daemon_without_containers_is_an_empty_picture_and_not_a_pending_one() {
    let mut lab = Lab::start(DockerApi::start(), options());
    lab.until_running(&[]).await;
    lab.stop().await;
}

#[tokio::test]
async fn bursts_without_a_gap_lose_nothing() {
    let mut lab = Lab::start(DockerApi::start(), options());
    lab.until_running(&[]).await;
    let all: Vec<usize> = (1..=200).collect();
    all.iter().for_each(|n| lab.api.put(running(*n, "web")));
    let began = Instant::now();
    lab.api.emit(&all.iter().map(|n| event(*n, "start")).collect::<Vec<_>>());
    lab.until_running(&all).await;
    println!("200 starts in one packet: all known after {:?}", began.elapsed());
    // kill, die and stop of all of them, in one packet, and half are started again.
    let half: Vec<usize> = (1..=100).collect();
    (101..=200).for_each(|n| lab.api.remove(n));
    let mut burst: Vec<_> = all.iter().flat_map(|n| ["kill", "die", "stop"].map(|action| event(*n, action))).collect();
    burst.extend(half.iter().map(|n| event(*n, "start")));
    lab.api.emit(&burst);
    lab.until_running(&half).await;
    let mut kills = 0;
    while let Ok(event) = lab.events.try_recv() {
        kills += usize::from(event.kind == EventKind::Kill { signal: Some(15) });
    }
    assert_eq!(kills, 200, "every kill was passed on");
    lab.stop().await;
}

#[tokio::test]
async fn events_that_nobody_reads_for_a_while_are_all_passed_on_later_and_hold_up_no_picture() {
    let api = DockerApi::start();
    let all: Vec<usize> = (1..=1000).collect();
    all.iter().for_each(|n| api.put(running(*n, "web")));
    let mut lab = Lab::with_room(api, options(), 4);
    lab.until_running(&all).await;
    lab.api.remove(1000);
    let mut burst: Vec<_> = all.iter().map(|n| event(*n, "kill")).collect();
    burst.push(event(1000, "die"));
    lab.api.emit(&burst);
    lab.until_running(&all[..999]).await;
    let mut killed = std::collections::BTreeSet::new();
    while killed.len() < 1000 {
        let event = tokio::time::timeout(Duration::from_secs(10), lab.events.recv()).await.unwrap().unwrap();
        if event.kind == (EventKind::Kill { signal: Some(15) }) {
            killed.insert(event.container);
        }
    }
    lab.stop().await;
}

#[tokio::test]
async fn a_kill_is_passed_on_without_waiting_for_an_inspection() {
    let api = DockerApi::start();
    api.put(running(1, "web"));
    let mut lab = Lab::start(api, options());
    lab.until_running(&[1]).await;
    lab.api.inspections_take(Duration::from_secs(5));
    lab.api.emit(&[event(1, "rename"), event(1, "kill")]);
    let began = Instant::now();
    let first = lab.events.recv().await.unwrap();
    let second = lab.events.recv().await.unwrap();
    assert_eq!((first.kind, second.kind), (EventKind::Rename, EventKind::Kill { signal: Some(15) }));
    println!("kill passed on after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1));
    lab.stop().await;
}

#[tokio::test]
async fn an_inspection_from_before_the_death_does_not_bring_a_container_back() {
    let api = DockerApi::start();
    api.put(running(1, "web"));
    let mut lab = Lab::start(api, options());
    lab.until_running(&[1]).await;
    lab.api.inspections_take(Duration::from_millis(200));
    lab.api.emit(&[event(1, "update")]);
    let asked = lab.api.requests("/containers/");
    while lab.api.requests("/containers/") == asked {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lab.api.remove(1); // the answer under way still says running
    lab.api.emit(&[event(1, "die")]);
    lab.until_running(&[]).await;
    while lab.api.requests("/containers/") < asked + 2 {
        lab.inlet.mark_unchanged();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(names(&lab.inlet.borrow()), Some(vec![]), "it stays gone");
    }
    lab.stop().await;
}

#[tokio::test]
async fn what_no_event_told_is_found_by_the_next_list() {
    let api = DockerApi::start();
    (1..=3).for_each(|n| api.put(running(n, "web")));
    let mut lab = Lab::start(api, Options { resync: Duration::from_millis(50), ..options() });
    lab.until_running(&[1, 2, 3]).await;
    lab.api.put(running(4, "web"));
    lab.api.remove(1);
    let mut renamed = running(2, "web");
    renamed["Name"] = json!("/renamed");
    lab.api.put(renamed);
    lab.until_running(&[2, 3, 4]).await;
    lab.until("the new name", |o| o.snapshot().is_some_and(|s| s.running.values().any(|c| c.name == "renamed"))).await;
    // And what did not change is not looked at again.
    let quiet = async {
        loop {
            let (inspected, listed) = (lab.api.requests("/containers/0"), lab.api.requests("/containers/json"));
            while lab.api.requests("/containers/json") < listed + 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if lab.api.requests("/containers/0") == inspected {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), quiet).await.expect("lists alone cost no inspection");
    lab.stop().await;
}

#[tokio::test]
async fn a_daemon_that_goes_away_leaves_a_stale_picture_and_is_found_again() {
    let api = DockerApi::start();
    (1..=2).for_each(|n| api.put(running(n, "web")));
    let mut lab = Lab::start(api, options());
    lab.until_running(&[1, 2]).await;
    lab.api.go_away();
    lab.until("stale", |o| o.standing() == "stale" && o.snapshot().is_some_and(|s| s.running.len() == 2)).await;
    // Meanwhile one ended and one began, and no event will ever tell.
    lab.api.remove(1);
    lab.api.put(running(3, "web"));
    lab.api.listen();
    lab.until_running(&[2, 3]).await;
    lab.stop().await;
}

#[tokio::test]
async fn a_cut_stream_is_opened_again_and_everything_is_looked_at() {
    let api = DockerApi::start();
    api.put(running(1, "web"));
    let mut lab = Lab::start(api, options());
    lab.until_running(&[1]).await;
    lab.api.put(running(2, "web"));
    lab.api.cut();
    lab.until_running(&[1, 2]).await;
    lab.api.emit_raw("a proxy's words, and no JSON\n");
    lab.api.put(running(3, "web"));
    lab.until_running(&[1, 2, 3]).await;
    lab.stop().await;
}

#[tokio::test]
async fn a_daemon_that_hangs_is_noticed() {
    let api = DockerApi::start();
    api.put(running(1, "web"));
    let mut lab = Lab::start(api, options());
    lab.until_running(&[1]).await;
    lab.api.hang(true);
    lab.until("stale, and why", |o| o.error().is_some_and(|e| e.contains("did not answer"))).await;
    lab.api.hang(false);
    lab.until_running(&[1]).await;
    lab.stop().await;
}

#[tokio::test]
async fn without_a_daemon_nothing_is_known_and_the_reason_is_said() {
    let mut api = DockerApi::start();
    api.go_away();
    let mut lab = Lab::start(api, options());
    lab.until("pending, and why", |o| o.standing() == "pending" && o.error().is_some()).await;
    lab.api.listen();
    lab.until_running(&[]).await;
    lab.stop().await;
}

#[tokio::test]
async fn one_container_that_cannot_be_read_harms_no_other() {
    let api = DockerApi::start();
    (1..=3).for_each(|n| api.put(running(n, "web")));
    let mut broken = running(2, "web");
    broken["Config"] = json!(null);
    api.put(broken);
    api.inspections_of(3, Some(Manner::Answers(500)));
    let mut lab = Lab::start(api, options());
    lab.until_running(&[1]).await;
    let snapshot = lab.inlet.borrow().snapshot().unwrap().clone();
    let reasons: Vec<String> = snapshot.refused.values().map(|reason| reason.to_string()).collect();
    assert_eq!(reasons[0], "container 000000000002: Config is missing");
    assert!(reasons[1].starts_with("Docker answered 500") && reasons[1].ends_with("stumbled"), "{reasons:?}");
    lab.api.put(running(2, "web"));
    lab.api.emit(&[event(2, "start")]);
    lab.until_running(&[1, 2]).await;
    lab.api.inspections_of(3, None);
    lab.until_running(&[1, 2, 3]).await;
    // A new subscription, and again it stumbles: what is known of the container stays.
    lab.api.inspections_of(3, Some(Manner::Answers(500)));
    lab.api.put(running(4, "web"));
    lab.api.cut();
    lab.until_running(&[1, 2, 3, 4]).await;
    // It was described before and cannot be now: it stays as it was, and goes when it dies.
    let mut broken = running(2, "web");
    broken["Config"] = json!(null);
    lab.api.put(broken);
    lab.api.emit(&[event(2, "update")]);
    let is_refused =
        |o: &Observation<Containers>| o.snapshot().is_some_and(|s| s.refused.keys().any(|k| k.as_str() == id(2)));
    lab.until("one that cannot be described", is_refused).await;
    lab.until_running(&[1, 2, 3, 4]).await;
    lab.api.remove(2);
    lab.api.emit(&[event(2, "die")]);
    lab.until_running(&[1, 3, 4]).await;
    lab.stop().await;
}

#[tokio::test]
async fn words_that_nobody_knows_end_no_stream() {
    let api = DockerApi::start();
    api.put(running(1, "web"));
    let mut lab = Lab::start(api, options());
    lab.until_running(&[1]).await;
    let mut odd = running(2, "web");
    odd["State"]["Health"] = json!({"Status": "pondering"});
    lab.api.put(odd);
    lab.api.emit(&[
        json!({"Type": "pod", "Action": "start", "Actor": {"ID": "x"}}),
        event(1, "teleported"),
        json!({"Type": "container"}),
        event(2, "start"),
    ]);
    lab.until_running(&[1, 2]).await;
    assert_eq!(lab.api.requests("/events"), 1);
    lab.stop().await;
}

#[tokio::test]
async fn podmans_health_is_looked_at_without_an_event() {
    let api = DockerApi::start();
    api.be_podman();
    let with_health = |word: &str| {
        let mut container = running(1, "web");
        container["State"]["Health"] = json!({"Status": word});
        container
    };
    api.put(with_health("starting"));
    let mut lab = Lab::start(api, Options { podman_health: Duration::from_millis(20), ..options() });
    lab.until_running(&[1]).await;
    lab.api.put(with_health("healthy"));
    let healthy = Some(model::desired::Health::Healthy);
    lab.until("healthy", |o| o.snapshot().is_some_and(|s| s.running.values().all(|c| c.health == healthy))).await;
    lab.stop().await;
}

#[tokio::test]
async fn from_the_event_to_the_picture_it_takes_one_inspection() {
    let api = DockerApi::start();
    let mut lab = Lab::start(api, options());
    lab.until_running(&[]).await;
    let mut times = Vec::new();
    for n in 1..=50 {
        lab.api.put(running(n, "web"));
        let began = Instant::now();
        lab.api.emit(&[event(n, "start")]);
        lab.until("it", |o| o.snapshot().is_some_and(|s| s.running.len() == n)).await;
        times.push(began.elapsed());
        assert_eq!(lab.api.requests(&id(n)), 1, "inspections of container {n}");
    }
    times.sort();
    println!("start event to picture: p50 {:?}, p98 {:?}", times[25], times[48]);
    lab.stop().await;
}

#[tokio::test]
async fn an_endless_answer_is_an_error_with_its_request_and_leaves_what_was_known() {
    let api = DockerApi::start();
    api.put(running(1, "web"));
    let options = Options { resync: Duration::from_millis(50), ..options() };
    let patient = client_of(&api).with_patience(Duration::from_secs(20));
    let mut lab = Lab::with_client(api, patient, options);
    lab.until_running(&[1]).await;
    let before = testing::process::peak_memory();
    for (path, words) in [
        ("/containers/json", "GET /containers/json is above 64 MB"),
        ("/_ping", "GET /_ping is above 64 MB"),
        ("/events", "a line above 1 MB"),
    ] {
        lab.api.flood(Some(path));
        lab.api.cut();
        let told = |o: &Observation<Containers>| o.error().is_some_and(|error| error.contains(words));
        lab.until(words, told).await;
        let seen = lab.inlet.borrow().snapshot().map(|known| known.running.len());
        assert_eq!(seen, Some(1), "what was known stays");
        lab.api.flood(None);
        lab.until("synced again", |o| matches!(o, Observation::Synced { .. })).await;
    }
    let grown = testing::process::peak_memory().saturating_sub(before);
    assert!(grown < 400 << 20, "{grown} bytes more at the most");
    lab.stop().await;
}
