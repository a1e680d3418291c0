//! Gates against real sockets on loopback; their timing by calculation.

use std::net::TcpListener;
use std::time::Duration;

use model::desired::{Candidate, CheckKind, CheckSpec};
use testing::containers;
use tokio::time::timeout;

use super::attempts::pause;
use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn key() -> GateKey {
    GateKey::of(&"ab".repeat(32).parse().unwrap(), &containers::candidate())
}

fn candidate(dial: Option<SocketAddr>) -> Candidate {
    Candidate { dial, ..containers::candidate() }
}

/// A loopback port on which nobody listens, kept from others by a socket that only binds it.
fn closed_port() -> (tokio::net::TcpSocket, SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn gate(readiness: &mut Readiness, candidate: &Candidate, run: &str, registered: bool) {
    let registered = registered.then(|| (key().service, key().id)).into_iter().collect();
    readiness.update(&key().container, [candidate].into_iter(), run, &registered);
}

#[tokio::test]
async fn a_gate_opens_when_the_port_accepts() {
    let (socket, address) = closed_port();
    let mut readiness = Readiness::new(ReadyMode::Tcp);
    gate(&mut readiness, &candidate(Some(address)), "1", false);
    assert!(!readiness.is_settled());
    timeout(DEADLINE, readiness.changed()).await.unwrap();
    assert!(readiness.is_settled(), "the first try came back");
    assert!(timeout(Duration::from_millis(50), readiness.changed()).await.is_err());
    assert_eq!(*readiness.verdict(&key()), Verdict::Waiting);
    let _listener = socket.listen(8).unwrap();
    timeout(DEADLINE, readiness.changed()).await.unwrap();
    assert!(matches!(readiness.verdict(&key()), Verdict::Ready(Why::Accepted(_))));
}

#[tokio::test]
async fn a_new_run_of_a_container_has_a_new_gate_and_one_that_went_has_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let up = candidate(Some(listener.local_addr().unwrap()));
    let mut readiness = Readiness::new(ReadyMode::Tcp);
    gate(&mut readiness, &up, "1", false);
    timeout(DEADLINE, readiness.changed()).await.unwrap();
    gate(&mut readiness, &up, "1", false);
    assert!(matches!(readiness.verdict(&key()), Verdict::Ready(_)), "kept");
    drop(listener);
    gate(&mut readiness, &up, "2", false);
    assert_eq!(*readiness.verdict(&key()), Verdict::Waiting);
    readiness.update(&key().container, std::iter::empty(), "", &BTreeSet::new());
    assert!(timeout(Duration::from_millis(20), readiness.changed()).await.is_err());
    assert_eq!(readiness.waiting.load(std::sync::atomic::Ordering::Relaxed), 0, "its task ended");
}

#[tokio::test]
async fn some_candidates_are_ready_at_once_and_say_why() {
    let (_socket, address) = closed_port();
    let udp = {
        let mut candidate = candidate(Some(address));
        candidate.backend.transport = Transport::Udp;
        candidate
    };
    let docker = Candidate { docker_health: true, ..candidate(Some(address)) };
    for (candidate, mode, registered, why) in [
        (&candidate(None), ReadyMode::Tcp, false, Why::NoAddress),
        (&candidate(Some(address)), ReadyMode::None, false, Why::NotAsked),
        (&candidate(Some(address)), ReadyMode::Tcp, true, Why::Registered),
        (&udp, ReadyMode::Tcp, false, Why::Udp),
        (&docker, ReadyMode::Tcp, false, Why::DockerHealth),
    ] {
        let mut readiness = Readiness::new(mode);
        gate(&mut readiness, candidate, "1", registered);
        assert_eq!(*readiness.verdict(&key()), Verdict::Ready(why));
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_reached_is_published_with_the_reason() {
    let mut readiness = Readiness::new(ReadyMode::Tcp);
    gate(&mut readiness, &candidate(Some("224.0.0.1:80".parse().unwrap())), "1", false);
    timeout(DEADLINE, readiness.changed()).await.unwrap();
    let Verdict::Ready(why) = readiness.verdict(&key()) else { panic!("not ready") };
    assert!(why.text().contains("cannot be reached: connecting to 224.0.0.1:80"), "{}", why.text());
}

#[tokio::test]
async fn a_check_rises_and_falls() {
    let (socket, address) = closed_port();
    let mut checked = candidate(Some(address));
    let brisk = Duration::from_millis(20);
    checked.checks = vec![CheckSpec { rise: 2, fall: 2, interval: brisk, ..CheckSpec::new(CheckKind::Tcp) }];
    let mut readiness = Readiness::new(ReadyMode::None);
    gate(&mut readiness, &checked, "1", false);
    let listener = socket.listen(8).unwrap();
    while *readiness.verdict(&key()) == Verdict::Waiting {
        timeout(DEADLINE, readiness.changed()).await.unwrap();
    }
    assert!(readiness.is_settled());
    assert_eq!(*readiness.verdict(&key()), Verdict::Ready(Why::Checked));
    drop(listener);
    timeout(DEADLINE, readiness.changed()).await.unwrap();
    assert!(matches!(readiness.verdict(&key()), Verdict::Failing(_)));
}

#[test]
fn dialling_slows_down_with_time_and_with_company() {
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    assert_eq!(pause(ms(0), 1), ms(1));
    assert_eq!(pause(ms(50), 1), ms(1));
    assert_eq!(pause(s(1), 1), ms(20));
    assert_eq!(pause(s(600), 1), s(1));
    assert_eq!(pause(ms(10), 500), ms(50), "500 gates: 10,000 dials a second");
    assert_eq!(pause(ms(0), u32::MAX), s(1));
}
