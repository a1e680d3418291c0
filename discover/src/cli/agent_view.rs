//! What the agent of this host says of services: HAProxy's own view, for `ls` and `wait`.

use agent::admin::client::{AgentArgs, StatusError, ask, on_this_host};
use agent::telemetry::Chain;
use clap::Args;
use serde_json::Value;
use tracing::{info, warn};

use super::{DEFAULT_ADMIN, Failure};

/// Flags of commands that ask the agent of this host, where there is one.
#[derive(Debug, Args)]
#[command(next_help_heading = "The agent that knows what HAProxy sees")]
pub(super) struct ViewArgs {
    #[command(flatten)]
    agent: AgentArgs,
    /// Go by the registrations alone: do not ask the agent of this host what its HAProxy sees
    #[arg(long, conflicts_with = "admin")]
    registered: bool,
}

/// What an agent said.
pub(super) struct Told {
    /// Which one: `host:port`.
    pub(super) address: String,
    /// Null where it does not know what it was asked for.
    pub(super) answer: Value,
}

impl ViewArgs {
    /// What the agent answers at `path`; `None` where there is none to ask, and none was named.
    ///
    /// # Errors
    /// [`Failure`] when the agent that was named cannot be asked.
    pub(super) async fn ask(&self, path: &str) -> Result<Option<Told>, Failure> {
        if self.registered {
            return Ok(None);
        }
        let default = on_this_host("DISCOVER_ADMIN", DEFAULT_ADMIN);
        match ask(&self.agent, path, default, "discover").await {
            Ok(told) if told.code.is_success() => Ok(Some(Told { address: told.address, answer: told.body })),
            Ok(told) => Ok(Some(Told { address: told.address, answer: Value::Null })),
            Err(error @ (StatusError::Url { .. } | StatusError::Access(_))) => Err(Failure::usage(&error)),
            Err(error) if self.agent.admin.is_some() => Err(Failure::runtime(error)),
            Err(error @ StatusError::Connect { .. }) => {
                info!(error = %Chain(&error), "No agent on this host says what HAProxy sees; the registrations count.");
                Ok(None)
            }
            Err(error) => {
                warn!(error = %Chain(&error), "The agent on this host does not say what HAProxy sees; the registrations count.");
                Ok(None)
            }
        }
    }
}
