//! What answers in etcd's place, so that a wrong port or a v2-only server gets a clear error.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::Endpoint;

/// Most of an answer that is looked at.
const ANSWER_LIMIT: u64 = 8 * 1024;

/// What `endpoint` is, if it is surely no etcd with the v3 API. It is asked over plain HTTP for `/version`, which
/// every etcd since 2.0 answers; `None` where it is etcd 3 or cannot be told.
pub(super) async fn impostor(endpoint: &Endpoint, patience: Duration) -> Option<String> {
    if endpoint.https {
        return None; // the TLS layer's own errors say enough
    }
    let answer = timeout(patience, ask(endpoint)).await.ok()?.ok()?;
    judge(&String::from_utf8_lossy(&answer))
}

async fn ask(endpoint: &Endpoint) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    let request = format!("GET /version HTTP/1.0\r\nHost: {}\r\n\r\n", endpoint.authority());
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn judge(answer: &str) -> Option<String> {
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
        assert_eq!(judge(&http(r#"{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}"#)), None);
        let v2 = judge(&http(r#"{"etcdserver":"2.3.7","etcdcluster":"2.3.0"}"#)).unwrap();
        assert_eq!(v2, "it is etcd 2.3.7, which has the v2 API only");
        assert_eq!(judge(&http("<html>")).unwrap(), "it is an HTTP server (nginx), not etcd");
        let https = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(judge(https).unwrap(), "it expects https");
        assert_eq!(judge("-ERR unknown command"), None);
    }
}
