//! Who may read the admin server: a token, and TLS. Whether the agent lives and is ready, anybody may ask.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::hosts::Hosts;
use crate::sync::lock;
use crate::telemetry::Chain;
use crate::tls::{PemError, certificates};

/// Fewer characters can be guessed.
const SHORTEST_TOKEN: usize = 16;
/// Answered without a token: by their state alone.
const OPEN: [&str; 2] = ["/live", "/ready"];

/// Flags of an agent that say who may read its admin server.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "The admin server")]
pub struct AccessArgs {
    /// Answer only who shows the token in this file (Authorization: Bearer, or the password of Basic); /live and /ready stay open
    #[arg(long, env = "ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// The admin server's certificate chain, PEM: it then speaks TLS; read again when it changes
    #[arg(long, env = "ADMIN_CERT_FILE", value_name = "FILE", requires = "admin_key")]
    pub admin_cert: Option<PathBuf>,
    /// The certificate's key, PEM
    #[arg(long, env = "ADMIN_KEY_FILE", value_name = "FILE", requires = "admin_cert")]
    pub admin_key: Option<PathBuf>,
    /// Further names under which the admin server answers; with any, it answers under no others on its other addresses either
    #[arg(long, env = "ADMIN_HOSTS", value_name = "NAMES", value_delimiter = ',')]
    pub admin_hosts: Vec<String>,
}

/// A file that the admin server, or who asks it, cannot use.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The token's file.
    #[error("reading the admin server's token from {}: {why}", path.display())]
    Token { path: PathBuf, why: String },
    /// Certificate or key.
    #[error("the admin server's certificate")]
    Pem(#[from] PemError),
    /// They do not fit together.
    #[error("using the certificate in {}", path.display())]
    Unfit { path: PathBuf, source: rustls::Error },
}

impl AccessArgs {
    /// Who may read. Reads the token; the certificate is read when a connection comes.
    pub fn access(&self) -> Result<Access, AccessError> {
        let token = self.admin_token_file.as_deref().map(Token::read).transpose()?;
        let pair = self.admin_cert.clone().zip(self.admin_key.clone());
        let hosts = Hosts::new(&self.admin_hosts);
        Ok(Access {
            token,
            hosts,
            tls: pair.map(|(cert, key)| Arc::new(ServerTls { cert, key, read: Mutex::default() })),
        })
    }
}

/// Who may read; by default everybody who reaches the port.
#[derive(Debug, Clone, Default)]
pub struct Access {
    token: Option<Token>,
    pub(super) hosts: Hosts,
    pub(super) tls: Option<Arc<ServerTls>>,
}

impl Access {
    /// Says so when strangers may read what an agent tells.
    pub(super) fn warn_of_strangers(&self, address: SocketAddr) {
        if address.ip().is_loopback() {
            return;
        }
        match (&self.token, &self.tls) {
            (None, _) => warn!(%address,
                "The admin server listens beyond this host and asks for no token: whoever reaches it can read the status (--admin-token-file)."),
            (Some(_), None) => warn!(%address,
                "The admin server listens beyond this host without TLS: its token can be read on the way (--admin-cert, --admin-key)."),
            (Some(_), Some(_)) => {}
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let Some(shown) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let Some((scheme, shown)) = shown.split_once(' ') else { return false };
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => token.is(shown.trim().as_bytes()),
            // What a browser asks its user for; any name will do.
            "basic" => STANDARD.decode(shown.trim()).is_ok_and(|pair| {
                pair.iter().position(|b| *b == b':').is_some_and(|colon| token.is(&pair[colon + 1..]))
            }),
            _ => false,
        }
    }
}

/// Lets those through that may read, and tells the others no more than whether the agent is well.
pub(super) async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    if !access.hosts.admit(&request) {
        let why = "the Host header names no host of this server (--admin-hosts)\n";
        return (StatusCode::FORBIDDEN, [(header::CACHE_CONTROL, "no-store")], why).into_response();
    }
    if access.admits(request.headers()) {
        return next.run(request).await;
    }
    if OPEN.contains(&request.uri().path()) {
        let code = next.run(request).await.status();
        return (code, if code.is_success() { "ok\n" } else { "no\n" }).into_response();
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"admin server\""), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::UNAUTHORIZED, challenge, "a token is needed\n").into_response()
}

/// What proves that somebody may read. Neither shown nor compared in a time that tells of it.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Token {
    /// The one in a file, without the blanks and line ends around it.
    ///
    /// # Errors
    /// [`AccessError::Token`] when it is shorter than 16 characters, or could not stand in a header.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let wrong = |why: String| AccessError::Token { path: path.to_owned(), why };
        let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let token = text.trim();
        if token.len() < SHORTEST_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong(format!("not at least {SHORTEST_TOKEN} printable ASCII characters without a blank")));
        }
        Ok(Self(token.into()))
    }

    /// As the `Authorization` header has it.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    fn is(&self, shown: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differing = own.iter().zip(shown).fold(0, |all, (a, b)| all | (a ^ b));
        own.len() == shown.len() && differing == 0
    }
}

/// Certificate and key of the server, read again when their files change.
#[derive(Debug)]
pub(super) struct ServerTls {
    cert: PathBuf,
    key: PathBuf,
    /// What was last read, and how old the files were.
    read: Mutex<Option<(Ages, Arc<ServerConfig>)>>,
}

type Ages = [Option<SystemTime>; 2];

impl ServerTls {
    /// For the next connection. Files that cannot be used any more leave the last good ones in use.
    pub(super) async fn acceptor(&self) -> Result<TlsAcceptor, AccessError> {
        let ages = [&self.cert, &self.key].map(|path| fs::metadata(path).and_then(|about| about.modified()).ok());
        let slot = || lock(&self.read);
        let last = slot().clone();
        if let Some((_, config)) = last.as_ref().filter(|(read, _)| *read == ages) {
            return Ok(config.clone().into());
        }
        let config = match (self.load().await, last) {
            (Ok(config), _) => Arc::new(config),
            (Err(error), Some((_, config))) => {
                warn!(error = %Chain(&error), "The admin server's certificate was changed and cannot be used; keeping the last one.");
                config
            }
            (Err(error), None) => return Err(error),
        };
        *slot() = Some((ages, config.clone()));
        Ok(config.into())
    }

    async fn load(&self) -> Result<ServerConfig, AccessError> {
        let chain = certificates(&self.cert).await?;
        let wrong = |why: String| PemError { path: self.key.clone(), why };
        let pem = tokio::fs::read(&self.key).await.map_err(|e| wrong(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong("no private key in PEM".to_owned()))?;
        let unfit = |source| AccessError::Unfit { path: self.cert.clone(), source };
        let provider = crate::tls::provider();
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        builder.map_err(unfit)?.with_no_client_auth().with_single_cert(chain, key).map_err(unfit)
    }
}
