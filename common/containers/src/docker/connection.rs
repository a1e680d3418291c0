//! Connections to the daemon over a Unix socket, TCP or TLS.
//!
//! bollard sends its requests through a [`Connector`] instead of its own client: an answer has a limit here, half an event is seen, and
//! where a directory of certificates is given, only its authority is trusted.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::BollardRequest;
use bollard::errors::Error;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, join, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;
use agent::sync::lock;

/// The longest answer, in bytes: a list of ten thousand containers stays well below it.
pub(super) const LONGEST: usize = 64 << 20;
/// A connection that was idle for longer is not used again: proxies close theirs.
const IDLE: Duration = Duration::from_secs(5);

type AnyError = Box<dyn StdError + Send + Sync>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An answer was longer than [`LONGEST`].
#[derive(Debug, thiserror::Error)]
#[error("above {} MB", LONGEST >> 20)]
pub(super) struct Endless;

/// How one daemon is reached.
#[derive(Debug)]
pub(super) struct Connector {
    to: To,
    host: HeaderValue,
    /// Stands before each path.
    prefix: String,
    authorization: Option<HeaderValue>,
    links: Mutex<Vec<Link>>,
}

#[derive(Debug)]
enum To {
    Unix(PathBuf),
    Tcp(String),
    Tls(String, ServerName<'static>, Arc<ClientConfig>),
}

/// A connection that can be used again.
#[derive(Debug)]
struct Link {
    sender: SendRequest<UnsyncBoxBody<Bytes, AnyError>>,
    /// How many more bytes are read from it.
    left: Arc<AtomicUsize>,
    used: Instant,
}

impl Connector {
    /// Connects nothing yet. The certificates of a TLS endpoint are read.
    pub fn new(endpoint: &Endpoint) -> Result<Self, AnyError> {
        let with = |to, host, prefix, authorization| Self { to, host, prefix, authorization, links: Mutex::default() };
        let (base, certificates) = match endpoint {
            Endpoint::Unix(path) => {
                let host = HeaderValue::from_static("docker");
                return Ok(with(To::Unix(path.clone()), host, String::new(), None));
            }
            Endpoint::Http { base, certificates } => (base.parse::<Uri>()?, certificates),
        };
        let authority = base.authority().ok_or("no host")?.as_str();
        let (user, address) = authority.rsplit_once('@').map_or((None, authority), |(user, at)| (Some(user), at));
        let to = if base.scheme_str() == Some("https") {
            let name = base.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            To::Tls(address.to_owned(), ServerName::try_from(name)?, Arc::new(tls(certificates.as_deref())?))
        } else {
            To::Tcp(address.to_owned())
        };
        let prefix = base.path().trim_end_matches('/').to_owned();
        Ok(with(to, HeaderValue::from_str(address)?, prefix, user.map(basic).transpose()?))
    }

    /// Sends a request and returns the answer's head. The body fails above `limit` bytes.
    pub async fn send(&self, mut request: BollardRequest, limit: usize) -> Result<Response<Incoming>, Error> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = format!("{}{path}", self.prefix).parse()?;
        request.headers_mut().insert(HOST, self.host.clone());
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let mut request = request.map(|body| body.map_err(AnyError::from).boxed_unsync());
        loop {
            let idle = self.idle();
            let again = idle.is_some();
            let mut link = match idle {
                Some(link) => link,
                None => self.open().await?,
            };
            link.left.store(limit, Ordering::Relaxed);
            match link.sender.try_send_request(request).await {
                Ok(answer) => {
                    link.used = Instant::now();
                    lock(&self.links).push(link);
                    return Ok(answer);
                }
                Err(mut error) => match error.take_message() {
                    // It was closed in the meantime, and nothing was sent.
                    Some(unsent) if again => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        }
    }

    /// A connection whose last answer was read to its end.
    fn idle(&self) -> Option<Link> {
        let mut links = lock(&self.links);
        let is_old = |link: &Link| link.sender.is_ready() && link.used.elapsed() > IDLE;
        links.retain(|link| !link.sender.is_closed() && !is_old(link));
        let free = links.iter().position(|link| link.sender.is_ready())?;
        Some(links.swap_remove(free))
    }

    async fn open(&self) -> Result<Link, Error> {
        let stream: Box<dyn Stream> = match &self.to {
            To::Unix(path) => Box::new(UnixStream::connect(path).await?),
            To::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            To::Tls(address, name, config) => {
                let stream = TcpStream::connect(address).await?;
                Box::new(TlsConnector::from(config.clone()).connect(name.clone(), stream).await?)
            }
        };
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let (from, to) = split(stream);
        let stream = join(Bounded { from, left: left.clone() }, to);
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // The task ends when the sender and the last answer are dropped.
        tokio::spawn(connection.with_upgrades());
        Ok(Link { sender, left, used: Instant::now() })
    }
}

/// The header for what stands before the `@` in an address.
fn basic(user: &str) -> Result<HeaderValue, AnyError> {
    let mut plain: Vec<u8> = percent_decode_str(user).collect();
    if !plain.contains(&b':') {
        plain.push(b':');
    }
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(plain)))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Trusts the directory's authority and shows its certificate, as Docker's own client does; without a directory trusts the
/// system's authorities.
fn tls(directory: Option<&Path>) -> Result<ClientConfig, AnyError> {
    let builder = ClientConfig::builder_with_provider(agent::tls::provider()).with_safe_default_protocol_versions()?;
    let Some(directory) = directory else {
        return Ok(builder.with_root_certificates(agent::tls::system_authorities()).with_no_client_auth());
    };
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let wrong = |name: &str, why: &dyn std::fmt::Display| format!("{}: {why}", directory.join(name).display());
    let certificates = |name: &str| {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(name)?).collect();
        all.map_err(|e| wrong(name, &e))
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca.pem")? {
        roots.add(authority).map_err(|e| wrong("ca.pem", &e))?;
    }
    let key = PrivateKeyDer::from_pem_slice(&read("key.pem")?).map_err(|e| wrong("key.pem", &e))?;
    let own = builder.with_root_certificates(roots).with_client_auth_cert(certificates("cert.pem")?, key);
    Ok(own.map_err(|e| wrong("cert.pem", &e))?)
}

/// Reads so many bytes and no more.
struct Bounded<R> {
    from: R,
    left: Arc<AtomicUsize>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Bounded<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::other(Endless)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.from).poll_read(cx, buf))?;
        self.left.store(left.saturating_sub(buf.filled().len() - before), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

/// The whole body of an answer.
pub(super) async fn whole(answer: Response<Incoming>) -> Result<Vec<u8>, Error> {
    Ok(answer.into_body().collect().await?.to_bytes().into())
}

/// Whether an answer was too long.
pub(super) fn is_endless(error: &(dyn StdError + 'static)) -> bool {
    let io = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    io.is_some_and(<dyn StdError + Send + Sync>::is::<Endless>) || error.source().is_some_and(is_endless)
}
