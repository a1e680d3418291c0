//! TLS towards a backend: whom to trust, and which name to ask for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::CheckError;
use agent::sync::lock;
use agent::tls::{Holder, PemError, authorities, system_authorities};
use model::desired::PeerTls;

/// Makes TLS connections for one check.
#[derive(Debug, Clone)]
pub(super) struct TlsClient {
    name: ServerName<'static>,
    ca: Option<PathBuf>,
    insecure: bool,
    alpn: &'static [u8],
    /// Made at the first try, and anew after a failure: certificates are renewed.
    config: Arc<Mutex<Option<Arc<ClientConfig>>>>,
}

impl TlsClient {
    /// Asks for the peer's own name, else for `host`, else for the dialled address.
    pub fn new(to: SocketAddr, peer: &PeerTls, host: Option<&str>, alpn: &'static [u8]) -> Self {
        let name = peer.sni.as_deref().or(host);
        let named = name.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let name = named.unwrap_or_else(|| ServerName::IpAddress(to.ip().into()));
        Self { name, ca: peer.ca.clone(), insecure: peer.insecure, alpn, config: Arc::default() }
    }

    /// TLS on `stream`, which leads to `address`.
    pub async fn wrap(&self, address: SocketAddr, stream: TcpStream) -> Result<TlsStream<TcpStream>, CheckError> {
        let config = self.config().await?;
        let wrapped = TlsConnector::from(config).connect(self.name.clone(), stream).await;
        wrapped.map_err(|source| {
            *self.slot() = None;
            CheckError::Tls { address, source }
        })
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<ClientConfig>>> {
        lock(&self.config)
    }

    async fn config(&self) -> Result<Arc<ClientConfig>, CheckError> {
        if let Some(config) = self.slot().clone() {
            return Ok(config);
        }
        let provider = agent::tls::provider();
        let impossible = |e: rustls::Error| CheckError::Impossible(format!("no TLS: {e}"));
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(impossible)?;
        let mut config = if self.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Holder::of_any(provider)))
                .with_no_client_auth()
        } else {
            let roots = match &self.ca {
                Some(path) => {
                    let unusable = |PemError { path, why }| CheckError::Authority { path, why };
                    Arc::new(authorities(path).await.map_err(unusable)?)
                }
                None => system_authorities(),
            };
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        config.alpn_protocols = vec![self.alpn.to_vec()];
        let config = Arc::new(config);
        *self.slot() = Some(config.clone());
        Ok(config)
    }
}
