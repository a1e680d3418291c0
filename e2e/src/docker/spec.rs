//! What a container is to be like.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig, PortBinding};

use super::WHOAMI;
use crate::lab::MARK;

/// A container to be made. The default is a whoami that publishes port 80 on 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its image.
    pub image: String,
    /// Its name; else the daemon makes one up.
    pub name: Option<String>,
    /// Its labels; the run's mark is added.
    pub labels: HashMap<String, String>,
    /// Its environment.
    pub env: Vec<String>,
    /// The address on the host and the container's port, such as ("127.0.0.1", "80/tcp"); the daemon chooses the host's port.
    pub publish: Vec<(String, String)>,
    /// Ports that are exposed only.
    pub expose: Vec<String>,
    /// Its signal to stop; else the image's.
    pub stop_signal: Option<String>,
    /// A shell command as HEALTHCHECK, run every second.
    pub healthcheck: Option<String>,
}

impl Spec {
    /// A whoami of this service.
    pub fn whoami(service: &str) -> Self {
        Self {
            image: WHOAMI.to_owned(),
            name: None,
            labels: HashMap::from([("register.service".to_owned(), service.to_owned())]),
            env: Vec::new(),
            publish: vec![("127.0.0.1".to_owned(), "80/tcp".to_owned())],
            expose: Vec::new(),
            stop_signal: None,
            healthcheck: None,
        }
    }

    /// A whoami of this service, to be served on that port as HTTP.
    pub fn served(service: &str, port: u16) -> Self {
        Self::whoami(service).label("register.80.service-port", port).label("register.80.mode", "http")
    }

    /// Adds or replaces a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: impl ToString) -> Self {
        self.labels.insert(key.to_owned(), value.to_string());
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl ToString) -> Self {
        self.env.push(format!("{key}={}", value.to_string()));
        self
    }

    pub(super) fn body(&self, mark: &str) -> ContainerCreateBody {
        let mut labels = self.labels.clone();
        labels.insert(MARK.to_owned(), mark.to_owned());
        let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
        for (address, port) in &self.publish {
            let binding = PortBinding { host_ip: Some(address.clone()), host_port: None };
            bindings.entry(port.clone()).or_default().get_or_insert_default().push(binding);
        }
        let exposed = bindings.keys().chain(&self.expose).cloned().collect();
        let second = Some(1_000_000_000);
        let healthcheck = self.healthcheck.clone().map(|command| HealthConfig {
            test: Some(vec!["CMD-SHELL".to_owned(), command]),
            interval: second,
            timeout: second,
            retries: Some(1),
            ..HealthConfig::default()
        });
        ContainerCreateBody {
            image: Some(self.image.clone()),
            labels: Some(labels),
            env: Some(self.env.clone()),
            stop_signal: self.stop_signal.clone(),
            exposed_ports: Some(exposed),
            healthcheck,
            host_config: Some(HostConfig { port_bindings: Some(bindings), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        }
    }
}
