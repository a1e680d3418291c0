//! A registration as JSON with Synapse's field names: what default_servers and `discover render` have.

use std::sync::Arc;

use model::{Backend, BackendId, Decoded, Host, decode};
use serde_json::{Map, Value};

/// Reads a registration. `port` takes the place of a missing one. Its own fields are kept beside what they mean
/// ([`Backend::raw`]): file_output writes them as they came.
///
/// # Errors
/// What is wrong with it, named by its field; the caller leaves out this one registration.
pub fn read(map: &Map<String, Value>, port: Option<u16>) -> Result<Backend, String> {
    let mut map = map.clone();
    if let Some(port) = port.filter(|_| map.get("port").is_none_or(Value::is_null)) {
        map.insert("port".to_owned(), port.into());
    }
    let raw = Value::Object(map.clone()).to_string();
    // Synapse passes over a weight that is no whole number, and any id that is none.
    let number = |v: &Value| v.as_u64();
    if map.get("weight").is_some_and(|w| !w.is_i64() && !w.is_u64()) {
        map.remove("weight");
    }
    if map
        .get("haproxy_server_id")
        .is_some_and(|v| number(v).is_none() && v.as_str().is_none_or(|s| s.parse::<u32>().is_err()))
    {
        map.remove("haproxy_server_id");
    }
    let sequence = map.get("id").and_then(|id| id.as_u64().or_else(|| id.as_str()?.parse().ok()));
    let id = id_of(&map)?;
    // What counts is read from the same text that a registry would hold.
    let text = Value::Object(map).to_string();
    match decode(&id, text.as_bytes()).map_err(|e| e.to_string())? {
        Decoded::Backend(backend) => Ok(Backend { raw: Some(Arc::from(raw)), sequence, ..*backend }),
        Decoded::Portless(_) => Err("port is missing".to_owned()),
    }
}

/// Synapse's name for a server is its identity: `name_host:port`.
fn id_of(map: &Map<String, Value>) -> Result<BackendId, String> {
    let host = map.get("host").and_then(Value::as_str).ok_or("host is missing or no text")?;
    let _: Host = host.parse().map_err(|e| format!("host: {e}"))?;
    let port = match map.get("port") {
        Some(Value::String(port)) => port.clone(),
        Some(port @ Value::Number(_)) => port.to_string(),
        _ => return Err("port is missing or no number".to_owned()),
    };
    let name = map.get("name").and_then(Value::as_str).filter(|n| !n.is_empty());
    let id = name.map_or_else(|| format!("{host}:{port}"), |name| format!("{name}_{host}:{port}"));
    id.parse().map_err(|e| format!("name: {e}"))
}

/// What Synapse's ZooKeeper watchers make of a child's value: exactly these seven fields, null where there is none. A
/// child without a number counts by its place.
pub fn of_zookeeper(map: &Map<String, Value>, place: usize) -> Map<String, Value> {
    let field = |name: &str| map.get(name).cloned().unwrap_or(Value::Null);
    let id = Some(field("id")).filter(|id| !id.is_null()).unwrap_or_else(|| place.into());
    let fields = ["name", "host", "port", "id", "weight", "haproxy_server_options", "labels"];
    fields.into_iter().map(|name| (name.to_owned(), if name == "id" { id.clone() } else { field(name) })).collect()
}
