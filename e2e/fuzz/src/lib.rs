//! What each target feeds with a fuzzer's bytes, and what must hold whatever they are.

use std::net::IpAddr;
use std::sync::Arc;

use discover::generators::haproxy::file::synapse::SynapseComposer;
use model::desired::{Container, ContainerMap, Settings, decide};
use model::{Backend, BackendId, Decoded, ValueFormat, decode, encode};
use serde_json::{Map, Value, json};

/// A running container whose labels and variables are the lines of `text`: `key=value`, and `$KEY=value` for a variable.
pub fn labels(text: &str) {
    let (mut labels, mut env) = (Map::new(), Vec::new());
    for line in text.lines() {
        match line.strip_prefix('$') {
            Some(variable) => env.push(Value::from(variable)),
            None => {
                let (key, value) = line.split_once('=').unwrap_or((line, ""));
                labels.insert(key.to_owned(), value.into());
            }
        }
    }
    let body = json!({
        "Id": "b".repeat(64), "Name": "/bad",
        "State": {"Status": "running", "Running": true, "Pid": 1, "StartedAt": "2026-01-01T00:00:00.000000001Z"},
        "Config": {"Image": "bad", "Labels": labels, "Env": env, "ExposedPorts": {"80/tcp": {}, "53/udp": {}}},
        "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "10001"}], "53/udp": [{"HostIp": "::", "HostPort": "10002"}]},
            "Networks": {"bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": ""}},
        },
    });
    docker(body.to_string().as_bytes());
}

/// A daemon's answer about one container: it harms no other, and what is published can be read back.
pub fn docker(json: &[u8]) {
    let Ok(bad) = containers::docker::parse_container(json) else { return };
    let good = good();
    let settings = Settings { host_ip: Some([10, 0, 0, 5].into()), ..Settings::default() };
    let alone = decide(&map([good.clone()]), &settings);
    if bad.id == good.id {
        return;
    }
    let together = decide(&map([good.clone(), bad]), &settings);
    let others: Vec<_> = together.iter().filter(|decision| decision.container == good.id).collect();
    assert!(alone.iter().eq(others), "another container's labels changed what becomes of this one");
    for decision in &together {
        assert!(!decision.to_string().chars().any(|c| c.is_control() && c != '\n'));
        let Some(candidate) = decision.candidate() else { continue };
        let usable = |ip: IpAddr| !ip.is_unspecified() && !ip.is_loopback();
        assert!(candidate.backend.host.ip().is_none_or(usable), "{:?}", candidate.backend);
        let value = encode(&candidate.backend, ValueFormat::Json);
        let read = decode(&candidate.backend.id, value.as_bytes());
        let written = Backend { left_out: None, ..candidate.backend.clone() };
        assert_eq!(read, Ok(Decoded::Backend(Box::new(written))));
        let safe = |b: u8| b.is_ascii_alphanumeric() || b"-._~!*+,:=@%/".contains(&b);
        let mut texts = candidate.backend.routes.iter().flat_map(|route| [route.host.as_str(), route.path.as_str()]);
        assert!(texts.all(|text| text.bytes().all(safe)), "{:?}", candidate.backend.routes);
    }
}

/// A registry's value: what can be read can be written and read again.
pub fn value(bytes: &[u8]) {
    let Ok(id) = "fuzzed".parse::<BackendId>() else { return };
    if let Ok(Decoded::Backend(mut backend)) = decode(&id, bytes) {
        backend.left_out = None; // what is left out is not written again
        let again = decode(&id, encode(&backend, ValueFormat::Json).as_bytes());
        assert_eq!(again, Ok(Decoded::Backend(backend)));
    }
}

/// A config of Synapse or of Nerve: it is read, or every problem in it is told with its key path.
pub fn config(text: &str) {
    if text.contains("service_conf_dir") {
        return; // it would read whatever directory the fuzzer names
    }
    let Ok(file) = tempfile::NamedTempFile::new() else { return };
    if std::fs::write(file.path(), text).is_err() {
        return;
    }
    let nothing = |_: &str| None;
    match discover::synapse::load::load_with(file.path(), &nothing) {
        Ok(loaded) => drop(SynapseComposer::new(&loaded.config, None)),
        Err(error) => assert!(!error.0.is_empty(), "a refusal tells why"),
    }
    match register::nerve::config::load_with(file.path(), Some("fuzzed"), &nothing) {
        Ok(loaded) => assert!(loaded.config.services.keys().all(|name| !loaded.wrong.contains_key(name))),
        Err(error) => assert!(!error.0.is_empty(), "a refusal tells why"),
    }
}

/// HAProxy's replies.
pub fn haproxy(text: &str) {
    use discover::haproxy::api::{stats, tables};
    drop(tables::servers_state(text));
    drop(stats::stat(text));
    drop(tables::info(text));
    drop(tables::map_entries(text));
}

fn good() -> Container {
    let body = json!({
        "Id": "a".repeat(64), "Name": "/good",
        "State": {"Status": "running", "Running": true, "Pid": 1, "StartedAt": "2026-01-01T00:00:00.000000001Z"},
        "Config": {"Image": "good", "Labels": {}, "Env": [], "ExposedPorts": {"80/tcp": {}}},
        "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "10000"}]},
            "Networks": {"bridge": {"IPAddress": "172.17.0.3", "GlobalIPv6Address": ""}},
        },
    });
    containers::docker::parse_container(body.to_string().as_bytes()).unwrap()
}

fn map(containers: impl IntoIterator<Item = Container>) -> ContainerMap {
    containers.into_iter().map(|c| (c.id.clone(), Arc::new(c))).collect()
}
