//! `discover ls`: what the registry holds, for people and scripts; with each backend's state, where an agent on this host knows it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::say;
use clap::Args;
use model::{Backend, ServiceName};
use serde_json::{Value, json};

use super::Failure;
use super::agent_view::ViewArgs;
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
    #[command(flatten)]
    view: ViewArgs,
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
    let seen = Seen(args.view.ask("/services").await?.map(|told| told.answer));
    match args.json {
        true => print_json(&answers, args.service.as_ref(), &seen),
        false => print_table(&answers, args.service.as_ref(), &seen),
    }
    Ok(())
}

/// What the agent of this host says, if there is one.
struct Seen(Option<Value>);

impl Seen {
    /// The state of a backend: `up` if it can take a request.
    fn state(&self, service: &ServiceName, backend: &Backend) -> Option<&str> {
        let pool = self.0.as_ref()?["services"][service.as_str()].as_array()?;
        pool.iter().find(|b| b["id"] == backend.id.as_str())?["state"].as_str()
    }

    /// Who says so.
    fn by(&self) -> Option<&str> {
        self.0.as_ref()?["seen_by"].as_str()
    }
}

fn selected<'a>(
    answers: &'a Answers,
    only: Option<&'a ServiceName>,
) -> impl Iterator<Item = (&'a ServiceName, &'a [Arc<Backend>])> {
    let wanted = move |name: &ServiceName| only.is_none_or(|only| only == name);
    answers.services.iter().filter(move |(name, _)| wanted(name)).map(|(name, pool)| (name, pool.backends()))
}

fn print_json(answers: &Answers, only: Option<&ServiceName>, seen: &Seen) {
    let with_state = |service: &ServiceName, backend: &Backend| {
        let mut shown = json!(backend);
        if let Some(state) = seen.state(service, backend) {
            shown["state"] = state.into();
        }
        shown
    };
    let pool = |(service, backends): (&ServiceName, &[Arc<Backend>])| {
        (service.to_string(), backends.iter().map(|backend| with_state(service, backend)).collect())
    };
    let services: serde_json::Map<String, Value> = selected(answers, only).map(pool).collect();
    let quarantined: serde_json::Map<String, Value> =
        answers.quarantined.iter().map(|(key, q)| (key.to_string(), json!(q.reason))).collect();
    let (revision, seen_by) = (answers.revision, seen.by());
    say!("{}", json!({"revision": revision, "seen_by": seen_by, "services": services, "quarantined": quarantined}));
}

fn print_table(answers: &Answers, only: Option<&ServiceName>, seen: &Seen) {
    let mut rows = vec![["SERVICE", "PORT", "ID", "ADDRESS", "STATUS", "STATE", "MODE", "NAME"].map(str::to_owned)];
    for (service, backends) in selected(answers, only) {
        rows.extend(backends.iter().map(|b| {
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            [
                service.to_string(),
                or_dash(b.service_port.map(|p| p.to_string())),
                b.id.to_string(),
                b.address(),
                b.status.to_string(),
                or_dash(seen.state(service, b).map(str::to_owned)),
                or_dash(b.mode.map(|m| m.to_string())),
                or_dash(b.name.as_deref().map(str::to_owned)),
            ]
        }));
    }
    let widths: Vec<usize> = (0..8).map(|i| rows.iter().map(|r| r[i].len()).max().unwrap_or(0)).collect();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say!("{}", cells.join("  ").trim_end());
    }
    match seen.by() {
        _ if rows.len() == 1 => say!("(no registrations)"),
        Some(by) => say!("STATUS is what is registered, STATE what is seen by {by}"),
        None => say!("STATUS is what is registered; no agent on this host says what HAProxy sees"),
    }
    for (key, q) in answers.quarantined.iter() {
        say!("left out: {:?}: {}", &**key, q.reason); // a stranger's key may hold anything
    }
}
