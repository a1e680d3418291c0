//! The daemon's list of containers, and what in it tells that a container must be inspected again.

use serde::Deserialize;
use serde_json::Value;

/// One entry of `GET /containers/json`. Two are the same if nothing that matters here differs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Raw")]
pub struct Listed {
    /// The container's id, not yet checked.
    pub id: String,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// A text that changes when a listed fact changes which matters here: name, state, health, ports, addresses. The uptime in
    /// the status (`Up 2 hours (healthy)`) does not, and neither does the order of ports, which the daemon takes from a hash map.
    fingerprint: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Raw {
    id: String,
    names: Value,
    state: Value,
    status: Value,
    ports: Value,
    network_settings: Value,
}

impl From<Raw> for Listed {
    fn from(raw: Raw) -> Self {
        let health = raw.status.as_str().and_then(|s| s.split_once('(')).map_or("", |(_, health)| health);
        let health = if health.starts_with("healthy") || health.contains("health") { health } else { "" };
        let mut ports: Vec<String> =
            raw.ports.as_array().map(|ports| ports.iter().map(Value::to_string).collect()).unwrap_or_default();
        ports.sort_unstable();
        let fingerprint = format!("{} {} {health} {} {}", raw.names, raw.state, ports.join(","), raw.network_settings);
        let name = raw.names[0].as_str().map(|name| name.trim_start_matches('/').to_owned());
        Self { id: raw.id, name, fingerprint }
    }
}
