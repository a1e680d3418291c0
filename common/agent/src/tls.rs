//! The process's TLS implementation, and whom it trusts.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

/// No file of certificates is longer; a label names one, so it may be anything.
const LONGEST: u64 = 1 << 20;

/// Makes ring the process's TLS implementation, if none was chosen yet. To be called first thing in `main`.
///
/// etcd's, Docker's and HTTP's clients each bring features that rustls cannot choose between: without this the
/// first of them to open a TLS connection panics.
pub fn install_provider() {
    // An error says that one is installed already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// The same, for a config that names its TLS implementation.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A PEM file that holds nothing to trust. It tells nothing of the file's content, which may be anybody's.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct PemError {
    pub path: PathBuf,
    pub why: String,
}

/// The certificates in a PEM file of at most 1 MB; at least one.
pub async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let wrong = |why: &str| PemError { path: path.to_owned(), why: why.to_owned() };
    let about = tokio::fs::metadata(path).await.map_err(|e| wrong(&e.to_string()))?;
    if !about.is_file() || about.len() > LONGEST {
        return Err(wrong("not a file of at most 1 MB"));
    }
    let pem = tokio::fs::read(path).await.map_err(|e| wrong(&e.to_string()))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(wrong("no certificate in it")),
        Err(_) => Err(wrong("not PEM")),
    }
}

/// The authorities in a PEM file.
pub async fn authorities(path: &Path) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path).await? {
        let why = "a certificate in it cannot be used".to_owned();
        roots.add(certificate).map_err(|_| PemError { path: path.to_owned(), why })?;
    }
    Ok(roots)
}

/// The system's authorities; read once, when the first connection needs them.
pub fn system_authorities() -> Arc<RootCertStore> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    SYSTEM.get_or_init(load).clone()
}

/// Trusts without an authority: the holder of the key of exactly this certificate, or of any.
#[derive(Debug)]
pub struct Holder {
    exactly: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Holder {
    /// Takes this certificate alone, whatever names and dates are in it.
    pub fn of(certificate: CertificateDer<'static>, provider: Arc<CryptoProvider>) -> Self {
        Self { exactly: Some(certificate), provider }
    }

    /// Takes every certificate: the peer may be anybody.
    pub fn of_any(provider: Arc<CryptoProvider>) -> Self {
        Self { exactly: None, provider }
    }
}

impl ServerCertVerifier for Holder {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.exactly {
            Some(exactly) if exactly != shown => Err(CertificateError::ApplicationVerificationFailure.into()),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
