//! The replies: who answered, on which address, and what was asked; and the count of requests with effects.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::{Connected, IntoMakeServiceWithConnectInfo};
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::next::{CHAIN, Next};

/// Both ends of the connection that brought a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    local: Option<SocketAddr>,
    remote: SocketAddr,
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { local: stream.io().local_addr().ok(), remote: *stream.remote_addr() }
    }
}

#[derive(Clone)]
struct Who {
    name: Arc<str>,
    /// Requests executed whose method is not a safe one (RFC 9110, section 9.2.1).
    executions: Arc<AtomicU64>,
    next: Option<Next>,
}

/// `?wait_ms=N`: how late the answer comes, so that a test can have requests in flight.
fn wait(query: &[(String, String)]) -> Duration {
    let ms = query.iter().find(|(key, _)| key == "wait_ms").and_then(|(_, value)| value.parse().ok());
    Duration::from_millis(ms.unwrap_or(0))
}

/// The whole service, answering as `name`, with what `next` says.
pub fn service(name: String, next: Option<Next>) -> IntoMakeServiceWithConnectInfo<Router, Peer> {
    let who = Who { name: name.into(), executions: Arc::default(), next };
    Router::new()
        .route("/health", get(|| async { "ok\n" }))
        .route("/executions", get(executions))
        .fallback(answer)
        .with_state(who)
        .into_make_service_with_connect_info()
}

/// One line on standard output; who closed it does not stop the service.
pub fn log(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn executions(State(who): State<Who>) -> String {
    format!("{}\n", who.executions.load(Ordering::Relaxed))
}

async fn answer(
    State(who): State<Who>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(query): Query<Vec<(String, String)>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    if !method.is_safe() {
        who.executions.fetch_add(1, Ordering::Relaxed);
        // The log outlives a killed process, the count does not.
        log(&format!("executed {method} {uri}"));
    }
    sleep(wait(&query)).await;
    let count = who.executions.load(Ordering::Relaxed).to_string();
    let mut text = text(&who.name, peer, &method, &uri, &headers, &body);
    match &who.next {
        None => {}
        Some(next) => match next.chain().await {
            Ok(chain) => text.insert_str(who.name.len() + 1, &format!("{CHAIN}{} → {chain}\n", who.name)),
            Err(error) => {
                return (StatusCode::BAD_GATEWAY, format!("{}: the next tier: {error}\n", who.name)).into_response();
            }
        },
    }
    ([("x-executions", count)], text).into_response()
}

fn text(name: &str, peer: Peer, method: &Method, uri: &Uri, headers: &HeaderMap, body: &str) -> String {
    let mut out = format!("{name}\n");
    if let Some(local) = peer.local {
        let _ = writeln!(out, "Address: {}", unmapped(local));
    }
    let _ = writeln!(out, "From: {}\nRequest: {method} {uri}", unmapped(peer.remote));
    for (key, value) in headers {
        let _ = writeln!(out, "{key}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    if !body.is_empty() {
        let _ = write!(out, "\n{body}");
    }
    out
}

/// An IPv4 client of the dual-stack socket as itself, not as `::ffff:a.b.c.d`.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
