//! whoami: a small HTTP server that answers with its host name, for the demo and the tests.
//!
//! It makes visible which backend a request reached, and helps to prove what a test claims: a port that opens late
//! (`--delay-ms`), a request that takes long (`?wait_ms=`), and how often requests with effects were executed
//! (`/executions`). `answer` holds the replies, `next` the tier behind; this file the port, the signals and the end.

mod answer;
mod next;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

/// How long requests in flight may take after the signal to end; shorter than the 10 s that `docker stop` waits.
const DRAIN_DEADLINE: Duration = Duration::from_secs(8);

/// Answers every request with its host name.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// TCP port to listen on, over IPv6 and IPv4; 0 lets the system choose
    #[arg(long, env = "WHOAMI_PORT", default_value_t = 80)]
    port: u16,
    /// Name to answer with [default: the host name]
    #[arg(long, env = "WHOAMI_NAME")]
    name: Option<String>,
    /// Milliseconds before the port opens
    #[arg(long, env = "WHOAMI_DELAY_MS", default_value_t = 0, value_name = "N")]
    delay_ms: u64,
    /// The tier behind, which each answer asks: http://HOST:PORT of another whoami, or memcached://HOST:PORT
    #[arg(long, env = "WHOAMI_NEXT", value_name = "URL")]
    next: Option<next::Next>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let port = args.port;
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whoami: serving on port {port}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> io::Result<()> {
    let mut end = end_signal()?;
    tokio::select! {
        biased;
        _ = end.changed() => return Ok(()),
        () = sleep(Duration::from_millis(args.delay_ms)) => {}
    }
    let listener = listen(args.port).await?;
    let name = match args.name {
        Some(name) => name,
        None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
    };
    answer::log(&format!("{name} listens on {}", listener.local_addr()?));
    serve(listener, answer::service(name, args.next), end).await
}

/// Serves until `end` changes, then lets the requests in flight finish, within [`DRAIN_DEADLINE`].
async fn serve(
    listener: TcpListener,
    service: IntoMakeServiceWithConnectInfo<axum::Router, answer::Peer>,
    mut end: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut graceful = end.clone();
    let server = axum::serve(listener, service).with_graceful_shutdown(async move {
        let _ = graceful.changed().await;
    });
    let deadline = async {
        let _ = end.changed().await;
        sleep(DRAIN_DEADLINE).await;
    };
    tokio::select! {
        result = async { server.await } => result,
        () = deadline => Ok(()),
    }
}

/// A receiver that changes at the first SIGTERM or SIGINT. As PID 1 of a container no signal has a default action, so
/// both need a handler.
fn end_signal() -> io::Result<watch::Receiver<bool>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (tx, rx) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let _ = tx.send(true);
        tx.closed().await;
    });
    Ok(rx)
}

/// Listens on `[::]`, which takes IPv4 too on Linux, or on `0.0.0.0` where the kernel has no IPv6.
async fn listen(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => Err(e),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    /// A server on a port of its own; the sender ends it, the handle tells how it ended.
    async fn start() -> (u16, watch::Sender<bool>, tokio::task::JoinHandle<io::Result<()>>) {
        let listener = listen(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tx, rx) = watch::channel(false);
        (port, tx, tokio::spawn(serve(listener, answer::service("me".to_owned(), None), rx)))
    }

    async fn send(port: u16, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn ask(port: u16, line: &str) -> String {
        let request = format!("{line} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
        let mut reply = String::new();
        send(port, &request).await.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn answers_its_name_first_and_then_the_request() {
        let (port, _end, _) = start().await;
        let reply = ask(port, "GET /some/path?q=1").await;
        let body = reply.split("\r\n\r\n").nth(1).unwrap();
        let lines: Vec<_> = body.lines().collect();
        assert_eq!(lines.first(), Some(&"me"));
        assert!(lines.contains(&"Request: GET /some/path?q=1"), "{body}");
        assert!(lines.contains(&format!("Address: 127.0.0.1:{port}").as_str()), "{body}");
        assert!(lines.contains(&"host: h"), "{body}");
        assert!(ask(port, "GET /health").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn counts_the_requests_with_effects_only() {
        let (port, _end, _) = start().await;
        ask(port, "GET /").await;
        let reply = ask(port, "POST /order").await;
        assert!(reply.contains("x-executions: 1"), "{reply}");
        assert!(reply.ends_with("\n\nhi"), "{reply}");
        ask(port, "DELETE /order").await;
        assert!(ask(port, "GET /executions").await.ends_with("\r\n\r\n2\n"));
    }

    #[tokio::test]
    async fn ends_at_once_when_idle_even_with_open_connections() {
        let (port, end, server) = start().await;
        let _silent = send(port, "").await;
        let mut kept = send(port, "GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(kept.read(&mut [0; 4096]).await.unwrap() > 0);
        end.send(true).unwrap();
        timeout(Duration::from_secs(2), server).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn lets_a_request_in_flight_finish() {
        let (port, end, server) = start().await;
        let mut slow = send(port, "POST /?wait_ms=300 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
        while !ask(port, "GET /executions").await.ends_with("\r\n\r\n1\n") {}
        end.send(true).unwrap();
        let mut reply = String::new();
        slow.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        server.await.unwrap().unwrap();
    }
}
