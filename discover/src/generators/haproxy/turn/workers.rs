//! Old workers: those that finish their sessions after a reload. They are counted, and where there are too many a reload waits.

use tokio::time::Instant;
use tracing::warn;

use super::connection::{Connection, ProcessMode};
use super::generator::Haproxy;
use crate::generators::haproxy::file::layout::Layout;

impl Connection {
    /// How many old workers HAProxy has; `None` where its master cannot be asked.
    pub(super) async fn old_workers(&self) -> Option<usize> {
        match self.mode {
            // One that hangs is not waited for twice.
            ProcessMode::Spawn | ProcessMode::External if !self.worker.silent => {
                self.process.master.glance().await.ok().map(|procs| procs.retiring())
            }
            _ => None,
        }
    }
}

impl Haproxy {
    /// When the next reload may begin, if not at once, and what it waits for beside its time.
    pub(super) async fn reload_wait(&mut self, layout: &Layout) -> Option<(Instant, Option<String>)> {
        let now = Instant::now();
        // The back-off is for what was refused: something else is tried in the usual time.
        if let Some(at) = self.due.pace.wait(now, self.refusals.had_structure(layout)) {
            return Some((at, None));
        }
        let old = self.count_workers().await;
        let at = self.due.pace.wait_for_workers(old, now)?;
        let why = format!("{old} old workers still have sessions (--max-old-workers {})", self.due.pace.most_old());
        if self.note().waiting.as_ref().is_none_or(|waiting| !waiting.iter().any(|w| w.contains("old workers"))) {
            warn!(
                old,
                most = self.due.pace.most_old(),
                "Too many old workers of HAProxy still have sessions; reloads wait longer."
            );
        }
        Some((at, Some(why)))
    }

    /// Counts the old workers, for status and metrics, too.
    pub(super) async fn count_workers(&mut self) -> usize {
        let old = self.connection.old_workers().await;
        let count = old.unwrap_or_default();
        self.metrics.old_workers.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.note().old_workers = old;
        count
    }
}
