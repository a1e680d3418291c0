//! Flags of `register history`.

use std::time::Duration;

use agent::admin::client::AgentArgs;
use clap::Args;
use model::ServiceName;

/// What is asked, and of which agent.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    pub agent: AgentArgs,
    /// Only this service
    pub service: Option<ServiceName>,
    /// Only what happened within this time, such as 15m or 1h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub since: Option<Duration>,
    /// A line of JSON for each change instead of a table
    #[arg(long)]
    pub json: bool,
}
