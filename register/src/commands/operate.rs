//! `register drain`, `undrain`, `status`, `history`, `version`: what speaks to the running agent, or to nobody.

use agent::admin::client::{self, StatusArgs, StatusError};
use agent::admin::control;
use agent::history::client::Question;
use model::ServiceName;

use super::{Failure, print};
use crate::agent::control::{Whom, encode};
use crate::cli::{ADMIN, DrainArgs, HistoryArgs};

/// Asks the running agent to drain containers, or to end that.
///
/// # Errors
/// No agent runs; a container is not known to it.
pub async fn drain(args: &DrainArgs, drain: bool) -> Result<(), Failure> {
    let whom = if args.all { Whom::All } else { Whom::Some(args.containers.clone()) };
    let answer = control::call(&args.control, &encode(drain, &whom)).await.map_err(Failure::runtime)?;
    let names = answer.get("containers").and_then(|c| c.as_array()).into_iter().flatten().filter_map(|n| n.as_str());
    print(&names.map(|name| format!("{name}\n")).collect::<String>())
}

/// Prints the running agent's state.
///
/// # Errors
/// No agent answers.
pub async fn status(args: &StatusArgs) -> Result<(), Failure> {
    let default = client::on_this_host("REGISTER_ADMIN", ADMIN.parse().map_err(Failure::usage)?);
    client::status(args, default, "register", &mut std::io::stdout().lock()).await.map_err(failure)
}

fn failure(error: StatusError) -> Failure {
    match error {
        StatusError::Url { .. } | StatusError::Access(_) => Failure::usage(error),
        _ => Failure::runtime(error),
    }
}

/// Prints what changed, the oldest first.
///
/// # Errors
/// No agent answers.
pub async fn history(args: &HistoryArgs) -> Result<(), Failure> {
    let default = client::on_this_host("REGISTER_ADMIN", ADMIN.parse().map_err(Failure::usage)?);
    let service = args.service.as_ref().map(ServiceName::as_str);
    let question = Question { agent: args.agent.clone(), service, since: args.since, json: args.json };
    let text = agent::history::client::history(&question, default, "register").await.map_err(failure)?;
    print(&text)
}

/// Prints what `--version` prints.
///
/// # Errors
/// None worth speaking of: stdout.
pub fn version() -> Result<(), Failure> {
    print(&format!("register {}\n", crate::VERSION))
}
