//! Judging registrants' words with `haproxy -c`, in a task beside the turns: no turn waits for it.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use common::telemetry::Chain;
use prometheus_client::metrics::counter::Counter;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;
use tracing::warn;

use super::checker::Checker;
use super::proofs::Batch;
use super::trial::Trial;
use crate::generators::haproxy::file::layout::Layout;
use crate::haproxy::process::blame::{Finding, Judge, NoFinding, Patience, Verdict, find, gist};
use crate::haproxy::process::check::deadline;

/// How often a file is tried to find out who is to blame, in one search.
const TRIES: usize = 48;

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
            let _ = std::fs::remove_file(&probe); // only tidiness
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
        self.rest_until = Some(now + (now - self.began).min(std::time::Duration::from_secs(10)));
        Some(found)
    }
}

/// Finds out which suspects of a file HAProxy does not take; `probe` is the file to use.
///
/// # Errors
/// [`NoFinding`].
pub async fn search(trial: &Trial, checker: &Checker, probe: &Path, checks: &Counter) -> Result<Finding, NoFinding> {
    let patience = Patience::new(deadline(checker.timeout, trial.servers()));
    find(trial.len(), TRIES, &mut Tries { trial, checker, probe, patience, checks }).await
}

struct Tries<'a> {
    trial: &'a Trial,
    checker: &'a Checker,
    probe: &'a Path,
    patience: Patience,
    checks: &'a Counter,
}

impl Judge for Tries<'_> {
    async fn with(&mut self, suspects: &BTreeSet<usize>) -> Option<Verdict> {
        let layout = self.trial.with(suspects);
        let (layout, written) = {
            let path = self.probe.to_owned();
            spawn_blocking(move || {
                let written = write(&path, &layout);
                (layout, written)
            })
            .await
            .ok()?
        };
        if let Err(error) = written {
            warn!(probe = %self.probe.display(), error = %Chain(&error), "The file to judge words with cannot be written.");
            return None;
        }
        self.checks.inc();
        let began = Instant::now();
        match self.checker.check(self.probe, self.patience.next()).await {
            Ok(()) => {
                self.patience.took(began.elapsed());
                Some(Verdict::Good)
            }
            Err(error) => {
                let said = error.verdict()?;
                // The probe is gone when somebody reads this.
                let probe = self.probe.display().to_string();
                let shown = |why: String| why.replace(&probe, "haproxy.cfg");
                let named = self.trial.named(&layout, suspects, self.probe, &said);
                let named = named.into_iter().map(|(suspect, why)| (suspect, shown(why))).collect();
                Some(Verdict::Bad { why: shown(gist(&said)), named })
            }
        }
    }
}

/// No rename and no sync: nobody else reads it.
fn write(path: &Path, layout: &Layout) -> io::Result<()> {
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o640).open(path)?;
    let mut file = BufWriter::with_capacity(64 * 1024, file);
    layout.pieces().iter().try_for_each(|piece| file.write_all(piece.as_bytes()))?;
    file.flush()
}
