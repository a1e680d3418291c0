//! The checked config. The field docs are in the table, [`super::keys`]; defaults are filled in here.

use std::path::PathBuf;
use std::sync::Arc;

use model::ServiceName;
use registry::Owners;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::addresses::NetworkRule;
use crate::edge::EdgeSettings;

/// The whole config.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The services, in their order.
    pub services: Vec<Arc<Service>>,
    /// Which networks backends may have their addresses in.
    pub backend_networks: Vec<NetworkRule>,
    /// haproxy, if it is wanted.
    pub haproxy: Option<Arc<Haproxy>>,
    /// The HTTP edge, if it is wanted.
    pub edge: Option<Arc<EdgeSettings>>,
    /// Which nodes may register which services.
    pub owners: Owners,
    /// file_output's directory, if it is wanted.
    pub file_output: Option<PathBuf>,
    /// nginx, if it is wanted.
    pub nginx: Option<Arc<Nginx>>,
    /// Templates, by their names.
    pub templates: Vec<(String, Template)>,
    /// Prometheus' targets, if they are wanted.
    pub prometheus: Option<Prometheus>,
}

/// One service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub name: ServiceName,
    /// Where its backends come from.
    pub discovery: Discovery,
    /// Its default_servers, as registrations in JSON.
    pub default_servers: Vec<Map<String, Value>>,
    /// Whether they are added to every answer.
    pub keep_default_servers: bool,
    /// Whether an empty answer keeps the last backends.
    pub use_previous_backends: bool,
    pub backend_port_override: Option<u16>,
    /// Whether only the lowest id counts.
    pub leader_election: bool,
    /// Its part of haproxy.cfg.
    pub haproxy: Arc<ServiceHaproxy>,
    /// Whether it has no file.
    pub file_output_disabled: bool,
    /// Its part of nginx.conf.
    pub nginx: ServiceNginx,
    /// Its Prometheus targets.
    pub prometheus: ServicePrometheus,
    /// All of its config, for templates.
    pub raw: Value,
}

impl Service {
    /// The name of the section of haproxy.cfg that holds its servers.
    pub fn haproxy_section(&self) -> &str {
        self.haproxy.backend_name.as_deref().unwrap_or(self.name.as_str())
    }
}

/// Where backends come from.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Discovery {
    pub method: String,
    pub label_filters: Vec<LabelFilter>,
    pub label_filter: Vec<LabelFilter>,
    /// All of its keys: each method reads its own.
    #[serde(skip)]
    pub raw: Map<String, Value>,
}

impl Discovery {
    /// Reads a discovery; the table of keys has been held against it.
    ///
    /// # Errors
    /// Where the table would have complained.
    pub fn of(raw: Map<String, Value>) -> Result<Self, serde_path_to_error::Error<serde_json::Error>> {
        let discovery: Self = serde_path_to_error::deserialize(Value::Object(raw.clone()))?;
        Ok(Self { raw, ..discovery })
    }

    /// All filters, the old spelling first.
    pub fn filters(&self) -> impl Iterator<Item = &LabelFilter> {
        self.label_filter.iter().chain(&self.label_filters)
    }
}

/// A condition on a label.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct LabelFilter {
    pub label: String,
    pub value: Value,
    pub condition: String,
}

/// haproxy's own section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Haproxy {
    pub global: Vec<String>,
    pub defaults: Vec<String>,
    #[serde(deserialize_with = "in_order")]
    pub extra_sections: Vec<(String, Vec<String>)>,
    pub config_file_path: Option<PathBuf>,
    pub socket_file_path: Vec<PathBuf>,
    pub reload_command: Option<String>,
    pub do_writes: bool,
    pub do_socket: bool,
    pub do_reloads: bool,
    pub do_checks: bool,
    pub check_command: Option<String>,
    pub candidate_config_file_path: Option<PathBuf>,
    pub bind_address: Option<String>,
    pub shared_frontend: Option<Vec<String>>,
    pub restart_interval: u64,
    pub restart_jitter: f64,
    pub state_file_path: Option<PathBuf>,
    pub state_file_ttl: u64,
    pub server_order_seed: Option<i64>,
    pub max_server_id: u32,
    pub use_nerve_weights: bool,
    pub harden: bool,
    pub allow_registry_options: Vec<String>,
}

impl Default for Haproxy {
    fn default() -> Self {
        Self {
            global: Vec::new(),
            defaults: Vec::new(),
            extra_sections: Vec::new(),
            config_file_path: None,
            socket_file_path: Vec::new(),
            reload_command: None,
            do_writes: true,
            do_socket: true,
            do_reloads: true,
            do_checks: false,
            check_command: None,
            candidate_config_file_path: None,
            bind_address: None,
            shared_frontend: None,
            restart_interval: 2,
            restart_jitter: 0.0,
            state_file_path: None,
            state_file_ttl: 86_400,
            server_order_seed: None,
            max_server_id: 65_535,
            use_nerve_weights: false,
            harden: false,
            allow_registry_options: Vec::new(),
        }
    }
}

/// A service's part of haproxy.cfg.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ServiceHaproxy {
    pub disabled: bool,
    /// Absent, null, or a port.
    #[serde(deserialize_with = "present")]
    pub port: Option<Option<String>>,
    pub bind_address: Option<String>,
    pub bind_options: Option<String>,
    pub backend_name: Option<String>,
    pub frontend: Vec<String>,
    pub backend: Vec<String>,
    pub listen: Vec<String>,
    #[serde(deserialize_with = "text_only")]
    pub server_options: Option<String>,
    pub server_port_override: Option<u16>,
    pub backend_order: Option<String>,
    pub cookie_value_method: Option<String>,
    pub shared_frontend: Option<Vec<String>>,
    pub server_backup_port: Option<u16>,
    /// A registry holds it: its words are not the operator's.
    #[serde(skip)]
    pub from_registry: bool,
}

impl ServiceHaproxy {
    /// Where its frontend listens: `address:port`, or the address alone where the port is null.
    pub fn bind_place(&self, top: &Haproxy) -> Option<String> {
        let port = self.port.as_ref()?;
        let address = self.bind_address.as_deref().or(top.bind_address.as_deref()).unwrap_or("localhost");
        Some([Some(address), port.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(":"))
    }
}

/// nginx's own section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Nginx {
    #[serde(deserialize_with = "in_order")]
    pub contexts: Vec<(String, Vec<String>)>,
    pub do_writes: bool,
    pub do_reloads: bool,
    pub config_file_path: Option<PathBuf>,
    pub check_command: Option<String>,
    pub reload_command: Option<String>,
    pub start_command: Option<String>,
    pub restart_interval: u64,
    pub restart_jitter: f64,
    pub listen_address: Option<String>,
}

impl Default for Nginx {
    fn default() -> Self {
        Self {
            contexts: Vec::new(),
            do_writes: true,
            do_reloads: true,
            config_file_path: None,
            check_command: None,
            reload_command: None,
            start_command: None,
            restart_interval: 2,
            restart_jitter: 0.0,
            listen_address: None,
        }
    }
}

/// A service's part of nginx.conf.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ServiceNginx {
    pub disabled: bool,
    pub mode: Option<String>,
    #[serde(deserialize_with = "present")]
    pub port: Option<Option<String>>,
    pub upstream: Vec<String>,
    pub server: Vec<String>,
    pub listen_address: Option<String>,
    pub listen_options: Option<String>,
    pub upstream_order: Option<String>,
    pub upstream_name: Option<String>,
    pub server_options: Option<String>,
}

/// One file rendered from a template.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Template {
    pub source: PathBuf,
    pub destination: PathBuf,
    pub mode: Option<String>,
    pub owner: Option<String>,
    pub check_command: Option<String>,
    pub reload_command: Option<String>,
    pub quiet: f64,
    pub max_wait: Option<f64>,
}

/// What the names of labels from registrations begin with, unless the config says otherwise.
pub const REGISTERED: &str = "label_";

/// Prometheus' targets.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Prometheus {
    pub file: PathBuf,
    pub label_prefix: String,
}

impl Default for Prometheus {
    fn default() -> Self {
        Self { file: PathBuf::new(), label_prefix: REGISTERED.to_owned() }
    }
}

/// A service's Prometheus targets.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ServicePrometheus {
    pub disabled: bool,
    pub labels: std::collections::BTreeMap<String, String>,
}

/// A null that is there is not the same as no key.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(d).map(Some)
}

/// What is no text counts as nothing.
fn text_only<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(Value::deserialize(d)?.as_str().map(str::to_owned))
}

/// An object of lines in the order of the file.
fn in_order<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<(String, Vec<String>)>, D::Error> {
    let map = Map::deserialize(d)?;
    let lines = |v: Value| serde_json::from_value(v).map_err(serde::de::Error::custom);
    map.into_iter().map(|(title, value)| Ok((title, lines(value)?))).collect()
}
