//! `docker inspect` → [`Container`]: only the fields that are needed, each as loosely as daemons write it (20.10 to 29, Podman).

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, EndpointSettings};
use bollard::models::{HealthStatusEnum, PortMap};
use serde_json::Value;

use super::lenient::{self, Reply};
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
    pub why: String,
}

/// Reads the answer to `GET /containers/{id}/json`.
///
/// # Errors
/// [`ParseError`] naming the container and the field.
pub fn container(json: &[u8]) -> Result<Container, ParseError> {
    let reply = lenient::read(json).map_err(|e| ParseError {
        container: "?".to_owned(),
        field: e.path,
        why: e.why.to_string(),
    })?;
    let mut container = describe(reply)?;
    if may_be_legacy(&container) {
        add_legacy_network(&mut container, json);
    }
    Ok(container)
}

/// Reads a decoded reply.
///
/// # Errors
/// [`ParseError`] naming the container and the field.
pub(super) fn describe(reply: Reply<ContainerInspectResponse>) -> Result<Container, ParseError> {
    let Reply { value: raw, odd } = reply;
    let who = raw.id.as_ref().or(raw.name.as_ref()).map_or("?", String::as_str);
    let who: String = who.chars().filter(|c| !c.is_control()).take(12).collect();
    let fail = |field: &str, why: String| ParseError { container: who.clone(), field: field.to_owned(), why };
    let missing = |field: &str| fail(field, "is missing".to_owned());
    if let Some((field, value)) = odd.iter().find(|(field, value)| is_needed(field) && !is_understood(field, value)) {
        return Err(fail(field, format!("cannot be {}", value.to_string().chars().take(80).collect::<String>())));
    }

    let id = raw.id.ok_or_else(|| missing("Id"))?;
    let id: ContainerId = id.parse().map_err(|_| fail("Id", "is not 64 hexadecimal digits".to_owned()))?;
    let state = raw.state.ok_or_else(|| missing("State"))?;
    let config = raw.config.ok_or_else(|| missing("Config"))?;
    let settings = raw.network_settings.ok_or_else(|| missing("NetworkSettings"))?;
    let network_mode = raw.host_config.and_then(|h| h.network_mode).ok_or_else(|| missing("HostConfig.NetworkMode"))?;
    let beside = |prefix: &str| -> Vec<String> {
        odd.keys().filter_map(|path| path.strip_prefix(prefix)).map(str::to_owned).collect()
    };
    let mut labels: BTreeMap<_, _> = config.labels.unwrap_or_default().into_iter().collect();
    labels.extend(beside("Config.Labels.").into_iter().map(|name| (name, String::new())));
    let exposed = config.exposed_ports.unwrap_or_default().into_iter().chain(beside("Config.ExposedPorts."));
    let mut networks = networks(settings.networks.unwrap_or_default());
    networks.extend(beside(NETWORKS).into_iter().filter(|n| !n.contains('.')).map(|name| (name, Network::default())));
    let signal = |value: &Value| parse_signal(&value.to_string());
    let stop_signal = config.stop_signal.as_deref().and_then(parse_signal);
    Ok(Container {
        name: raw.name.map_or_else(|| id.short().to_owned(), |name| name.trim_start_matches('/').to_owned()),
        image: image(config.image.ok_or_else(|| missing("Config.Image"))?, raw.image.as_deref()),
        labels,
        env: config.env.unwrap_or_default().iter().map(|entry| variable(entry)).collect(),
        state: match odd.contains_key("State.Status") {
            true => State::Other,
            false => standing(&state).ok_or_else(|| missing("State.Status"))?,
        },
        // A word that nobody knows has not passed.
        health: match odd.contains_key("State.Health.Status") {
            true => Some(Health::Starting),
            false => state.health.and_then(|health| health.status).and_then(health),
        },
        network_mode,
        networks,
        ports: ports(exposed, settings.ports).map_err(|(field, why)| fail(&field, why))?,
        stop_signal: stop_signal.or_else(|| odd.get("Config.StopSignal").and_then(signal)).unwrap_or(SIGTERM),
        // A negative one means "for ever".
        stop_timeout: config.stop_timeout.map_or(STOP_TIMEOUT, |s| {
            u64::try_from(s).map_or(LONGEST_STOP, |s| Duration::from_secs(s).min(LONGEST_STOP))
        }),
        started_at: state.started_at.filter(|at| !at.starts_with("0001-")).unwrap_or_default(),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
        id,
    })
}

const NETWORKS: &str = "NetworkSettings.Networks.";

/// Whether a registration depends on this field: then an unknown value leaves the container out.
fn is_needed(field: &str) -> bool {
    const FIELDS: [&str; 18] = [
        "Id",
        "Name",
        "State",
        "State.Status",
        "State.Running",
        "State.Paused",
        "State.Restarting",
        "State.Pid",
        "State.StartedAt",
        "State.Health",
        "State.Health.Status",
        "Config",
        "Config.Image",
        "HostConfig",
        "HostConfig.NetworkMode",
        "Config.StopSignal",
        "Config.StopTimeout",
        "NetworkSettings",
    ];
    const ROOMS: [&str; 5] =
        ["Config.Labels", "Config.Env", "Config.ExposedPorts", "NetworkSettings.Ports", "NetworkSettings.Networks"];
    let within =
        |room: &str| field.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    match field.strip_prefix(NETWORKS) {
        Some(rest) if rest.contains('.') => rest.ends_with(".IPAddress") || rest.ends_with(".GlobalIPv6Address"),
        _ => FIELDS.contains(&field) || ROOMS.into_iter().any(within),
    }
}

/// Whether [`describe`] can use a value that bollard does not know.
fn is_understood(field: &str, value: &Value) -> bool {
    match field {
        "State.Status" | "State.Health.Status" => value.is_string(),
        "Config.StopSignal" => value.is_number(),
        _ if field.starts_with("Config.ExposedPorts.") => true,
        _ => value.is_null() && (field.starts_with("Config.Labels.") || field.starts_with(NETWORKS)),
    }
}

/// Whether the container's address may be in `NetworkSettings.IPAddress` only, where old Podman has it. bollard does not read that field:
/// Docker dropped it in API 1.52.
pub(super) fn may_be_legacy(container: &Container) -> bool {
    let mode = container.network_mode.as_str();
    let of_its_own = mode != "host" && mode != "none" && !mode.starts_with("container:") && !mode.starts_with("ns:");
    container.networks.is_empty() && of_its_own
}

/// Reads that field from the whole reply.
pub(super) fn add_legacy_network(container: &mut Container, json: &[u8]) {
    let described: Value = serde_json::from_slice(json).unwrap_or_default();
    let address = described["NetworkSettings"]["IPAddress"].as_str().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    if let Some(ipv4) = address {
        container.networks.insert("bridge".to_owned(), Network { ipv4: Some(ipv4), ipv6: None });
    }
}

const SIGTERM: i32 = 15;

/// Docker's default for `StopTimeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// A day stands for ever.
const LONGEST_STOP: Duration = Duration::from_secs(86_400);

/// The reference, or the whole id where the container was made by a part of it: that is no name.
fn image(reference: String, id: Option<&str>) -> String {
    let id = id.unwrap_or_default();
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

fn standing(state: &ContainerState) -> Option<State> {
    use ContainerStateStatusEnum as Status;
    let by_flags = || match (state.running?, state.paused, state.restarting) {
        (_, Some(true), _) => Some(State::Paused),
        (_, _, Some(true)) => Some(State::Restarting),
        (true, ..) => Some(State::Running),
        (false, ..) => Some(State::Exited),
    };
    Some(match state.status {
        None | Some(Status::EMPTY) => return by_flags(),
        Some(Status::RUNNING) => State::Running,
        Some(Status::PAUSED) => State::Paused,
        Some(Status::RESTARTING) => State::Restarting,
        Some(Status::CREATED) => State::Created,
        Some(Status::EXITED) => State::Exited,
        Some(Status::DEAD) => State::Dead,
        Some(Status::REMOVING) => State::Removing,
        Some(Status::STOPPING) => State::Other,
    })
}

/// An empty word is Podman's for no HEALTHCHECK, `none` is Docker's.
fn health(status: HealthStatusEnum) -> Option<Health> {
    match status {
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
        HealthStatusEnum::STARTING => Some(Health::Starting),
    }
}

fn networks(raw: HashMap<String, EndpointSettings>) -> BTreeMap<String, Network> {
    let of = |(name, endpoint): (String, EndpointSettings)| {
        let ipv4 = endpoint.ip_address.and_then(|ip| ip.parse().ok());
        let ipv6 = endpoint.global_ipv6_address.and_then(|ip| ip.parse().ok());
        (name, Network { ipv4, ipv6 })
    };
    raw.into_iter().map(of).collect()
}

/// Exposed and published ports together, each once, its bindings sorted and without doubles.
fn ports(
    exposed: impl Iterator<Item = String>,
    published: Option<PortMap>,
) -> Result<Vec<ContainerPort>, (String, String)> {
    let mut ports: BTreeMap<(Port, Transport), Vec<Binding>> = BTreeMap::new();
    for key in exposed {
        for port in port_key("Config.ExposedPorts", &key)? {
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
