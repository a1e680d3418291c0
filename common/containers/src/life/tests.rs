//! A container that was asked to stop takes clients again only when it is known to have outlived that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::keeper::Keeper;
use super::verdict::RowState;
use crate::docker::{Containers, Docker, Event, EventKind, Options, parse_container};
use crate::docker::{DockerSource, Endpoint};
use crate::readiness::{Readiness, ReadyMode};
use agent::watch::{Observation, Outlet, Watcher, channel};
use model::desired::{ContainerId, Settings};
use testing::docker_api::{DockerApi, Manner, event, id, running};
use tokio_util::sync::CancellationToken;

/// Container 1 drains for a second.
fn stopping() -> serde_json::Value {
    let mut container = running(1, "web");
    container["Config"]["Labels"] = serde_json::json!({"register.drain": "1s"});
    container
}

fn keeper(
    containers: agent::watch::Inlet<Containers>,
    events: mpsc::Receiver<Event>,
    docker: Option<Docker>,
) -> Keeper {
    let settings =
        Settings { host_ip: Some("192.0.2.1".parse().unwrap()), allow_loopback: true, ..Settings::default() };
    let readiness = Readiness::new(ReadyMode::None);
    let readiness = match docker {
        Some(docker) => readiness.with_docker(docker),
        None => readiness,
    };
    Keeper::new(containers, events, settings, readiness)
}

async fn step(keeper: &mut Keeper) -> u64 {
    let news = keeper.changed().await;
    if news.looked {
        keeper.open_gates(&BTreeSet::new(), &BTreeMap::new());
    }
    news.reverted
}

/// Waits until the only port is so.
async fn until(keeper: &mut Keeper, state: RowState, words: &str) {
    let container: ContainerId = id(1).parse().unwrap();
    let so = async {
        loop {
            keeper.touch(&container);
            let judgement = keeper.judge(|_| true, false);
            if judgement[&container].iter().any(|(_, j)| j.state == state && j.reason.contains(words)) {
                return;
            }
            step(keeper).await;
        }
    };
    timeout(Duration::from_secs(30), so).await.unwrap_or_else(|_| panic!("not {state:?}: {words}"));
}

/// How many drains end within `time`.
async fn reverted_within(keeper: &mut Keeper, time: Duration) -> u64 {
    let (end, mut reverted) = (Instant::now() + time, 0);
    while let Ok(more) = timeout_at(end, step(keeper)).await {
        reverted += more;
    }
    reverted
}

#[tokio::test]
async fn while_docker_is_silent_after_a_kill_nothing_takes_clients_again() {
    for (whole, manner) in [(true, None), (false, Some(Manner::Hangs)), (false, Some(Manner::Answers(500)))] {
        let api = DockerApi::start();
        api.put(stopping());
        let docker = Docker::new(&Endpoint::Unix(api.socket())).unwrap();
        let ((out, containers), (sender, events)) = (channel(), mpsc::channel(16));
        let cancel = CancellationToken::new();
        let source = DockerSource::new(docker.clone(), Options::default()).with_events(sender);
        tokio::spawn(source.run(out, cancel.clone()));
        let mut keeper = keeper(containers, events, Some(docker));
        until(&mut keeper, RowState::Up, "").await;
        api.hang(whole);
        api.inspections_of(1, manner);
        api.emit(&[event(1, "kill")]);
        until(&mut keeper, RowState::Draining, "asked to stop").await;
        until(&mut keeper, RowState::Draining, "Docker does not say whether it has").await;
        assert_eq!(reverted_within(&mut keeper, Duration::from_secs(2)).await, 0, "{whole} {manner:?}");
        // It had ignored the signal: Docker says so as soon as it speaks again.
        api.hang(false);
        api.inspections_of(1, None);
        until(&mut keeper, RowState::Up, "").await;
        cancel.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn without_anybody_to_ask_what_docker_last_said_must_be_its_present_word() {
    let container = Arc::new(parse_container(stopping().to_string().as_bytes()).unwrap());
    let known = Containers { running: [(container.id.clone(), container.clone())].into(), ..Containers::default() };
    let refused = Containers { refused: [(container.id.clone(), "late".into())].into(), ..known.clone() };
    let stale = |out: &Outlet<Containers>| out.mark_stale(&std::io::Error::other("away"));
    for (name, during, reverts) in [("synced", known.clone(), 1), ("late", refused, 0), ("stale", known.clone(), 0)] {
        let ((out, containers), (sender, events)) = (channel(), mpsc::channel(16));
        out.publish(Arc::new(known.clone()));
        let mut keeper = keeper(containers, events, None);
        until(&mut keeper, RowState::Up, "").await;
        let kind = EventKind::Kill { signal: Some(15) };
        sender.send(Event { kind, container: id(1).parse().unwrap(), time_nanos: 0 }).await.unwrap();
        out.publish(Arc::new(during));
        if name == "stale" {
            stale(&out);
        }
        assert_eq!(reverted_within(&mut keeper, Duration::from_mins(10)).await, reverts, "{name}");
        // Docker tells of it again.
        out.publish(Arc::new(known.clone()));
        until(&mut keeper, RowState::Up, "").await;
        assert!(matches!(keeper.containers(), Observation::Synced { .. }));
    }
}

/// Publishes that a container runs since then, or that it does not run.
fn runs_since(out: &Outlet<Containers>, start: Option<u32>) {
    let running = start.map(|n| {
        let mut container = parse_container(running(1, "web").to_string().as_bytes()).unwrap();
        container.started_at = n.to_string();
        (container.id.clone(), Arc::new(container))
    });
    out.publish(Arc::new(Containers { running: running.into_iter().collect(), ..Containers::default() }));
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_shown_between_two_runs_and_before_readiness_until_it_is_removed_or_of_the_past() {
    let container: ContainerId = id(1).parse().unwrap();
    for is_removed in [true, false] {
        let ((out, containers), (sender, events)) = (channel(), mpsc::channel(16));
        let mut keeper = keeper(containers, events, None);
        for n in 0..4 {
            runs_since(&out, Some(n));
            if n < 3 {
                until(&mut keeper, RowState::Up, "").await;
            } else {
                until(&mut keeper, RowState::Waiting, "ended 3 times within 5 minutes, and counts again").await;
            }
            runs_since(&out, None);
            step(&mut keeper).await;
        }
        until(&mut keeper, RowState::Waiting, "ended 4 times within 5 minutes, and it does not run now").await;
        let gone = |keeper: &mut Keeper| {
            keeper.touch(&container);
            keeper.judge(|_| true, false)[&container].is_empty()
        };
        assert!(!gone(&mut keeper));
        let began = Instant::now();
        if is_removed {
            let kind = EventKind::Destroy;
            sender.send(Event { kind, container: container.clone(), time_nanos: 0 }).await.unwrap();
        }
        step(&mut keeper).await; // the event, or the clock
        assert!(gone(&mut keeper));
        assert_eq!(began.elapsed() < Duration::from_secs(1), is_removed, "{:?}", began.elapsed());
    }
}
