//! What answers in etcd's place, so that a wrong port or a v2-only server gets a clear error.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::Endpoint;

/// Most of an answer that is looked at.
const ANSWER_LIMIT: u64 = 8 * 1024;

/// What can be told of something that took a connection and spoke no gRPC.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is surely no etcd with the v3 API, but this.
    Impostor(String),
    /// It may be one; this may help to find out.
    Hint(&'static str),
}

/// Asks `endpoint` over plain HTTP for `/version`, which every etcd since 2.0 answers.
pub(super) async fn identify(endpoint: &Endpoint, patience: Duration) -> Option<Finding> {
    if endpoint.https {
        return None; // the TLS layer's own errors say enough
    }
    match timeout(patience, ask(endpoint)).await.ok()?.ok()? {
        // What etcd 3.4 does when it expects TLS, and what a server does that is about to end.
        answer if answer.is_empty() => {
            Some(Finding::Hint("it closes connections without a word; perhaps it expects https"))
        }
        answer => judge(&answer).map(Finding::Impostor),
    }
}

/// What came until the server closed or reset the connection; an error only where there was none.
async fn ask(endpoint: &Endpoint) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    let request = format!("GET /version HTTP/1.0\r\nHost: {}\r\n\r\n", endpoint.authority());
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.take(ANSWER_LIMIT).read_to_end(&mut answer).await);
    Ok(answer)
}

/// How a TLS alert begins: its content type, and the major version. Source: RFC 8446, section 5.1.
const TLS_ALERT: [u8; 2] = [21, 3];

fn judge(answer: &[u8]) -> Option<String> {
    if answer.starts_with(&TLS_ALERT) {
        return Some("it expects https".to_owned());
    }
    let answer = &*String::from_utf8_lossy(answer);
    if !answer.starts_with("HTTP/") {
        return None;
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    if body.contains("to an HTTPS server") {
        return Some("it expects https".to_owned());
    }
    let version = serde_json::from_str::<serde_json::Value>(body).ok();
    match version.as_ref().and_then(|v| v.get("etcdserver")).and_then(|v| v.as_str()) {
        // 3.x has both APIs; nothing tells whether a proxy in between passes gRPC on.
        Some(version) if !version.starts_with("0.") && !version.starts_with("2.") => None,
        Some(version) => Some(format!("it is etcd {version}, which has the v2 API only")),
        None => {
            let server = head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("server:").map(str::to_owned));
            let what = server.map_or_else(String::new, |name| format!(" ({})", name.trim()));
            Some(format!("it is an HTTP server{what}, not etcd"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn answers_are_told_apart() {
        let http = |body: &str| format!("HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n{body}");
        assert_eq!(judge(http(r#"{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}"#).as_bytes()), None);
        let v2 = judge(http(r#"{"etcdserver":"2.3.7","etcdcluster":"2.3.0"}"#).as_bytes()).unwrap();
        assert_eq!(v2, "it is etcd 2.3.7, which has the v2 API only");
        assert_eq!(judge(http("<html>").as_bytes()).unwrap(), "it is an HTTP server (nginx), not etcd");
        let https = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(judge(https.as_bytes()).unwrap(), "it expects https");
        assert_eq!(judge(b"\x15\x03\x01\x00\x02\x02\x46").unwrap(), "it expects https");
        assert_eq!(judge(b"-ERR unknown command"), None);
    }
}
