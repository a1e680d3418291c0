//! A Marathon that answers as its API is documented: tasks of an application, 404 for one that does not exist, the event
//! stream, basic and token authentication.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::served::Served;

#[derive(Default)]
struct World {
    /// Tasks by their application's id, with its slash.
    apps: BTreeMap<String, Vec<Value>>,
    streams: Vec<mpsc::UnboundedSender<Bytes>>,
    requests: Vec<String>,
    /// What `Authorization` must say, if anything.
    wanted: Option<String>,
    broken: bool,
}

/// The server; it ends when it is dropped.
pub struct Marathon {
    world: Arc<Mutex<World>>,
    served: Served,
}

impl Marathon {
    /// It has no application.
    pub async fn start() -> Self {
        let world: Arc<Mutex<World>> = Arc::default();
        let served = Served::start(Router::new().fallback(answer).with_state(world.clone())).await;
        Self { world, served }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.served.port()
    }

    /// Where it is.
    pub fn url(&self) -> String {
        self.served.url()
    }

    /// Sets an application's tasks, and tells of it on the streams unless `silently`.
    pub fn set(&self, app: &str, tasks: Vec<Value>, silently: bool) {
        let mut world = self.lock();
        world.apps.insert(app.to_owned(), tasks);
        if !silently {
            let event = json!({"eventType": "status_update_event", "appId": app, "taskStatus": "TASK_RUNNING"});
            let text = Bytes::from(format!("event: status_update_event\ndata: {event}\n\n"));
            world.streams.retain(|stream| stream.send(text.clone()).is_ok());
        }
    }

    /// From now on every request is answered with 503, or properly again.
    pub fn break_down(&self, broken: bool) {
        self.lock().broken = broken;
    }

    /// From now on `Authorization` must say this.
    pub fn ask_for(&self, authorization: &str) {
        self.lock().wanted = Some(authorization.to_owned());
    }

    /// How many event streams are open.
    pub fn streams(&self) -> usize {
        self.lock().streams.iter().filter(|s| !s.is_closed()).count()
    }

    /// How many requests there were whose path has `part` in it.
    pub fn asked(&self, part: &str) -> usize {
        self.lock().requests.iter().filter(|path| path.contains(part)).count()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }
}

/// A running task of the application `/group/web`.
pub fn task(id: &str, host: &str, port: u16) -> Value {
    json!({"id": id, "appId": "/group/web", "host": host, "ports": [port], "startedAt": "2026-01-01T00:00:00.000Z",
           "stagedAt": "2026-01-01T00:00:00.000Z", "state": "TASK_RUNNING", "slaveId": "s", "version": "v",
           "ipAddresses": [], "servicePorts": [10001]})
}

async fn answer(State(world): State<Arc<Mutex<World>>>, request: Request) -> Response {
    let mut world = world.lock().unwrap();
    let path = request.uri().path().to_owned();
    world.requests.push(path.clone());
    let given = request.headers().get(header::AUTHORIZATION).map(|v| v.to_str().unwrap().to_owned());
    let told = |status: StatusCode, message: &str| (status, json!({"message": message}).to_string()).into_response();
    if world.wanted.is_some() && world.wanted != given {
        return told(StatusCode::UNAUTHORIZED, "Invalid username or password.");
    }
    if world.broken {
        return told(StatusCode::SERVICE_UNAVAILABLE, "No leader.");
    }
    if path == "/v2/events" {
        let (sender, receiver) = mpsc::unbounded_channel();
        let attached = b"event: event_stream_attached\ndata: {\"eventType\":\"event_stream_attached\"}\n\n";
        sender.send(Bytes::from_static(attached)).unwrap();
        world.streams.push(sender);
        let body = Body::from_stream(UnboundedReceiverStream::new(receiver).map(Ok::<_, Infallible>));
        return ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response();
    }
    let app = path.strip_prefix("/v2/apps").and_then(|p| p.strip_suffix("/tasks")).unwrap_or(&path);
    match world.apps.get(app) {
        Some(tasks) => json!({"tasks": tasks}).to_string().into_response(),
        None => told(StatusCode::NOT_FOUND, &format!("App '{app}' does not exist")),
    }
}
