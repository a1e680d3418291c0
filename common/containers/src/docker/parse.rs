//! `docker inspect` → [`Container`]: only the fields that are needed, each as loosely as daemons write it (20.10 to 29, Podman).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use model::desired::{Binding, Container, ContainerId, ContainerPort, Health, Network, State, parse_signal};
use model::{Port, Transport};

/// A description that lacks something needed, or says what it cannot mean. That container alone is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("container {container}: {field} {why}")]
pub struct ParseError {
    /// The container's id or name, as far as it could be read.
    pub container: String,
    /// The field's path in the answer.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw {
    id: Option<String>,
    name: Option<String>,
    /// The image's id.
    image: Option<Value>,
    state: Option<RawState>,
    config: Option<RawConfig>,
    host_config: Option<RawHostConfig>,
    network_settings: Option<RawNetworkSettings>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    status: Option<String>,
    running: Option<bool>,
    paused: Option<bool>,
    restarting: Option<bool>,
    pid: Option<i64>,
    started_at: Option<String>,
    #[serde(alias = "Healthcheck")]
    health: Option<RawHealth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHealth {
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    image: Option<String>,
    labels: Option<BTreeMap<String, Option<String>>>,
    env: Option<Vec<String>>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    /// A name, or (older Podman) a number.
    stop_signal: Option<Value>,
    stop_timeout: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHostConfig {
    network_mode: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawNetworkSettings {
    ports: Option<BTreeMap<String, Option<Vec<RawBinding>>>>,
    networks: Option<BTreeMap<String, Option<RawNetwork>>>,
    /// Gone since API 1.52; older Podman has it without `Networks`.
    #[serde(rename = "IPAddress")]
    ip_address: Option<String>,
}

#[derive(Deserialize)]
struct RawBinding {
    #[serde(rename = "HostIp", default)]
    host_ip: Option<String>,
    #[serde(rename = "HostPort", default)]
    host_port: Option<String>,
}

#[derive(Deserialize)]
struct RawNetwork {
    #[serde(rename = "IPAddress")]
    ipv4: Option<String>,
    #[serde(rename = "GlobalIPv6Address")]
    ipv6: Option<String>,
}

/// Reads the answer to `GET /containers/{id}/json`.
///
/// # Errors
/// [`ParseError`] naming the container and the field.
pub fn container(json: &[u8]) -> Result<Container, ParseError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let raw: Raw = serde_path_to_error::deserialize(&mut reader).map_err(|e| ParseError {
        container: identity(json),
        field: e.path().to_string(),
        why: e.inner().to_string(),
    })?;
    let who = raw.id.clone().or_else(|| raw.name.clone()).unwrap_or_else(|| "?".to_owned());
    let who: String = who.chars().take(12).collect();
    let fail = |field: &str, why: String| ParseError { container: who.clone(), field: field.to_owned(), why };
    let missing = |field: &str| fail(field, "is missing".to_owned());

    let id = raw.id.ok_or_else(|| missing("Id"))?;
    let id: ContainerId = id.parse().map_err(|_| fail("Id", "is not 64 hexadecimal digits".to_owned()))?;
    let state = raw.state.ok_or_else(|| missing("State"))?;
    let config = raw.config.ok_or_else(|| missing("Config"))?;
    let settings = raw.network_settings.ok_or_else(|| missing("NetworkSettings"))?;
    let network_mode = raw.host_config.and_then(|h| h.network_mode).ok_or_else(|| missing("HostConfig.NetworkMode"))?;
    Ok(Container {
        name: raw.name.map_or_else(|| id.short().to_owned(), |name| name.trim_start_matches('/').to_owned()),
        image: image(config.image.ok_or_else(|| missing("Config.Image"))?, raw.image.as_ref()),
        labels: config.labels.unwrap_or_default().into_iter().map(|(k, v)| (k, v.unwrap_or_default())).collect(),
        env: config.env.unwrap_or_default().iter().map(|entry| variable(entry)).collect(),
        state: standing(&state).ok_or_else(|| missing("State.Status"))?,
        health: health(state.health),
        network_mode,
        networks: networks(settings.networks, settings.ip_address.as_deref()),
        ports: ports(config.exposed_ports, settings.ports).map_err(|(field, why)| fail(&field, why))?,
        stop_signal: stop_signal(config.stop_signal),
        // A negative one means "for ever".
        stop_timeout: config.stop_timeout.map_or(STOP_TIMEOUT, |s| {
            u64::try_from(s).map_or(LONGEST_STOP, |s| Duration::from_secs(s).min(LONGEST_STOP))
        }),
        started_at: state.started_at.filter(|at| !at.starts_with("0001-")).unwrap_or_default(),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
        id,
    })
}

/// Docker's default for `StopTimeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// A day stands for ever.
const LONGEST_STOP: Duration = Duration::from_secs(86_400);

/// Who an unreadable answer is about.
fn identity(json: &[u8]) -> String {
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    let text = value["Id"].as_str().or_else(|| value["Name"].as_str()).unwrap_or("?");
    text.chars().filter(|c| !c.is_control()).take(12).collect()
}

/// The reference, or the whole id where the container was made by a part of it: that is no name.
fn image(reference: String, id: Option<&Value>) -> String {
    let id = id.and_then(Value::as_str).unwrap_or_default();
    let hex = id.rsplit(':').next().unwrap_or_default();
    match reference.len() >= 3 && hex.len() == 64 && hex.starts_with(reference.as_str()) {
        true => id.to_owned(),
        false => reference,
    }
}

fn variable(entry: &str) -> (String, String) {
    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
    (name.to_owned(), value.to_owned())
}

fn standing(state: &RawState) -> Option<State> {
    let by_flags = || match (state.running?, state.paused, state.restarting) {
        (_, Some(true), _) => Some(State::Paused),
        (_, _, Some(true)) => Some(State::Restarting),
        (true, ..) => Some(State::Running),
        (false, ..) => Some(State::Exited),
    };
    let Some(status) = state.status.as_deref().filter(|status| !status.is_empty()) else { return by_flags() };
    Some(match status {
        "running" => State::Running,
        "paused" => State::Paused,
        "restarting" => State::Restarting,
        "created" | "configured" => State::Created,
        "exited" => State::Exited,
        "dead" => State::Dead,
        "removing" => State::Removing,
        _ => State::Other,
    })
}

/// An empty word is Podman's for no HEALTHCHECK, `none` is Docker's. A word that nobody knows has not passed.
fn health(raw: Option<RawHealth>) -> Option<Health> {
    match raw?.status?.as_str() {
        "" | "none" => None,
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        _ => Some(Health::Starting),
    }
}

fn stop_signal(raw: Option<Value>) -> i32 {
    const SIGTERM: i32 = 15;
    match raw {
        Some(Value::String(name)) => parse_signal(&name).unwrap_or(SIGTERM),
        Some(Value::Number(number)) => parse_signal(&number.to_string()).unwrap_or(SIGTERM),
        _ => SIGTERM,
    }
}

fn networks(raw: Option<BTreeMap<String, Option<RawNetwork>>>, legacy: Option<&str>) -> BTreeMap<String, Network> {
    let mut networks: BTreeMap<String, Network> = raw
        .unwrap_or_default()
        .into_iter()
        .map(|(name, network)| {
            let ipv4 = network.as_ref().and_then(|n| n.ipv4.as_deref()?.parse().ok());
            let ipv6 = network.as_ref().and_then(|n| n.ipv6.as_deref()?.parse().ok());
            (name, Network { ipv4, ipv6 })
        })
        .collect();
    if let (true, Some(ipv4)) = (networks.is_empty(), legacy.and_then(|ip| ip.parse().ok())) {
        networks.insert("bridge".to_owned(), Network { ipv4: Some(ipv4), ipv6: None });
    }
    networks
}

type Published = BTreeMap<String, Option<Vec<RawBinding>>>;

/// Exposed and published ports together, each once, its bindings sorted and without doubles.
fn ports(
    exposed: Option<BTreeMap<String, Value>>,
    published: Option<Published>,
) -> Result<Vec<ContainerPort>, (String, String)> {
    let mut ports: BTreeMap<(Port, Transport), Vec<Binding>> = BTreeMap::new();
    for key in exposed.unwrap_or_default().keys() {
        for port in port_key("Config.ExposedPorts", key)? {
            ports.entry(port).or_default();
        }
    }
    for (key, bindings) in published.unwrap_or_default() {
        const FIELD: &str = "NetworkSettings.Ports";
        let inside = port_key(FIELD, &key)?;
        let mut found = Vec::new();
        for binding in bindings.unwrap_or_default() {
            let bad = |what: &str, text: &str| {
                (format!("{FIELD}.{key}"), format!("has the {what} {:?}", text.chars().take(80).collect::<String>()))
            };
            let port = match binding.host_port.as_deref() {
                None | Some("" | "0") => continue,
                Some(text) => text.parse().map_err(|_| bad("HostPort", text))?,
            };
            let ip = match binding.host_ip.as_deref() {
                None | Some("") => None,
                Some(text) => Some(text.parse().map_err(|_| bad("HostIp", text))?),
            };
            found.push(Binding { ip, port });
        }
        for port in inside {
            ports.entry(port).or_default().extend_from_slice(&found);
        }
    }
    Ok(ports
        .into_iter()
        .map(|((port, transport), mut published)| {
            published.sort_unstable();
            published.dedup();
            ContainerPort { port, transport, published }
        })
        .collect())
}

/// `80/tcp`, `80`, `8000-8003/udp`; none for transports that are not ours (`sctp`).
fn port_key(field: &str, key: &str) -> Result<Vec<(Port, Transport)>, (String, String)> {
    let bad = || (field.to_owned(), format!("has the key {:?}", key.chars().take(80).collect::<String>()));
    let (numbers, word) = key.split_once('/').unwrap_or((key, "tcp"));
    let transport = match word {
        "tcp" | "" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return Ok(Vec::new()),
    };
    let (from, to) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (from, to): (Port, Port) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
    Ok((from.get()..=to.get()).filter_map(Port::new).map(|port| (port, transport)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn read(json: &str) -> Result<Container, ParseError> {
        container(json.replace("ID!", ID).as_bytes())
    }

    #[test]
    fn docker_20_10() {
        let c = read(
            r#"{"Id":"ID!","Name":"/web","State":{"Status":"running","Running":true,"Paused":false,"Pid":42,
            "StartedAt":"2026-01-02T03:04:05.678Z","Health":{"Status":"healthy","FailingStreak":0,"Log":[]}},
            "Config":{"Image":"acme/web:1","Env":["A=b=c","B","SERVICE_NAME=x"],"Labels":{"k":"v"},
            "ExposedPorts":{"80/tcp":{},"53/udp":{},"9/sctp":{}},"StopSignal":"SIGQUIT","StopTimeout":30},
            "HostConfig":{"NetworkMode":"default"},
            "NetworkSettings":{"IPAddress":"172.17.0.2","Ports":{"53/udp":null,
              "80/tcp":[{"HostIp":"0.0.0.0","HostPort":"49153"},{"HostIp":"::","HostPort":"49153"},{"HostIp":"","HostPort":""}]},
              "Networks":{"bridge":{"IPAddress":"172.17.0.2","GlobalIPv6Address":""}}}}"#,
        )
        .unwrap();
        assert_eq!((c.name.as_str(), c.image.as_str(), c.state), ("web", "acme/web:1", State::Running));
        assert_eq!(
            (c.health, c.stop_signal, c.stop_timeout.as_secs(), c.pid),
            (Some(Health::Healthy), 3, 30, Some(42))
        );
        assert_eq!(
            c.env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
            ["A=b=c", "B=", "SERVICE_NAME=x"]
        );
        let ports: Vec<_> = c.ports.iter().map(|p| (p.port.get(), p.transport, p.published.len())).collect();
        assert_eq!(ports, [(53, Transport::Udp, 0), (80, Transport::Tcp, 2)]);
        assert_eq!(c.networks["bridge"].ipv4, Some("172.17.0.2".parse().unwrap()));
    }

    #[test]
    fn an_image_by_a_part_of_its_id_has_no_other_name() {
        let id = format!("sha256:72da{}", "0".repeat(60));
        for (reference, image) in
            [("72da", id.as_str()), ("72da00", &id), ("72", "72"), ("cafe", "cafe"), ("web:1", "web:1")]
        {
            let json = r#"{"Id":"ID!","Image":"IMG","State":{"Status":"running"},"Config":{"Image":"REF"},
                "HostConfig":{"NetworkMode":"host"},"NetworkSettings":{}}"#;
            assert_eq!(read(&json.replace("IMG", &id).replace("REF", reference)).unwrap().image, image);
        }
    }

    #[test]
    fn docker_29_without_the_legacy_address_and_with_words_nobody_knows() {
        let c = read(
            r#"{"Id":"ID!","Name":"/web","State":{"Status":"hibernating","Health":{"Status":"pondering"}},"Config":{"Image":"web",
            "Labels":null,"Env":null,"StopSignal":null},"HostConfig":{"NetworkMode":"net"},
            "NetworkSettings":{"Ports":{},"Networks":{"net":{"IPAddress":"10.0.0.2","GlobalIPv6Address":"2001:db8::2","New":{}}}}}"#,
        )
        .unwrap();
        assert_eq!((c.state, c.health, c.stop_signal), (State::Other, Some(Health::Starting), 15));
        assert_eq!(c.networks["net"].ipv6, Some("2001:db8::2".parse().unwrap()));
    }

    #[test]
    fn podman_with_its_numbers_and_empty_words() {
        let c = read(
            r#"{"Id":"ID!","Name":"web","State":{"Status":"stopped","Running":false,"Pid":0,"StartedAt":"0001-01-01T00:00:00Z",
            "Health":{"Status":"","FailingStreak":0,"Log":null}},"Config":{"Image":"docker.io/library/web:latest","StopSignal":3,
            "StopTimeout":-1},"HostConfig":{"NetworkMode":"slirp4netns"},
            "NetworkSettings":{"IPAddress":"10.88.0.2","Ports":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"Networks":null}}"#,
        )
        .unwrap();
        assert_eq!((c.state, c.health, c.stop_signal), (State::Other, None, 3));
        assert_eq!((c.started_at.as_str(), c.pid, c.stop_timeout), ("", None, LONGEST_STOP));
        assert_eq!(c.ports[0].published, [Binding { ip: None, port: Port::new(8080).unwrap() }]);
        assert_eq!(c.networks["bridge"].ipv4, Some("10.88.0.2".parse().unwrap()));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_with_its_container() {
        let good = r#"{"Id":"ID!","Name":"/web","State":{"Status":"running"},"Config":{"Image":"web"},"HostConfig":{"NetworkMode":"host"},"NetworkSettings":{}}"#;
        read(good).unwrap();
        for (from, to, message) in [
            (r#""Config":{"Image":"web"},"#, "", "container 0123456789ab: Config is missing"),
            (r#""Image":"web""#, "", "container 0123456789ab: Config.Image is missing"),
            (r#""Status":"running""#, "", "container 0123456789ab: State.Status is missing"),
            (r#","NetworkSettings":{}"#, "", "container 0123456789ab: NetworkSettings is missing"),
            (r#""NetworkMode":"host""#, "", "container 0123456789ab: HostConfig.NetworkMode is missing"),
            ("ID!", "zz", "container zz: Id is not 64 hexadecimal digits"),
            (
                r#""NetworkSettings":{}"#,
                r#""NetworkSettings":{"Ports":{"x/tcp":[]}}"#,
                r#"container 0123456789ab: NetworkSettings.Ports has the key "x/tcp""#,
            ),
            (
                r#""NetworkSettings":{}"#,
                r#""NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"a","HostPort":"1"}]}}"#,
                r#"container 0123456789ab: NetworkSettings.Ports.80/tcp has the HostIp "a""#,
            ),
        ] {
            assert_eq!(read(&good.replace(from, to)).unwrap_err().to_string(), message);
        }
        let odd = read(&good.replace(r#""web"}"#, r#""web","Env":7}"#)).unwrap_err();
        assert_eq!((odd.container.as_str(), odd.field.as_str()), ("0123456789ab", "Config.Env"));
        assert_eq!(read("not json").unwrap_err().container, "?");
    }

    proptest! {
        #[test]
        fn rubbish_is_an_error_and_no_panic(text in "\\PC{0,60}", key in "[0-9-]{0,7}(/[a-z]{0,4})?") {
            let _ = container(text.as_bytes());
            let _ = port_key("f", &key);
        }
    }
}
