//! The container source: a picture of the running containers that is complete, kept current by events, and stale when the daemon
//! is away, never empty.
//!
//! Subscribe first, then list, then inspect. An event only marks a container dirty; what it is now, its inspection tells.
//! Each new stream begins with a full look, and a list every [`Options::resync`] finds what no event told.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::backlog::Backlog;
use super::client::Docker;
use super::error::DockerError;
use super::event::Event;
use super::picture::{Containers, Options};
use super::session::{Session, Wires};
use agent::backoff::Backoff;
use agent::telemetry::Chain;
use agent::trouble::{News, Trouble};
use agent::watch::{Outlet, Watcher};

/// The longest wait before a daemon that fails is asked again. It is on this host or near it, and what happens to
/// containers meanwhile is not seen.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A source of the containers of one daemon.
#[derive(Debug)]
pub struct DockerSource {
    docker: Docker,
    options: Options,
    events: Option<mpsc::Sender<Event>>,
    backlog: Backlog,
    backoff: Backoff,
    trouble: Trouble,
}

impl DockerSource {
    /// A source; nothing happens until it runs.
    pub fn new(docker: Docker, options: Options) -> Self {
        let backoff = Backoff::new(Duration::from_millis(20), LONGEST_WAIT);
        Self { docker, options, events: None, backlog: Backlog::default(), backoff, trouble: Trouble::default() }
    }

    /// Passes on each event the moment it is read, before any container is looked at: that is where `kill` is early. An
    /// event for which the channel has no room waits until there is some.
    #[must_use]
    pub fn with_events(mut self, events: mpsc::Sender<Event>) -> Self {
        self.events = Some(events);
        self
    }
}

impl Watcher<Containers> for DockerSource {
    type Error = DockerError;

    /// Runs until `cancel`; no failure of the daemon ends it.
    async fn run(mut self, out: Outlet<Containers>, cancel: CancellationToken) -> Result<(), DockerError> {
        loop {
            let trouble = &mut self.trouble;
            let works = || {
                if let Some(lasted) = trouble.end() {
                    info!(away_s = lasted.as_secs(), "Docker answers again.");
                }
            };
            let events = self.events.as_ref();
            let backlog = &mut self.backlog;
            let wires = Wires { docker: &self.docker, options: &self.options, events, backlog, out: &out };
            let session = Session::new(wires, works);
            let Some(error) = cancel.run_until_cancelled(session.run()).await else { return Ok(()) };
            let chain = Chain(&error).to_string();
            match self.trouble.fail(&chain) {
                News::Begins => warn!(error = %chain, "Docker failed; keeping what is known of the containers."),
                News::OtherReason => warn!(error = %chain, "Docker still fails, for another reason."),
                News::None => {}
            }
            out.mark_stale(&error);
            if let Some(events) = &self.events {
                self.backlog.flush(events);
            }
            let delay = self.backoff.next_delay();
            if cancel.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                return Ok(());
            }
            debug!(after_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), "Asking Docker again.");
        }
    }
}
