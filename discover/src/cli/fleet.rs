//! `discover fleet`, and `/fleet` of the admin server: the whole installation, as the registry alone tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use agent::say;
use agent::telemetry::Chain;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use model::{Backend, Decoded, ParsedKey, Prefix, Status, decode};
use registry::store::etcd::EtcdStore;
use registry::store::{Entry, LeaseId, Store, StoreError};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Failure;
use super::source::SourceArgs;

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(5);
/// The most keys that are named one by one.
const MOST_NAMED: usize = 100;

/// Flags of `discover fleet`.
#[derive(Debug, Args)]
pub struct FleetArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    /// How long to wait for the registry
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Reads the registry once and prints who is there.
///
/// # Errors
/// [`Failure`] when it does not answer in time.
pub async fn fleet(args: FleetArgs) -> Result<(), Failure> {
    let (store, prefix) = args.source.registry("fleet")?;
    let read = timeout(args.timeout, Box::pin(read(&store, &prefix))).await;
    let late =
        |_| Failure::Runtime(format!("the registry did not answer within {:?} (--timeout)", args.timeout).into());
    let fleet = read.map_err(late)?.map_err(Failure::runtime)?;
    match args.json {
        true => say!("{fleet}"),
        false => print(&fleet),
    }
    Ok(())
}

/// What the registry holds at one moment.
async fn read(store: &EtcdStore, prefix: &Prefix) -> Result<Value, StoreError> {
    let (registrars, discoverers) = (prefix.registrars(), prefix.discoverers());
    let backends = prefix.backends();
    let (registrars, discoverers, backends) =
        tokio::try_join!(store.list(&registrars), store.list(&discoverers), store.list(&backends))?;
    let mut fleet = of(prefix, &registrars.entries, &discoverers.entries, &backends.entries);
    fleet["revision"] = backends.at.revision.0.into();
    Ok(fleet)
}

/// What is known of one agent's host.
#[derive(Default)]
struct Node {
    services: BTreeSet<String>,
    backends: usize,
    draining: usize,
    addresses: BTreeSet<String>,
}

/// The fleet that these keys are. Pure.
fn of(prefix: &Prefix, registrars: &[Entry], discoverers: &[Entry], backends: &[Entry]) -> Value {
    let name_of = |entry: &Entry| entry.key.rsplit('/').next().unwrap_or_default().to_owned();
    let by_lease: BTreeMap<LeaseId, String> =
        registrars.iter().filter_map(|entry| Some((entry.lease?, name_of(entry)))).collect();
    let mut nodes: BTreeMap<String, Node> = registrars.iter().map(|entry| (name_of(entry), Node::default())).collect();
    let mut services: BTreeMap<String, (usize, BTreeSet<String>, BTreeSet<u16>)> = BTreeMap::new();
    let (mut without_port, mut without_agent, mut ports) = (Vec::new(), Vec::new(), BTreeSet::new());
    for entry in backends {
        let (service, id, named) = match prefix.parse(&entry.key) {
            Ok(ParsedKey::Backend { service, id, node }) => (service, id, node),
            Ok(ParsedKey::ServicePort { service, .. }) => {
                ports.insert(service.to_string());
                continue;
            }
            Err(_) => continue,
        };
        let backend = match decode(&id, &entry.value) {
            Ok(Decoded::Backend(backend)) => Some(*backend),
            Ok(Decoded::Portless(_)) | Err(_) => None,
        };
        let node = entry.lease.and_then(|lease| by_lease.get(&lease).cloned()).or(named.map(|node| node.to_string()));
        let row = services.entry(service.to_string()).or_default();
        row.0 += 1;
        row.2.extend(backend.as_ref().and_then(|b| b.service_port).map(|port| port.get()));
        if backend.as_ref().is_some_and(|b| b.service_port.is_none() && b.routes.is_empty() && b.sni.is_empty()) {
            without_port.push((service.to_string(), entry.key.to_string()));
        }
        match node {
            None => without_agent.push(entry.key.to_string()),
            Some(name) => {
                row.1.insert(name.clone());
                add(nodes.entry(name).or_default(), &service.to_string(), backend.as_ref());
            }
        }
    }
    without_port.retain(|(service, _)| !ports.contains(service));
    let without_port: Vec<String> = without_port.into_iter().map(|(_, key)| key).collect();
    let record = |name: &str| registrars.iter().find(|entry| name_of(entry) == name);
    json!({
        "nodes": nodes.iter().map(|(name, node)| {
            let said = record(name).map(said_by).unwrap_or_default();
            json!({
                "node": name, "agent": if said.is_null() { "gone" } else { "there" }, "version": said["version"],
                "started": said["started"], "services": node.services.len(), "backends": node.backends,
                "draining": node.draining, "addresses": node.addresses,
            })
        }).collect::<Vec<_>>(),
        "services": services.iter().map(|(service, (backends, nodes, ports))| json!({
            "service": service, "backends": backends, "nodes": nodes, "ports": ports,
        })).collect::<Vec<_>>(),
        "discoverers": discoverers.iter().map(|entry| {
            let said = said_by(entry);
            json!({"node": name_of(entry), "version": said["version"], "started": said["started"], "haproxy": said["haproxy"]})
        }).collect::<Vec<_>>(),
        "without_port": few(&without_port),
        "without_agent": few(&without_agent),
        "counts": {"without_port": without_port.len(), "without_agent": without_agent.len()},
    })
}

fn few(keys: &[String]) -> &[String] {
    keys.get(..MOST_NAMED).unwrap_or(keys)
}

fn add(node: &mut Node, service: &str, backend: Option<&Backend>) {
    node.services.insert(service.to_owned());
    node.backends += 1;
    let Some(backend) = backend else { return };
    node.draining += usize::from(backend.status == Status::Draining);
    if node.addresses.len() < 8 {
        node.addresses.insert(backend.host.to_string());
    }
}

/// What an agent says of itself. Its token is none of anybody's business.
fn said_by(entry: &Entry) -> Value {
    let said: Value = serde_json::from_slice(&entry.value).unwrap_or_default();
    let text = |key: &str| {
        said[key].as_str().map(|text| text.chars().filter(|c| !c.is_control()).take(80).collect::<String>())
    };
    json!({"version": text("version"), "started": text("started"), "haproxy": text("haproxy")})
}

fn print(fleet: &Value) {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.is_empty() => "-".to_owned(),
        Value::Array(all) => {
            all.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    let table = |rows: &Value, keys: &[&str]| {
        let head = keys.iter().map(|key| key.to_uppercase()).collect::<Vec<_>>();
        let cells = rows.as_array().into_iter().flatten().map(|row| keys.iter().map(|key| text(&row[*key])).collect());
        let all: Vec<Vec<String>> = std::iter::once(head).chain(cells).collect();
        let widths: Vec<usize> =
            (0..keys.len()).map(|n| all.iter().map(|row| row[n].len()).max().unwrap_or(0)).collect();
        for row in &all {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            say!("{}", cells.join("  ").trim_end());
        }
    };
    table(&fleet["nodes"], &["node", "agent", "version", "started", "services", "backends", "draining", "addresses"]);
    say!("");
    table(&fleet["services"], &["service", "backends", "ports", "nodes"]);
    if fleet["discoverers"].as_array().is_some_and(|all| !all.is_empty()) {
        say!("");
        say!("Discoverers that announce themselves:");
        table(&fleet["discoverers"], &["node", "version", "started", "haproxy"]);
    }
    for (key, what) in [
        ("without_port", "without a port that readers open, and without a route"),
        ("without_agent", "whose agent is not there (put by a hand, or running out)"),
    ] {
        let count = fleet["counts"][key].as_u64().unwrap_or(0);
        if count > 0 {
            say!("");
            say!("{count} registrations {what}:");
            fleet[key]
                .as_array()
                .into_iter()
                .flatten()
                .for_each(|key| say!("  {:?}", key.as_str().unwrap_or_default()));
        }
    }
}

/// What `/fleet` answers from.
pub(super) struct Fleet {
    store: EtcdStore,
    prefix: Prefix,
    read: Mutex<Option<(Instant, Value)>>,
}

/// The route `/fleet`, for the admin server of an agent that reads this registry. The registry is asked at most every few seconds, however many look.
pub(super) fn routes(store: EtcdStore, prefix: Prefix) -> Router {
    Router::new().route("/fleet", get(answer)).with_state(Arc::new(Fleet { store, prefix, read: Mutex::default() }))
}

async fn answer(State(fleet): State<Arc<Fleet>>) -> Response {
    let mut last = fleet.read.lock().await;
    if let Some((_, known)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
        return Json(known).into_response();
    }
    match Box::pin(read(&fleet.store, &fleet.prefix)).await {
        Ok(now) => {
            *last = Some((Instant::now(), now.clone()));
            Json(now).into_response()
        }
        Err(error) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error": Chain(&error).to_string()}))).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use registry::store::Revision;

    use super::*;

    fn entry(key: &str, value: &Value, lease: i64) -> Entry {
        let value = value.to_string().into_bytes().into();
        let lease = (lease != 0).then_some(LeaseId(lease));
        Entry { key: key.into(), value, lease, created: Revision(1), modified: Revision(1) }
    }

    #[test]
    fn registrations_belong_to_the_node_whose_lease_they_have() {
        let agent =
            json!({"version": "0.1.0", "started": "2026-11-29T14:05:00Z", "token": "s3cret", "machine_id": "m"});
        let registrars = [entry("/registrars/n1", &agent, 1), entry("/registrars/n2", &agent, 2)];
        let discoverers = [entry("/discoverers/n1", &json!({"version": "0.1.0", "haproxy": "3.0"}), 9)];
        let at = |port: u16, more: Value| {
            let mut value = json!({"host": "10.0.0.1", "port": port});
            more.as_object().into_iter().flatten().for_each(|(k, v)| value[k] = v.clone());
            value
        };
        let backends = [
            entry("/backends/web/a", &at(1, json!({"service_port": 80})), 1),
            entry("/backends/web/b", &at(2, json!({"service_port": 80, "status": "draining"})), 2),
            entry("/backends/@n3/web/c", &at(3, json!({"service_port": 80})), 7),
            entry("/backends/lost/x", &at(4, json!({})), 0),
            entry("/backends/routed/r", &at(5, json!({"routes": [{"host": "a.example"}]})), 1),
            entry("/backends/old/port", &json!(81), 1),
            entry("/backends/old/o", &at(6, json!({})), 1),
            entry("/backends/bad", &json!(1), 1),
        ];
        let fleet = of(&Prefix::default(), &registrars, &discoverers, &backends);
        let row =
            |name: &str| fleet["nodes"].as_array().unwrap().iter().find(|row| row["node"] == name).unwrap().clone();
        assert_eq!(
            (&row("n1")["backends"], &row("n1")["services"], &row("n2")["draining"]),
            (&json!(3), &json!(3), &json!(1))
        );
        assert_eq!((&row("n3")["agent"], &row("n1")["agent"]), (&json!("gone"), &json!("there")));
        assert_eq!(fleet["services"].as_array().unwrap().last().unwrap()["nodes"], json!(["n1", "n2", "n3"]));
        assert_eq!(fleet["without_agent"], json!(["/backends/lost/x"]));
        assert_eq!(fleet["without_port"], json!(["/backends/lost/x"]), "a route, or a port beside it, is a way");
        assert_eq!(fleet["discoverers"][0]["haproxy"], "3.0");
        assert!(!fleet.to_string().contains("s3cret"), "{fleet}");
    }
}
