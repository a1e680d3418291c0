//! Synapse's state file: servers and their ids, remembered over restarts, and vanished servers until their time is up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::{Backend, ServiceName};
use serde_json::{Map, Value, json};

use crate::synapse::registration;

/// The key beside the servers' names.
const SECTION: &str = "watcher_config_for_generator";

/// What is remembered of every service.
#[derive(Debug, Default)]
pub struct State {
    /// The file, if it is to be written.
    pub path: Option<PathBuf>,
    /// How long a vanished server is remembered, in seconds.
    pub ttl: u64,
    services: HashMap<ServiceName, Vec<Remembered>>,
}

/// One server that is or was.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// Its name in HAProxy.
    pub name: Arc<str>,
    /// What its registration says or said.
    pub backend: Arc<Backend>,
    /// Its id in HAProxy.
    pub id: Option<u32>,
    /// When it was last seen, in seconds since 1970; `None`: it is there now.
    pub seen: Option<u64>,
}

impl State {
    /// Reads a state file's text; what is older than `ttl` seconds at `now` counts no more. A text that is no state is
    /// an empty one.
    pub fn parse(text: &str, path: Option<PathBuf>, ttl: u64, now: u64) -> Self {
        let root: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        let mut services = HashMap::new();
        for (service, servers) in root {
            let (Ok(service), Value::Object(servers)) = (service.parse(), servers) else { continue };
            let list = servers.into_iter().filter(|(name, _)| name != SECTION);
            let list: Vec<Remembered> = list.filter_map(|(name, server)| remembered(name, server)).collect();
            services.insert(service, list);
        }
        let mut state = Self { path, ttl, services };
        for list in state.services.values_mut() {
            list.retain(|r| !old(r, ttl, now));
        }
        state
    }

    /// The servers of a service that are still remembered, in their order.
    pub fn of(&self, service: &ServiceName, now: u64) -> impl Iterator<Item = &Remembered> {
        let ttl = self.ttl;
        self.services.get(service).into_iter().flatten().filter(move |r| !old(r, ttl, now))
    }

    /// Replaces what is remembered of a service.
    pub fn set(&mut self, service: &ServiceName, servers: Vec<Remembered>) {
        match servers.is_empty() {
            true => _ = self.services.remove(service),
            false => _ = self.services.insert(service.clone(), servers),
        }
    }

    /// When the next vanished server of a service is forgotten, in seconds since 1970.
    pub fn next_end(&self, service: &ServiceName) -> Option<u64> {
        let vanished = self.services.get(service).into_iter().flatten().filter_map(|r| r.seen);
        vanished.min().map(|seen| seen.saturating_add(self.ttl).saturating_add(1))
    }

    /// The file's text. `section` gives a service's haproxy section.
    pub fn render(&self, order: &[ServiceName], section: &dyn Fn(&ServiceName) -> Value, now: u64) -> String {
        let mut root = Map::new();
        for service in order {
            let servers = self.of(service, now).map(|r| (r.name.to_string(), entry(r, now)));
            let mut servers: Map<String, Value> = servers.collect();
            if !servers.is_empty() {
                servers.insert(SECTION.to_owned(), section(service));
                root.insert(service.to_string(), Value::Object(servers));
            }
        }
        let mut text = serde_json::to_string_pretty(&Value::Object(root)).unwrap_or_default(); // string keys only
        text.push('\n');
        text
    }
}

fn old(remembered: &Remembered, ttl: u64, now: u64) -> bool {
    remembered.seen.is_some_and(|seen| seen.saturating_add(ttl) < now)
}

fn remembered(name: String, server: Value) -> Option<Remembered> {
    let Value::Object(mut fields) = server else { return None };
    let seen = fields.shift_remove("timestamp").and_then(|t| t.as_u64().or_else(|| Some(t.as_f64()?.max(0.0) as u64)));
    let id = fields.shift_remove("haproxy_server_id").and_then(|id| id.as_u64().or_else(|| id.as_str()?.parse().ok()));
    let id = id.and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0);
    fields.shift_remove("enabled");
    let backend = Arc::new(registration::read(&fields, None).ok()?);
    Some(Remembered { name: name.into(), backend, id, seen: Some(seen.unwrap_or_default()) })
}

fn entry(r: &Remembered, now: u64) -> Value {
    let mut fields = Map::new();
    fields.insert("timestamp".to_owned(), json!(r.seen.unwrap_or(now)));
    if let Some(id) = r.id {
        fields.insert("haproxy_server_id".to_owned(), json!(id));
    }
    let own: Option<Map<String, Value>> = r.backend.raw.as_deref().and_then(|raw| serde_json::from_str(raw).ok());
    let own = own.or_else(|| serde_json::to_value(&*r.backend).ok()?.as_object().cloned()).unwrap_or_default();
    for (key, value) in own {
        fields.entry(key).or_insert(value);
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_old_forgotten() {
        let text = r#"{"a": {"n_h:1": {"timestamp": 100, "haproxy_server_id": 7, "host": "h", "port": 1, "name": "n"},
            "old:1": {"timestamp": 10, "host": "old", "port": 1}, "watcher_config_for_generator": {"port": 3}}, "b": 4}"#;
        let state = State::parse(text, None, 60, 120);
        let service: ServiceName = "a".parse().unwrap();
        let names: Vec<_> = state.of(&service, 120).map(|r| (r.name.to_string(), r.id)).collect();
        assert_eq!(names, [("n_h:1".to_owned(), Some(7))]);
        assert_eq!(state.of(&service, 161).count(), 0);
        assert_eq!(state.next_end(&service), Some(161));
        let again = state.render(std::slice::from_ref(&service), &|_| json!({"port": 3}), 120);
        let value: Value = serde_json::from_str(&again).unwrap();
        assert_eq!(
            value["a"]["n_h:1"],
            json!({"timestamp": 100, "haproxy_server_id": 7, "host": "h", "port": 1, "name": "n"})
        );
        assert_eq!(value["a"][SECTION], json!({"port": 3}));
    }

    #[test]
    fn a_text_that_is_no_state_is_an_empty_one() {
        for text in ["", "[]", "{", "null"] {
            assert_eq!(State::parse(text, None, 1, 1).services.len(), 0, "{text}");
        }
    }
}
