//! One JSON file for each service, as Synapse's file_output writes it; every other `*.json` in the directory goes.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::files::{FileError, Replace, replace};
use agent::telemetry::Chain;
use model::{Backend, Pool, ServiceMap, ServiceName};
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use super::{Generator, Outcome};
use crate::reconcile::Desired;
use crate::synapse::Config;

/// The directory could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum FileOutputError {
    /// It cannot be made or listed.
    #[error("file_output's directory {path:?}")]
    Directory { path: PathBuf, source: io::Error },
    /// A file could not be written; its old form stays.
    #[error("writing a service's file")]
    Write(#[from] FileError),
}

/// file_output as a generator.
#[derive(Debug)]
pub struct FileOutput {
    directory: PathBuf,
    /// What was written last, by service, with the pool that it shows.
    written: ServiceMap,
    /// The services whose files are the only ones in the directory, once it was put in order.
    alone: Option<BTreeSet<ServiceName>>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Files to write, by service.
    pub writes: Vec<(ServiceName, Arc<Pool>)>,
    /// The services whose files stay, if every other one must be looked for.
    pub clean: Option<BTreeSet<ServiceName>>,
}

impl FileOutput {
    /// A generator for this config; `None` where file_output is not wanted.
    pub fn new(config: &Config) -> Option<Self> {
        Some(Self { directory: config.file_output.clone()?, written: ServiceMap::new(), alone: None })
    }

    /// The same, into another directory.
    pub fn with_directory(mut self, directory: &Path) -> Self {
        self.directory = directory.to_owned();
        self
    }

    fn path(&self, service: &ServiceName) -> PathBuf {
        self.directory.join(format!("{service}.json"))
    }

    /// Writes one service's file, if what is there says something else.
    fn write(&self, service: &ServiceName, pool: &Pool) -> Result<(), FileError> {
        let text = text(pool);
        let path = self.path(service);
        let there = std::fs::read_to_string(&path).ok().and_then(|old| serde_json::from_str::<Value>(&old).ok());
        if there.is_some() && there == serde_json::from_str(&text).ok() {
            return Ok(());
        }
        replace(&path, text.as_bytes(), Replace { mode: Some(0o644), ..Replace::default() })
    }

    /// Deletes every other `*.json`; one that cannot be deleted is told, and harms no other.
    fn clean(&self, keep: &BTreeSet<ServiceName>) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let ours = name.strip_suffix(".json").is_none_or(|service| keep.contains(service));
            // Dot files are no `*.json` to a shell or to Ruby's glob.
            if !ours
                && !name.starts_with('.')
                && !path.is_dir()
                && let Err(error) = std::fs::remove_file(&path)
            {
                warn!(path = %path.display(), error = %Chain(&error), "A file of another service could not be deleted.");
            }
        }
        Ok(())
    }
}

/// The file's text: a compact array in discovery order, without a newline.
pub fn text(pool: &Pool) -> String {
    let entries: Vec<String> = pool.backends().iter().map(|b| entry(b)).collect();
    format!("[{}]", entries.join(","))
}

/// A registration's own fields where they are known, else those of its value.
fn entry(backend: &Backend) -> String {
    match &backend.raw {
        Some(raw) => raw.to_string(),
        None => serde_json::to_string(backend).unwrap_or_default(), // string keys only
    }
}

impl Generator for FileOutput {
    type Plan = Plan;
    type Error = FileOutputError;

    fn plan(&self, desired: &Desired, _: Instant) -> Plan {
        let mut plan = Plan::default();
        let empty: Arc<Pool> = Arc::default();
        let wanted = || desired.configured.iter().filter(|s| !s.file_output_disabled);
        for service in wanted() {
            let pool = desired.services.get(&service.name).unwrap_or(&empty);
            if self.written.get(&service.name).is_none_or(|was| !Arc::ptr_eq(was, pool) && was != pool) {
                plan.writes.push((service.name.clone(), pool.clone()));
            }
        }
        let known = self.alone.as_ref().is_some_and(|alone| {
            let count = wanted().count();
            alone.len() == count && wanted().all(|s| alone.contains(&s.name))
        });
        if !known {
            plan.clean = Some(wanted().map(|s| s.name.clone()).collect());
        }
        plan
    }

    async fn apply(&mut self, plan: Plan) -> Result<Outcome, FileOutputError> {
        let failed = |source| FileOutputError::Directory { path: self.directory.clone(), source };
        if plan.clean.is_some() {
            std::fs::create_dir_all(&self.directory).map_err(failed)?;
        }
        for (service, pool) in plan.writes {
            self.write(&service, &pool)?;
            self.written.insert(service, pool);
        }
        if let Some(keep) = plan.clean {
            let failed = |source| FileOutputError::Directory { path: self.directory.clone(), source };
            self.clean(&keep).map_err(failed)?;
            self.written.retain(|service, _| keep.contains(service));
            self.alone = Some(keep);
        }
        Ok(Outcome::Done)
    }
}
