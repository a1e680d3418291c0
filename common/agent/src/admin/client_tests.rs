use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::telemetry::Chain;

#[test]
fn admin_urls_have_a_port_and_nothing_else() {
    let read = |url: &str, tls: bool| place(url, tls).map(|p| (p.https, p.host, p.address)).unwrap();
    let wanted = |https: bool, host: &str, address: &str| (https, host.to_owned(), address.to_owned());
    assert_eq!(read("http://127.0.0.1:9180", true), wanted(false, "127.0.0.1", "127.0.0.1:9180"));
    assert_eq!(read("https://[::1]:9180/", false), wanted(true, "::1", "[::1]:9180"));
    assert_eq!(read("node1:9180", false), wanted(false, "node1", "node1:9180"));
    assert_eq!(read("node1:9180", true), wanted(true, "node1", "node1:9180"));
    for bad in
        ["", "node1", "ftp://node1:9180", "http://node1", "http://u:p@h:1", "http://h:1/x", "http://h:99999", "h:1?x"]
    {
        let error = place(bad, false).unwrap_err();
        assert!(matches!(error, StatusError::Url { .. }) && !error.to_string().contains(":p@"), "{bad:?}: {error}");
    }
}

async fn asked(at: SocketAddr) -> StatusError {
    fetch(&AgentArgs::default(), at, "register").await.unwrap_err()
}

#[tokio::test]
async fn nobody_there_is_said_with_a_way_out() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let err = asked(free).await;
    let text = Chain(&err).to_string();
    assert!(text.starts_with(&format!("connecting to {free}: is register running here")), "{text}");
    assert!(text.ends_with("Connection refused (os error 111)"), "{text}");
}

#[tokio::test]
async fn what_is_no_admin_server_is_an_error() {
    for (answer, wanted) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "it answered 404"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno", "reading the status"),
        ("220 smtp\r\n", "reading the status"),
        ("", "reading the status"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let peer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Closing with the request unread would reset the connection, at times before the answer is read.
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let (err, ()) = tokio::join!(asked(at), peer);
        assert!(err.to_string().contains(wanted), "{answer:?}: {err}");
    }
}

/// A script that starts an agent waits for it to be ready, whether it listens yet or not.
#[tokio::test]
async fn a_ready_agent_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let not_yet = r#"{"reason":"start","detail":"HAProxy is starting"}"#;
    let answers = [
        format!("HTTP/1.1 503 Service Unavailable\r\ncontent-length: {}\r\n\r\n{not_yet}", not_yet.len()),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(),
    ];
    let peer = async {
        for answer in &answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    };
    let mut out = Vec::new();
    let args = StatusArgs { ready: true, wait: Some(Duration::from_secs(60)), ..StatusArgs::default() };
    let (outcome, ()) = tokio::join!(status(&args, at, "discover", &mut out), peer);
    outcome.unwrap();

    let never = StatusArgs { ready: true, wait: Some(Duration::ZERO), ..StatusArgs::default() };
    drop(listener);
    let error = status(&never, at, "discover", &mut out).await.unwrap_err();
    assert!(matches!(error, StatusError::Connect { .. }), "{error}");
}
