//! The flags of `register stop`.

use std::path::PathBuf;
use std::time::Duration;

use agent::admin::client::AgentArgs;
use clap::Args;

use super::{CONTROL, duration};

/// Flags of `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// A container by name or id, or the beginning of an id
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
    /// How long requests under way may take, once no new ones come, before the container is stopped
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub grace: Duration,
    /// The admin server of a discover that must have the drain before anything is stopped, such as <http://10.0.0.9:9181>; may be repeated
    #[arg(long, env = "REGISTER_STOP_DISCOVER", value_name = "URL", value_delimiter = ',')]
    pub discover: Vec<String>,
    /// How long the other discovers get for it, which are not asked
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration)]
    pub settle: Duration,
    /// How long the registry and every --discover may take; nothing is stopped after that
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Docker's API [default: /var/run/docker.sock, else /tmp/docker.sock]
    #[arg(long, env = "DOCKER_HOST", value_name = "URL")]
    pub docker_host: Option<String>,
    /// Socket of the running agent
    #[arg(long, env = "REGISTER_CONTROL", value_name = "PATH", default_value = CONTROL)]
    pub control: PathBuf,
    #[command(flatten)]
    pub agent: AgentArgs,
}
