//! HTTP backends that count what they execute, and clients that count what fails.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// What a backend does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers.
    Answer,
    /// Executes the request and dies before a byte of the answer.
    DieAfterExecution,
}

/// An HTTP server on a port of its own; its body is its name.
pub struct HttpBackend {
    pub address: SocketAddr,
    /// Requests with a method other than GET that it executed.
    pub posts: Arc<AtomicU64>,
    pub gets: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl HttpBackend {
    pub async fn start(name: &str) -> Self {
        Self::with(name, Duration::ZERO, Manner::Answer).await
    }

    pub async fn with(name: &str, delay: Duration, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, name, delay, manner)
    }

    /// The same again at an address that was let go.
    pub async fn at(name: &str, address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        Self::serve(socket.listen(1024).unwrap(), name, Duration::ZERO, Manner::Answer)
    }

    fn serve(listener: TcpListener, name: &str, delay: Duration, manner: Manner) -> Self {
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let backend = Self { address, posts: Arc::default(), gets: Arc::default(), stop: stop.clone() };
        let (posts, gets, name) = (backend.posts.clone(), backend.gets.clone(), name.to_owned());
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (posts, gets, name) = (posts.clone(), gets.clone(), name.clone());
                let serve = async move { converse(stream, &name, delay, manner, &posts, &gets).await };
                tokio::spawn(stop.clone().run_until_cancelled_owned(serve));
            }
        };
        let until = backend.stop.clone();
        tokio::spawn(async move { until.run_until_cancelled(accept).await });
        backend
    }

    /// As `kill -9`: its port refuses, and its connections are cut.
    pub fn kill(&self) {
        self.stop.cancel();
    }
}

impl Drop for HttpBackend {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn converse(
    mut stream: TcpStream,
    name: &str,
    delay: Duration,
    manner: Manner,
    posts: &AtomicU64,
    gets: &AtomicU64,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            match buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None if stream.read_buf(&mut buffer).await.ok()? == 0 => return None,
                None => {}
            }
        };
        let request = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = request.split("content-length:").nth(1).and_then(|r| r.split_whitespace().next()?.parse().ok());
        while buffer.len() < head + length.unwrap_or(0) {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        buffer.drain(..head + length.unwrap_or(0));
        if request.starts_with("get") { gets } else { posts }.fetch_add(1, SeqCst);
        if manner == Manner::DieAfterExecution {
            return None;
        }
        sleep(delay).await;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// One request on a connection; the status and body.
pub async fn request(stream: &mut TcpStream, text: &str) -> Result<(u16, String), String> {
    answer(stream, text).await.map(|(status, body, _)| (status, body))
}

/// As [`request`], and whether the connection may be used again.
async fn answer(stream: &mut TcpStream, text: &str) -> Result<(u16, String, bool), String> {
    let talk = async {
        stream.write_all(text.as_bytes()).await.map_err(|e| format!("sending: {e}"))?;
        let mut buffer = Vec::new();
        loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
                let length =
                    head.split("content-length:").nth(1).and_then(|r| r.split_whitespace().next()?.parse().ok());
                let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no status")?;
                if buffer.len() >= end + 4 + length.unwrap_or(0) {
                    let body = String::from_utf8_lossy(&buffer[end + 4..]).into_owned();
                    return Ok((status, body, !head.contains("connection: close")));
                }
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) => return Err(format!("closed after {} bytes of the answer", buffer.len())),
                Ok(_) => {}
                Err(e) => return Err(format!("reading: {e}")),
            }
        }
    };
    timeout(Duration::from_secs(30), talk).await.map_err(|_| "no answer in 30 s".to_owned())?
}

/// Clients that go on until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    pub good: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Load {
    /// Half of the clients keep their connection open, half open one for each request; each about 500 requests a second at most.
    pub fn start(port: u16, clients: usize) -> Self {
        let mut load = Self { stop: Arc::default(), clients: vec![], good: Arc::default(), failures: Arc::default() };
        for n in 0..clients {
            let (stop, good, failures) = (load.stop.clone(), load.good.clone(), load.failures.clone());
            load.clients.push(tokio::spawn(async move {
                let mut kept = None;
                while !stop.load(SeqCst) {
                    let keep = n % 2 == 0;
                    match one(port, &mut kept, keep).await {
                        Ok(()) => _ = good.fetch_add(1, SeqCst),
                        Err(e) => {
                            failures.lock().unwrap().push(format!("{}: {e}", if keep { "keep-alive" } else { "close" }))
                        }
                    }
                    sleep(Duration::from_millis(2)).await;
                }
            }));
        }
        load
    }

    /// Waits until this many requests more went well.
    pub async fn flows(&self, more: u64) {
        let now = self.good.load(SeqCst);
        super::eventually("requests are answered", async || self.good.load(SeqCst) >= now + more).await;
    }

    /// How many requests went well; none may have failed.
    pub async fn finish(self) -> u64 {
        self.stop.store(true, SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} requests failed, among them {:?}",
            failures.len(),
            &failures[..failures.len().min(5)]
        );
        self.good.load(SeqCst)
    }
}

async fn one(port: u16, kept: &mut Option<TcpStream>, keep: bool) -> Result<(), String> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| format!("connecting: {e}"))?;
            stream.set_nodelay(true).map_err(|e| e.to_string())?;
            stream
        }
    };
    let connection = if keep { "keep-alive" } else { "close" };
    let text = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: {connection}\r\n\r\n");
    match answer(&mut stream, &text).await? {
        (200, _, open) => {
            *kept = (keep && open).then_some(stream);
            Ok(())
        }
        (status, ..) => Err(format!("status {status}")),
    }
}

/// A POST over a connection of its own.
pub async fn post(port: u16) -> Result<(u16, String), String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| e.to_string())?;
    request(&mut stream, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndata").await
}
