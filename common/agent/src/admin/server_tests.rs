//! The admin server over real connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use futures_util::future::BoxFuture;
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{AdminError, AdminServer, StatusSource, Unready, access::Access, client};

const SOON: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Agent {
    pub unready: Mutex<Option<String>>,
    dead: AtomicBool,
    pub status: Mutex<Value>,
    /// What somebody else says, brought by a refresh.
    elsewhere: Mutex<Option<Value>>,
}

impl StatusSource for Agent {
    fn refresh(&self) -> BoxFuture<'_, ()> {
        if let Some(now) = self.elsewhere.lock().unwrap().take() {
            *self.status.lock().unwrap() = now;
        }
        Box::pin(std::future::ready(()))
    }
    fn period(&self) -> Option<Duration> {
        Some(Duration::from_millis(20))
    }
    fn status(&self) -> Value {
        self.status.lock().unwrap().clone()
    }
    fn live(&self) -> bool {
        !self.dead.load(Ordering::Relaxed)
    }
    fn ready(&self) -> Result<(), Unready> {
        self.unready.lock().unwrap().clone().map_or(Ok(()), |why| Err(Unready::new("registry", why)))
    }
    fn reasons(&self) -> &'static [&'static str] {
        &["docker", "registry"]
    }
}

pub(super) struct Lab {
    pub agent: Arc<Agent>,
    changes: watch::Sender<u64>,
    pub at: SocketAddr,
    cancel: CancellationToken,
    server: JoinHandle<Result<(), AdminError>>,
}

impl Lab {
    pub async fn start(listen: &str) -> Self {
        Self::with(listen, Access::default()).await
    }

    pub async fn with(listen: &str, access: Access) -> Self {
        let agent = Arc::new(Agent { status: Mutex::new(json!({"n": 1})), ..Agent::default() });
        let (changes, rx) = watch::channel(0);
        let (mut registry, applies) = (Registry::with_prefix("discover"), Counter::<u64>::default());
        registry.register("applies", "Plans applied", applies.clone());
        applies.inc();
        let bound = AdminServer::new("discover", agent.clone(), Arc::new(registry), rx)
            .with_access(access)
            .with_routes(Router::new().route("/sd", get(|| async { "[]" })))
            .bind(listen.parse().unwrap(), "--admin")
            .await
            .unwrap();
        let (at, cancel) = (bound.address(), CancellationToken::new());
        let server = tokio::spawn(bound.run(cancel.clone()));
        Self { agent, changes, at, cancel, server }
    }

    async fn open(&self, method: &str, path: &str) -> BufReader<TcpStream> {
        self.open_as(method, path, "x: y").await
    }

    async fn open_as(&self, method: &str, path: &str, header: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        BufReader::new(stream)
    }

    /// Code, head and body.
    pub async fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
        self.ask_as(method, path, "x: y").await
    }

    /// With one more header.
    pub async fn ask_as(&self, method: &str, path: &str, header: &str) -> (u16, String, String) {
        let mut text = String::new();
        let mut stream = self.open_as(method, path, header).await;
        timeout(SOON, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
    }

    pub async fn stop(self) {
        self.cancel.cancel();
        timeout(SOON, self.server).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn each_path_answers_with_security_headers() {
    let lab = Lab::start("127.0.0.1:0").await;
    for (path, kind, part) in [
        ("/", "text/html", "<h1>discover <span id=\"host\">"),
        ("/own.js", "text/javascript", ""),
        ("/status?page", "application/json", r#"{"n":1}"#),
        ("/page.js", "text/javascript", "textContent"),
        ("/page.css", "text/css", "--back"),
        ("/metrics", "application/openmetrics-text; version=1.0.0", "discover_applies_total 1\n"),
        ("/live", "text/plain", "ok"),
        ("/ready", "text/plain", "ok"),
        ("/status", "application/json", r#"{"n":1}"#),
        ("/sd", "text/plain", "[]"),
    ] {
        let (code, head, body) = lab.ask("GET", path).await;
        assert_eq!(code, 200, "{path}");
        assert!(head.contains(&format!("content-type: {kind}")) && body.contains(part), "{path}: {head}\n{body}");
        assert!(head.contains("default-src 'none'") && head.contains("nosniff") && head.contains("no-store"), "{head}");
    }
    assert_eq!(lab.ask("GET", "/nothing").await.0, 404);
    lab.stop().await;
}

#[tokio::test]
async fn the_page_brings_the_state_of_its_moment_and_no_name_ends_it_early() {
    let lab = Lab::start("127.0.0.1:0").await;
    *lab.agent.status.lock().unwrap() = json!({"services": ["</script><script>alert(1)"]});
    *lab.agent.unready.lock().unwrap() = Some("no {first} answer".to_owned());
    let (_, _, body) = lab.ask("GET", "/").await;
    assert!(body.contains(r#"<span id="ready" class="pill bad">not ready</span>"#), "{body}");
    let (_, rest) = body.split_once(r#"<script id="first" type="application/json">"#).unwrap();
    let first: Value = serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap();
    assert_eq!(first["status"], *lab.agent.status.lock().unwrap());
    assert_eq!(first["why"], "no {first} answer");
    lab.stop().await;
}

#[tokio::test]
async fn other_methods_are_refused_everywhere() {
    let lab = Lab::start("127.0.0.1:0").await;
    for (method, path) in
        [("POST", "/status"), ("HEAD", "/"), ("OPTIONS", "/ready"), ("DELETE", "/sd"), ("PUT", "/nothing")]
    {
        let (code, head, _) = lab.ask(method, path).await;
        assert_eq!(code, 405, "{method} {path}");
        assert!(head.contains("allow: get"), "{head}");
    }
    lab.stop().await;
}

#[tokio::test]
async fn health_follows_the_agent() {
    let lab = Lab::start("127.0.0.1:0").await;
    *lab.agent.unready.lock().unwrap() = Some("etcd has not answered yet".to_owned());
    lab.agent.dead.store(true, Ordering::Relaxed);
    let (code, _, body) = lab.ask("GET", "/ready").await;
    let why = r#"{"ready":false,"reason":"registry","detail":"etcd has not answered yet"}"#;
    assert_eq!((code, body.as_str()), (503, why));
    let metrics = lab.ask("GET", "/metrics").await.2;
    for line in
        [r"discover_ready 0", r#"discover_not_ready{reason="registry"} 1"#, r#"discover_not_ready{reason="docker"} 0"#]
    {
        assert!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n") && metrics.matches("# EOF").count() == 1, "{metrics}");
    assert_eq!(lab.ask("GET", "/live").await.0, 503);
    lab.stop().await;
}

#[tokio::test]
async fn events_begin_with_the_status_and_follow_each_change_until_the_end() {
    let lab = Lab::start("127.0.0.1:0").await;
    let mut stream = lab.open("GET", "/events").await;
    for n in 1..4 {
        let mut line = String::new();
        while !line.starts_with("data:") {
            line.clear();
            assert!(timeout(SOON, stream.read_line(&mut line)).await.unwrap().unwrap() > 0, "the stream ended");
        }
        assert_eq!(line.trim(), format!(r#"data: {{"n":{n}}}"#));
        *lab.agent.status.lock().unwrap() = json!({"n": n + 1});
        lab.changes.send_modify(|v| *v += 1);
    }
    lab.stop().await;
    timeout(SOON, stream.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_somebody_else_says_is_asked_before_it_is_shown_and_shown_without_a_change() {
    let lab = Lab::start("127.0.0.1:0").await;
    let elsewhere = |n: u64| *lab.agent.elsewhere.lock().unwrap() = Some(json!({"n": n}));
    elsewhere(7);
    assert_eq!(lab.ask("GET", "/status").await.2, r#"{"n":7}"#);
    let mut stream = lab.open("GET", "/events").await;
    let mut shown = Vec::new();
    while shown.len() < 2 {
        let mut line = String::new();
        assert!(timeout(SOON, stream.read_line(&mut line)).await.unwrap().unwrap() > 0, "the stream ended");
        if let Some(data) = line.strip_prefix("data: ") {
            shown.push(data.trim().to_owned());
            elsewhere(8);
        }
    }
    assert_eq!(shown, [r#"{"n":7}"#, r#"{"n":8}"#], "each once, though it is asked again and again");
    lab.stop().await;
}

#[tokio::test]
async fn viewers_are_few_and_leave_room_for_probes() {
    let lab = Lab::start("127.0.0.1:0").await;
    let mut viewers = Vec::new();
    for _ in 0..16 {
        let mut viewer = lab.open("GET", "/events").await;
        let mut line = String::new();
        timeout(SOON, viewer.read_line(&mut line)).await.unwrap().unwrap();
        assert!(line.contains("200"), "{line}");
        viewers.push(viewer);
    }
    assert_eq!(lab.ask("GET", "/events").await.0, 503);
    assert_eq!(lab.ask("GET", "/live").await.0, 200);
    drop(viewers);
    lab.stop().await;
}

#[tokio::test]
async fn a_long_head_is_refused() {
    let lab = Lab::start("127.0.0.1:0").await;
    let (code, ..) = lab.ask("GET", &format!("/{}", "x".repeat(64 << 10))).await;
    assert!(matches!(code, 414 | 431), "{code}");
    lab.stop().await;
}

/// Real time, since the kernel's sockets know no other: this takes the 10 s of the timeout.
#[tokio::test]
async fn silent_connections_are_closed() {
    let lab = Lab::start("127.0.0.1:0").await;
    let mut silent = TcpStream::connect(lab.at).await.unwrap();
    let mut slow = TcpStream::connect(lab.at).await.unwrap();
    let mut idle = TcpStream::connect(lab.at).await.unwrap();
    slow.write_all(b"GET / HT").await.unwrap();
    idle.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let start = Instant::now();
    for stream in [&mut silent, &mut slow, &mut idle] {
        timeout(Duration::from_secs(15), stream.read_to_end(&mut Vec::new())).await.expect("closed").ok();
    }
    assert!(start.elapsed() >= Duration::from_secs(9));
    lab.stop().await;
}

#[tokio::test]
async fn a_taken_address_is_named_with_its_flag() {
    let lab = Lab::start("127.0.0.1:0").await;
    let (_tx, rx) = watch::channel(0);
    let again = AdminServer::new("discover", lab.agent.clone(), Arc::new(Registry::default()), rx);
    let err = again.bind(lab.at, "--admin").await.err().unwrap();
    let wanted =
        format!("listening on {} for the admin server (choose another address with --admin, or --admin off)", lab.at);
    assert_eq!(err.to_string(), wanted);
    lab.stop().await;
}

#[tokio::test]
async fn the_status_command_prints_tables_or_json_also_over_ipv6() {
    let lab = Lab::start("[::1]:0").await;
    *lab.agent.status.lock().unwrap() = json!({"version": "1", "held": []});
    let print = async |json| {
        let args = client::StatusArgs { json, ..Default::default() };
        let mut out = Vec::new();
        client::status(&args, lab.at, "discover", &mut out).await.unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(print(false).await, "version  1\n\nempty: held\n");
    assert_eq!(serde_json::from_str::<Value>(&print(true).await).unwrap(), json!({"version": "1", "held": []}));
    lab.stop().await;
}

/// Real time, as above: some seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_ask_on_and_on_and_never_read_keep_nobody_out_and_are_let_go() {
    const ASKED: usize = 60;
    const ANSWER: usize = 1 << 18;
    let lab = Lab::start("127.0.0.1:0").await;
    *lab.agent.status.lock().unwrap() = json!({"n": "x".repeat(ANSWER)});
    let mut greedy = Vec::new();
    for n in 0..64 {
        let socket = TcpSocket::new_v4().unwrap();
        // The kernel takes little for it, so that the answers wait in the agent.
        socket.set_recv_buffer_size(8 << 10).unwrap();
        let mut stream = socket.connect(lab.at).await.unwrap();
        // Words that ask for another protocol change nothing.
        let more = if n % 2 == 0 { "connection: upgrade\r\nupgrade: websocket\r\n" } else { "" };
        let ask = format!("GET /status HTTP/1.1\r\nhost: localhost\r\n{more}\r\n").repeat(ASKED);
        stream.write_all(ask.as_bytes()).await.unwrap();
        greedy.push(stream);
    }
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(lab.ask("GET", "/live").await.0, 200);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    // One of the newest, which no other pushed out: its deadline ends it.
    let mut last = greedy.pop().unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mut heard = Vec::new();
    let _ = timeout(SOON, last.read_to_end(&mut heard)).await.expect("closed"); // or reset
    assert!(heard.len() < ASKED * ANSWER, "the answers did not all wait for it: {}", heard.len());
    drop(greedy);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_that_do_not_read_make_room_for_others() {
    let lab = Lab::start("127.0.0.1:0").await;
    *lab.agent.status.lock().unwrap() = json!({"n": "x".repeat(1 << 20)});
    let mut viewers = Vec::new();
    for _ in 0..16 {
        viewers.push(lab.open("GET", "/events").await);
    }
    let start = Instant::now();
    loop {
        lab.changes.send_modify(|v| *v += 1);
        let mut line = String::new();
        let mut viewer = lab.open("GET", "/events").await;
        timeout(SOON, viewer.read_line(&mut line)).await.unwrap().unwrap();
        if line.contains("200") && start.elapsed() > Duration::from_secs(1) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(40), "{line}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(viewers);
    lab.stop().await;
}

#[tokio::test]
async fn over_loopback_no_strange_host_is_answered_and_the_operators_names_are() {
    let args = super::access::AccessArgs { admin_hosts: vec!["Admin.example".into()], ..Default::default() };
    for (access, named) in [(Access::default(), 403), (args.access().unwrap(), 200)] {
        let lab = Lab::with("127.0.0.1:0", access).await;
        let status = async |head: String| {
            let mut stream = TcpStream::connect(lab.at).await.unwrap();
            stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.unwrap();
            let mut text = String::new();
            timeout(SOON, stream.read_to_string(&mut text)).await.unwrap().unwrap();
            (text[9..12].parse::<u16>().unwrap(), text)
        };
        let port = lab.at.port();
        for path in ["/", "/status", "/metrics", "/events", "/live", "/ready", "/sd", "/nothing"] {
            for host in ["evil.example", &format!("evil.example:{port}"), "localhost.evil.example", "10.1.1.1", ""] {
                let (code, text) = status(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n")).await;
                assert!(code == 403 && !text.contains("\"n\""), "{path} {host}: {text}");
            }
        }
        for host in ["localhost", "127.0.0.1", &format!("127.0.0.1:{port}"), "[::1]:1"] {
            assert_eq!(status(format!("GET /status HTTP/1.1\r\nhost: {host}\r\n")).await.0, 200, "{host}");
        }
        assert_eq!(status("GET /status HTTP/1.1\r\nhost: admin.example:80\r\n".into()).await.0, named);
        assert_eq!(status("GET /status HTTP/1.1\r\n".into()).await.0, 403);
        assert_eq!(status("GET /status HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n".into()).await.0, 403);
        assert_eq!(status("GET /status HTTP/1.0\r\n".into()).await.0, 200);
        lab.stop().await;
    }
}
