//! Connections: TCP with a path and a user, TLS, one connection for many requests, exec's upgrade.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use testing::certs::Certs;

/// A whole request; `None`: the client hung up.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await.ok()?;
        if read == 0 {
            return None;
        }
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(text);
        }
    }
}

/// Answers each request with what `answer` gives; returns those that came on this connection.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: impl Fn(&str) -> String) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(text) = request(&mut stream).await {
        let written = answer(&text);
        seen.push(text);
        stream.write_all(written.as_bytes()).await.unwrap();
        if written.contains("connection: close") || written.starts_with("HTTP/1.1 101") {
            break;
        }
    }
    let _ = stream.shutdown().await;
    seen
}

fn reply(body: &str, headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn requests_share_a_connection_and_a_closed_one_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // The first connection is closed after its third answer.
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            let answered = AtomicUsize::new(0);
            let answer = |text: &str| {
                for wanted in ["GET /base/_ping HTTP/1.1\r\n", "authorization: Basic bWU6czNjcmV0\r\n"] {
                    assert!(text.contains(wanted), "{text}");
                }
                assert!(text.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{text}");
                let last = first && answered.fetch_add(1, Ordering::Relaxed) == 2;
                reply("OK", if last { "connection: close\r\n" } else { "" })
            };
            serve(stream, answer).await;
        }
    });
    let endpoint = Endpoint::parse(&format!("http://me:s3cret@127.0.0.1:{port}/base"), None).unwrap();
    let docker = Docker::new(&endpoint).unwrap();
    for _ in 0..3 {
        docker.ping().await.unwrap();
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
    for _ in 0..3 {
        docker.ping().await.unwrap();
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 2);
    server.abort();
}

#[tokio::test]
async fn tls_trusts_the_directorys_authority_alone_and_shows_its_certificate() {
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let certs = directories.each_ref().map(|directory| Certs::make(directory.path()));
    for certs in &certs {
        std::fs::copy(certs.path("client.pem"), certs.path("cert.pem")).unwrap();
        std::fs::copy(certs.path("client.key"), certs.path("key.pem")).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = certs[0].acceptor(b"http/1.1", true);
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, |_| reply("OK", "")).await;
            }
        }
    });
    let with = |n: usize| {
        let directory = directories[n].path().to_owned();
        Docker::new(&Endpoint::parse(&format!("tcp://127.0.0.1:{port}"), Some(directory)).unwrap())
    };
    with(0).unwrap().ping().await.unwrap();
    let error = with(1).unwrap().ping().await.unwrap_err();
    let error = agent::telemetry::Chain(&error).to_string();
    assert!(error.contains("certificate"), "another authority: {error}");
    for name in ["cert.pem", "key.pem"] {
        std::fs::copy(certs[1].path(name), certs[0].path(name)).unwrap();
    }
    with(0).unwrap().ping().await.expect_err("the daemon does not know this client");
    std::fs::write(certs[0].path("key.pem"), "no key").unwrap();
    let error = with(0).unwrap_err();
    let error = agent::telemetry::Chain(&error).to_string();
    assert!(error.contains("key.pem"), "{error}");
    server.abort();
}

#[tokio::test]
async fn exec_reads_a_commands_output_and_status() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = |text: &str| {
                let first = text.lines().next().unwrap_or_default();
                match first {
                    _ if first.starts_with("POST /containers/") => reply(r#"{"Id":"e1"}"#, ""),
                    _ if first.starts_with("POST /exec/e1/start") => {
                        let frame = |kind: char, text: &str| {
                            let length = char::from(u8::try_from(text.len()).unwrap());
                            format!("{kind}\0\0\0\0\0\0{length}{text}")
                        };
                        let frames = frame('\u{1}', "out") + &frame('\u{2}', "err");
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{frames}", frames.len())
                    }
                    _ => reply(r#"{"ID":"e1","Running":false,"ExitCode":3}"#, ""),
                }
            };
            tokio::spawn(async move { serve(stream, answer).await });
        }
    });
    let docker = Docker::new(&Endpoint::parse(&format!("tcp://127.0.0.1:{port}"), None).unwrap()).unwrap();
    let command = ["sh".to_owned()];
    let ran = docker.exec(&id(1).parse().unwrap(), &command, Duration::from_secs(5)).await.unwrap();
    assert_eq!(ran, (3, b"outerr".to_vec()));
    server.abort();
}
