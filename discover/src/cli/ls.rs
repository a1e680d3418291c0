//! `discover ls`: what the registry holds, for people and scripts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::say;
use clap::Args;
use model::{Backend, ServiceName};
use serde_json::{Value, json};

use super::Failure;
use super::first::{Answers, ask};
use super::source::SourceArgs;

/// Flags of `discover ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Synapse's config: its services, wherever they are discovered
    #[arg(short, long, env = "SYNAPSE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
    /// Only this service
    service: Option<ServiceName>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    /// How long to wait for the registry
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Lists the registry once.
///
/// # Errors
/// [`Failure`] when it does not answer in time, with the reason.
pub async fn ls(args: LsArgs) -> Result<(), Failure> {
    let (_, answers) = ask(&args.source, args.config.as_deref(), args.timeout).await?;
    match args.json {
        true => print_json(&answers, args.service.as_ref()),
        false => print_table(&answers, args.service.as_ref()),
    }
    Ok(())
}

fn selected<'a>(
    answers: &'a Answers,
    only: Option<&'a ServiceName>,
) -> impl Iterator<Item = (&'a ServiceName, &'a [Arc<Backend>])> {
    let wanted = move |name: &ServiceName| only.is_none_or(|only| only == name);
    answers.services.iter().filter(move |(name, _)| wanted(name)).map(|(name, pool)| (name, pool.backends()))
}

fn print_json(answers: &Answers, only: Option<&ServiceName>) {
    let services: serde_json::Map<String, Value> =
        selected(answers, only).map(|(name, backends)| (name.to_string(), json!(backends))).collect();
    let quarantined: serde_json::Map<String, Value> =
        answers.quarantined.iter().map(|(key, q)| (key.to_string(), json!(q.reason))).collect();
    say!("{}", json!({"revision": answers.revision, "services": services, "quarantined": quarantined}));
}

fn print_table(answers: &Answers, only: Option<&ServiceName>) {
    let mut rows = vec![["SERVICE", "PORT", "ID", "ADDRESS", "STATUS", "MODE", "NAME"].map(str::to_owned)];
    for (service, backends) in selected(answers, only) {
        rows.extend(backends.iter().map(|b| {
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            [
                service.to_string(),
                or_dash(b.service_port.map(|p| p.to_string())),
                b.id.to_string(),
                b.address(),
                b.status.to_string(),
                or_dash(b.mode.map(|m| m.to_string())),
                or_dash(b.name.as_deref().map(str::to_owned)),
            ]
        }));
    }
    let widths: Vec<usize> = (0..7).map(|i| rows.iter().map(|r| r[i].len()).max().unwrap_or(0)).collect();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say!("{}", cells.join("  ").trim_end());
    }
    if rows.len() == 1 {
        say!("(no registrations)");
    }
    for (key, q) in answers.quarantined.iter() {
        say!("left out: {:?}: {}", &**key, q.reason); // a stranger's key may hold anything
    }
}
