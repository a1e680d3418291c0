//! What the page asks for beside the status, on the admin server.
//!
//! | path | answer |
//! |---|---|
//! | `/backends/NAME` | each backend of a service, as HAProxy sees it |
//! | `/traffic` | requests and errors of each service in the last 15 minutes |
//! | `/routes` | the edge's rules: host, path, service, containers |

use agent::clock;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::StatusBoard;
use super::page::seen;
use crate::edge::decide::Rule;
use crate::edge::{Place, Way};
use crate::generators::haproxy::traffic::samples::STEP;

/// The most containers that are named beside a rule.
const MOST_NAMED: usize = 3;

/// The routes over what `board` knows, for the admin server.
pub fn routes(board: StatusBoard) -> Router {
    Router::new()
        .route("/backends/{service}", get(backends))
        .route("/traffic", get(traffic))
        .route("/routes", get(rules))
        .with_state(board)
}

async fn backends(State(board): State<StatusBoard>, Path(name): Path<String>) -> Response {
    board.look().await;
    let found = board.routed().and_then(|now| {
        let (name, pool) = now.services.get_key_value(name.as_str())?;
        let states = now.view.service(name, pool).states;
        let rows = pool.backends().iter().zip(states).map(|(b, state)| seen(&now.view, name, pool, b, state));
        Some(rows.collect::<Vec<Value>>())
    });
    match found {
        Some(rows) => Json(json!({"backends": rows})).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({"error": format!("no service {name:?}")}))).into_response(),
    }
}

async fn traffic(State(board): State<StatusBoard>) -> Json<Value> {
    let now = clock::now().as_secs();
    let mut services = Map::new();
    if let Some(haproxy) = board.haproxy() {
        for (name, pool) in board.services() {
            let points = haproxy.samples(&name, &pool, now);
            if points.iter().any(|point| *point != [0, 0]) {
                services.insert(name.to_string(), json!(points));
            }
        }
    }
    Json(json!({"step_ms": STEP * 1000, "services": services}))
}

async fn rules(State(board): State<StatusBoard>) -> Json<Value> {
    let edge = board.haproxy().and_then(|haproxy| agent::sync::lock(&haproxy.status).edge.clone());
    let services = board.services();
    let row = |(place, rule): (&Place, &Rule)| {
        let backends = services.get(&rule.service).map(|pool| pool.backends()).unwrap_or_default();
        let names = backends.iter().filter(|b| b.routes.iter().any(|r| r.host == place.host && r.path == place.path));
        let names: Vec<String> = names.map(|b| b.name.as_deref().unwrap_or(b.id.as_str()).to_owned()).collect();
        json!({
            "host": place.host.to_string(), "path": place.path.to_string(),
            "tls": if place.way == Way::Sni { "passed through" } else if rule.route.redirect_https { "redirected to" } else { "" },
            "service": rule.service, "with": rule.with, "sticky": rule.route.sticky, "by": format!("{:?}", rule.origin).to_lowercase(),
            "containers": names.iter().take(MOST_NAMED).collect::<Vec<_>>(), "more": names.len().saturating_sub(MOST_NAMED),
        })
    };
    let rules: Vec<Value> = edge.iter().flat_map(|edge| edge.routing.rules.iter()).map(row).collect();
    Json(json!({"routes": rules}))
}
