//! The daemon's list of containers, and what in it tells that a container must be inspected again.

use bollard::models::{ContainerSummary, EndpointSettings};

/// One entry of `GET /containers/json`. Two are the same if nothing that matters here differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The container's id, not yet checked.
    pub id: String,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// A text that changes when a listed fact changes which matters here: name, state, health, ports, addresses. The uptime in
    /// the status (`Up 2 hours (healthy)`) does not, and neither does the order of ports and networks, which comes from hash maps.
    fingerprint: String,
}

impl From<ContainerSummary> for Listed {
    fn from(summary: ContainerSummary) -> Self {
        let status = summary.status.unwrap_or_default();
        let health = status.split_once('(').map_or("", |(_, health)| health);
        let health = if health.contains("health") { health } else { "" };
        let mut ports: Vec<String> = summary.ports.unwrap_or_default().iter().map(|port| format!("{port:?}")).collect();
        ports.sort_unstable();
        let addresses = |(name, endpoint): (String, EndpointSettings)| {
            let EndpointSettings { network_id, ip_address, global_ipv6_address, .. } = endpoint;
            format!("{name} {network_id:?} {ip_address:?} {global_ipv6_address:?}")
        };
        let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let mut networks: Vec<String> = networks.into_iter().map(addresses).collect();
        networks.sort_unstable();
        let names = summary.names.unwrap_or_default();
        let fingerprint = format!("{names:?} {:?} {health} {ports:?} {networks:?}", summary.state);
        let name = names.first().map(|name| name.trim_start_matches('/').to_owned());
        Self { id: summary.id.unwrap_or_default(), name, fingerprint }
    }
}
