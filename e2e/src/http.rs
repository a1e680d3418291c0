//! A minimal HTTP/1.1 client that never retries, so that whoever uses it sees each fault of a proxy.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Answers are small here.
const MAX_REPLY: usize = 4 << 20;

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// No connection for another reason.
    Unreachable,
    /// The connection was reset under the request.
    Reset,
    /// The connection was closed in the middle of the answer, or in place of one.
    Closed,
    /// An answer, but of a class that means failure.
    Status(u16),
    /// No answer in time.
    TimedOut,
    /// What came was no HTTP.
    Malformed,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable => f.write_str("no connection"),
            Self::Reset => f.write_str("connection reset"),
            Self::Closed => f.write_str("closed before the answer's end"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Malformed => f.write_str("no HTTP"),
        }
    }
}

impl std::error::Error for Failure {}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

impl Reply {
    /// The first line of the body: of a whoami, its name.
    pub fn name(&self) -> &str {
        self.body.lines().next().unwrap_or_default()
    }
}

/// One client, with at most one connection.
#[derive(Debug)]
pub struct Client {
    to: SocketAddr,
    keep_alive: bool,
    patience: Duration,
    /// The Host header; the address, where there is none.
    host: Option<String>,
    connection: Option<Connection>,
    /// Its own end of the connection that it used last.
    local: Option<SocketAddr>,
}

/// The same socket twice: `peek` is for asking the system itself, past tokio's idea of readiness.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    peek: std::net::TcpStream,
}

impl Client {
    /// A client that keeps its connection open, or uses each for one request; `patience` bounds each request.
    pub fn new(to: SocketAddr, keep_alive: bool, patience: Duration) -> Self {
        Self { to, keep_alive, patience, host: None, connection: None, local: None }
    }

    /// The same, asking for this host.
    #[must_use]
    pub fn host(self, host: &str) -> Self {
        Self { host: Some(host.to_owned()), ..self }
    }

    /// Its own end of the connection that it used last.
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// Asks with GET.
    ///
    /// # Errors
    /// [`Failure`]; never [`Failure::Status`], that is the caller's to judge.
    pub async fn get(&mut self, path: &str) -> Result<Reply, Failure> {
        self.request("GET", path, "").await
    }

    /// Sends one request, once.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn request(&mut self, method: &str, path: &str, body: &str) -> Result<Reply, Failure> {
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let length = if method == "GET" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let host = self.host.clone().unwrap_or_else(|| self.to.to_string());
        let text =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n{length}\r\n{body}");
        match timeout(self.patience, self.exchange(text.as_bytes())).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(failure)) => {
                self.connection = None;
                Err(failure)
            }
            Err(_) => {
                self.connection = None;
                Err(Failure::TimedOut)
            }
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Reply, Failure> {
        // A server may close an idle connection: whoever sees that before asking has lost nothing.
        let mut connection = match self.connection.take() {
            Some(connection) if connection.is_idle() => connection,
            _ => Connection::open(self.to).await?,
        };
        self.local = connection.stream.local_addr().ok();
        connection.stream.write_all(request).await.map_err(|error| broken(&error))?;
        let (reply, reusable) = connection.read().await?;
        if reusable && self.keep_alive {
            self.connection = Some(connection);
        }
        Ok(reply)
    }
}

fn broken(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionReset => Failure::Reset,
        _ => Failure::Closed,
    }
}

impl Connection {
    async fn open(to: SocketAddr) -> Result<Self, Failure> {
        let open = async {
            let stream = TcpStream::connect(to).await?.into_std()?;
            stream.set_nodelay(true)?;
            let peek = stream.try_clone()?;
            Ok(Self { stream: TcpStream::from_std(stream)?, peek })
        };
        open.await.map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            _ => Failure::Unreachable,
        })
    }

    /// Neither closed by the other side nor sending unasked.
    fn is_idle(&self) -> bool {
        matches!(self.peek.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Reads an answer; also says whether the connection can serve another.
    async fn read(&mut self) -> Result<(Reply, bool), Failure> {
        let mut bytes = Vec::with_capacity(1024);
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if self.more(&mut bytes).await? == 0 {
                return Err(Failure::Closed);
            }
        };
        let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
        let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).ok_or(Failure::Malformed)?;
        let header = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        if header("transfer-encoding").is_some() {
            return Err(Failure::Malformed); // nothing that we ask answers in chunks
        }
        let length: Option<usize> =
            header("content-length").map(str::parse).transpose().map_err(|_| Failure::Malformed)?;
        match length {
            Some(length) => {
                while bytes.len() < head_end + length {
                    if self.more(&mut bytes).await? == 0 {
                        return Err(Failure::Closed);
                    }
                }
            }
            None => while self.more(&mut bytes).await? > 0 {},
        }
        let reusable = length.is_some() && header("connection") != Some("close");
        Ok((Reply { status, body: String::from_utf8_lossy(&bytes[head_end..]).into_owned() }, reusable))
    }

    async fn more(&mut self, bytes: &mut Vec<u8>) -> Result<usize, Failure> {
        if bytes.len() > MAX_REPLY {
            return Err(Failure::Malformed);
        }
        self.stream.read_buf(bytes).await.map_err(|error| broken(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Serves each connection the given texts, one for each request, and closes it then.
    async fn server(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                for answer in answers {
                    if stream.read(&mut [0; 4096]).await.unwrap_or(0) == 0 {
                        break;
                    }
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        address
    }

    fn client(to: SocketAddr) -> Client {
        Client::new(to, true, Duration::from_secs(2))
    }

    #[tokio::test]
    async fn keeps_its_connection_and_notices_an_idle_close() {
        let to = server(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none",
            "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntwo\n",
        ])
        .await;
        let mut client = client(to);
        for name in ["one", "two"] {
            assert_eq!(client.get("/").await.unwrap().name(), name);
        }
        crate::wait::until_true("the close", Duration::from_secs(2), async || {
            !client.connection.as_ref().unwrap().is_idle()
        })
        .await
        .unwrap();
        assert_eq!(client.get("/").await.unwrap().name(), "one", "on a new connection");
    }

    #[tokio::test]
    async fn tells_failures_apart_and_never_retries() {
        for (answers, failure) in [
            (&[""][..], Failure::Closed),
            (&["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"][..], Failure::Closed),
            (&["rubbish\r\n\r\n"][..], Failure::Malformed),
        ] {
            assert_eq!(client(server(answers).await).get("/").await.unwrap_err(), failure, "{answers:?}");
        }
        let free = testing::free_port();
        assert_eq!(client(([127, 0, 0, 1], free).into()).get("/").await.unwrap_err(), Failure::Refused);
    }
}
