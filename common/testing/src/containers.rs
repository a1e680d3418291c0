//! Made-up containers and candidates.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use model::desired::{Binding, Candidate, Container, ContainerPort, Drain, HealthPolicy, Network, State};
use model::{Backend, Port, Transport};

/// Container number `n` of image `web`, which listens on `port` of loopback, as its own address and as its published one.
pub fn running(n: u8, port: u16) -> Container {
    let port = Port::new(port).unwrap();
    let published = vec![Binding { ip: Some(Ipv4Addr::LOCALHOST.into()), port }];
    Container {
        id: format!("{n:02x}").repeat(32).parse().unwrap(),
        name: format!("web-{n}"),
        image: "web:1".into(),
        labels: BTreeMap::new(),
        env: BTreeMap::new(),
        state: State::Running,
        health: None,
        network_mode: "bridge".into(),
        networks: [("bridge".to_owned(), Network { ipv4: Some(Ipv4Addr::LOCALHOST), ipv6: None })].into(),
        ports: vec![ContainerPort { port, transport: Transport::Tcp, published }],
        stop_signal: 15,
        stop_timeout: Duration::from_secs(10),
        started_at: format!("2026-01-01T00:00:{n:02}Z"),
        pid: Some(1),
    }
}

/// A candidate without an address of its own.
pub fn candidate() -> Candidate {
    Candidate {
        service: "web".parse().unwrap(),
        backend: Backend::new("a".parse().unwrap(), "10.0.0.1".parse().unwrap(), Port::new(80).unwrap()),
        dial: None,
        host_network: false,
        checks: Vec::new(),
        docker_health: false,
        health_policy: HealthPolicy::Hide,
        drain: Drain::UntilStopped,
        warmup: None,
        replaces: None,
        stop_signal: 15,
        stop_timeout: Duration::from_secs(10),
    }
}
