use agent::admin::StatusSource;
use model::{Backend, BackendId, Port, ServiceMap};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::super::{StatusBoard, TurnRecord, series};
use super::*;
use crate::generators::haproxy::traffic::asking::{Socket, Traffic};
use crate::metrics::Metrics;
use crate::reconcile::Desired;

fn services() -> ServiceMap {
    let backend = |id: &str, port: Option<u16>| {
        let id: BackendId = id.parse().unwrap();
        let backend = Backend::new(id, "10.0.0.1".parse().unwrap(), 80.try_into().unwrap());
        Arc::new(Backend { service_port: port.and_then(Port::new), ..backend })
    };
    let pools = [("web", vec![backend("a", Some(80))]), ("direct", vec![backend("a", None)])];
    pools.map(|(name, all)| (name.parse().unwrap(), Arc::new(all.into_iter().collect::<Pool>()))).into()
}

fn board(socket: Option<Socket>) -> StatusBoard {
    let board = StatusBoard::default();
    board.set_haproxy(Some(HaproxyPart { status: Arc::default(), traffic: Traffic::new(socket, Places::Native) }));
    let desired = Desired { services: services(), ..Desired::default() };
    let turn = TurnRecord::new(std::time::Duration::ZERO, None);
    board.turned(&desired, &[], turn, &Metrics::new(&mut Registry::default()));
    board
}

fn ups(board: &StatusBoard) -> [u64; 2] {
    let rows = board.status()["services"].clone();
    let up = |name: &str| rows.as_array().unwrap().iter().find(|row| row["service"] == name).unwrap()["up"].as_u64();
    ["web", "direct"].map(|name| up(name).unwrap())
}

#[tokio::test]
async fn where_no_haproxy_is_asked_the_registrations_count_and_that_is_said() {
    let board = board(None);
    board.refresh().await;
    assert_eq!(ups(&board), [1, 1]);
    assert_eq!(board.status()["backends_seen_by"], "the registrations: no HAProxy is asked");
}

#[tokio::test]
async fn with_a_haproxy_that_does_not_answer_nothing_that_it_serves_is_up() {
    let dir = tempfile::tempdir().unwrap();
    let board = board(Some(Socket { runtime: dir.path().join("nobody.sock"), master: None }));
    board.refresh().await;
    assert_eq!(ups(&board), [0, 1], "a service without a port is not HAProxy's");
    let said = board.status()["backends_seen_by"].as_str().unwrap().to_owned();
    assert!(said.starts_with("nobody: HAProxy does not answer (connecting to HAProxy's socket"), "{said}");
}

#[tokio::test]
async fn a_service_has_a_series_for_each_state_and_none_once_it_is_gone() {
    let (board, mut registry) = (board(None), Registry::default());
    series::register(board.clone(), 1000, &mut registry);
    let text = || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    };
    for (state, count) in [("up", 1), ("down", 0), ("draining", 0), ("maint", 0), ("held", 0)] {
        let line = format!("discover_service_backends{{service=\"web\",state=\"{state}\"}} {count}\n");
        assert!(text().contains(&line), "{line}{}", text());
    }
    assert!(!text().contains("discover_service_requests_total{"), "nobody counts");
    let turn = TurnRecord::new(std::time::Duration::ZERO, None);
    board.turned(&Desired::default(), &[], turn, &Metrics::new(&mut Registry::default()));
    assert!(!text().contains("service=\"web\""), "{}", text());
}

#[tokio::test]
async fn of_too_many_services_those_that_are_not_whole_have_series_first() {
    let (board, mut registry) = (board(None), Registry::default());
    series::register(board.clone(), 1, &mut registry);
    let mut web = services().remove("web").map(|pool| Pool::clone(&pool)).unwrap().backends().to_vec();
    web[0] = Arc::new(Backend { status: model::Status::Down, ..Backend::clone(&web[0]) });
    let mut all = services();
    all.insert("web".parse().unwrap(), Arc::new(web.into_iter().collect()));
    let turn = TurnRecord::new(std::time::Duration::ZERO, None);
    let desired = Desired { services: all, ..Desired::default() };
    board.turned(&desired, &[], turn, &Metrics::new(&mut Registry::default()));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("service=\"web\"") && !text.contains("service=\"direct\""), "{text}");
    assert!(text.contains("discover_services_without_metrics 1\n"), "{text}");
}
