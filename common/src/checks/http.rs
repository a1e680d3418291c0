//! An HTTP or HTTPS request is answered as expected.

use std::convert::Infallible;
use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::excerpt;
use super::tcp::connect;
use super::{CheckError, TlsClient};
use crate::desired::HttpCheck;

/// How much of a body is read in search of what it must contain.
const BODY: usize = 64 * 1024;
/// How long a status line with its headers may be.
const HEAD: usize = 16 * 1024;

/// Sends one request on a connection of its own; an answer that sends it elsewhere is an answer, and followed by nothing.
#[derive(Debug, Clone)]
pub struct HttpProbe {
    address: SocketAddr,
    spec: HttpCheck,
    tls: Option<TlsClient>,
}

impl HttpProbe {
    /// Asks at `address`.
    pub fn new(address: SocketAddr, spec: &HttpCheck) -> Self {
        let name = spec.sni.as_deref().or(spec.host.as_deref());
        let tls = || TlsClient::new(address, name, spec.ca.as_deref(), spec.insecure, b"http/1.1");
        Self { address, tls: spec.tls.then(tls), spec: spec.clone() }
    }

    /// Tries once.
    ///
    /// # Errors
    /// Why it did not pass.
    pub async fn attempt(&self) -> Result<(), CheckError> {
        let stream = connect(self.address).await?;
        match &self.tls {
            None => self.ask(stream).await,
            Some(tls) => self.ask(tls.wrap(self.address, stream).await?).await,
        }
    }

    async fn ask(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<(), CheckError> {
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
        for (name, value) in &self.spec.headers {
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

    async fn judge(&self, mut answer: Response<Incoming>) -> Result<(), CheckError> {
        let status = answer.status().as_u16();
        if !self.spec.status.contains(status) {
            return Err(CheckError::Unexpected(format!("{} answered {status}", self.what())));
        }
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

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted)
}
