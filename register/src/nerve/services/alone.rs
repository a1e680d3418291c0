//! The checks of one service that belongs to no config: `put` and `exec`.

use std::sync::Arc;

use containers::readiness::CheckMetrics;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::rounds::Rounds;
pub use super::rounds::{Health, News};
use crate::nerve::config::Service;
use crate::nerve::statsd::Statsd;

/// Begins to check `service`; tells each change until the task is dropped.
pub fn start(service: Arc<Service>) -> (mpsc::Receiver<News>, AbortOnDropHandle<()>) {
    let (out, news) = mpsc::channel(8);
    let rounds = Rounds { out, resolver: Arc::default(), metrics: CheckMetrics::default(), statsd: Statsd::off() };
    (news, AbortOnDropHandle::new(tokio::spawn(rounds.run(service, 0))))
}
