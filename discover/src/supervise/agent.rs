//! `discover run`, started again when it ends.

use std::ffi::OsString;
use std::time::Duration;

use agent::backoff::Backoff;
use agent::environment;
use agent::telemetry::Chain;
use nix::sys::signal::Signal;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::args::Options;
use super::children::Children;
use crate::haproxy::process::launch::send;

/// What the agent may take to end. Above its own drain deadline, and with HAProxy's grace to be kept below what Docker's `stop` waits.
pub const AGENT_GRACE: Duration = Duration::from_secs(10);

/// Keeps the agent running until `cancel`, then ends it: SIGTERM, and SIGKILL after [`AGENT_GRACE`].
///
/// HAProxy goes on whatever happens here; that is the point.
pub async fn keep(command: &[OsString], options: &Options, children: &Children, cancel: &CancellationToken) {
    let Some((program, args)) = command.split_first() else {
        return cancel.cancelled().await;
    };
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
    while !cancel.is_cancelled() {
        let mut claim = children.claim();
        let mut start = environment::ours(program);
        start.args(args).envs(options.agent_environment()).kill_on_drop(true);
        match claim.spawn(&mut start) {
            Err(e) => error!(program = %program.to_string_lossy(), error = %Chain(&e), "Cannot start the agent."),
            Ok(mut child) => {
                info!(pid = child.id(), "Agent started.");
                tokio::select! {
                    biased; // an agent that obeys a signal sent to all of us has not crashed
                    () = cancel.cancelled() => {
                        let pid = child.id().and_then(|id| i32::try_from(id).ok());
                        if let Some(Err(e)) = pid.map(|pid| send(pid, Signal::SIGTERM)) {
                            warn!(error = %Chain(&e), "Cannot stop the agent.");
                        }
                        if timeout(AGENT_GRACE, child.wait()).await.is_err() {
                            warn!("The agent did not end in time; killing it.");
                            if let Err(e) = child.kill().await {
                                warn!(error = %Chain(&e), "Cannot kill the agent.");
                            }
                        }
                        return;
                    }
                    ended = child.wait() => match ended {
                        Ok(status) => error!(%status, "The agent ended; HAProxy goes on as it is."),
                        Err(e) => error!(error = %Chain(&e), "Lost sight of the agent."),
                    },
                }
            }
        }
        let delay = backoff.next_delay();
        warn!(retry_in_ms = delay.as_millis(), "Starting the agent again.");
        cancel.run_until_cancelled(tokio::time::sleep(delay)).await;
    }
}
