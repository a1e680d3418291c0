//! Files → checked config. Nothing is half read: either all of it holds, or every problem is told.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use agent::config::files::{conf_dir, read_object};

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
    let mut report = Report { file: path.to_owned(), ..Report::default() };
    let mut files = vec![path.to_owned()];
    let Some(mut root) = read_object(path, lookup, &mut report) else { return Err(ConfigError(report.errors)) };
    check::object(&mut root, ROOT, "", &mut report);
    let mut origin = HashMap::new();
    conf_dir(&mut root, SERVICE, &mut origin, lookup, &mut report, &mut files);
    let (config, report) = Reader::new(report, origin).config(&root);
    let Report { errors, warnings, notices, .. } = report;
    if errors.is_empty() { Ok(LoadedConfig { config, warnings, notices, files }) } else { Err(ConfigError(errors)) }
}
