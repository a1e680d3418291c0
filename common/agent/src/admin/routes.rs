//! What is answered under which path.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{RawQuery, Request, State},
    http::{HeaderName, Method, StatusCode, header},
    middleware::{self, Next},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::stream;
use prometheus_client::{
    encoding::text,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use serde_json::json;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{StatusSource, Unready, vitals::vitals};

/// More viewers at once get a 503: an event costs a whole status for each of them.
const MAX_VIEWERS: usize = 16;
/// A viewer gets at most one event in this time; the last state is never left out.
const EVENT_GAP: Duration = Duration::from_millis(100);
/// Scripts and styles of our own only: a service name that got past everything else still runs nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

pub(super) struct AdminState {
    pub title: &'static str,
    pub source: Arc<dyn StatusSource>,
    pub registry: Arc<Registry>,
    pub changes: watch::Receiver<u64>,
    pub cancel: CancellationToken,
    viewers: Arc<Semaphore>,
}

impl AdminState {
    pub fn new(
        title: &'static str,
        source: Arc<dyn StatusSource>,
        registry: Arc<Registry>,
        changes: watch::Receiver<u64>,
        cancel: CancellationToken,
    ) -> Self {
        Self { title, source, registry, changes, cancel, viewers: Arc::new(Semaphore::new(MAX_VIEWERS)) }
    }
}

pub(super) fn router(shared: Arc<AdminState>, extra: Router) -> Router {
    let asset =
        |kind: &'static str, text: &'static str| get(move || async move { ([(header::CONTENT_TYPE, kind)], text) });
    let own = shared.source.script();
    Router::new()
        .route("/", get(page))
        .route("/page.css", asset("text/css; charset=utf-8", include_str!("page.css")))
        .route("/page.js", asset("text/javascript; charset=utf-8", include_str!("page.js")))
        .route("/own.js", asset("text/javascript; charset=utf-8", own))
        .route("/metrics", get(metrics))
        .route("/live", get(live))
        .route("/ready", get(ready))
        .route("/status", get(status))
        .route("/events", get(events))
        .with_state(shared)
        .merge(extra)
        .layer(middleware::from_fn(guard))
}

/// GET only, and the headers that go with every answer.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::GET {
        next.run(request).await
    } else {
        (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")], "only GET is answered here\n").into_response()
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    response
}

/// The page, with the state of this moment in it.
async fn page(State(s): State<Arc<AdminState>>) -> Response {
    s.source.refresh().await;
    let why = s.source.ready().err().map(|unready| unready.detail);
    let (class, ready) = if why.is_none() { ("good", "ready") } else { ("bad", "not ready") };
    // Strangers' names are in it: without a "<" none of them can end the element.
    let first = json!({"why": why, "status": s.source.page()}).to_string().replace('<', "\\u003c");
    let plain = |c: &char| c.is_ascii_alphanumeric() || ".-_".contains(*c);
    let host: String = s.source.host().chars().filter(plain).collect();
    // All but the last are literals of ours or plain names, and what the last brings is not read again.
    let html = include_str!("page.html").replace("{title}", s.title).replace("{host}", &host);
    let html = html.replace("{class}", class).replace("{ready}", ready).replace("{first}", &first);
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

async fn metrics(State(s): State<Arc<AdminState>>) -> Response {
    s.source.refresh().await;
    let mut out = String::new();
    let ready = readiness(s.title, &*s.source);
    let written = text::encode_registry(&mut out, &s.registry)
        .and_then(|()| text::encode_registry(&mut out, &ready))
        .and_then(|()| text::encode_registry(&mut out, &vitals(s.title, s.source.version())))
        .and_then(|()| text::encode_eof(&mut out));
    match written {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], out).into_response()
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "a metric cannot be encoded\n").into_response(),
    }
}

/// Whether the agent is ready at this moment, as metrics.
fn readiness(program: &str, source: &dyn StatusSource) -> Registry {
    let (ready, not_ready) = (Gauge::<i64>::default(), Family::<[(&str, &str); 1], Gauge>::default());
    let why = source.ready().err().map(|unready| unready.reason);
    ready.set(why.is_none().into());
    for reason in source.reasons() {
        not_ready.get_or_create(&[("reason", reason)]).set((why == Some(reason)).into());
    }
    let mut registry = Registry::with_prefix(program);
    registry.register("ready", "1 while it does its work: what /ready says", ready);
    registry.register("not_ready", "1 for the reason why it does not do its work", not_ready);
    registry
}

async fn live(State(s): State<Arc<AdminState>>) -> (StatusCode, &'static str) {
    if s.source.live() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not live\n") }
}

async fn ready(State(s): State<Arc<AdminState>>) -> Response {
    match s.source.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(Unready { reason, detail }) => {
            let why = json!({"ready": false, "reason": reason, "detail": detail});
            (StatusCode::SERVICE_UNAVAILABLE, Json(why)).into_response()
        }
    }
}

/// The status; with `?page` what the page shows.
async fn status(State(s): State<Arc<AdminState>>, RawQuery(query): RawQuery) -> Response {
    s.source.refresh().await;
    Json(if is_of_page(query.as_deref()) { s.source.page() } else { s.source.status() }).into_response()
}

fn is_of_page(query: Option<&str>) -> bool {
    query == Some("page")
}

/// The status now, then again after each change, until the viewer goes or the run ends; with `?page` what the page shows.
async fn events(State(s): State<Arc<AdminState>>, RawQuery(query): RawQuery) -> Response {
    let Ok(viewer) = s.viewers.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many viewers\n").into_response();
    };
    let mut changes = s.changes.clone();
    changes.mark_changed(); // so that the first event comes at once
    let start = (s, changes, Instant::now(), String::new(), viewer);
    let of_page = is_of_page(query.as_deref());
    let events = stream::unfold(start, move |(s, mut changes, not_before, mut shown, viewer)| async move {
        loop {
            let changed = s.cancel.run_until_cancelled(next(&mut changes, not_before, s.source.period())).await??;
            s.source.refresh().await;
            let number = *changes.borrow_and_update();
            let status = if of_page { s.source.page() } else { s.source.status() }.to_string();
            if changed || status != shown {
                shown.clone_from(&status);
                let event = Event::default().event("status").id(number.to_string()).data(status);
                return Some((Ok::<_, Infallible>(event), (s, changes, Instant::now() + EVENT_GAP, shown, viewer)));
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// Waits for a change, not before that time, or for the end of the period, where there is one; tells whether it was a change. `None`: there will be none.
async fn next(changes: &mut watch::Receiver<u64>, not_before: Instant, period: Option<Duration>) -> Option<bool> {
    sleep_until(not_before).await;
    match period {
        None => changes.changed().await.ok().map(|()| true),
        Some(period) => timeout(period, changes.changed()).await.map_or(Some(false), |end| end.ok().map(|()| true)),
    }
}
