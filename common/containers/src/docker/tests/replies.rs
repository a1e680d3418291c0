//! Replies of daemons, as they wrote them or as their API's documentation has them: Docker 20.10 to 29 and Podman.

use bollard::models::{ContainerInspectResponse, ContainerSummary, SystemInfo, SystemVersion};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::lenient::{self, Reply};
use super::super::parse;
use super::*;
use model::desired::{Container, Health, State};

/// A daemon, its replies, and the odd words in them.
const DAEMONS: [(&str, &str, &[&str]); 7] = [
    ("docker-20.10", include_str!("replies/docker-20.10.json"), &[]),
    ("docker-24", include_str!("replies/docker-24.json"), &[]),
    ("docker-27", include_str!("replies/docker-27.json"), &[]),
    ("docker-28", include_str!("replies/docker-28.json"), &[]),
    ("docker-29", include_str!("replies/docker-29.json"), &[]),
    ("podman-5", include_str!("replies/podman-5.json"), &[]),
    (
        "podman-3",
        include_str!("replies/podman-3.json"),
        &["Config.StopSignal", "HostConfig.CgroupnsMode", "State.Status", "State"],
    ),
];

fn read<T: DeserializeOwned>(reply: &Value, odd: &mut Vec<String>) -> T {
    let Reply { value, odd: words } = lenient::read(reply.to_string().as_bytes()).unwrap();
    odd.extend(words.into_keys());
    value
}

#[test]
fn replies_of_daemons_from_20_10_to_29_and_of_podman_are_read() {
    for (daemon, text, expected) in DAEMONS {
        let replies: Value = serde_json::from_str(text).unwrap();
        let mut odd = Vec::new();
        let inspected: ContainerInspectResponse = read(&replies["inspect"], &mut odd);
        assert_eq!(inspected.name.as_deref(), Some("/web"), "{daemon}");
        let container = parse::container(replies["inspect"].to_string().as_bytes()).unwrap();
        let listed: ContainerSummary = read(&replies["list"][0], &mut odd);
        let listed = Listed::from(listed);
        assert_eq!((listed.id.as_str(), listed.name.as_deref()), (container.id.as_str(), Some("web")), "{daemon}");
        let info: SystemInfo = read(&replies["info"], &mut odd);
        assert_eq!(info.name.as_deref(), Some("vm"), "{daemon}");
        let version: SystemVersion = read(&replies["version"], &mut odd);
        let podman = version.components.unwrap()[0].name.contains("Podman");
        assert_eq!(podman, daemon.starts_with("podman"), "{daemon}");
        assert_eq!(odd, expected, "{daemon}");
        is_as_it_was_described(daemon, &container, podman);
    }
}

fn is_as_it_was_described(daemon: &str, container: &Container, podman: bool) {
    let running = daemon != "podman-3";
    assert_eq!(container.state, if running { State::Running } else { State::Other }, "{daemon}");
    assert_eq!(container.health, (!podman).then_some(Health::Healthy), "{daemon}");
    assert_eq!(container.labels["register.80.service"], "web", "{daemon}");
    assert_eq!(container.env["MODE"], "a=b", "{daemon}");
    let ports: Vec<_> = container.ports.iter().map(|p| (p.port.get(), p.published.len())).collect();
    assert_eq!(ports, [(53, 0), (80, 1)], "{daemon}");
    let address = if podman { "10.88.0.2" } else { "172.17.0.2" };
    assert_eq!(container.networks.values().next().unwrap().ipv4, Some(address.parse().unwrap()), "{daemon}");
    let signal = match daemon {
        "podman-5" => 15,
        _ => 3,
    };
    assert_eq!(container.stop_signal, signal, "{daemon}");
}

#[tokio::test]
async fn odd_words_are_counted_and_cost_their_container_nothing_else() {
    let api = DockerApi::start();
    let mut odd = running(1, "web");
    odd["State"]["Health"] = json!({"Status": "pondering"});
    odd["HostConfig"]["RestartPolicy"] = json!({"Name": "sometimes"});
    api.put(odd);
    api.put(running(2, "web"));
    let mut hibernating = running(3, "web");
    hibernating["State"]["Status"] = json!("hibernating");
    api.put(hibernating);
    let counter = prometheus_client::metrics::counter::Counter::default();
    let docker = client_of(&api).with_odd_words(counter.clone());
    let listed = docker.list(Scope::All).await.unwrap();
    assert_eq!((listed.len(), counter.get()), (3, 1), "the list has one odd word, and all three containers");
    let health = docker.inspect(&id(1).parse().unwrap()).await.unwrap().unwrap().health;
    assert_eq!((health, counter.get()), (Some(Health::Starting), 3));
    let state = docker.inspect(&id(3).parse().unwrap()).await.unwrap().unwrap().state;
    assert_eq!((state, counter.get()), (State::Other, 4));
    assert!(docker.inspect(&id(2).parse().unwrap()).await.unwrap().is_some());
    assert_eq!(counter.get(), 4);
}
