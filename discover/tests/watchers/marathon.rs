//! `method: marathon`, against a server of the tests' own that answers as Marathon's API is documented: tasks of an
//! application, 404 for one that does not exist, the event stream, basic and token authentication.

use std::convert::Infallible;
use std::sync::Mutex;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use common::testing::gate::{Gate, Way};
use common::testing::watch_contract::{Breakage, Rig, keeps_the_contract};
use common::watch::Outlet;
use discover::watchers::BoxWatcher;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;

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

/// Marathon; its server goes with the test's runtime.
#[derive(Clone)]
struct Marathon {
    world: Arc<Mutex<World>>,
    port: u16,
}

impl Marathon {
    async fn start() -> Self {
        let world: Arc<Mutex<World>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().fallback(answer).with_state(world.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { world, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sets an application's tasks, and tells of it on the streams unless `silently`.
    fn set(&self, app: &str, tasks: Vec<Value>, silently: bool) {
        let mut world = self.world.lock().unwrap();
        world.apps.insert(app.to_owned(), tasks);
        if !silently {
            let event = json!({"eventType": "status_update_event", "appId": app, "taskStatus": "TASK_RUNNING"});
            let text = Bytes::from(format!("event: status_update_event\ndata: {event}\n\n"));
            world.streams.retain(|stream| stream.send(text.clone()).is_ok());
        }
    }

    fn streams(&self) -> usize {
        self.world.lock().unwrap().streams.iter().filter(|s| !s.is_closed()).count()
    }

    fn asked(&self, part: &str) -> usize {
        self.world.lock().unwrap().requests.iter().filter(|path| path.contains(part)).count()
    }
}

async fn answer(State(world): State<Arc<Mutex<World>>>, request: Request) -> Response {
    let mut world = world.lock().unwrap();
    let path = request.uri().path().to_owned();
    world.requests.push(path.clone());
    let given = request.headers().get(header::AUTHORIZATION).map(|v| v.to_str().unwrap().to_owned());
    if world.wanted.is_some() && world.wanted != given {
        return (StatusCode::UNAUTHORIZED, json!({"message": "Invalid username or password."}).to_string())
            .into_response();
    }
    if world.broken {
        return (StatusCode::SERVICE_UNAVAILABLE, json!({"message": "No leader."}).to_string()).into_response();
    }
    if path == "/v2/events" {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender
            .send(Bytes::from_static(
                b"event: event_stream_attached\ndata: {\"eventType\":\"event_stream_attached\"}\n\n",
            ))
            .unwrap();
        world.streams.push(sender);
        let body = Body::from_stream(UnboundedReceiverStream::new(receiver).map(Ok::<_, Infallible>));
        return ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response();
    }
    let app = path.strip_prefix("/v2/apps").and_then(|p| p.strip_suffix("/tasks")).unwrap_or(&path);
    match world.apps.get(app) {
        Some(tasks) => json!({"tasks": tasks}).to_string().into_response(),
        None => (StatusCode::NOT_FOUND, json!({"message": format!("App '{app}' does not exist")}).to_string())
            .into_response(),
    }
}

fn task(id: &str, host: &str, port: u16) -> Value {
    json!({"id": id, "appId": "/group/web", "host": host, "ports": [port], "startedAt": "2026-01-01T00:00:00.000Z",
           "stagedAt": "2026-01-01T00:00:00.000Z", "state": "TASK_RUNNING", "slaveId": "s", "version": "v",
           "ipAddresses": [], "servicePorts": [10001]})
}

fn discovery(url: &str, more: Value) -> Value {
    let mut all = json!({"method": "marathon", "marathon_api_url": url, "application_name": "/group/web"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

struct MarathonRig {
    marathon: Marathon,
    gate: Gate,
    url: String,
    named: Named,
}

impl MarathonRig {
    fn tell(&self) {
        let tasks = self.named.at.iter().map(|((service, name), address)| {
            let (host, port) = address.rsplit_once(':').unwrap();
            task(&format!("{service}.{name}"), host, port.parse().unwrap())
        });
        self.marathon.set("/group/web", tasks.collect(), false);
    }
}

/// The boxed watcher, as the suite wants one.
struct Boxed(BoxWatcher);

impl Watcher<Snapshot> for Boxed {
    type Error = std::io::Error;

    async fn run(self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), std::io::Error> {
        self.0.run(out, cancel).await.map_err(std::io::Error::other)
    }
}

impl Rig for MarathonRig {
    type Watcher = Boxed;

    fn watcher(&self) -> Boxed {
        Boxed(method(discovery(&self.url, json!({"check_interval": 0.5}))).watcher(&mut context()))
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        self.named.put(backends, |n| format!("10.0.{}.{}:31000", n / 250, n % 250 + 1));
        self.tell();
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.named.remove(service, name);
        self.tell();
    }

    async fn break_off(&mut self, how: Breakage) {
        self.gate.set(if how == Breakage::Fail { Way::Closed } else { Way::Silent });
    }

    async fn mend(&mut self) {
        self.gate.set(Way::Open);
    }

    fn history(&self) -> &History {
        &self.named.history
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(1)
    }
}

#[tokio::test]
async fn marathon_keeps_the_contract() {
    let marathon = Marathon::start().await;
    let (gate, address) = Gate::tcp(([127, 0, 0, 1], marathon.port).into()).await;
    let rig = MarathonRig { marathon, gate, url: format!("http://{address}"), named: Named::default() };
    rig.tell();
    let mut rig = rig;
    keeps_the_contract(&mut rig).await;
}

#[tokio::test]
async fn marathon_lists_the_started_tasks_of_an_application() {
    let marathon = Marathon::start().await;
    let mut two = task("two", "10.0.0.2", 31002);
    two["ports"] = json!([31002, 32002]);
    let mut staged = task("staged", "10.0.0.3", 31003);
    staged["startedAt"] = Value::Null;
    marathon.set("/group/web", vec![task("one", "10.0.0.1", 31001), two, staged], false);
    let mut first = Running::of(discovery(&marathon.url(), json!({})));
    let snapshot = first.until_web(&["10.0.0.1:31001", "10.0.0.2:31002"]).await;
    assert_eq!(snapshot.services["web"].backends()[0].name.as_deref(), Some("10.0.0.1"), "as Synapse: the host");
    let mut second = Running::of(discovery(&marathon.url(), json!({"port_index": 1})));
    let snapshot = second.until_web(&["10.0.0.2:32002"]).await;
    assert_eq!(left_out(&snapshot), ["web: one: has no port of index 1"]);
    let mut none = Running::of(discovery(&marathon.url(), json!({"application_name": "nothing"})));
    none.until("an answer: there is none", |s| s.services["web"].is_empty()).await;
    let mut elsewhere = Running::of(discovery(&marathon.url(), json!({"marathon_api_path": "/mesos/%{app}"})));
    marathon.set("/mesos/group/web", vec![task("else", "10.0.0.9", 31009)], true);
    elsewhere.until_web(&["10.0.0.9:31009"]).await;
    for watching in [first, second, none, elsewhere] {
        watching.end().await;
    }
}

#[tokio::test]
async fn marathon_events_come_before_the_period_and_one_stream_serves_all() {
    let marathon = Marathon::start().await;
    marathon.set("/group/web", vec![], true);
    let mut shared = context();
    let slow = discovery(&marathon.url(), json!({"check_interval": 600}));
    let mut watching: Vec<Running> =
        (0..3).map(|_| Running::boxed(method(slow.clone()).watcher(&mut shared))).collect();
    drop(shared);
    for one in &mut watching {
        one.until("an answer", |_| true).await;
    }
    let open = async {
        while marathon.streams() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, open).await.unwrap();
    let began = Instant::now();
    marathon.set("/group/web", vec![task("one", "10.0.0.1", 31001)], false);
    for one in &mut watching {
        one.until_web(&["10.0.0.1:31001"]).await;
    }
    assert!(began.elapsed() < Duration::from_secs(10), "the period is ten minutes");
    assert_eq!((marathon.streams(), marathon.asked("/v2/events")), (1, 1));
    // Of another application nothing is asked.
    let before = marathon.asked("/tasks");
    marathon.set("/other", vec![], false);
    marathon.set("/group/web", vec![], false);
    for one in &mut watching {
        one.until_web(&[]).await;
    }
    assert_eq!(marathon.asked("/tasks"), before + 3);
    for one in watching {
        one.end().await;
    }
    let closed = async {
        while marathon.streams() > 0 {
            marathon.set("/other", vec![], false); // a closed one is noticed by sending
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, closed).await.expect("the stream outlives its watchers");
}

#[tokio::test]
async fn marathon_has_several_urls_and_either_authentication() {
    let (first, second) = (Marathon::start().await, Marathon::start().await);
    for marathon in [&first, &second] {
        marathon.set("/group/web", vec![task("one", "10.0.0.1", 31001)], true);
    }
    first.world.lock().unwrap().broken = true;
    let urls = json!([first.url(), second.url()]);
    let mut watching = Running::of(discovery("", json!({"marathon_api_url": urls, "check_interval": 0.1})));
    watching.until_web(&["10.0.0.1:31001"]).await;
    first.world.lock().unwrap().broken = false;
    second.world.lock().unwrap().broken = true;
    first.set("/group/web", vec![task("two", "10.0.0.2", 31002)], true);
    watching.until_web(&["10.0.0.2:31002"]).await;
    watching.end().await;
    // "user:secret", in base 64.
    first.world.lock().unwrap().wanted = Some("Basic dXNlcjpzZWNyZXQ=".to_owned());
    let with_user = format!("http://user:secret@127.0.0.1:{}", first.port);
    let mut watching = Running::of(discovery(&with_user, json!({})));
    watching.until_web(&["10.0.0.2:31002"]).await;
    watching.end().await;
    first.world.lock().unwrap().wanted = Some("token=abc".to_owned());
    let mut watching = Running::of(discovery(&with_user, json!({})));
    let seen = watching.until_seen("refused", |seen| seen.error().is_some()).await;
    assert!(seen.error().unwrap().contains("401") && !seen.error().unwrap().contains("secret"), "{seen:?}");
    watching.end().await;
    let mut watching = Running::of(discovery(&first.url(), json!({"marathon_authorization": "token=abc"})));
    watching.until_web(&["10.0.0.2:31002"]).await;
    watching.end().await;
    for (more, why) in [
        (json!({"marathon_api_url": null}), "marathon_api_url: is required"),
        (json!({"marathon_api_url": "host:80"}), "marathon_api_url: \"host:80\""),
        (json!({"application_name": "a b"}), "application_name: \"a b\" is no application's id"),
        (json!({"application_name": null}), "application_name: is required"),
    ] {
        let error = refused(discovery("http://h", more));
        assert!(error.contains(why), "{error}");
    }
}
