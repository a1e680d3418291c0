//! What the page shows: the status, without the addresses of many backends, and with what is wrong. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Backend, Pool, ServiceMap, ServiceName};
use serde_json::{Value, json};

use super::services::View;
use crate::generators::haproxy::traffic::seen::BackendState;

/// With more backends than this, a row has no addresses to filter by: each event would bring all of them.
const MOST_NAMED: usize = 2_000;
/// The most services whose backends that do not serve are named, and of each so many.
const MOST_WRONG: [usize; 2] = [50, 5];

/// What the page has beside the status.
pub(super) struct About<'a> {
    pub(super) services: &'a ServiceMap,
    pub(super) held: &'a BTreeMap<ServiceName, usize>,
    pub(super) view: View,
    /// The port of HAProxy's stats page.
    pub(super) stats_port: Option<u16>,
    /// How many changes the history has noted.
    pub(super) noted: u64,
}

/// The status as the page has it.
pub(super) fn of(mut status: Value, about: &About<'_>) -> Value {
    let all: usize = about.services.values().map(|pool| pool.len()).sum();
    let mut wrong = 0;
    for row in status["services"].as_array_mut().into_iter().flatten() {
        let Some((name, pool)) = row["service"].as_str().and_then(|name| about.services.get_key_value(name)) else {
            continue;
        };
        let ports: BTreeSet<u16> =
            pool.backends().iter().filter_map(|b| b.service_port).map(|port| port.get()).collect();
        let hosts = pool.backends().iter().flat_map(|b| b.routes.iter().map(|route| route.host.to_string()));
        let hosts: BTreeSet<String> = hosts.take(200).collect();
        let serving = row["up"].as_u64().unwrap_or(0) + row["draining"].as_u64().unwrap_or(0);
        let is_whole = serving >= pool.len() as u64;
        if let Some(row) = row.as_object_mut() {
            row.insert("ports".into(), json!(ports));
            row.insert("hosts".into(), json!(hosts.into_iter().take(5).collect::<Vec<_>>()));
            row.insert("all".into(), pool.len().into());
            if all > MOST_NAMED {
                row.remove("backends");
            } else {
                let names = pool.backends().iter().filter_map(|b| b.name.as_deref().map(str::to_owned));
                row.insert("names".into(), names.collect());
            }
            if !is_whole && wrong < MOST_WRONG[0] {
                wrong += 1;
                row.insert("wrong".into(), not_serving(about, name, pool));
            }
        }
    }
    status["stats_port"] = json!(about.stats_port);
    status["changes_noted"] = about.noted.into();
    status["held_services"] = json!(about.held);
    status
}

/// The backends that get no requests, and why.
fn not_serving(about: &About<'_>, name: &ServiceName, pool: &Arc<Pool>) -> Value {
    let states = about.view.service(name, pool).states;
    let down = pool.backends().iter().zip(states);
    let down = down.filter(|(_, state)| matches!(state, BackendState::Down | BackendState::Maint));
    down.take(MOST_WRONG[1]).map(|(backend, state)| seen(&about.view, name, pool, backend, state)).collect()
}

/// A backend as HAProxy sees it, for the page.
pub(super) fn seen(view: &View, name: &ServiceName, pool: &Pool, backend: &Backend, state: BackendState) -> Value {
    let server = view.server(name, pool, backend);
    let server = server.as_deref();
    json!({
        "id": backend.id, "name": backend.name, "address": backend.address(), "state": state.as_str(),
        "registered": backend.status, "mode": backend.mode, "weight": server.and_then(|s| s.weight).or_else(|| backend.weight.map(|w| w.get().into())),
        "says": server.map(|s| &*s.status), "check": server.map(|s| s.check.trim_start_matches("* ")), "check_said": server.map(|s| &*s.said),
        "since_ms": server.and_then(|s| s.since).map(agent::clock::millis),
        "sessions": server.map(|s| s.counts.sessions), "requests": server.map(|s| s.counts.requests),
        "errors": server.map(|s| s.counts.errors + s.counts.responses_5xx),
    })
}
