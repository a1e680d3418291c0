//! `discover release`: ends a hold of the guard.

use std::path::PathBuf;

use agent::admin::control;
use agent::say;
use clap::Args;
use model::ServiceName;
use serde_json::json;

use super::Failure;
use super::args::CONTROL_SOCKET;

/// Flags of `discover release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// The service whose held backends are to go now
    service: ServiceName,
    /// The agent's control socket
    #[arg(long, env = "DISCOVER_CONTROL", value_name = "SOCKET", default_value = CONTROL_SOCKET)]
    control: PathBuf,
}

/// Asks the running agent.
///
/// # Errors
/// [`Failure::Runtime`] when it does not run, or holds nothing for this service.
pub async fn release(args: &ReleaseArgs) -> Result<(), Failure> {
    let answer = control::call(&args.control, &json!({ "release": args.service.as_str() })).await;
    let answer = answer.map_err(Failure::runtime)?;
    say!("{}: {} released", args.service, answer["released"]);
    Ok(())
}
