//! `discover history`: what changed, when and why, as the agent of this host remembers it, or as etcd does.

use std::collections::HashMap;
use std::time::Duration;

use agent::admin::client::{AgentArgs, StatusError, on_this_host};
use agent::history::client::{self, Question};
use agent::say;
use clap::Args;
use model::{Backend, BackendId, Decoded, ParsedKey, Prefix, ServiceName, decode};
use registry::store::etcd::EtcdStore;
use registry::store::{Change, Fault, Key, Position, Revision, Store, StoreError, WatchStream};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::source::SourceArgs;
use super::{DEFAULT_ADMIN, Failure};

/// How long etcd may be silent before what it has told counts as all.
const SILENCE: Duration = Duration::from_secs(2);
/// The beginning moves while etcd compacts.
const TRIES: usize = 5;

/// Flags of `discover history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    agent: AgentArgs,
    /// Ask etcd, in place of the agent: its revisions, as far back as it has them (until its last compaction)
    #[arg(long, conflicts_with_all = ["admin", "since"])]
    registry: bool,
    #[command(flatten)]
    source: SourceArgs,
    /// Only this service
    service: Option<ServiceName>,
    /// Only what happened within this time, such as 15m or 1h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// A line of JSON for each change instead of a table
    #[arg(long)]
    json: bool,
}

/// Prints the changes, the oldest first.
///
/// # Errors
/// [`Failure`] when nobody answers.
pub async fn history(args: HistoryArgs) -> Result<(), Failure> {
    let service = args.service.as_ref().map(ServiceName::as_str);
    if args.registry {
        let (store, prefix) = args.source.registry("history --registry")?;
        let changes = revisions(&store, &prefix, args.service.as_ref()).await.map_err(Failure::runtime)?;
        print(if args.json { client::lines(&changes) } else { table(&changes) });
        return Ok(());
    }
    let question = Question { agent: args.agent, service, since: args.since, json: args.json };
    match client::history(&question, on_this_host("DISCOVER_ADMIN", DEFAULT_ADMIN), "discover").await {
        Ok(text) => print(text),
        Err(error @ (StatusError::Url { .. } | StatusError::Access(_))) => return Err(Failure::usage(&error)),
        Err(error) => return Err(Failure::runtime(error)),
    }
    Ok(())
}

fn print(text: String) {
    say!("{}", text.trim_end());
}

/// Every change of a registration that the store still has, the oldest first.
async fn revisions(store: &EtcdStore, prefix: &Prefix, only: Option<&ServiceName>) -> Result<Vec<Value>, StoreError> {
    let backends = prefix.backends();
    let now = store.position(&backends).await?;
    let mut after = Position { revision: Revision(0), ..now };
    let mut tries = TRIES;
    loop {
        match from(store, prefix, after, now, only).await {
            Err(error) if tries > 0 => {
                let Fault::Compacted { at } = error.fault else { return Err(error) };
                after.revision = at;
                tries -= 1;
            }
            other => return other,
        }
    }
}

/// The changes after one position, up to another.
async fn from(
    store: &EtcdStore,
    prefix: &Prefix,
    after: Position,
    upto: Position,
    only: Option<&ServiceName>,
) -> Result<Vec<Value>, StoreError> {
    let backends = prefix.backends();
    let mut known: HashMap<Key, Backend> = HashMap::new();
    if after.revision.0 > 0 {
        // What is there already when the memory begins is no news.
        let listing = store.list_at(&backends, after.revision).await?;
        let one = |entry: &registry::store::Entry| Some((entry.key.clone(), read(prefix, &entry.key, &entry.value)?.1));
        known.extend(listing.entries.iter().filter_map(one));
    }
    let mut watch = store.watch(&backends, after).await?;
    let mut told = Vec::new();
    loop {
        let Ok(batch) = timeout(SILENCE, watch.next()).await else { break };
        let batch = batch?;
        let changes = batch.changes.iter().filter(|change| change.revision() <= upto.revision);
        told.extend(changes.filter_map(|change| tell(prefix, change, &mut known, only)));
        if batch.at.revision >= upto.revision {
            break;
        }
    }
    Ok(told)
}

fn read(prefix: &Prefix, key: &str, value: &[u8]) -> Option<(ServiceName, Backend)> {
    let (service, id) = place(prefix, key)?;
    match decode(&id, value).ok()? {
        Decoded::Backend(backend) => Some((service, *backend)),
        Decoded::Portless(_) => None,
    }
}

fn place(prefix: &Prefix, key: &str) -> Option<(ServiceName, BackendId)> {
    match prefix.parse(key).ok()? {
        ParsedKey::Backend { service, id, .. } => Some((service, id)),
        ParsedKey::ServicePort { .. } => None,
    }
}

/// A change of one key, in words.
fn tell(
    prefix: &Prefix,
    change: &Change,
    known: &mut HashMap<Key, Backend>,
    only: Option<&ServiceName>,
) -> Option<Value> {
    let (service, id) = place(prefix, change.key())?;
    if only.is_some_and(|only| *only != service) {
        return None;
    }
    let was = known.remove(change.key());
    let (what, backend, lease) = match change {
        Change::Delete { .. } => ("gone", was, None),
        Change::Put(entry) => {
            let backend = read(prefix, &entry.key, &entry.value).map(|(_, backend)| backend);
            let what = match (&was, &backend) {
                (_, None) => "unreadable",
                _ if entry.created == entry.modified => "registered",
                (Some(was), Some(is)) if was.status != is.status => is.status.as_str(),
                (Some(was), Some(is)) if was == is => "written_again",
                _ => "changed",
            };
            known.extend(backend.clone().map(|backend| (entry.key.clone(), backend)));
            (what, backend, entry.lease)
        }
    };
    let mut row = json!({"revision": change.revision().0, "what": what, "service": service, "backend": id});
    if let Some(backend) = backend {
        row["address"] = backend.address().into();
        row["name"] = json!(backend.name);
    }
    if let Some(lease) = lease {
        row["lease"] = lease.to_string().into();
    }
    Some(row)
}

fn table(changes: &[Value]) -> String {
    if changes.is_empty() {
        return "(etcd has no change of a registration since its last compaction)\n".to_owned();
    }
    let keys = ["revision", "what", "service", "backend", "address", "name", "lease"];
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        other => other.to_string(),
    };
    let rows = changes.iter().map(|change| keys.map(|key| text(&change[key])));
    let all: Vec<[String; 7]> = std::iter::once(keys.map(str::to_uppercase)).chain(rows).collect();
    let widths: Vec<usize> =
        (0..keys.len()).map(|n| all.iter().map(|row| row[n].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    all.iter().map(line).collect()
}
