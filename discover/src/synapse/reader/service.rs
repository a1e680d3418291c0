//! One service of the config.

use std::sync::Arc;

use agent::config::check;
use model::ServiceName;
use serde_json::{Map, Value};

use super::Reader;
use crate::haproxy::words::template::template_problem;
use crate::synapse::keys::{DISCOVERY, METHODS, SERVICE_HAPROXY};
use crate::synapse::registration;
use crate::synapse::types::{Config, Discovery, Service, ServiceHaproxy, ServiceNginx, ServicePrometheus};

/// A service's parts for the generators.
pub(super) struct Sections {
    pub(super) haproxy: Arc<ServiceHaproxy>,
    pub(super) file_output_disabled: bool,
    pub(super) nginx: ServiceNginx,
    pub(super) prometheus: ServicePrometheus,
}

impl Reader {
    /// Where a service's backends come from: with `discovery_multi` its `discovery` is the watcher `primary` of a multi.
    fn discovery(&mut self, service: &Map<String, Value>, path: &str) -> Discovery {
        let object = |key: &str| service.get(key).and_then(Value::as_object).cloned();
        let own = object("discovery").unwrap_or_default();
        let mut at = format!("{path}.discovery");
        let has_method = own.get("method").and_then(Value::as_str).is_some_and(|m| !m.is_empty());
        self.require(has_method || !service.contains_key("discovery"), &format!("{at}.method"), "is required");
        let mut raw = match object("discovery_multi") {
            None => own,
            Some(mut multi) => {
                at = format!("{path}.discovery_multi");
                let method = multi.get("method").and_then(Value::as_str).unwrap_or("multi");
                // What is no method at all was found before.
                self.require(
                    method == "multi" || !METHODS.contains(&method),
                    &format!("{at}.method"),
                    "is multi, or left out",
                );
                let mut watchers = multi.get("watchers").and_then(Value::as_object).cloned().unwrap_or_default();
                if watchers.insert("primary".to_owned(), Value::Object(own)).is_some() {
                    let why = "is passed over, as in Synapse: the watcher primary is the service's discovery";
                    self.report.warn(&format!("{at}.watchers.primary"), why);
                }
                multi.insert("watchers".to_owned(), Value::Object(watchers));
                multi.insert("method".to_owned(), "multi".into());
                multi
            }
        };
        self.inner(&mut raw, &at);
        Discovery::of(raw).unwrap_or_else(|e| {
            let at = format!("{at}.{}", e.path());
            if !self.report.errors.iter().any(|n| n.path.starts_with(path)) {
                self.report.error(&at, e.inner().to_string());
            }
            Discovery::default()
        })
    }

    /// The watchers below a multi, at any depth, held against the table.
    fn inner(&mut self, discovery: &mut Map<String, Value>, path: &str) {
        for (name, value) in discovery.get_mut("watchers").and_then(Value::as_object_mut).into_iter().flatten() {
            let path = format!("{path}.watchers.{name}");
            match value.as_object_mut() {
                Some(map) => {
                    check::object(map, DISCOVERY, &path, &mut self.report);
                    self.inner(map, &path);
                }
                None => self.report.error(&path, "is not an object"),
            }
        }
    }

    pub(super) fn service(&mut self, name: &str, value: &Value, config: &mut Config) {
        let path = format!("services.{name}");
        let at = |key: &str| format!("{path}.{key}");
        let Some(object) = value.as_object() else { return };
        let copies = value["load_test_concurrency"].as_u64();
        let parsed: Option<ServiceName> = match name.parse() {
            Ok(name) => Some(name),
            Err(e) => {
                self.report.error(&path, format!("{e}"));
                None
            }
        };
        self.require(object.contains_key("discovery"), &at("discovery"), "is required");
        let discovery = self.discovery(object, &path);
        let Sections { haproxy, file_output_disabled, nginx, prometheus } = self.sections(value, &path);
        let defaults = value["default_servers"].as_array().into_iter().flatten().filter_map(Value::as_object);
        let default_servers: Vec<Map<String, Value>> = defaults.cloned().collect();
        let port = value["backend_port_override"].as_u64().and_then(|p| u16::try_from(p).ok());
        let port = port.or(haproxy.server_port_override);
        for (n, server) in default_servers.iter().enumerate() {
            if let Err(why) = registration::read(server, port) {
                self.report.error(&format!("{path}.default_servers[{n}]"), why);
            }
        }
        let Some(parsed) = parsed else { return };
        let truth = |key: &str, default| value[key].as_bool().unwrap_or(default);
        let service = Service {
            name: parsed,
            discovery,
            default_servers,
            keep_default_servers: truth("keep_default_servers", false),
            use_previous_backends: truth("use_previous_backends", true),
            backend_port_override: port,
            leader_election: truth("leader_election", false),
            haproxy,
            file_output_disabled,
            nginx,
            prometheus,
            raw: value.clone(),
        };
        match copies {
            None => config.services.push(Arc::new(service)),
            Some(copies) => {
                for n in 0..copies.min(10_000) {
                    match format!("{name}_{n}").parse() {
                        Ok(name) => config.services.push(Arc::new(Service { name, ..service.clone() })),
                        Err(e) => self.report.error(&path, format!("{e}")),
                    }
                }
            }
        }
    }

    /// What the generators make of a service, each from its own section.
    pub(super) fn sections(&mut self, service: &Value, path: &str) -> Sections {
        let section = |key: &str| service.get(key).cloned().unwrap_or_else(|| Value::Object(Map::new()));
        let at = |key: &str| format!("{path}.{key}");
        let raw = section("haproxy");
        self.lines(&raw, SERVICE_HAPROXY, &at("haproxy"));
        let mut haproxy: ServiceHaproxy = self.read(&raw, &at("haproxy")).unwrap_or_default();
        if raw["server_options"].is_null() {
            haproxy.server_options = Some(String::new()); // Synapse's default: it shows as a blank
        }
        self.service_haproxy(&haproxy, &raw, &at("haproxy"));
        Sections {
            haproxy: Arc::new(haproxy),
            file_output_disabled: service["file_output"]["disabled"].as_bool().unwrap_or(false),
            nginx: self.read(&section("nginx"), &at("nginx")).unwrap_or_default(),
            prometheus: self.read(&section("prometheus"), &at("prometheus")).unwrap_or_default(),
        }
    }

    fn service_haproxy(&mut self, haproxy: &ServiceHaproxy, raw: &Value, path: &str) {
        if let Some(name) = &haproxy.backend_name {
            let valid = name.parse::<ServiceName>().is_ok();
            self.require(valid, &format!("{path}.backend_name"), "is no section name (A-Z a-z 0-9 _ . : -)");
        }
        let address = haproxy.bind_address.as_deref();
        let valid = address.is_none_or(|t| !t.is_empty() && !t.contains(char::is_whitespace));
        self.require(valid, &format!("{path}.bind_address"), "is no address");
        if let Some(options) = &haproxy.server_options {
            let path = format!("{path}.server_options");
            let one_line = !options.chars().any(|c| c.is_control() && c != '\t');
            self.require(one_line, &path, "has a line break or another control character");
            if let Err(why) = template_problem(options) {
                self.report.error(&path, why);
            }
        }
        if raw.get("use_nerve_weights").is_some() {
            self.report
                .notice(&format!("{path}.use_nerve_weights"), "has an effect only in the top-level haproxy section");
        }
        if haproxy.server_port_override.is_some() {
            self.report.notice(
                &format!("{path}.server_port_override"),
                "is the old spelling of the service's backend_port_override",
            );
        }
    }
}
