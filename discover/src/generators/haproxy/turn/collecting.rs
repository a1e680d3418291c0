//! Retired servers, deleted where this version of HAProxy can and they are idle.

use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;
use super::metrics::HaproxyMetrics;
use super::readback::Place;
use crate::generators::haproxy::file::layout::Retired;

/// Between two tries to delete busy servers: at first, and at most.
pub(super) const COLLECT_AFTER: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];
/// How long one turn may delete servers; further ones are left to the next.
const COLLECT_FOR: Duration = Duration::from_millis(100);

/// How far the deletion of retired servers has come.
#[derive(Debug, Default)]
pub struct Collecting {
    /// When busy servers are tried again, and how long after that.
    at: Option<(Instant, Duration)>,
    /// The last server that was tried, where others wait for the next turn.
    after: Option<Place>,
}

impl Collecting {
    /// A server was retired: tries begin anew.
    pub fn hurry(&mut self) {
        self.at = Some((Instant::now(), COLLECT_AFTER[0]));
    }

    /// When the next try is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.at.map(|(at, _)| at)
    }

    /// Deletes those of `retired` that are idle, if it is time.
    pub async fn collect(&mut self, connection: &mut Connection, retired: &mut Retired, metrics: &HaproxyMetrics) {
        if connection.can().del_server && !retired.is_empty() {
            let (at, wait) = self.at.unwrap_or((Instant::now(), COLLECT_AFTER[0]));
            self.at = Some((at, wait));
            if at <= Instant::now() {
                let until = Instant::now() + COLLECT_FOR;
                let after = self.after.take();
                self.after = connection.delete_idle(retired, after.as_ref(), until, metrics).await;
                self.at = Some(match self.after {
                    Some(_) => (Instant::now(), wait),
                    None => (Instant::now() + wait, COLLECT_AFTER[1].min(wait * 2)),
                });
            }
        }
        if !connection.can().del_server || retired.is_empty() {
            self.at = None;
        }
    }
}
