//! A scripted Docker API on a Unix socket, for what a real daemon will not do on demand: bursts without a gap, lost events, cut
//! streams, a daemon that hangs, words nobody knows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use containers::docker::{Docker, Endpoint};

#[derive(Default)]
struct Daemon {
    containers: BTreeMap<String, Value>,
    subscribers: Vec<mpsc::UnboundedSender<Bytes>>,
    hangs: bool,
    podman: bool,
    inspection: Duration,
    manners: BTreeMap<String, Manner>,
    floods: Option<String>,
    forbidden: Option<String>,
    machine: String,
    requests: Vec<String>,
}

/// How inspections of one container go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Not at all, until it is given another one.
    Hangs,
    /// Slowly.
    Takes(Duration),
    /// With this status and the message `stumbled`.
    Answers(u16),
}

/// A scripted daemon; it and its socket are gone when it is dropped.
pub struct DockerApi {
    directory: tempfile::TempDir,
    daemon: Arc<Mutex<Daemon>>,
    server: Option<JoinHandle<()>>,
}

/// The id that [`running`] gives to container `number`.
pub fn id(number: usize) -> String {
    format!("{number:012x}{:052}", 0)
}

/// What `docker inspect` says of a running container that publishes port 80 at `10000 + number`.
pub fn running(number: usize, image: &str) -> Value {
    json!({
        "Id": id(number), "Name": format!("/c{number}"),
        "State": {"Status": "running", "Running": true, "Pid": 1, "StartedAt": format!("2026-01-01T00:00:00.{number:09}Z")},
        "Config": {"Image": image, "Labels": {}, "Env": [], "ExposedPorts": {"80/tcp": {}}},
        "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": (10_000 + number).to_string()}]},
            "Networks": {"bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": ""}},
        },
    })
}

/// An event about container `number`.
pub fn event(number: usize, action: &str) -> Value {
    json!({"Type": "container", "Action": action, "Actor": {"ID": id(number), "Attributes": {"signal": "15"}}, "timeNano": 1})
}

impl DockerApi {
    /// A daemon without containers, listening.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut api = Self { directory, daemon: Arc::default(), server: None };
        api.listen();
        api
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// A client for it, with little patience.
    pub fn client(&self) -> Docker {
        Docker::new(&Endpoint::Unix(self.socket())).unwrap().with_patience(Duration::from_millis(500))
    }

    /// Where it listens, as DOCKER_HOST has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
    }

    /// `/info` tells this engine id; without this it is empty, as Podman's is.
    pub fn be_machine(&self, id: &str) {
        id.clone_into(&mut self.lock().machine);
    }

    /// Starts listening again after [`go_away`](Self::go_away).
    pub fn listen(&mut self) {
        let path = self.directory.path().join("docker.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let app = Router::new()
            .route("/_ping", get(|| async { "OK" }))
            .route("/version", get(version))
            .route("/info", get(info))
            .route("/events", get(events))
            .route("/containers/json", get(list))
            .route("/containers/{id}/json", get(inspect))
            .layer(middleware::from_fn_with_state(self.daemon.clone(), observe))
            .with_state(self.daemon.clone());
        self.server = Some(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }));
    }

    /// Cuts all event streams and stops listening, as a daemon that is restarted.
    pub fn go_away(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
        self.cut();
        let _ = std::fs::remove_file(self.directory.path().join("docker.sock"));
    }

    /// Ends all event streams.
    pub fn cut(&self) {
        self.lock().subscribers.clear();
    }

    /// From now on nothing is answered, and connections stay open.
    pub fn hang(&self, hangs: bool) {
        self.lock().hangs = hangs;
    }

    /// `/version` says Podman.
    pub fn be_podman(&self) {
        self.lock().podman = true;
    }

    /// How long an inspection takes; its answer is what was true when it began.
    pub fn inspections_take(&self, time: Duration) {
        self.lock().inspection = time;
    }

    /// Inspections of container `number` go so; `None`: as others do.
    pub fn inspections_of(&self, number: usize, manner: Option<Manner>) {
        let mut daemon = self.lock();
        match manner {
            Some(manner) => drop(daemon.manners.insert(id(number), manner)),
            None => drop(daemon.manners.remove(&id(number))),
        }
    }

    /// Answers 403 to paths with `part` in them, as a proxy of the socket does.
    pub fn forbid(&self, part: Option<&str>) {
        self.lock().forbidden = part.map(str::to_owned);
    }

    /// Answers to paths with `part` in them begin well and never end, as fast as they are read.
    pub fn flood(&self, part: Option<&str>) {
        self.lock().floods = part.map(str::to_owned);
    }

    /// Adds or replaces a container, without an event.
    pub fn put(&self, container: Value) {
        let id = container["Id"].as_str().unwrap().to_owned();
        self.lock().containers.insert(id, container);
    }

    /// Removes a container, without an event.
    pub fn remove(&self, number: usize) {
        self.lock().containers.remove(&id(number));
    }

    /// Sends events in one packet.
    pub fn emit(&self, events: &[Value]) {
        self.emit_raw(&events.iter().map(|event| format!("{event}\n")).collect::<String>());
    }

    /// Sends bytes on the event streams.
    pub fn emit_raw(&self, text: &str) {
        self.lock().subscribers.retain(|s| s.send(Bytes::from(text.to_owned())).is_ok());
    }

    /// How many requests there were whose path has `part` in it.
    pub fn requests(&self, part: &str) -> usize {
        self.lock().requests.iter().filter(|path| path.contains(part)).count()
    }

    /// How many event streams are open.
    pub fn streams(&self) -> usize {
        self.lock().subscribers.iter().filter(|s| !s.is_closed()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Daemon> {
        self.daemon.lock().unwrap()
    }
}

impl Drop for DockerApi {
    fn drop(&mut self) {
        self.go_away();
    }
}

type Shared = State<Arc<Mutex<Daemon>>>;

async fn observe(State(daemon): Shared, request: Request, next: Next) -> Response {
    daemon.lock().unwrap().requests.push(request.uri().to_string());
    while daemon.lock().unwrap().hangs {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let forbidden = daemon.lock().unwrap().forbidden.as_ref().is_some_and(|part| request.uri().path().contains(part));
    if forbidden {
        return (StatusCode::FORBIDDEN, "not allowed").into_response();
    }
    let floods = daemon.lock().unwrap().floods.as_ref().is_some_and(|part| request.uri().path().contains(part));
    if floods {
        let piece = Bytes::from(vec![b' '; 1 << 20]);
        let endless = tokio_stream::iter(std::iter::once(Bytes::from_static(b"[")).chain(std::iter::repeat(piece)));
        return Body::from_stream(endless.map(Ok::<_, std::io::Error>)).into_response();
    }
    next.run(request).await
}

async fn version(State(daemon): Shared) -> Json<Value> {
    let name = if daemon.lock().unwrap().podman { "Podman Engine" } else { "Engine" };
    Json(json!({"Components": [{"Name": name, "Version": "1"}]}))
}

async fn info(State(daemon): Shared) -> Json<Value> {
    let machine = daemon.lock().unwrap().machine.clone();
    Json(json!({"ID": machine, "Name": "scripted", "ServerVersion": "29.0.0"}))
}

async fn events(State(daemon): Shared) -> Response {
    let (sender, receiver) = mpsc::unbounded_channel();
    // A first byte, so that the headers go out at once.
    sender.send(Bytes::from_static(b"\n")).unwrap();
    daemon.lock().unwrap().subscribers.push(sender);
    Body::from_stream(UnboundedReceiverStream::new(receiver).map(Ok::<_, std::io::Error>)).into_response()
}

async fn list(State(daemon): Shared) -> Json<Value> {
    let entry = |c: &Value| {
        json!({"Id": c["Id"], "Names": [c["Name"]], "State": c["State"]["Status"], "Status": "Up 1 second",
               "Ports": listed_ports(&c["NetworkSettings"]["Ports"]), "NetworkSettings": {"Networks": c["NetworkSettings"]["Networks"]}})
    };
    Json(daemon.lock().unwrap().containers.values().map(entry).collect())
}

/// Ports of an inspection, as the list has them.
fn listed_ports(inspected: &Value) -> Vec<Value> {
    let mut listed = Vec::new();
    for (name, bindings) in inspected.as_object().into_iter().flatten() {
        let (inside, kind) = name.split_once('/').unwrap_or((name, "tcp"));
        let inside: u16 = inside.parse().unwrap_or_default();
        for binding in bindings.as_array().into_iter().flatten() {
            let published: u16 = binding["HostPort"].as_str().and_then(|port| port.parse().ok()).unwrap_or_default();
            listed.push(json!({"IP": binding["HostIp"], "PrivatePort": inside, "PublicPort": published, "Type": kind}));
        }
        if bindings.is_null() {
            listed.push(json!({"PrivatePort": inside, "Type": kind}));
        }
    }
    listed
}

async fn inspect(State(daemon): Shared, Path(id): Path<String>) -> Response {
    let manner = || daemon.lock().unwrap().manners.get(&id).copied();
    while manner() == Some(Manner::Hangs) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (time, found) = {
        let daemon = daemon.lock().unwrap();
        (daemon.inspection, daemon.containers.get(&id).cloned())
    };
    match manner() {
        Some(Manner::Answers(status)) => {
            return (StatusCode::from_u16(status).unwrap(), Json(json!({"message": "stumbled"}))).into_response();
        }
        Some(Manner::Takes(time)) => tokio::time::sleep(time).await,
        _ => tokio::time::sleep(time).await,
    }
    match found {
        Some(container) => Json(container).into_response(),
        None => (StatusCode::NOT_FOUND, Json(json!({"message": format!("No such container: {id}")}))).into_response(),
    }
}
