//! Files → checked config. Nothing is half read: either all of it holds, or every problem is told.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::model::ServiceName;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::directives::{Verdict, verdict};
use super::keys::{HAPROXY, ROOT, SERVICE, SERVICE_HAPROXY};
use super::types::{Config, Service, ServiceHaproxy, Template};
use super::{ConfigError, Note, Report, check, env, registration, source};

/// A config and what is to be said about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// What is passed over.
    pub warnings: Vec<Note>,
    /// What is only old-fashioned.
    pub notices: Vec<Note>,
    /// Every file that was read, and the directory: what to watch for changes.
    pub files: Vec<PathBuf>,
}

/// Reads the config in `path`.
///
/// # Errors
/// [`ConfigError`] with every problem.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    load_with(path, &|name| std::env::var(name).ok())
}

/// As [`load`], with another environment.
///
/// # Errors
/// [`ConfigError`] with every problem.
pub fn load_with(path: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, ConfigError> {
    let mut report = Report { file: path.to_owned(), ..Report::default() };
    let mut files = vec![path.to_owned()];
    let Some(mut root) = read_object(path, lookup, &mut report) else { return Err(ConfigError(report.errors)) };
    check::object(&mut root, ROOT, "", &mut report);
    let mut origin = HashMap::new();
    conf_dir(&mut root, &mut origin, lookup, &mut report, &mut files);
    let mut reader = Reader { report, origin, main: path.to_owned() };
    let config = reader.config(&root);
    let Report { errors, warnings, notices, .. } = reader.report;
    if errors.is_empty() { Ok(Loaded { config, warnings, notices, files }) } else { Err(ConfigError(errors)) }
}

fn read_object(
    path: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) -> Option<Map<String, Value>> {
    let read = std::fs::read_to_string(path).map_err(|e| format!("reading it: {e}"));
    match read.and_then(|text| source::read(&text).map_err(|e| e.to_string())) {
        Err(why) => report.error("", why),
        Ok(mut value) => {
            env::expand(&mut value, "", lookup, report);
            match value {
                Value::Object(map) => return Some(map),
                _ => report.error("", "is not an object of keys"),
            }
        }
    }
    None
}

/// Takes in the services of `service_conf_dir`: one of the same name takes the other's place.
fn conf_dir(
    root: &mut Map<String, Value>,
    origin: &mut HashMap<String, PathBuf>,
    lookup: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
    files: &mut Vec<PathBuf>,
) {
    let Some(dir) = root.get("service_conf_dir").and_then(Value::as_str).map(PathBuf::from) else { return };
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) => return report.error("service_conf_dir", format!("reading {}: {e}", dir.display())),
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    paths.sort();
    files.push(dir);
    if !root.get("services").is_some_and(Value::is_object) {
        root.insert("services".to_owned(), Value::Object(Map::new()));
    }
    for path in paths {
        let (Some(stem), Some(ext)) =
            (path.file_stem().and_then(|s| s.to_str()), path.extension().and_then(|e| e.to_str()))
        else {
            continue;
        };
        match ext {
            "json" | "yaml" => {}
            "yml" => {
                report.warn(
                    "service_conf_dir",
                    format!("{} is passed over, as Synapse does: name it .yaml", path.display()),
                );
                continue;
            }
            _ => continue,
        }
        let main = std::mem::replace(&mut report.file, path.clone());
        if let Some(mut service) = read_object(&path, lookup, report) {
            check::object(&mut service, SERVICE, &format!("services.{stem}"), report);
            if let Some(services) = root.get_mut("services").and_then(Value::as_object_mut) {
                services.insert(stem.to_owned(), Value::Object(service)); // in place, where the name is there already
            }
            origin.insert(stem.to_owned(), path.clone());
        }
        report.file = main;
        files.push(path);
    }
}

struct Reader {
    report: Report,
    /// The files of services from service_conf_dir.
    origin: HashMap<String, PathBuf>,
    main: PathBuf,
}

impl Reader {
    fn config(&mut self, root: &Map<String, Value>) -> Config {
        let mut config = Config::default();
        if let Some(value) = root.get("haproxy") {
            self.lines(value, HAPROXY, "haproxy");
            config.haproxy = self.read(value, "haproxy").map(Arc::new);
            if let Some(haproxy) = config.haproxy.clone() {
                self.haproxy(&haproxy, value);
            }
        }
        if let Some(value) = root.get("file_output") {
            config.file_output = value["output_directory"].as_str().map(PathBuf::from);
            self.require(config.file_output.is_some(), "file_output.output_directory", "is required");
        }
        if let Some(value) = root.get("nginx") {
            config.nginx = self.read(value, "nginx").map(Arc::new);
            if let Some(nginx) = config.nginx.clone() {
                let has = |name: &str| nginx.contexts.iter().any(|(n, _)| n == name);
                self.require(has("main"), "nginx.contexts.main", "is required");
                self.require(has("events"), "nginx.contexts.events", "is required");
                self.require(
                    !nginx.do_writes || nginx.config_file_path.is_some(),
                    "nginx.config_file_path",
                    "is required with do_writes",
                );
                self.require(
                    !nginx.do_reloads || nginx.reload_command.is_some(),
                    "nginx.reload_command",
                    "is required with do_reloads",
                );
            }
        }
        for (name, value) in root.get("template").and_then(Value::as_object).into_iter().flatten() {
            let path = format!("template.{name}");
            let Some(template) = self.read::<Template>(value, &path) else { continue };
            self.require(template.source != Path::new(""), &format!("{path}.source"), "is required");
            self.require(template.destination != Path::new(""), &format!("{path}.destination"), "is required");
            let octal = template.mode.as_deref().is_none_or(|m| u32::from_str_radix(m, 8).is_ok_and(|m| m <= 0o7777));
            self.require(octal, &format!("{path}.mode"), "is not octal, such as 0644");
            config.templates.push((name.clone(), template));
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
        self.unique_sections(&config);
        config
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

    fn haproxy(&mut self, h: &super::types::Haproxy, value: &Value) {
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
    fn lines(&mut self, section: &Value, keys: &[super::keys::Key], path: &str) {
        use super::keys::Kind;
        for key in keys {
            let value = &section[key.name];
            let path = format!("{path}.{}", key.name);
            match key.kind {
                Kind::Lines if matches!(key.name, "socket_file_path" | "allow_registry_options") => {}
                Kind::Lines => self.each_line(value, &path),
                Kind::Map(Kind::Lines) => {
                    for (title, lines) in value.as_object().into_iter().flatten() {
                        self.each_line(lines, &format!("{path}.{title}"));
                    }
                }
                _ => {}
            }
        }
    }

    fn each_line(&mut self, lines: &Value, path: &str) {
        for (n, line) in lines.as_array().into_iter().flatten().enumerate() {
            let line = line.as_str().unwrap_or_default();
            let at = format!("{path}[{n}]");
            match verdict(line) {
                Some(Verdict::Removed(modern)) => {
                    self.report.error(&at, format!("{line:?} was removed from HAProxy; its modern form: {modern}"))
                }
                Some(Verdict::OldFashioned(modern)) => {
                    self.report.notice(&at, format!("{line:?} is old-fashioned; its modern form: {modern}"))
                }
                None => {}
            }
        }
    }

    fn service(&mut self, name: &str, value: &Value, config: &mut Config) {
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
        let mut discovery: super::types::Discovery = self
            .read(value.get("discovery").unwrap_or(&Value::Object(Map::new())), &at("discovery"))
            .unwrap_or_default();
        if object.contains_key("discovery") {
            self.require(!discovery.method.is_empty(), &at("discovery.method"), "is required");
        }
        if object.contains_key("discovery_multi") {
            discovery.method = "multi".to_owned();
        }
        let section = |key: &str| value.get(key).cloned().unwrap_or_else(|| Value::Object(Map::new()));
        self.lines(&section("haproxy"), SERVICE_HAPROXY, &at("haproxy"));
        let mut haproxy: ServiceHaproxy = self.read(&section("haproxy"), &at("haproxy")).unwrap_or_default();
        if value["haproxy"]["server_options"].is_null() {
            haproxy.server_options = Some(String::new()); // Synapse's default: it shows as a blank
        }
        self.service_haproxy(&haproxy, &section("haproxy"), &at("haproxy"));
        let defaults = value["default_servers"].as_array().into_iter().flatten().filter_map(Value::as_object);
        let default_servers: Vec<Map<String, Value>> = defaults.cloned().collect();
        let port = value["backend_port_override"]
            .as_u64()
            .and_then(|p| u16::try_from(p).ok())
            .or(haproxy.server_port_override);
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
            haproxy: Arc::new(haproxy),
            file_output_disabled: value["file_output"]["disabled"].as_bool().unwrap_or(false),
            nginx: self.read(&section("nginx"), &at("nginx")).unwrap_or_default(),
            prometheus: self.read(&section("prometheus"), &at("prometheus")).unwrap_or_default(),
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

    /// A service's haproxy section, from the config or from the registry.
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
            self.require(
                !options.chars().any(|c| c.is_control() && c != '\t'),
                &path,
                "has a line break or another control character",
            );
            if let Err(why) = crate::generators::haproxy::synapse::template_problem(options) {
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

    /// Two sections of one name: HAProxy would refuse the whole file.
    fn unique_sections(&mut self, config: &Config) {
        let mut seen: HashMap<&str, &ServiceName> = HashMap::new();
        for service in config.services.iter().filter(|s| !s.haproxy.disabled && config.haproxy.is_some()) {
            let section = service.haproxy.backend_name.as_deref().unwrap_or(service.name.as_str());
            if let Some(other) = seen.insert(section, &service.name) {
                let path = format!("services.{}.haproxy.backend_name", service.name);
                self.report.error(&path, format!("section {section} is service {other}'s already"));
            }
        }
    }
}

/// Reads a haproxy section that came from the registry: the same rules, all of it or nothing.
///
/// # Errors
/// [`ConfigError`] with every problem.
pub fn registry_section(service: &ServiceName, section: &Value) -> Result<Arc<ServiceHaproxy>, ConfigError> {
    let file = PathBuf::from("the registry");
    let path = format!("services.{service}.haproxy");
    let mut report = Report { file: file.clone(), ..Report::default() };
    let mut section = section.clone();
    match section.as_object_mut() {
        Some(map) => check::object(map, SERVICE_HAPROXY, &path, &mut report),
        None => report.error(&path, "is not an object"),
    }
    let mut reader = Reader { report, origin: HashMap::new(), main: file };
    reader.lines(&section, SERVICE_HAPROXY, &path);
    let haproxy: ServiceHaproxy = reader.read(&section, &path).unwrap_or_default();
    reader.service_haproxy(&haproxy, &section, &path);
    if reader.report.errors.is_empty() { Ok(Arc::new(haproxy)) } else { Err(ConfigError(reader.report.errors)) }
}
