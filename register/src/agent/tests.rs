//! The agent and its publisher against the registry in memory; containers and events are made up, ports are real.

mod crowd;
mod policies;

use std::collections::BTreeMap;
use std::net::TcpListener;

use agent::watch::{Outlet, channel};
use containers::docker::EventKind;
use containers::life::verdict::RowState;
use model::desired::{Container, Health, State};
use model::{Layout, NodeName, Status, ValueFormat};
use serde_json::Value;
use testing::containers::running as container;
use testing::fake::FakeStore;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::control::Whom;
use super::*;
use crate::publish::{Form, Identity, Publisher, PublisherSettings};

const DEADLINE: Duration = Duration::from_secs(20);

struct Lab {
    store: FakeStore,
    containers: Outlet<Containers>,
    events: mpsc::Sender<Event>,
    address: watch::Sender<HostAddress>,
    requests: mpsc::Sender<Request>,
    rows: watch::Receiver<Rows>,
    cancel: CancellationToken,
    agent: JoinHandle<()>,
    publisher: JoinHandle<Result<(), crate::publish::PublishError>>,
}

impl Lab {
    fn start(store: &FakeStore, drain_at_exit: Option<Duration>) -> Self {
        let (containers, inlet) = channel();
        let settings = AgentSettings {
            settings: Settings { allow_loopback: true, ..Settings::default() },
            ready: ReadyMode::Tcp,
            check_target: CheckTarget::Own,
            docker: None,
            prefix: Prefix::default(),
            drain_at_exit,
        };
        Self::of(store, settings, Metrics::default(), inlet, containers, None)
    }

    fn of(
        store: &FakeStore,
        settings: AgentSettings,
        metrics: Metrics,
        inlet: agent::watch::Inlet<Containers>,
        containers: Outlet<Containers>,
        host_ip: Option<std::net::IpAddr>,
    ) -> Self {
        let (node, prefix): (NodeName, _) = ("n1".parse().unwrap(), Prefix::default());
        let (events, event_out) = mpsc::channel(16);
        let (requests, request_out) = mpsc::channel(16);
        let (desired, wanted) = watch::channel(None);
        let (out, publication) = watch::channel(Publication::default());
        let (row_in, rows) = watch::channel(Rows::default());
        let (address, host_address) = watch::channel(HostAddress::found(host_ip));
        let wires = Wires {
            containers: inlet,
            events: event_out,
            address: host_address,
            publication,
            requests: request_out,
            desired,
            rows: row_in,
            changes: watch::channel(0).0,
        };
        let (layout, values) = (Layout::Service, ValueFormat::Json);
        let publisher = PublisherSettings {
            form: Form { prefix, layout, node: node.clone(), values, service_ports: false },
            identity: Identity::new(node, "m1".into()),
            ttl: Duration::from_secs(10),
            audit: Duration::from_secs(30),
            metadata: None,
        };
        let publisher = Publisher::new(store.clone(), publisher, wanted, out, metrics.publish.clone());
        let (cancel, stop, revoke) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let publisher = tokio::spawn(publisher.run(stop.clone(), revoke.clone()));
        let agent = tokio::spawn(Agent::new(wires, settings, metrics).run(cancel.clone(), stop, revoke));
        Self { store: store.clone(), containers, events, address, requests, rows, cancel, agent, publisher }
    }

    fn run(&self, containers: &[Container]) {
        let running = containers.iter().map(|c| (c.id.clone(), Arc::new(c.clone()))).collect();
        self.containers.publish(Arc::new(Containers { running, ..Containers::default() }));
    }

    async fn event(&self, kind: EventKind, container: &Container) {
        self.events.send(Event { kind, container: container.id.clone(), time_nanos: 0 }).await.unwrap();
    }

    async fn ask(&self, drain: bool, whom: Whom) -> Result<Vec<String>, String> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { drain, whom, reply }).await.unwrap();
        answer.await.unwrap()
    }

    /// Waits until the registry holds these containers with these statuses.
    async fn expect(&self, expected: &[(&Container, Status)]) {
        let expected: BTreeMap<String, String> =
            expected.iter().map(|(c, status)| (c.id.short().to_owned(), status.to_string())).collect();
        let mut last = BTreeMap::new();
        let reached = timeout(DEADLINE, async {
            loop {
                last = statuses(&self.store);
                if last == expected {
                    return;
                }
                sleep(Duration::from_millis(2)).await;
            }
        });
        assert!(reached.await.is_ok(), "expected {expected:?}, found {last:?}");
    }

    async fn kill(self) {
        self.agent.abort();
        self.publisher.abort();
        assert!(self.agent.await.is_err() && self.publisher.await.is_err());
    }
}

fn statuses(store: &FakeStore) -> BTreeMap<String, String> {
    let status = |e: registry::store::Entry| {
        let value: Value = serde_json::from_slice(&e.value).unwrap();
        (value["id"].as_str().unwrap().to_owned(), value["status"].as_str().unwrap().to_owned())
    };
    store.entries("/backends/").into_iter().map(status).collect()
}

fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn a_container_is_published_when_its_port_accepts_drains_when_asked_to_stop_and_goes_when_it_dies() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let web = container(1, socket.local_addr().unwrap().port());
    let mut lab = Lab::start(&FakeStore::new(), None);
    lab.run(std::slice::from_ref(&web));
    let waiting = |rows: &Rows| rows.values().any(|row| row.state == RowState::Waiting);
    timeout(DEADLINE, lab.rows.wait_for(waiting)).await.unwrap().unwrap();
    lab.expect(&[]).await;

    let _listener = socket.listen(8).unwrap();
    lab.expect(&[(&web, Status::Up)]).await;
    lab.event(EventKind::Kill { signal: Some(1) }, &web).await; // SIGHUP asks for something else
    lab.event(EventKind::Kill { signal: Some(15) }, &web).await;
    lab.expect(&[(&web, Status::Draining)]).await;
    lab.run(std::slice::from_ref(&web)); // a resync
    sleep(Duration::from_millis(20)).await;
    lab.expect(&[(&web, Status::Draining)]).await;
    lab.event(EventKind::Die, &web).await;
    lab.run(&[]);
    lab.expect(&[]).await;
}

#[tokio::test]
async fn a_restarted_container_takes_clients_again() {
    let (_listener, port) = listening();
    let mut web = container(1, port);
    let lab = Lab::start(&FakeStore::new(), None);
    lab.run(std::slice::from_ref(&web));
    lab.expect(&[(&web, Status::Up)]).await;
    lab.event(EventKind::Kill { signal: Some(15) }, &web).await;
    lab.expect(&[(&web, Status::Draining)]).await;
    lab.event(EventKind::Die, &web).await;
    lab.event(EventKind::Start, &web).await;
    web.started_at = "2026-01-01T00:01:00Z".into();
    lab.run(std::slice::from_ref(&web));
    lab.expect(&[(&web, Status::Up)]).await;
}

#[tokio::test]
async fn another_address_of_the_host_is_published_for_what_is_bound_to_all_and_for_nothing_else() {
    let (_listener, port) = listening();
    let [mut web, fixed] = [1, 2].map(|n| container(n, port));
    web.ports[0].published[0].ip = None;
    let store = FakeStore::new();
    let lab = Lab::start(&store, None);
    let at = |address: &str| HostAddress::found(Some(address.parse().unwrap()));
    lab.address.send_replace(at("10.0.0.5"));
    lab.run(&[web.clone(), fixed.clone()]);
    lab.expect(&[(&web, Status::Up), (&fixed, Status::Up)]).await;
    let (first, hosts) = (store.entries("/backends/"), |store: &FakeStore| {
        let entries = store.entries("/backends/").into_iter();
        entries.map(|e| serde_json::from_slice::<Value>(&e.value).unwrap()["host"].clone()).collect::<Vec<_>>()
    });
    assert_eq!(hosts(&store), ["10.0.0.5", "127.0.0.1"]);

    lab.address.send_replace(at("10.0.0.6"));
    let moved = timeout(DEADLINE, async {
        while hosts(&store) != ["10.0.0.6", "127.0.0.1"] {
            sleep(Duration::from_millis(2)).await;
        }
    });
    moved.await.unwrap();
    lab.expect(&[(&web, Status::Up), (&fixed, Status::Up)]).await;
    let now = store.entries("/backends/");
    assert_eq!(now[1], first[1], "what is bound to an address of its own stays as it was");
    assert_eq!(now[0].key, first[0].key, "it is the same backend");
}

#[tokio::test]
async fn a_container_that_outlives_its_stop_takes_clients_again() {
    let (_listener, port) = listening();
    let mut web = container(1, port);
    web.labels.insert("register.drain".into(), "100ms".into());
    let lab = Lab::start(&FakeStore::new(), None);
    lab.run(std::slice::from_ref(&web));
    lab.expect(&[(&web, Status::Up)]).await;
    lab.event(EventKind::Kill { signal: Some(15) }, &web).await;
    lab.expect(&[(&web, Status::Draining)]).await;
    lab.expect(&[(&web, Status::Up)]).await;
}

#[tokio::test]
async fn a_successor_writes_nothing_takes_drains_over_and_deletes_what_is_gone() {
    let ports: Vec<_> = (0..3).map(|_| listening()).collect();
    let [a, b, c] = [0, 1, 2].map(|n| container(n, ports[usize::from(n)].1));
    let store = FakeStore::new();
    let lab = Lab::start(&store, None);
    lab.run(&[a.clone(), b.clone(), c.clone()]);
    lab.expect(&[(&a, Status::Up), (&b, Status::Up), (&c, Status::Up)]).await;
    assert_eq!(lab.ask(true, Whom::Some(vec!["web-1".into()])).await, Ok(vec!["web-1".to_owned()]));
    lab.expect(&[(&a, Status::Up), (&b, Status::Draining), (&c, Status::Up)]).await;
    lab.kill().await;

    drop(ports); // nobody accepts any more: the successor does not ask what the registry knows
    let before = store.entries("/backends/");
    let way = store.peer();
    let lab = Lab::start(&way, None);
    lab.run(&[a.clone(), b.clone(), c.clone()]);
    let mut rows = lab.rows.clone();
    timeout(DEADLINE, rows.wait_for(|rows| rows.len() == 3)).await.unwrap().unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(store.entries("/backends/"), before);
    assert_eq!(way.counts().writes(), 1, "the registrar's key alone");
    lab.run(&[b.clone(), c.clone()]);
    lab.expect(&[(&b, Status::Draining), (&c, Status::Up)]).await;
    assert_eq!(way.counts().writes(), 2);
    assert_eq!(lab.ask(false, Whom::All).await.unwrap().len(), 2);
    lab.expect(&[(&b, Status::Up), (&c, Status::Up)]).await;
}

#[tokio::test]
async fn nothing_is_deleted_while_docker_has_not_answered_or_is_away() {
    let (_listener, port) = listening();
    let web = container(1, port);
    let store = FakeStore::new();
    let lab = Lab::start(&store, None);
    lab.run(std::slice::from_ref(&web));
    lab.expect(&[(&web, Status::Up)]).await;
    lab.containers.mark_stale(&std::io::Error::other("cut"));
    sleep(Duration::from_millis(50)).await;
    lab.expect(&[(&web, Status::Up)]).await;
    lab.kill().await;

    let lab = Lab::start(&store, None);
    lab.containers.mark_stale(&std::io::Error::other("no daemon"));
    sleep(Duration::from_millis(50)).await;
    lab.expect(&[(&web, Status::Up)]).await;
}

#[tokio::test]
async fn a_container_that_docker_cannot_describe_stays_as_it_was_also_over_a_restart() {
    let ((_listener, port), (_another, other_port)) = (listening(), listening());
    let (web, other) = (container(1, port), container(2, other_port));
    let refusing = |lab: &Lab| {
        let running = [(other.id.clone(), Arc::new(other.clone()))].into();
        let refused = [(web.id.clone(), "500 Internal Server Error".into())].into();
        lab.containers.publish(Arc::new(Containers { running, refused }));
    };
    let store = FakeStore::new();
    let lab = Lab::start(&store, None);
    lab.run(&[web.clone(), other.clone()]);
    lab.expect(&[(&web, Status::Up), (&other, Status::Up)]).await;
    let before = store.entries("/backends/");
    refusing(&lab);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(store.entries("/backends/"), before);
    lab.kill().await;
    let lab = Lab::start(&store, None);
    refusing(&lab);
    let mut rows = lab.rows.clone();
    timeout(DEADLINE, rows.wait_for(|rows| rows.len() == 1)).await.unwrap().unwrap();
    lab.run(&[web.clone(), other.clone()]);
    timeout(DEADLINE, rows.wait_for(|rows| rows.len() == 2)).await.unwrap().unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(store.entries("/backends/"), before, "nor does it wait at a gate again");
    refusing(&lab);
    lab.run(std::slice::from_ref(&other)); // no longer listed: it is gone
    lab.expect(&[(&other, Status::Up)]).await;
}

#[tokio::test]
async fn leaving_with_drain_shows_the_drain_then_takes_everything() {
    let (_listener, port) = listening();
    let web = container(1, port);
    let store = FakeStore::new();
    let lab = Lab::start(&store, Some(Duration::from_millis(200)));
    lab.run(std::slice::from_ref(&web));
    lab.expect(&[(&web, Status::Up)]).await;
    lab.cancel.cancel();
    lab.expect(&[(&web, Status::Draining)]).await;
    lab.expect(&[]).await;
    timeout(DEADLINE, lab.agent).await.unwrap().unwrap();
    timeout(DEADLINE, lab.publisher).await.unwrap().unwrap().unwrap();
    assert_eq!(store.leases(), []);
}

#[tokio::test]
async fn an_operator_is_told_whom_the_agent_does_not_know() {
    let (_listener, port) = listening();
    let lab = Lab::start(&FakeStore::new(), None);
    let web = container(1, port);
    lab.run(std::slice::from_ref(&web));
    lab.expect(&[(&web, Status::Up)]).await;
    let error = lab.ask(true, Whom::Some(vec!["no-such".into()])).await.unwrap_err();
    assert_eq!(error, "no registered container is called \"no-such\"");
    assert_eq!(lab.ask(true, Whom::Some(vec!["0101".into()])).await.unwrap(), ["web-1"]);
    lab.expect(&[(&web, Status::Draining)]).await;
}

#[tokio::test]
async fn the_old_one_drains_once_the_registry_holds_the_new_one_and_comes_back_when_that_fails() {
    let (_listener, port) = listening();
    let (new_port, answers) = policies::http_server().await;
    answers.send_replace(503);
    let (old, mut new) = (container(1, port), container(2, new_port));
    for (label, value) in [("check", "http"), ("check.interval", "20ms"), ("replaces", "web-1")] {
        new.labels.insert(format!("register.{label}"), value.into());
    }
    let store = FakeStore::new();
    let lab = Lab::start(&store, None);
    lab.run(std::slice::from_ref(&old));
    lab.expect(&[(&old, Status::Up)]).await;
    lab.run(&[old.clone(), new.clone()]);
    sleep(Duration::from_millis(60)).await;
    lab.expect(&[(&old, Status::Up)]).await;
    answers.send_replace(200);
    lab.expect(&[(&old, Status::Draining), (&new, Status::Up)]).await;
    let key = |c: &Container| format!("/backends/web/{}", c.id.short());
    let find = |c: &Container| store.entries("/backends/").into_iter().find(|e| *e.key == *key(c)).unwrap();
    assert!(find(&new).created < find(&old).modified, "first the new one, then the drain");
    answers.send_replace(503);
    lab.expect(&[(&old, Status::Up)]).await;
    answers.send_replace(200);
    lab.expect(&[(&old, Status::Draining), (&new, Status::Up)]).await;

    // A restart of the agent is no event for either.
    lab.kill().await;
    let before = store.entries("/backends/");
    let lab = Lab::start(&store.peer(), None);
    lab.run(&[old.clone(), new.clone()]);
    let mut rows = lab.rows.clone();
    timeout(DEADLINE, rows.wait_for(|rows| rows.len() == 2)).await.unwrap().unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(store.entries("/backends/"), before);
    // The new one is stopped again: the old one serves.
    lab.event(EventKind::Kill { signal: Some(15) }, &new).await;
    lab.expect(&[(&old, Status::Up), (&new, Status::Draining)]).await;
}

#[tokio::test]
async fn pausing_withdraws_renaming_renames_and_another_address_is_no_gap() {
    let (_listener, port) = listening();
    let mut web = container(1, port);
    let store = FakeStore::new();
    let lab = Lab::start(&store, None);
    lab.run(std::slice::from_ref(&web));
    lab.expect(&[(&web, Status::Up)]).await;
    let paused = Container { state: State::Paused, ..web.clone() };
    lab.run(&[paused]);
    lab.expect(&[]).await;
    lab.run(std::slice::from_ref(&web));
    lab.expect(&[(&web, Status::Up)]).await;

    let created = store.entries("/backends/")[0].created;
    web.name = "renamed".into();
    lab.run(std::slice::from_ref(&web));
    let renamed = async {
        while !String::from_utf8_lossy(&store.entries("/backends/")[0].value).contains(r#""name":"renamed""#) {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, renamed).await.unwrap();
    // It is dialled at another address from now on, where nobody has accepted yet.
    web.networks.get_mut("bridge").unwrap().ipv4 = Some("127.0.0.77".parse().unwrap());
    lab.run(std::slice::from_ref(&web));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(store.entries("/backends/")[0].created, created, "one key all along");
}
