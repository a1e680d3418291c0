//! The daemon's list of containers, and what in it tells that a container must be inspected again.

use serde::Deserialize;
use serde_json::Value;

/// One entry of `GET /containers/json`, as far as it is needed.
#[derive(Debug, Clone, Deserialize)]
pub struct Listed {
    /// The container's id, not yet checked.
    #[serde(rename = "Id", default)]
    pub id: String,
    #[serde(rename = "Names", default)]
    names: Value,
    #[serde(rename = "State", default)]
    state: Value,
    #[serde(rename = "Status", default)]
    status: Value,
    #[serde(rename = "Ports", default)]
    ports: Value,
    #[serde(rename = "NetworkSettings", default)]
    networks: Value,
}

impl Listed {
    /// A text that changes when a listed fact changes which matters here: name, state, health, ports, addresses. The uptime in
    /// the status (`Up 2 hours (healthy)`) does not, and neither does the order of ports, which the daemon takes from a hash map.
    pub fn fingerprint(&self) -> String {
        let health = self.status.as_str().and_then(|s| s.split_once('(')).map_or("", |(_, health)| health);
        let health = if health.starts_with("healthy") || health.contains("health") { health } else { "" };
        let mut ports: Vec<String> =
            self.ports.as_array().map(|ports| ports.iter().map(Value::to_string).collect()).unwrap_or_default();
        ports.sort_unstable();
        format!("{} {} {health} {} {}", self.names, self.state, ports.join(","), self.networks)
    }
}
