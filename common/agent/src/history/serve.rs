//! `/history` of the admin server: the last changes, the newest first.
//!
//! `?service=NAME` leaves other services out, `?within_ms=N` what is older than that, `?most=N` all but the newest.

use axum::extract::{Query as Parameters, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{History, Query};
use crate::clock;

/// The route over `history`, for the admin server.
pub fn routes(history: History) -> Router {
    Router::new().route("/history", get(answer)).with_state(history)
}

async fn answer(State(history): State<History>, Parameters(asked): Parameters<Vec<(String, String)>>) -> Json<Value> {
    let (kept, oldest) = history.extent();
    let changes = history.read(&query(&asked, clock::millis(clock::now())));
    Json(json!({"kept": kept, "oldest_unix_ms": oldest, "changes": changes}))
}

/// What a request asks for; what cannot be read as a number counts as not said.
fn query(asked: &[(String, String)], now_ms: u64) -> Query {
    let last = |key: &str| asked.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let within: Option<u64> = last("within_ms").and_then(|text| text.parse().ok());
    Query {
        service: last("service").map(str::to_owned),
        since_unix_ms: within.map_or(0, |within| now_ms.saturating_sub(within)),
        most: last("most").and_then(|text| text.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_a_service_a_time_and_a_number() {
        let asked = |text: &str| {
            let pairs: Vec<(String, String)> =
                text.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
            query(&pairs, 10_000)
        };
        assert_eq!(asked(""), Query::default());
        assert_eq!(asked("most=x&within_ms=-1"), Query::default());
        let all = Query { service: Some("web".into()), since_unix_ms: 9_000, most: Some(5) };
        assert_eq!(asked("service=web&within_ms=1000&most=5"), all);
        assert_eq!(asked("within_ms=99999").since_unix_ms, 0);
    }
}
