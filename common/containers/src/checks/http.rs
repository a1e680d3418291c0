//! An HTTP or HTTPS request is answered as expected.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::error::excerpt;
use super::tcp::connect;
use super::{CheckError, TlsClient};
use model::desired::{HttpCheck, Secret};

/// How much of a body is read in search of what it must contain.
const BODY: usize = 64 * 1024;
/// How long a status line with its headers may be.
const HEAD: usize = 16 * 1024;
/// How much is read at once: most answers as a whole, so that nothing unread makes the system reset the connection.
const PIECE: usize = 2 * 1024;

/// How long each phase of a request may take, for those who say it phase by phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases {
    /// To connect.
    pub open: Duration,
    /// For the TLS handshake.
    pub tls: Duration,
    /// From the request to the answer.
    pub read: Duration,
}

impl Phases {
    /// All of them together.
    pub fn total(&self) -> Duration {
        self.open.saturating_add(self.tls).saturating_add(self.read)
    }
}

/// Sends one request on a connection of its own; an answer that sends it elsewhere is an answer, and followed by nothing.
#[derive(Debug, Clone)]
pub struct HttpProbe {
    address: SocketAddr,
    spec: HttpCheck,
    tls: Option<TlsClient>,
    /// The request as it is sent; `None`: it cannot be.
    sent: Option<Arc<[u8]>>,
    phases: Option<Phases>,
}

impl HttpProbe {
    /// Asks at `address`.
    pub fn new(address: SocketAddr, spec: &HttpCheck) -> Self {
        let tls = spec.tls.as_ref().map(|peer| TlsClient::new(address, peer, spec.host.as_deref(), b"http/1.1"));
        let mut probe = Self { address, tls, spec: spec.clone(), sent: None, phases: None };
        probe.sent = probe.request().ok().map(|request| written(&request));
        probe
    }

    /// The same, with a limit for each phase.
    #[must_use]
    pub fn with_phases(self, phases: Option<Phases>) -> Self {
        Self { phases, ..self }
    }

    /// Tries once.
    ///
    /// # Errors
    /// Why it did not pass.
    pub async fn attempt(&self) -> Result<(), CheckError> {
        let limit = |phase: fn(&Phases) -> Duration| self.phases.as_ref().map(phase);
        let stream = within(limit(|p| p.open), connect(self.address)).await?;
        match &self.tls {
            None => within(limit(|p| p.read), self.ask(stream)).await,
            // A TLS session's room is taken only where there is one: after a start, hundreds of tries wait at once.
            Some(tls) => {
                Box::pin(async move {
                    let stream = within(limit(|p| p.tls), tls.wrap(self.address, stream)).await?;
                    within(limit(|p| p.read), self.ask(stream)).await
                })
                .await
            }
        }
    }

    async fn ask(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<(), CheckError> {
        match &self.sent {
            Some(sent) if self.spec.body.is_none() => self.ask_briefly(stream, sent).await,
            _ => Box::pin(self.ask_at_length(stream)).await,
        }
    }

    /// For the status alone: what hundreds of checks do every second is worth a short way.
    async fn ask_briefly(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        sent: &[u8],
    ) -> Result<(), CheckError> {
        let talk = || CheckError::talk(self.address);
        stream.write_all(sent).await.map_err(talk())?;
        let mut answer = Vec::new();
        loop {
            let known = answer.len();
            answer.resize(known + PIECE, 0);
            let read = stream.read(&mut answer[known..]).await.map_err(talk())?;
            answer.truncate(known + read);
            match status(&answer) {
                Status::Is(status) => return self.judge_status(status),
                Status::Incomplete if read > 0 && answer.len() < HEAD => {}
                Status::Incomplete | Status::None => {
                    let said = excerpt(&answer);
                    return Err(CheckError::Unexpected(format!(
                        "{} was answered {said:?}, which is no HTTP",
                        self.what()
                    )));
                }
            }
        }
    }

    /// For the body, too, whichever way it is encoded.
    async fn ask_at_length(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(), CheckError> {
        let request = self.request()?;
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream)).await.map_err(|e| self.talk(e))?;
        let talk = async {
            let answer = sender.send_request(request).await.map_err(|e| self.talk(e))?;
            self.judge(answer).await
        };
        // A connection that ends has said all there is to say; what was said is still being read.
        let drive = async {
            let _ = connection.await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            judged = talk => judged,
            never = drive => match never {},
        }
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, CheckError> {
        let unusable = |what: String| CheckError::Impossible(format!("{what} cannot be sent"));
        let mut request = Request::builder()
            .method(self.spec.method.as_str())
            .uri(self.spec.path.as_str())
            .body(Empty::new())
            .map_err(|e| unusable(format!("the request ({e})")))?;
        let headers = request.headers_mut();
        for (name, Secret(value)) in &self.spec.headers {
            let pair = name.parse::<HeaderName>().ok().zip(HeaderValue::from_bytes(value.as_bytes()).ok());
            let (key, value) = pair.ok_or_else(|| unusable(format!("the header {name}")))?;
            headers.append(key, value);
        }
        let host = self.spec.host.clone().unwrap_or_else(|| self.address.to_string());
        let host = HeaderValue::from_str(&host).map_err(|_| unusable(format!("the host {host:?}")))?;
        headers.entry(HOST).or_insert(host);
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!("register/", env!("CARGO_PKG_VERSION"))));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        Ok(request)
    }

    fn judge_status(&self, status: u16) -> Result<(), CheckError> {
        if self.spec.status.contains(status) {
            return Ok(());
        }
        Err(CheckError::Unexpected(format!("{} answered {status}", self.what())))
    }

    async fn judge(&self, mut answer: Response<Incoming>) -> Result<(), CheckError> {
        let status = answer.status().as_u16();
        self.judge_status(status)?;
        let Some(wanted) = &self.spec.body else { return Ok(()) };
        let mut body = Vec::new();
        while let Some(frame) = answer.frame().await {
            let Ok(data) = frame.map_err(|e| self.talk(e))?.into_data() else { continue };
            body.extend_from_slice(&data[..data.len().min(BODY - body.len())]);
            if contains(&body, wanted.as_bytes()) {
                return Ok(());
            }
            if body.len() >= BODY {
                break;
            }
        }
        Err(CheckError::Unexpected(format!(
            "{} answered {status} without {wanted:?} in its body, which begins {:?}",
            self.what(),
            excerpt(&body)
        )))
    }

    fn what(&self) -> String {
        format!("{} {}", self.spec.method, self.spec.path)
    }

    fn talk(&self, source: hyper::Error) -> CheckError {
        CheckError::Talk { address: self.address, source: source.into() }
    }
}

/// One phase, within its limit if it has one.
async fn within<T>(
    limit: Option<Duration>,
    phase: impl Future<Output = Result<T, CheckError>>,
) -> Result<T, CheckError> {
    match limit {
        None => phase.await,
        Some(after) => tokio::time::timeout(after, phase).await.unwrap_or(Err(CheckError::Deadline { after })),
    }
}

/// A request as HTTP/1.1 has it; its parts have been checked.
fn written(request: &Request<Empty<Bytes>>) -> Arc<[u8]> {
    let mut text = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    for (name, value) in request.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.into()
}

#[derive(Debug, PartialEq)]
enum Status {
    Is(u16),
    Incomplete,
    None,
}

/// The status that an answer begins with; interim ones (1xx) are passed over.
///
/// Source: RFC 9112 section 4, RFC 9110 section 15.2.
fn status(answer: &[u8]) -> Status {
    let begins = b"HTTP/1.";
    let both = begins.len().min(answer.len());
    if answer[..both] != begins[..both] {
        return Status::None;
    }
    let Some(line) = answer.split_inclusive(|b| *b == b'\n').next().filter(|line| line.ends_with(b"\n")) else {
        return Status::Incomplete;
    };
    let [minor, b' ', code @ ..] = &line[begins.len()..] else { return Status::None };
    let number = code.get(..3).and_then(|code| std::str::from_utf8(code).ok()?.parse::<u16>().ok());
    let ends = code.get(3).is_some_and(u8::is_ascii_whitespace);
    match number {
        Some(100..200) if ends && minor.is_ascii_digit() => {
            match answer.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => status(&answer[end + 4..]),
                None => Status::Incomplete,
            }
        }
        Some(number @ 200..600) if ends && minor.is_ascii_digit() => Status::Is(number),
        _ => Status::None,
    }
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_status_line_is_read_as_it_comes() {
        let early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 404 Not Found\r\n";
        for (answer, expected) in [
            (&b"HTTP/1.1 200 OK\r\nx: y"[..], Status::Is(200)),
            (b"HTTP/1.0 503\n", Status::Is(503)),
            (b"HTTP/1.1 20", Status::Incomplete),
            (b"HT", Status::Incomplete),
            (b"", Status::Incomplete),
            (b"HTTP/1.1 100 Continue\r\n", Status::Incomplete),
            (early, Status::Is(404)),
            (b"HTTP/1.1 2000 OK\r\n", Status::None),
            (b"HTTP/2 200 OK\r\n", Status::None),
            (b"SSH-2.0-x\r\n", Status::None),
        ] {
            assert_eq!(status(answer), expected, "{}", String::from_utf8_lossy(answer));
        }
    }

    /// Hundreds of tries wait at once after a start, and what they take then stays with the process.
    #[test]
    fn a_try_over_plain_tcp_takes_no_room_for_tls() {
        let probe = HttpProbe::new(([127, 0, 0, 1], 80).into(), &HttpCheck::default());
        assert!(size_of_val(&probe.attempt()) <= 1024, "{} bytes", size_of_val(&probe.attempt()));
    }

    proptest! {
        #[test]
        fn no_answer_panics(tail in prop::collection::vec(any::<u8>(), 0..60), http in any::<bool>()) {
            let answer = if http { [&b"HTTP/1.1 "[..], &tail].concat() } else { tail };
            let _ = status(&answer);
        }
    }
}
