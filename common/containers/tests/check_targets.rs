//! Whom labels can make the agent's checks speak to: the container itself, and nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ::containers::readiness::{GateKey, Readiness, ReadyMode, Verdict};
use model::desired::{Network, Settings, decide};
use testing::containers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(20);
const OWN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Two listeners on one port: the container's, and one that a label would like to reach.
async fn listeners() -> (TcpListener, TcpListener) {
    for _ in 0..50 {
        let own = TcpListener::bind((OWN, 0)).await.unwrap();
        if let Ok(other) = TcpListener::bind((OTHER, own.local_addr().unwrap().port())).await {
            return (own, other);
        }
    }
    panic!("no port is free on both addresses");
}

#[tokio::test]
async fn checks_dial_no_address_but_the_containers_own() {
    let (own, other) = listeners().await;
    let port = own.local_addr().unwrap().port();
    let attempts = [
        vec![("register.check.host", OTHER.to_string())],
        vec![("register.address", OTHER.to_string())],
        vec![("register.check.path", format!("//{OTHER}:{port}/"))],
        vec![("register.check.header", format!("Host: {OTHER}:{port}"))],
        vec![("register.check.sni", OTHER.to_string()), ("register.check.host", OTHER.to_string())],
    ];
    for labels in attempts {
        let mut container = containers::running(1, port);
        container.networks = [("bridge".to_owned(), Network { ipv4: Some(OWN), ipv6: None })].into();
        container.labels = [("register.check".to_owned(), "http".to_owned())].into();
        container.labels.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let all = [(container.id.clone(), Arc::new(container.clone()))].into_iter().collect();
        let settings = Settings { host_ip: Some([10, 0, 0, 5].into()), allow_loopback: true, ..Settings::default() };
        let decisions = decide(&all, &settings);
        let candidate = decisions[0].candidate().unwrap_or_else(|| panic!("{labels:?}: {}", decisions[0]));
        assert_eq!(candidate.dial, Some((OWN, port).into()), "{labels:?}");

        let key = GateKey {
            container: container.id.clone(),
            service: candidate.service.clone(),
            id: candidate.backend.id.clone(),
        };
        let mut readiness = Readiness::new(ReadyMode::Tcp);
        readiness.update(&container.id, [candidate].into_iter(), "1", &BTreeSet::new());
        let serve = async {
            loop {
                let (mut stream, _) = own.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                // A redirect is no way out either: it is an answer that passes, and nobody follows it.
                let answer =
                    format!("HTTP/1.1 302 Found\r\nlocation: http://{OTHER}:{port}/\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let ready = async {
            while !matches!(readiness.verdict(&key), Verdict::Ready(_)) {
                readiness.changed().await;
            }
        };
        tokio::select! {
            () = serve => {}
            done = timeout(DEADLINE, ready) => done.unwrap_or_else(|_| panic!("{labels:?}: no check came")),
        }
        let reached = timeout(Duration::from_millis(1), other.accept()).await;
        assert!(reached.is_err(), "{labels:?} reached another address");
    }
}
