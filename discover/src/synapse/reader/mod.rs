//! A value that the table of keys has made regular → the checked config: what the keys of one object mean together.

mod edge;
mod owners;
mod places;
mod registry;
mod service;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::ServiceName;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Report;
use super::directives::{Verdict, verdict};
use super::keys::{HAPROXY, Key, Kind};
use super::types::{Config, Haproxy, Template};

pub use edge::edge;
pub(crate) use places::spelled;
pub use registry::with_registry_sections;

/// Reads one config; what is wrong with it gathers in the report.
pub struct Reader {
    report: Report,
    /// The files of services from service_conf_dir.
    origin: HashMap<String, PathBuf>,
    main: PathBuf,
}

impl Reader {
    /// A reader that goes on with this report, whose file is the main one. `origin` tells which services came from
    /// files of their own.
    pub fn new(report: Report, origin: HashMap<String, PathBuf>) -> Self {
        let main = report.file.clone();
        Self { report, origin, main }
    }

    /// The whole config, as far as it can be read, and what there is to say about it.
    pub fn config(mut self, root: &Map<String, Value>) -> (Config, Report) {
        let mut config = Config::default();
        let networks = root.get("backend_networks").and_then(Value::as_array).into_iter().flatten();
        for (n, network) in networks.enumerate() {
            match network.as_str().unwrap_or_default().parse() {
                Ok(rule) => config.backend_networks.push(rule),
                Err(e) => self.report.error(&format!("backend_networks[{n}]"), e.to_string()),
            }
        }
        if let Some(value) = root.get("haproxy") {
            self.lines(value, HAPROXY, "haproxy");
            config.haproxy = self.read(value, "haproxy").map(Arc::new);
            if let Some(haproxy) = config.haproxy.clone() {
                self.haproxy(&haproxy, value);
            }
        }
        if let Some(section) = root.get("edge").and_then(Value::as_object) {
            config.edge = Some(Arc::new(edge(section, "edge", &mut self.report)));
            self.require(config.haproxy.is_some(), "edge", "needs the section haproxy");
        }
        config.owners = self.owners(root.get("owners"));
        if let Some(value) = root.get("file_output") {
            config.file_output = value["output_directory"].as_str().map(PathBuf::from);
            self.require(config.file_output.is_some(), "file_output.output_directory", "is required");
        }
        if let Some(value) = root.get("nginx") {
            config.nginx = self.read(value, "nginx").map(Arc::new);
            if let Some(nginx) = config.nginx.clone() {
                let has = |name: &str| nginx.contexts.iter().any(|(n, _)| n == name);
                let rules = [
                    (has("main"), "contexts.main", "is required"),
                    (has("events"), "contexts.events", "is required"),
                    (
                        !nginx.do_writes || nginx.config_file_path.is_some(),
                        "config_file_path",
                        "is required with do_writes",
                    ),
                    (
                        !nginx.do_reloads || nginx.reload_command.is_some(),
                        "reload_command",
                        "is required with do_reloads",
                    ),
                ];
                for (good, key, why) in rules {
                    self.require(good, &format!("nginx.{key}"), why);
                }
            }
        }
        for (name, value) in root.get("template").and_then(Value::as_object).into_iter().flatten() {
            self.template(name, value, &mut config);
        }
        if let Some(value) = root.get("prometheus") {
            config.prometheus = self.read(value, "prometheus");
            self.require(value["file"].as_str().is_some_and(|f| !f.is_empty()), "prometheus.file", "is required");
        }
        for (name, value) in root.get("services").and_then(Value::as_object).into_iter().flatten() {
            self.report.file = self.origin.get(name).unwrap_or(&self.main).clone();
            self.service(name, value, &mut config);
        }
        self.report.file = self.main.clone();
        self.owned_have_nodes(&config);
        self.unique_sections(&config);
        self.unique_places(root, &mut config);
        self.report.file = self.main.clone();
        (config, self.report)
    }

    fn require(&mut self, good: bool, path: &str, why: &str) {
        if !good {
            self.report.error(path, why);
        }
    }

    /// The table has been before, so this fails only where it has complained already.
    fn read<T: DeserializeOwned>(&mut self, value: &Value, path: &str) -> Option<T> {
        match serde_path_to_error::deserialize(value.clone()) {
            Ok(read) => Some(read),
            Err(e) => {
                let at = format!("{path}.{}", e.path());
                if !self.report.errors.iter().any(|n| n.path.starts_with(path)) {
                    self.report.error(&at, e.inner().to_string());
                }
                None
            }
        }
    }

    fn template(&mut self, name: &str, value: &Value, config: &mut Config) {
        let path = format!("template.{name}");
        let Some(template) = self.read::<Template>(value, &path) else { return };
        self.require(template.source != Path::new(""), &format!("{path}.source"), "is required");
        self.require(template.destination != Path::new(""), &format!("{path}.destination"), "is required");
        let octal = template.mode.as_deref().is_none_or(|m| u32::from_str_radix(m, 8).is_ok_and(|m| m <= 0o7777));
        self.require(octal, &format!("{path}.mode"), "is not octal, such as 0644");
        config.templates.push((name.to_owned(), template));
    }

    fn haproxy(&mut self, h: &Haproxy, value: &Value) {
        for (name, there) in [("global", value.get("global").is_some()), ("defaults", value.get("defaults").is_some())]
        {
            self.require(there, &format!("haproxy.{name}"), "is required");
        }
        let rules = [
            (h.do_writes, h.config_file_path.is_some(), "config_file_path", "do_writes"),
            (h.do_socket, !h.socket_file_path.is_empty(), "socket_file_path", "do_socket"),
            (h.do_reloads, h.reload_command.is_some(), "reload_command", "do_reloads"),
            (h.do_checks, h.check_command.is_some(), "check_command", "do_checks"),
            (h.do_checks, h.candidate_config_file_path.is_some(), "candidate_config_file_path", "do_checks"),
        ];
        let pairs = ["config_file_path", "socket_file_path", "reload_command", "do_writes", "do_socket", "do_reloads"];
        if pairs.iter().all(|key| value.get(*key).is_none()) {
            // Every Synapse refuses this, each version for another one of them.
            let why = "says nothing of what is to be done: config_file_path, socket_file_path and reload_command are missing; a section \
                       that is to do nothing says so by do_writes, do_socket and do_reloads";
            self.report.error("haproxy", why);
            return;
        }
        for (on, there, key, switch) in rules {
            let path = format!("haproxy.{key}");
            match value.get(switch) {
                _ if !on || there => {}
                // Synapse asks for it only where the switch is there.
                None => self.report.warn(&path, format!("is missing, so {switch} counts as false")),
                Some(_) => self.report.error(&path, format!("is required unless {switch} is false")),
            }
        }
        for (title, _) in &h.extra_sections {
            let path = format!("haproxy.extra_sections.{title}");
            let words: Vec<&str> = title.split_whitespace().collect();
            self.require(!words.is_empty() && !title.chars().any(char::is_control), &path, "is no title of a section");
            if let ["listen" | "frontend", _, address] = words.as_slice() {
                self.report.notice(
                    &path,
                    format!("an address in the title is refused since HAProxy 1.8: it is written as `bind {address}`"),
                );
            }
        }
    }

    /// Every line of HAProxy's: removed directives are errors, old-fashioned ones notices.
    fn lines(&mut self, section: &Value, keys: &[Key], path: &str) {
        for (path, line) in each_line(section, keys, path) {
            match verdict(line) {
                Some(Verdict::Removed(modern)) => {
                    self.report.error(&path, format!("{line:?} was removed from HAProxy; its modern form: {modern}"))
                }
                Some(Verdict::OldFashioned(modern)) => {
                    self.report.notice(&path, format!("{line:?} is old-fashioned; its modern form: {modern}"))
                }
                None => {}
            }
        }
    }

    /// Two sections of one name: HAProxy would refuse the whole file.
    fn unique_sections(&mut self, config: &Config) {
        let mut seen: HashMap<&str, &ServiceName> = HashMap::new();
        for service in config.services.iter().filter(|s| !s.haproxy.disabled && config.haproxy.is_some()) {
            let section = service.haproxy_section();
            if let Some(other) = seen.insert(section, &service.name) {
                let path = format!("services.{}.haproxy.backend_name", service.name);
                self.report.error(&path, format!("section {section} is service {other}'s already"));
            }
        }
    }
}

/// The lines of HAProxy's in a section, each with its key path.
fn each_line<'a>(section: &'a Value, keys: &[Key], path: &str) -> Vec<(String, &'a str)> {
    let mut all = Vec::new();
    let mut list = |lines: &'a Value, path: &str| {
        let lines = lines.as_array().into_iter().flatten().enumerate();
        all.extend(lines.map(|(n, line)| (format!("{path}[{n}]"), line.as_str().unwrap_or_default())));
    };
    for key in keys {
        let (value, path) = (&section[key.name], format!("{path}.{}", key.name));
        match key.kind {
            Kind::Lines if matches!(key.name, "socket_file_path" | "allow_registry_options") => {}
            Kind::Lines => list(value, &path),
            Kind::Map(Kind::Lines) => {
                let sections = value.as_object().into_iter().flatten();
                sections.for_each(|(title, lines)| list(lines, &format!("{path}.{title}")));
            }
            _ => {}
        }
    }
    all
}
