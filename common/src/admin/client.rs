//! The command `status`: asks an agent's admin server and prints the answer.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::render;

/// For the whole exchange.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer: some 10 000 services stay well below it.
const MAX_ANSWER: usize = 64 << 20;

/// Arguments of `status`.
#[derive(Debug, Clone, clap::Args)]
pub struct StatusArgs {
    /// Print the JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Where the agent's admin server is, such as <http://127.0.0.1:9180>
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Not `http://HOST:PORT`.
    #[error("--admin {url:?} is not of the form http://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
    },
    /// Nobody listens.
    #[error(
        "connecting to {address}: is {program} running here, with its admin server on? (--admin URL asks elsewhere)"
    )]
    Connect {
        /// Where it was tried.
        address: String,
        /// Who should be there.
        program: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// It took too long.
    #[error("waiting for the status from {address}: no answer within {} s", PATIENCE.as_secs())]
    Timeout {
        /// Who was asked.
        address: String,
    },
    /// Who answers there does not speak HTTP, or hung up.
    #[error("reading the status from {address}")]
    Http {
        /// Who was asked.
        address: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another answer than 200.
    #[error("asking {address} for its status: it answered {code}; is it {program}'s admin server?")]
    Refused {
        /// Who was asked.
        address: String,
        /// Who should be there.
        program: &'static str,
        /// Such as 404.
        code: StatusCode,
    },
    /// The output is closed or full.
    #[error("printing the status")]
    Print(#[source] io::Error),
}

/// Asks the agent (`default` unless the arguments name another) and prints to `out`; `program` is named when nobody answers.
///
/// # Errors
/// [`StatusError`]; a wrong URL is a usage error.
pub async fn status(
    args: &StatusArgs,
    default: SocketAddr,
    program: &'static str,
    out: &mut impl Write,
) -> Result<(), StatusError> {
    let url = args.admin.clone().unwrap_or_else(|| format!("http://{default}"));
    let status = fetch(&url, program).await?;
    let text = if args.json { format!("{status:#}\n") } else { render::text(&status, now_unix_ms()) };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(StatusError::Print)
}

/// The status of the agent whose admin server is at `url`.
///
/// # Errors
/// [`StatusError`].
pub async fn fetch(url: &str, program: &'static str) -> Result<Value, StatusError> {
    let address = address(url)?;
    let stall = || StatusError::Timeout { address: address.clone() };
    timeout(PATIENCE, exchange(&address, program)).await.map_err(|_| stall())?
}

async fn exchange(address: &str, program: &'static str) -> Result<Value, StatusError> {
    let stream = TcpStream::connect(address).await.map_err(|source| StatusError::Connect {
        address: address.to_owned(),
        program,
        source,
    })?;
    let (code, body) =
        get(stream, address).await.map_err(|source| StatusError::Http { address: address.to_owned(), source })?;
    if code != StatusCode::OK {
        return Err(StatusError::Refused { address: address.to_owned(), program, code });
    }
    serde_json::from_slice(&body).map_err(|e| StatusError::Http { address: address.to_owned(), source: e.into() })
}

/// Plain HTTP by hyper alone: reqwest asks for a TLS provider even where none is used.
async fn get(stream: TcpStream, host: &str) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/status").header(header::HOST, host).body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let code = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?;
        Ok((code, body.to_bytes()))
    };
    let mut answer = std::pin::pin!(answer);
    // The connection makes the answer come; it ends first when the peer closes after it.
    tokio::select! {
        done = answer.as_mut() => return done,
        end = connection => end?,
    }
    answer.await
}

/// `host:port` of an admin URL; the scheme may be left out, the port not.
fn address(url: &str) -> Result<String, StatusError> {
    let wrong = || StatusError::Url { url: url.to_owned() };
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = full.parse().map_err(|_| wrong())?;
    let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
    let authority = uri.authority().filter(|a| plain && a.port_u16().is_some() && !a.as_str().contains('@'));
    authority.map(|a| a.as_str().to_owned()).ok_or_else(wrong)
}

fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::telemetry::Chain;

    #[test]
    fn admin_urls_are_plain_http_with_a_port() {
        assert_eq!(address("http://127.0.0.1:9180").unwrap(), "127.0.0.1:9180");
        assert_eq!(address("http://[::1]:9180/").unwrap(), "[::1]:9180");
        assert_eq!(address("node1:9180").unwrap(), "node1:9180");
        for bad in [
            "",
            "node1",
            "https://node1:9180",
            "http://node1",
            "http://u:p@h:1",
            "http://h:1/x",
            "http://h:99999",
            "h:1?x",
        ] {
            assert!(matches!(address(bad), Err(StatusError::Url { .. })), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_a_way_out() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let err = fetch(&free.to_string(), "register").await.unwrap_err();
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
            let at = listener.local_addr().unwrap().to_string();
            let peer = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                // Closing with the request unread would reset the connection, at times before the answer is read.
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            };
            let (err, ()) = tokio::join!(fetch(&at, "register"), peer);
            let err = err.unwrap_err();
            assert!(err.to_string().contains(wanted), "{answer:?}: {err}");
        }
    }
}
