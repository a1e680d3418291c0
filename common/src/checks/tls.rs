//! TLS towards a backend: whom to trust, and which name to ask for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::CheckError;
use crate::desired::PeerTls;

/// No authority's file is longer; a label names it, so it may be anything.
const LONGEST: u64 = 1 << 20;

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
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn config(&self) -> Result<Arc<ClientConfig>, CheckError> {
        if let Some(config) = self.slot().clone() {
            return Ok(config);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let impossible = |e: rustls::Error| CheckError::Impossible(format!("no TLS: {e}"));
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(impossible)?;
        let mut config = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
        } else {
            let roots = match &self.ca {
                Some(path) => Arc::new(read(path).await?),
                None => system(),
            };
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        config.alpn_protocols = vec![self.alpn.to_vec()];
        let config = Arc::new(config);
        *self.slot() = Some(config.clone());
        Ok(config)
    }
}

/// The authorities in a PEM file. The error tells nothing of its content, which may be anybody's.
async fn read(path: &Path) -> Result<RootCertStore, CheckError> {
    let wrong = |why: &str| CheckError::Authority { path: path.to_owned(), why: why.to_owned() };
    let about = tokio::fs::metadata(path).await.map_err(|e| wrong(&e.to_string()))?;
    if !about.is_file() || about.len() > LONGEST {
        return Err(wrong("not a file of at most 1 MB"));
    }
    let pem = tokio::fs::read(path).await.map_err(|e| wrong(&e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let added = certificate.map(|certificate| roots.add(certificate));
        added.map_err(|_| wrong("not PEM"))?.map_err(|_| wrong("a certificate in it cannot be used"))?;
    }
    if roots.is_empty() { Err(wrong("no certificate in it")) } else { Ok(roots) }
}

/// The system's authorities; read once, when the first check needs them.
fn system() -> Arc<RootCertStore> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    SYSTEM.get_or_init(load).clone()
}

/// Takes any certificate whose holder has its key (`check.insecure`).
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
