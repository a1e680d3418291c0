//! The table `owners`: which nodes may register which services.

use registry::{Owned, Owners};
use serde_json::Value;

use super::Reader;
use crate::synapse::types::Config;

impl Reader {
    /// Reads the table.
    pub(super) fn owners(&mut self, table: Option<&Value>) -> Owners {
        let mut entries = Vec::new();
        for (pattern, nodes) in table.and_then(Value::as_object).into_iter().flatten() {
            let nodes: Vec<&str> = match nodes {
                Value::String(one) => vec![one],
                many => many.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
            };
            match Owned::new(pattern, nodes) {
                Ok(entry) => entries.push(entry),
                Err(error) => self.report.error(&format!("owners.{pattern}"), error.to_string()),
            }
        }
        Owners::new(entries)
    }

    /// Where registrations have no nodes the table could only leave them all out: that is said here, and not by an empty service.
    pub(super) fn owned_have_nodes(&mut self, config: &Config) {
        for service in config.services.iter().filter(|service| config.owners.covers(&service.name)) {
            let discovery = &service.discovery;
            let path = discovery.raw.get("path").and_then(Value::as_str).unwrap_or_default();
            let named = discovery.method == "etcd" && path.split('/').any(|part| part.starts_with('@'));
            if !named {
                let at = format!("services.{}.discovery", service.name);
                self.report.error(
                    &at,
                    "owners names the service, so it needs method etcd and a path with a node (/backends/@NODE/…)",
                );
            }
        }
    }
}
