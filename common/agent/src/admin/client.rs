//! The command `status`: asks an agent's admin server and prints the answer.

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    Listen,
    access::{AccessError, Token},
    render,
};
use crate::telemetry::{Chain, Masked};
use crate::tls;
use crate::{clock, console};

/// For the whole exchange.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries of `--wait`.
const BETWEEN_TRIES: Duration = Duration::from_millis(200);
/// Between two looks of `--watch`.
const AGAIN: Duration = Duration::from_secs(2);
/// Bytes of an answer: some 10 000 services stay well below it.
const MAX_ANSWER: usize = 64 << 20;

/// Arguments of `status`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct StatusArgs {
    /// Print nothing, and end with 1 and the reason if the agent is not ready: a health check
    #[arg(long, conflicts_with = "json")]
    pub ready: bool,
    /// With --ready: try again for so long, such as 30s
    #[arg(long, value_name = "DURATION", requires = "ready", value_parser = humantime::parse_duration)]
    pub wait: Option<Duration>,
    /// Print the JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Show it anew every 2 seconds, until interrupted
    #[arg(long, conflicts_with_all = ["ready", "json"])]
    pub watch: bool,
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// Which agent's admin server is asked, and how.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AgentArgs {
    /// Where the agent's admin server is, such as <http://127.0.0.1:9180> [default: where the environment has it listen]
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
    /// The token that it asks for
    #[arg(long, env = "ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// With TLS: the authority that vouches for it, PEM [default: the system's]
    #[arg(long, env = "ADMIN_CA_FILE", value_name = "FILE")]
    pub admin_ca: Option<PathBuf>,
    /// With TLS: its certificate itself, PEM, where no authority is given: exactly this one counts
    #[arg(long, env = "ADMIN_CERT_FILE", value_name = "FILE")]
    pub admin_cert: Option<PathBuf>,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Not `http://HOST:PORT` or `https://HOST:PORT`.
    #[error("--admin {url:?} is not of the form http://HOST:PORT or https://HOST:PORT")]
    Url { url: String },
    /// Nobody listens.
    #[error(
        "connecting to {address}: is {program} running here, with its admin server on? (--admin URL asks elsewhere)"
    )]
    Connect { address: String, program: &'static str, source: io::Error },
    /// It took too long.
    #[error("waiting for the status from {address}: no answer within {} s", PATIENCE.as_secs())]
    Timeout { address: String },
    /// Who answers there does not speak HTTP, or hung up.
    #[error("reading the status from {address}")]
    Http { address: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// A token or a certificate cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// No TLS with who answers there.
    #[error("TLS with {address}")]
    Tls { address: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// It wants a token, or another one.
    #[error("asking {address} for its status: it wants its token (--admin-token-file, ADMIN_TOKEN_FILE)")]
    Unauthorized { address: String },
    /// Another answer than 200.
    #[error("asking {address} for its status: it answered {code}; is it {program}'s admin server?")]
    Refused {
        address: String,
        program: &'static str,
        /// Such as 404.
        code: StatusCode,
    },
    /// It answers, and does not do its work.
    #[error("{program} is not ready: {why}")]
    NotReady { program: &'static str, why: String },
    /// The output is closed or full.
    #[error("printing the status")]
    Print(#[source] io::Error),
}

/// Where an agent on this host listens: as the environment's `variable` tells it, else at `default`.
pub fn on_this_host(variable: &str, default: SocketAddr) -> SocketAddr {
    let told = std::env::var(variable).ok().and_then(|text| text.parse::<Listen>().ok());
    told.and_then(Listen::seen_from_here).unwrap_or(default)
}

/// Asks the agent (at `default` unless the arguments name another) and prints to `out`, or says whether it is ready; `program` is
/// named when nobody answers.
///
/// # Errors
/// [`StatusError`]; a wrong URL is a usage error.
pub async fn status(
    args: &StatusArgs,
    default: SocketAddr,
    program: &'static str,
    out: &mut impl Write,
) -> Result<(), StatusError> {
    if args.ready {
        return ready_within(args.wait.unwrap_or_default(), &args.agent, default, program).await;
    }
    if args.watch {
        return watch(&args.agent, default, program, out).await;
    }
    let status = fetch(&args.agent, default, program).await?;
    let text = if args.json { format!("{status:#}\n") } else { shown(&status) };
    console::write(out, &text).map_err(StatusError::Print)
}

/// As text for standard output.
fn shown(status: &Value) -> String {
    let text = render::text(status, clock::millis(clock::now()), io::stdout().is_terminal());
    if console::has_colours() { console::painted(&text) } else { text }
}

/// Prints the status, or why there is none, again and again, until nobody reads it.
async fn watch(
    args: &AgentArgs,
    default: SocketAddr,
    program: &'static str,
    out: &mut impl Write,
) -> Result<(), StatusError> {
    let begin = if io::stdout().is_terminal() { console::CLEAR } else { "" };
    loop {
        let text = match fetch(args, default, program).await {
            Ok(status) => shown(&status),
            Err(error @ (StatusError::Url { .. } | StatusError::Access(_))) => return Err(error),
            Err(error) => format!("{}\n", Chain(&error)),
        };
        match out.write_all(format!("{begin}{text}\n").as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(StatusError::Print)?,
        }
        sleep(AGAIN).await;
    }
}

/// The status of the agent that the arguments name.
pub async fn fetch(args: &AgentArgs, default: SocketAddr, program: &'static str) -> Result<Value, StatusError> {
    let answer = ask(args, "/status", default, program).await?;
    match answer.code {
        StatusCode::OK => Ok(answer.body),
        code => Err(StatusError::Refused { address: answer.address, program, code }),
    }
}

/// Whether the agent is ready, or becomes so within `patience`. Only what time may mend is tried again.
async fn ready_within(
    patience: Duration,
    args: &AgentArgs,
    default: SocketAddr,
    program: &'static str,
) -> Result<(), StatusError> {
    let deadline = Instant::now() + patience;
    loop {
        match ready(args, default, program).await {
            Err(StatusError::Connect { .. } | StatusError::Timeout { .. } | StatusError::NotReady { .. })
                if Instant::now() < deadline =>
            {
                sleep(BETWEEN_TRIES).await;
            }
            outcome => return outcome,
        }
    }
}

/// Whether the agent is ready. That costs it nothing: it asks nobody for the answer.
async fn ready(args: &AgentArgs, default: SocketAddr, program: &'static str) -> Result<(), StatusError> {
    let (address, code, body) = exchange(args, "/ready", default, program).await?;
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    match (code, said["detail"].as_str()) {
        (StatusCode::OK, _) if body.trim_ascii() == b"ok" => Ok(()),
        (StatusCode::SERVICE_UNAVAILABLE, Some(why)) => Err(StatusError::NotReady { program, why: why.to_owned() }),
        (StatusCode::UNAUTHORIZED, _) => Err(StatusError::Unauthorized { address }),
        (code, _) => Err(StatusError::Refused { address, program, code }),
    }
}

/// What an agent answered, with a code other than 401.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Who: `host:port`.
    pub address: String,
    /// Such as 200, 404.
    pub code: StatusCode,
    /// JSON; null where a refusal came with something else.
    pub body: Value,
}

/// Asks the agent that the arguments name for the JSON at `path`.
pub async fn ask(
    args: &AgentArgs,
    path: &str,
    default: SocketAddr,
    program: &'static str,
) -> Result<Answer, StatusError> {
    let (address, code, body) = exchange(args, path, default, program).await?;
    let body = match (code, serde_json::from_slice(&body)) {
        (StatusCode::UNAUTHORIZED, _) => return Err(StatusError::Unauthorized { address }),
        (_, Ok(body)) => body,
        (StatusCode::OK, Err(e)) => return Err(StatusError::Http { address, source: e.into() }),
        (_, Err(_)) => Value::Null,
    };
    Ok(Answer { address, code, body })
}

/// One question and its answer: who was asked, the code, and the body.
async fn exchange(
    args: &AgentArgs,
    path: &str,
    default: SocketAddr,
    program: &'static str,
) -> Result<(String, StatusCode, Bytes), StatusError> {
    let tls = args.admin_ca.is_some() || args.admin_cert.is_some();
    let scheme = if tls { "https" } else { "http" };
    let Place { https, host, address } = place(args.admin.as_deref().unwrap_or(&format!("{scheme}://{default}")), tls)?;
    let token = args.admin_token_file.as_deref().map(Token::read).transpose()?;
    let exchange = async {
        let failed = |source| StatusError::Connect { address: address.clone(), program, source };
        let stream = TcpStream::connect(&address).await.map_err(failed)?;
        let answer = if https {
            let failed = |source| StatusError::Tls { address: address.clone(), source };
            let name = ServerName::try_from(host).map_err(|e| failed(e.into()))?;
            let config = trust(args).await.map_err(failed)?;
            let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|e| failed(e.into()))?;
            get(stream, path, &address, token).await
        } else {
            get(stream, path, &address, token).await
        };
        answer.map_err(|source| StatusError::Http { address: address.clone(), source })
    };
    let answer = timeout(PATIENCE, exchange).await;
    let (code, body) = answer.map_err(|_| StatusError::Timeout { address: address.clone() })??;
    Ok((address, code, body))
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Whose certificate counts: of an authority, exactly one, or of the system's authorities.
async fn trust(args: &AgentArgs) -> Result<Arc<ClientConfig>, AnyError> {
    let provider = tls::provider();
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let config = match (&args.admin_ca, &args.admin_cert) {
        (Some(path), _) => builder.with_root_certificates(tls::authorities(path).await?).with_no_client_auth(),
        (None, Some(path)) => {
            let own = tls::certificates(path).await?.swap_remove(0);
            let holder = Arc::new(tls::Holder::of(own, provider));
            builder.dangerous().with_custom_certificate_verifier(holder).with_no_client_auth()
        }
        (None, None) => builder.with_root_certificates(tls::system_authorities()).with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// By hyper alone: reqwest asks for a TLS provider even where none is used.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    host: &str,
    token: Option<Token>,
) -> Result<(StatusCode, Bytes), AnyError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::get(path).header(header::HOST, host);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token.bearer());
    }
    let request = request.body(Empty::<Bytes>::new())?;
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

/// Where an admin server is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    https: bool,
    host: String,
    /// `host:port`.
    address: String,
}

/// Reads an admin URL; the scheme may be left out (then it is `https` with `tls`), the port not.
fn place(url: &str, tls: bool) -> Result<Place, StatusError> {
    let wrong = || StatusError::Url { url: Masked(url).to_string() };
    let scheme = if tls { "https" } else { "http" };
    let full = if url.contains("://") { url.to_owned() } else { format!("{scheme}://{url}") };
    let uri: Uri = full.parse().map_err(|_| wrong())?;
    let https = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(wrong()),
    };
    let plain = uri.path() == "/" && uri.query().is_none();
    let authority = uri.authority().filter(|a| plain && a.port_u16().is_some() && !a.as_str().contains('@'));
    let authority = authority.ok_or_else(wrong)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Place { https, host, address: authority.as_str().to_owned() })
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
