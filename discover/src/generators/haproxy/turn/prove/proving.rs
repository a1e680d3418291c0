//! Judging registrants' words with `haproxy -c`, in a task beside the turns: no turn waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::telemetry::Chain;
use prometheus_client::metrics::counter::Counter;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;
use tracing::warn;

use super::checker::Checker;
use super::proofs::Batch;
use super::trial::Trial;
use crate::generators::haproxy::file::layout::Layout;
use crate::haproxy::process::blame::{Finding, NoFinding};
use crate::haproxy::process::check::deadline;
use crate::haproxy::process::tries::{self, Suspected};

/// A search that has ended: the file, and what was found.
pub type Found = (Trial, Result<Finding, NoFinding>);

/// The search beside the turns; at most one. Dropping it ends it.
#[derive(Debug)]
pub struct Proving {
    task: JoinSet<Found>,
    found: Option<Found>,
    /// The search is for words that were never tried.
    is_new: bool,
    /// No other search begins before: the machine has other work, too.
    rest_until: Option<Instant>,
    began: Instant,
}

impl Default for Proving {
    fn default() -> Self {
        Self { task: JoinSet::new(), found: None, is_new: false, rest_until: None, began: Instant::now() }
    }
}

impl Proving {
    /// Whether another search may begin.
    pub fn is_free(&self, now: Instant) -> bool {
        self.task.is_empty() && self.found.is_none() && self.rest_until.is_none_or(|until| until <= now)
    }

    /// Whether a search runs, or has found something.
    pub fn is_busy(&self) -> bool {
        !self.task.is_empty() || self.found.is_some()
    }

    /// Whether words that were never tried are being judged.
    pub fn judges_new(&self) -> bool {
        self.is_new && !self.task.is_empty()
    }

    /// Begins a search; `probe` is the file to use.
    pub fn begin(&mut self, batch: Batch, checker: Checker, probe: PathBuf, checks: Counter) {
        (self.is_new, self.began) = (batch.is_new, Instant::now());
        self.task.spawn(async move {
            let finding = search(&batch.trial, &checker, &probe, &checks).await;
            (batch.trial, finding)
        });
    }

    /// Waits until a search has ended; cancel-safe.
    pub async fn ended(&mut self) {
        match self.task.join_next().await {
            Some(found) => self.found = found.ok(),
            None => std::future::pending().await,
        }
    }

    /// What a search that has ended has found.
    pub fn take(&mut self) -> Option<Found> {
        if let Some(found) = self.task.try_join_next() {
            self.found = found.ok();
        }
        let found = self.found.take()?;
        let now = Instant::now();
        self.rest_until = Some(now + (now - self.began).min(Duration::from_secs(10)));
        Some(found)
    }
}

/// Finds out which suspects of a file HAProxy does not take; `probe` is the file to use.
pub async fn search(trial: &Trial, checker: &Checker, probe: &Path, checks: &Counter) -> Result<Finding, NoFinding> {
    let deadline = deadline(checker.timeout, trial.servers());
    let found = tries::search(trial.suspects(), deadline, Probe { trial, checker, path: probe, checks }).await;
    let _ = std::fs::remove_file(probe); // only tidiness
    found
}

/// What the probe is called in HAProxy's words: it is gone when somebody reads them.
const SHOWN: &str = "haproxy.cfg";

struct Probe<'a> {
    trial: &'a Trial,
    checker: &'a Checker,
    path: &'a Path,
    checks: &'a Counter,
}

impl Suspected for Probe<'_> {
    type Written = Layout;

    async fn write(&self, there: &BTreeSet<usize>) -> Option<Layout> {
        let (layout, path) = (self.trial.with(there), self.path.to_owned());
        let writing = spawn_blocking(move || (write(&path, &layout), layout));
        let (written, layout) = writing.await.ok()?;
        if let Err(error) = written {
            warn!(probe = %self.path.display(), error = %Chain(&error), "The file to judge words with cannot be written.");
            return None;
        }
        Some(layout)
    }

    async fn check(&self, deadline: Duration) -> Result<(), Option<String>> {
        self.checks.inc();
        let judged = self.checker.check(self.path, deadline).await;
        judged.map_err(|error| Some(error.verdict()?.replace(&self.path.display().to_string(), SHOWN)))
    }

    fn named(&self, tried: &Layout, there: &BTreeSet<usize>, said: &str) -> BTreeMap<usize, String> {
        self.trial.named(tried, there, Path::new(SHOWN), said)
    }
}

/// No rename and no sync: nobody else reads it.
fn write(path: &Path, layout: &Layout) -> io::Result<()> {
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o640).open(path)?;
    let mut file = BufWriter::with_capacity(64 * 1024, file);
    layout.pieces().iter().try_for_each(|piece| file.write_all(piece.as_bytes()))?;
    file.flush()
}
