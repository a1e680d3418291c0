//! What is routed, for programs, on the admin server. GET only; before the first turn everything is 503, as silence must
//! not be taken for "nothing there": the client keeps what it had.
//!
//! | path | answer |
//! |---|---|
//! | `/services` | `{"revision", "seen_by", "services": {NAME: [backend…]}}`, backends as in `discover ls --json` |
//! | `/services/NAME` | `{"revision", "seen_by", "service", "up", "held", "backends": […]}`, or 404 with `{"error"}` |
//! | `/prometheus/sd` | targets for Prometheus' `http_sd_configs`; `?service=NAME` leaves the others out |

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use model::{Backend, Pool, ServiceMap, ServiceName, Transport};
use serde_json::{Map, Value, json};

use crate::generators::haproxy::traffic::seen::BackendState;
use crate::generators::prometheus::label_word;
use crate::status::{Routed, StatusBoard};

/// The routes over what `board` knows, for the admin server.
pub fn routes(board: StatusBoard) -> Router {
    Router::new()
        .route("/services", get(services))
        .route("/services/{service}", get(service))
        .route("/prometheus/sd", get(prometheus))
        .with_state(board)
}

async fn services(State(board): State<StatusBoard>) -> Response {
    board.look().await;
    answer(&board, |now| {
        let services = now.services.iter().map(|(name, pool)| (name.to_string(), backends(now, name, pool)));
        let services: Map<_, _> = services.collect();
        Json(json!({"revision": now.revision, "seen_by": now.view.seen_by(), "services": services})).into_response()
    })
}

async fn service(State(board): State<StatusBoard>, Path(name): Path<String>) -> Response {
    board.look().await;
    answer(&board, |now| match now.services.get_key_value(name.as_str()) {
        Some((name, pool)) => {
            let held = now.held.get(name).copied().unwrap_or(0);
            let up = now.view.service(name, pool).count(BackendState::Up);
            let (seen_by, backends) = (now.view.seen_by(), backends(now, name, pool));
            let found = json!({
                "revision": now.revision, "seen_by": seen_by, "service": name, "up": up, "held": held, "backends": backends
            });
            Json(found).into_response()
        }
        None => (StatusCode::NOT_FOUND, Json(json!({"error": format!("no service {name:?}")}))).into_response(),
    })
}

/// A pool's backends, each with its state.
fn backends(now: &Routed, name: &ServiceName, pool: &Arc<Pool>) -> Value {
    let states = now.view.service(name, pool).states;
    let with_state = |(backend, state): (&Arc<Backend>, BackendState)| {
        let mut backend = json!(backend);
        backend["state"] = state.as_str().into();
        backend
    };
    pool.backends().iter().zip(states).map(with_state).collect()
}

async fn prometheus(State(board): State<StatusBoard>, Query(query): Query<Vec<(String, String)>>) -> Response {
    let given = query.iter().filter(|(key, _)| key == "service").flat_map(|(_, names)| names.split(','));
    let only: BTreeSet<&str> = given.collect();
    answer(&board, |now| Json(targets(&now.services, &only)).into_response())
}

fn answer(board: &StatusBoard, make: impl FnOnce(&Routed) -> Response) -> Response {
    match board.routed() {
        Some(now) => make(&now),
        None => {
            let why = json!({"error": "no source has answered yet"});
            (StatusCode::SERVICE_UNAVAILABLE, Json(why)).into_response()
        }
    }
}

/// One entry for each backend, as its labels are its own; UDP cannot be scraped.
///
/// Source: Prometheus' HTTP SD reference, "HTTP_SD format": an array of `{"targets": ["HOST:PORT"], "labels": {NAME: TEXT}}`,
/// `[]` where there is none, answered with 200 and `Content-Type: application/json`; an answer of another code leaves
/// Prometheus with the targets that it had.
fn targets(services: &ServiceMap, only: &BTreeSet<&str>) -> Value {
    let wanted = services.iter().filter(|(name, _)| only.is_empty() || only.contains(name.as_str()));
    let backends = wanted.flat_map(|(name, pool)| pool.backends().iter().map(move |backend| (name, backend)));
    let scraped = backends.filter(|(_, backend)| backend.transport == Transport::Tcp);
    scraped.map(|(name, backend)| json!({"targets": [backend.address()], "labels": labels(name, backend)})).collect()
}

fn labels(service: &ServiceName, backend: &Backend) -> Map<String, Value> {
    let named = [
        ("service", Some(service.to_string())),
        ("id", Some(backend.id.to_string())),
        ("status", Some(backend.status.to_string())),
        ("name", backend.name.as_deref().map(str::to_owned)),
        ("mode", backend.mode.map(|mode| mode.to_string())),
        ("service_port", backend.service_port.map(|port| port.to_string())),
    ];
    let own = backend.labels.iter().map(|(name, value)| (format!("label_{}", label_word(name)), value.clone()));
    let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    named.chain(own).map(|(name, value)| (format!("__meta_discover_{name}"), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use agent::admin::AdminServer;
    use model::{BackendId, Mode, Status};
    use prometheus_client::registry::Registry;
    use testing::http_once;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::metrics::Metrics;
    use crate::reconcile::Desired;
    use crate::status::TurnRecord;

    fn backend(id: &str, host: &str, port: u16) -> Backend {
        Backend::new(id.parse::<BackendId>().unwrap(), host.parse().unwrap(), port.try_into().unwrap())
    }

    fn known() -> ServiceMap {
        let labels = [("metrics-path", "/m"), ("a b", "ü\"\n")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let web = Backend {
            name: Some("web-1".into()),
            mode: Some(Mode::Http),
            status: Status::Draining,
            labels: Arc::new(labels),
            ..backend("b1", "2001:db8::1", 8000)
        };
        let dns = Backend { transport: Transport::Udp, ..backend("u", "10.0.0.9", 53) };
        let pools = [
            ("web", vec![web, backend("b2", "10.0.0.2", 8000)]),
            ("db", vec![backend("d", "db.example", 5432)]),
            ("dns", vec![dns]),
        ];
        let pool = |all: Vec<Backend>| Arc::new(all.into_iter().map(Arc::new).collect::<Pool>());
        pools.into_iter().map(|(name, all)| (name.parse().unwrap(), pool(all))).collect()
    }

    /// Asks a real admin server for each path: code, content type, body.
    async fn ask(board: &StatusBoard, paths: &'static [&'static str]) -> Vec<(u16, String, Value)> {
        let (_changes, changed) = watch::channel(0);
        let server = AdminServer::new("discover", Arc::new(board.clone()), Arc::new(Registry::default()), changed);
        let bound =
            server.with_routes(routes(board.clone())).bind(([127, 0, 0, 1], 0).into(), "--admin").await.unwrap();
        let (port, cancel) = (bound.address().port(), CancellationToken::new());
        let run = tokio::spawn(bound.run(cancel.clone()));
        let asked = tokio::task::spawn_blocking(move || {
            let ask = |path: &&str| {
                http_once(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            };
            paths.iter().map(ask).collect::<Vec<_>>()
        });
        let answers = asked.await.unwrap();
        cancel.cancel();
        run.await.unwrap().unwrap();
        let parsed = answers.into_iter().map(|answer| {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let kind = head.lines().find_map(|l| l.strip_prefix("content-type: ")).unwrap_or_default();
            (head[9..12].parse().unwrap(), kind.to_owned(), serde_json::from_str(body).unwrap())
        });
        parsed.collect()
    }

    fn turned(services: ServiceMap) -> StatusBoard {
        let board = StatusBoard::default();
        let desired = Desired { services, ..Desired::default() };
        let turn = TurnRecord::new(Duration::ZERO, None);
        board.turned(&desired, &[], turn, &Metrics::new(&mut Registry::default()));
        board
    }

    #[tokio::test]
    async fn services_are_told_one_and_all_and_an_unknown_one_is_404() {
        let answers = ask(&turned(known()), &["/services", "/services/web", "/services/no%22%20one"]).await;
        let mut db = json!([backend("d", "db.example", 5432)]);
        db[0]["state"] = json!("up");
        assert_eq!(answers[0].2["services"]["db"], db, "no HAProxy is asked: as it is registered");
        assert_eq!((answers[1].0, answers[1].2["backends"].as_array().unwrap().len()), (200, 2));
        assert_eq!(answers[1].2["backends"][0]["status"], "draining");
        assert_eq!((answers[2].0, &answers[2].2), (404, &json!({"error": "no service \"no\\\" one\""})));
        assert!(answers.iter().all(|(_, kind, _)| kind == "application/json"));
    }

    #[tokio::test]
    async fn before_the_first_turn_nothing_is_told_and_after_it_an_empty_list_is() {
        for (code, kind, body) in ask(&StatusBoard::default(), &["/services", "/services/web", "/prometheus/sd"]).await
        {
            assert_eq!(
                (code, kind.as_str(), &body["error"]),
                (503, "application/json", &json!("no source has answered yet"))
            );
        }
        let empty = ask(&turned(ServiceMap::new()), &["/prometheus/sd"]).await.remove(0);
        assert_eq!(empty, (200, "application/json".to_owned(), json!([])));
    }

    #[tokio::test]
    async fn prometheus_gets_targets_in_its_documented_form() {
        let paths = &["/prometheus/sd", "/prometheus/sd?service=db", "/prometheus/sd?service=db,dns&service=web"];
        let answers = ask(&turned(known()), paths).await;
        assert_eq!(answers[0].2, answers[2].2);
        for (code, kind, body) in &answers {
            assert_eq!((*code, kind.as_str()), (200, "application/json"));
            for entry in body.as_array().unwrap() {
                // The documented schema: targets is a list of strings HOST:PORT, labels an object of strings, nothing else.
                assert_eq!(entry.as_object().unwrap().keys().collect::<Vec<_>>(), ["targets", "labels"]);
                assert!(entry["targets"].as_array().unwrap().iter().all(|t| t.as_str().unwrap().contains(':')));
                for (name, value) in entry["labels"].as_object().unwrap() {
                    assert!(value.is_string() && name.starts_with("__meta_discover_"), "{name}");
                    assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
                }
            }
        }
        let db = json!({"__meta_discover_service": "db", "__meta_discover_id": "d", "__meta_discover_status": "up"});
        assert_eq!(answers[1].2, json!([{"targets": ["db.example:5432"], "labels": db}]));
        let web = &answers[0].2[1];
        assert_eq!(web["targets"], json!(["[2001:db8::1]:8000"]));
        let labels = &web["labels"];
        assert_eq!(labels["__meta_discover_label_metrics_path"], "/m");
        assert_eq!(labels["__meta_discover_label_a_b"], "ü\"\n");
        assert_eq!(
            (&labels["__meta_discover_mode"], &labels["__meta_discover_name"]),
            (&json!("http"), &json!("web-1"))
        );
    }
}
