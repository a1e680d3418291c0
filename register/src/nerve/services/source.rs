//! The config, read again at SIGHUP and when a file changes. A bad one is refused, and what runs goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::config::files::stamps;
use agent::config::{ConfigError, Note};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::ServiceMetrics;
use crate::nerve::config::{self, Config, Loaded};

/// How often the config's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A config that can be used.
#[derive(Debug)]
pub struct Good {
    /// The config, without services that are wrong.
    pub config: Arc<Config>,
    /// Those, and what is wrong with them.
    pub wrong: BTreeMap<Arc<str>, Vec<Note>>,
}

/// How reading went the last time, for the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub file: PathBuf,
    /// When the config that runs was read.
    pub loaded: SystemTime,
    /// Why a newer one was refused, and when.
    pub refused: Option<(String, SystemTime)>,
}

/// Reads one file again and again.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    instance: Option<String>,
    files: Vec<PathBuf>,
    good: watch::Sender<Arc<Good>>,
    reading: watch::Sender<Reading>,
    changes: watch::Sender<u64>,
    metrics: ServiceMetrics,
}

impl Source {
    /// Reads the file for the first time; `instance` takes the place of its instance_id.
    ///
    /// # Errors
    /// [`ConfigError`] where the file as a whole cannot be used.
    pub fn open(
        path: PathBuf,
        instance: Option<String>,
        changes: watch::Sender<u64>,
        metrics: ServiceMetrics,
    ) -> Result<Self, ConfigError> {
        let Loaded { config, wrong, warnings, notices, files } = config::load(&path, instance.as_deref())?;
        say(&wrong, &warnings, &notices);
        let reading = Reading { file: path.clone(), loaded: SystemTime::now(), refused: None };
        let good = watch::Sender::new(Arc::new(Good { config: Arc::new(config), wrong }));
        Ok(Self { path, instance, files, good, reading: watch::Sender::new(reading), changes, metrics })
    }

    /// The config, whenever a good one was read.
    pub fn configs(&self) -> watch::Receiver<Arc<Good>> {
        self.good.subscribe()
    }

    /// How reading goes.
    pub fn readings(&self) -> watch::Receiver<Reading> {
        self.reading.subscribe()
    }

    /// Runs until cancelled.
    pub async fn run(
        mut self,
        mut asked: watch::Receiver<u64>,
        cancel: CancellationToken,
    ) -> Result<(), std::convert::Infallible> {
        let mut seen = stamps(&self.files);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                told = asked.changed() => if told.is_err() { cancel.cancelled().await },
                () = sleep(LOOK_EVERY) => {
                    let is = stamps(&self.files);
                    if is == seen {
                        continue;
                    }
                }
            }
            self.read();
            seen = stamps(&self.files);
        }
    }

    fn read(&mut self) {
        match config::load(&self.path, self.instance.as_deref()) {
            Ok(Loaded { config, wrong, warnings, notices, files }) => {
                self.files = files;
                let old = self.good.borrow().clone();
                self.metrics.reloaded(true);
                self.reading.send_modify(|r| (r.loaded, r.refused) = (SystemTime::now(), None));
                if *old.config == config && old.wrong == wrong {
                    info!("Config read again: nothing has changed.");
                } else {
                    say(&wrong, &warnings, &notices);
                    info!(services = config.services.len(), wrong = wrong.len(), "Config read again.");
                    self.good.send_replace(Arc::new(Good { config: Arc::new(config), wrong }));
                }
            }
            Err(problems) => {
                error!(%problems, "The new config is refused; the running one goes on.");
                self.metrics.reloaded(false);
                self.reading.send_modify(|r| r.refused = Some((problems.to_string(), SystemTime::now())));
            }
        }
        self.changes.send_modify(|n| *n += 1);
    }
}

fn say(wrong: &BTreeMap<Arc<str>, Vec<Note>>, warnings: &[Note], notices: &[Note]) {
    for (service, notes) in wrong {
        for note in notes {
            error!(%service, %note, "This service is left out.");
        }
    }
    for note in warnings {
        warn!(%note, "Config.");
    }
    for note in notices {
        info!(%note, "Config.");
    }
}
