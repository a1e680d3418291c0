//! Files → checked config. Nothing is half read: either all of it holds, or every problem is told.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use agent::config::files::{conf_dir, read_object};
use model::ServiceName;

use super::keys::{ROOT, SERVICE};
use super::reader::Reader;
use super::types::Config;
use super::{ConfigError, Note, Report, check};

/// A config and what is to be said about it.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
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
pub fn load(path: &Path) -> Result<LoadedConfig, ConfigError> {
    load_with(path, &|name| std::env::var(name).ok())
}

/// As [`load`], with another environment.
///
/// # Errors
/// [`ConfigError`] with every problem.
pub fn load_with(path: &Path, lookup: &dyn Fn(&str) -> Option<String>) -> Result<LoadedConfig, ConfigError> {
    load_judged(path, lookup, |_| Ok(Vec::new()))
}

/// What is wrong with one key of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongKey {
    /// The service.
    pub service: ServiceName,
    /// The key path within it, such as `discovery.path`.
    pub key: String,
    /// What about it.
    pub why: String,
}

/// As [`load_with`]; `judge` knows of further problems of what could be read, or of what is doubtful only.
///
/// # Errors
/// [`ConfigError`] with every problem.
pub fn load_judged(
    path: &Path,
    lookup: &dyn Fn(&str) -> Option<String>,
    judge: impl FnOnce(&Config) -> Result<Vec<WrongKey>, Vec<WrongKey>>,
) -> Result<LoadedConfig, ConfigError> {
    let mut report = Report { file: path.to_owned(), ..Report::default() };
    let mut files = vec![path.to_owned()];
    let Some(mut root) = read_object(path, lookup, &mut report) else { return Err(ConfigError(report.errors)) };
    check::object(&mut root, ROOT, "", &mut report);
    let mut origin = HashMap::new();
    conf_dir(&mut root, SERVICE, &mut origin, lookup, &mut report, &mut files);
    let (config, mut report) = Reader::new(report, origin.clone()).config(&root);
    let judged = judge(&config);
    let doubtful = judged.is_ok();
    for WrongKey { service, key, why } in judged.unwrap_or_else(|wrong| wrong) {
        let path = format!("services.{service}.{key}");
        // A service of several copies is told once, and so is a key that was found wrong before, or what it stands in.
        let told = |note: &Note| note.path == path || path.starts_with(&format!("{}.", note.path));
        if !if doubtful { &report.warnings } else { &report.errors }.iter().any(told) {
            report.file = origin.get(service.as_str()).cloned().unwrap_or_else(|| files[0].clone());
            if doubtful { report.warn(&path, why) } else { report.error(&path, why) }
        }
    }
    let Report { errors, warnings, notices, .. } = report;
    if errors.is_empty() { Ok(LoadedConfig { config, warnings, notices, files }) } else { Err(ConfigError(errors)) }
}
