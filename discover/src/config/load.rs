//! Files → checked config. Nothing is half read: either all of it holds, or every problem is told.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::keys::{ROOT, SERVICE};
use super::reader::Reader;
use super::types::Config;
use super::{ConfigError, Note, Report, check, env, source};

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
    let (config, report) = Reader::new(report, origin).config(&root);
    let Report { errors, warnings, notices, .. } = report;
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
