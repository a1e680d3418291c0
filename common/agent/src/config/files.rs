//! The files of a config: the main one, and those of service_conf_dir.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::table::Key;
use super::{Report, check, env, source};

/// The object that the file in `path` holds, with variables put in; `None`: it was no object, and that was reported.
pub fn read_object(
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

/// Takes in the services of `service_conf_dir`, held against the keys of `service`: one of the same name takes the
/// other's place. `origin` learns which file a service is from, `files` what was read.
pub fn conf_dir(
    root: &mut Map<String, Value>,
    service: &[Key],
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
                    format!("{} is passed over, as Synapse and Nerve do: name it .yaml", path.display()),
                );
                continue;
            }
            _ => continue,
        }
        let main = std::mem::replace(&mut report.file, path.clone());
        if let Some(mut read) = read_object(&path, lookup, report) {
            check::object(&mut read, service, &format!("services.{stem}"), report);
            if let Some(services) = root.get_mut("services").and_then(Value::as_object_mut) {
                services.insert(stem.to_owned(), Value::Object(read)); // in place, where the name is there already
            }
            origin.insert(stem.to_owned(), path.clone());
        }
        report.file = main;
        files.push(path);
    }
}

/// What tells that a file has changed: when it was written, and its size in bytes; `None`: it is not there.
pub fn stamps(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    files.iter().map(stamp).collect()
}
