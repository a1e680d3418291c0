//! Files → checked config. A service that is wrong is left out and named; a file that is wrong as a whole is refused.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::config::files::{conf_dir, read_object};
use agent::config::{ConfigError, Note, Report, check};
use serde_json::{Map, Value};

use super::keys::{ROOT, SERVICE};
use super::service;
use super::types::{Config, Service};

/// The most copies of one service (`load_test_concurrency`).
const COPIES: u64 = 10_000;

/// A config and what is to be said about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config, without the services that are wrong.
    pub config: Config,
    /// Services that are left out, and everything that is wrong with them.
    pub wrong: BTreeMap<Arc<str>, Vec<Note>>,
    /// What is passed over.
    pub warnings: Vec<Note>,
    /// What is only old-fashioned, or filled in.
    pub notices: Vec<Note>,
    /// Every file that was read, and the directory: what to watch for changes.
    pub files: Vec<PathBuf>,
}

/// Reads the config in `path`; `instance` takes the place of its instance_id.
///
/// # Errors
/// [`ConfigError`] with every problem, where the file as a whole cannot be used.
pub fn load(path: &Path, instance: Option<&str>) -> Result<Loaded, ConfigError> {
    load_with(path, instance, &|name| std::env::var(name).ok())
}

/// As [`load`], with another environment.
///
/// # Errors
/// [`ConfigError`] with every problem, where the file as a whole cannot be used.
pub fn load_with(
    path: &Path,
    instance: Option<&str>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, ConfigError> {
    let mut report = Report { file: path.to_owned(), ..Report::default() };
    let mut files = vec![path.to_owned()];
    let Some(mut root) = read_object(path, lookup, &mut report) else { return Err(ConfigError(report.errors)) };
    check::object(&mut root, ROOT, "", &mut report);
    let mut origin = HashMap::new();
    conf_dir(&mut root, SERVICE, &mut origin, lookup, &mut report, &mut files);
    let instance =
        instance.map(str::to_owned).or_else(|| root.get("instance_id").and_then(Value::as_str).map(str::to_owned));
    let instance = name_of(instance, &mut report);
    if !root.get("services").is_some_and(Value::is_object) && !report.errors.iter().any(|e| e.path == "services") {
        report.error("services", "is required, here or in service_conf_dir");
    }
    let names: Vec<String> =
        root.get("services").and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect();
    let mut services = BTreeMap::new();
    let mut wrong: BTreeMap<Arc<str>, Vec<Note>> = BTreeMap::new();
    for (name, value) in root.get("services").and_then(Value::as_object).into_iter().flatten() {
        report.file = origin.get(name).cloned().unwrap_or_else(|| path.to_owned());
        let known = report.errors.iter().any(|note| culprit(note, &names, path).as_deref() == Some(name));
        let Some(fields) = value.as_object() else { continue };
        if name.is_empty() || name.len() > 200 || name.chars().any(char::is_control) {
            report.error(&format!("services.{name}"), "is no name of 1 to 200 printable characters");
            continue;
        }
        // Read even if something is known to be wrong: all of it is to be told at once.
        let Some(service) = service::read(name, fields, &instance, &mut report).filter(|_| !known) else { continue };
        services.extend(copies(service, fields));
    }
    let (of_services, fatal): (Vec<Note>, Vec<Note>) =
        report.errors.iter().cloned().partition(|note| culprit(note, &names, path).is_some());
    if !fatal.is_empty() {
        return Err(ConfigError(report.errors));
    }
    for note in of_services {
        if let Some(name) = culprit(&note, &names, path) {
            wrong.entry(name.into()).or_default().push(note);
        }
    }
    services.retain(|name, _| !wrong.contains_key(name));
    let config = Config {
        instance: instance.into(),
        services,
        heartbeat_path: root.get("heartbeat_path").and_then(Value::as_str).map(PathBuf::from),
        max_failures: root
            .get("max_repeated_report_failures")
            .and_then(Value::as_u64)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(10),
        statsd: root.get("statsd").map(|statsd| {
            let port = statsd["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(8125);
            (statsd["host"].as_str().unwrap_or("localhost").to_owned(), port)
        }),
    };
    Ok(Loaded { config, wrong, warnings: report.warnings, notices: report.notices, files })
}

/// Which service an error concerns: by its key path, or by the file of service_conf_dir that could not be read.
fn culprit(note: &Note, names: &[String], main: &Path) -> Option<String> {
    if note.path.is_empty() && note.file != main {
        return note.file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    }
    let rest = note.path.strip_prefix("services.")?;
    let fits = |name: &&String| rest.strip_prefix(name.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('.'));
    names.iter().filter(fits).max_by_key(|name| name.len()).cloned()
}

/// The name becomes part of keys and paths, and of servers' names.
fn name_of(instance: Option<String>, report: &mut Report) -> String {
    let valid = |name: &str| {
        (1..=200).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:@-".contains(&b))
            && name != "."
            && name != ".."
    };
    match instance {
        Some(name) if valid(&name) => return name,
        Some(name) => {
            let shown: String = name.chars().take(80).collect();
            report.error("instance_id", format!("{shown:?} is not 1 to 200 characters of A-Z a-z 0-9 _ . : @ -"));
        }
        None => report.error("instance_id", "is required"),
    }
    String::new()
}

/// The service, or its copies for a load test.
fn copies(service: Service, fields: &Map<String, Value>) -> Vec<(Arc<str>, Arc<Service>)> {
    match fields.get("load_test_concurrency").and_then(Value::as_u64) {
        None => vec![(service.name.clone(), Arc::new(service))],
        Some(number) => {
            let copy = |n| {
                let name: Arc<str> = format!("{}_{n}", service.name).into();
                (name.clone(), Arc::new(Service { name, ..service.clone() }))
            };
            (0..number.min(COPIES)).map(copy).collect()
        }
    }
}
