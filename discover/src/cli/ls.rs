//! `discover ls`: what the registry holds, for people and scripts.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use common::model::{Backend, ServiceName};
use common::registry::Snapshot;
use common::watch::channel;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::source::SourceArgs;
use crate::watchers::BoxWatcher;

/// Flags of `discover ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
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
    let snapshot = first_snapshot(args.source.watcher()?, args.timeout).await?;
    match args.json {
        true => print_json(&snapshot, args.service.as_ref()),
        false => print_table(&snapshot, args.service.as_ref()),
    }
    Ok(())
}

/// The first complete answer of a source.
///
/// # Errors
/// [`Failure::Runtime`] when it does not come in time, with the reason.
pub(super) async fn first_snapshot(watcher: BoxWatcher, timeout: Duration) -> Result<Arc<Snapshot>, Failure> {
    let (outlet, mut inlet) = channel();
    let cancel = CancellationToken::new();
    let task = tokio::spawn(watcher.run(outlet, cancel.clone()));
    // Whatever came of the wait, what counts is what is there after it.
    let _ = tokio::time::timeout(timeout, inlet.wait_for(|o| o.snapshot().is_some())).await.is_ok();
    cancel.cancel();
    let _ = task.await; // it has nothing to say any more
    let observation = inlet.borrow().clone();
    observation.snapshot().cloned().ok_or_else(|| {
        let why = observation.error().unwrap_or("no answer");
        Failure::Runtime(format!("the registry did not answer within {timeout:?}: {why}").into())
    })
}

fn selected<'a>(
    snapshot: &'a Snapshot,
    only: Option<&'a ServiceName>,
) -> impl Iterator<Item = (&'a ServiceName, &'a [Arc<Backend>])> {
    let wanted = move |name: &ServiceName| only.is_none_or(|only| only == name);
    snapshot.services.iter().filter(move |(name, _)| wanted(name)).map(|(name, pool)| (name, pool.backends()))
}

fn print_json(snapshot: &Snapshot, only: Option<&ServiceName>) {
    let services: serde_json::Map<String, Value> =
        selected(snapshot, only).map(|(name, backends)| (name.to_string(), json!(backends))).collect();
    let quarantined: serde_json::Map<String, Value> =
        snapshot.quarantined.iter().map(|(key, q)| (key.to_string(), json!(q.reason))).collect();
    println!("{}", json!({"revision": snapshot.revision, "services": services, "quarantined": quarantined}));
}

fn print_table(snapshot: &Snapshot, only: Option<&ServiceName>) {
    let mut rows = vec![["SERVICE", "PORT", "ID", "ADDRESS", "STATUS", "MODE", "NAME"].map(str::to_owned)];
    for (service, backends) in selected(snapshot, only) {
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
        println!("{}", cells.join("  ").trim_end());
    }
    if rows.len() == 1 {
        println!("(no registrations)");
    }
    for (key, q) in snapshot.quarantined.iter() {
        println!("left out: {key}: {}", q.reason);
    }
}
