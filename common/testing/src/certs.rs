//! An authority with a server's and a client's certificate, made by the `openssl` command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use agent::tls::provider;

/// The kind of every key.
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// Where the files are; valid for a day. A certificate that is authority and server in one would be refused.
#[derive(Clone, Debug)]
pub struct Certs {
    dir: PathBuf,
}

impl Certs {
    /// Makes them in `dir`; the server's is for 127.0.0.1 and localhost.
    pub fn make(dir: &Path) -> Self {
        let certs = Self { dir: dir.to_owned() };
        let ca = ["req", "-x509", "-days", "1", "-subj", "/CN=test authority", "-out", "ca.pem", "-keyout", "ca.key"];
        certs.openssl(&[&ca[..], &KEY].concat());
        // The server's is a client's too: etcd's gateway dials its own server with it.
        certs.sign("server", "serverAuth,clientAuth", "IP:127.0.0.1,DNS:localhost");
        certs.sign("client", "clientAuth", "IP:127.0.0.1,DNS:localhost");
        certs
    }

    /// Makes `STEM.pem` and `STEM.key`: a server's, for these names.
    pub fn issue(&self, stem: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        self.sign(stem, "serverAuth", &names.join(","));
    }

    fn sign(&self, stem: &str, uses: &str, names: &str) {
        let [pem, key, request, extensions] = ["pem", "key", "csr", "ext"].map(|ext| format!("{stem}.{ext}"));
        let subject = format!("/CN={stem}");
        self.openssl(&[&["req", "-subj", &subject, "-out", &request, "-keyout", &key][..], &KEY].concat());
        let text = format!("extendedKeyUsage={uses}\nsubjectAltName={names}\n");
        fs::write(self.path(&extensions), text).unwrap();
        let sign = ["x509", "-req", "-days", "1", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        self.openssl(&[&sign[..], &["-in", &request, "-out", &pem, "-extfile", &extensions]].concat());
    }

    fn openssl(&self, args: &[&str]) {
        openssl(&self.dir, args);
    }

    /// Accepts TLS with the server's certificate; where `clients` are to have one, it must be of the same authority.
    pub fn acceptor(&self, alpn: &[u8], clients: bool) -> TlsAcceptor {
        let provider = provider();
        let config =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let config = if clients {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.authorities()), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            config.with_no_client_auth()
        };
        self.accepting(config, "server", &[alpn])
    }

    /// Accepts TLS with a certificate that was issued.
    pub fn acceptor_of(&self, stem: &str, alpn: &[&[u8]]) -> TlsAcceptor {
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        self.accepting(config.with_no_client_auth(), stem, alpn)
    }

    fn accepting(
        &self,
        config: ConfigBuilder<ServerConfig, WantsServerCert>,
        stem: &str,
        alpn: &[&[u8]],
    ) -> TlsAcceptor {
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{stem}.key"))).unwrap();
        let mut config = config.with_single_cert(self.read(&format!("{stem}.pem")), key).unwrap();
        config.alpn_protocols = alpn.iter().map(|word| word.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A client that trusts this authority alone.
    pub fn connector(&self, alpn: &[&[u8]]) -> TlsConnector {
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(self.authorities()).with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|word| word.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    fn authorities(&self) -> RootCertStore {
        let mut authorities = RootCertStore::empty();
        authorities.add_parsable_certificates(self.read("ca.pem"));
        authorities
    }

    fn read(&self, name: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(self.path(name)).unwrap().map(Result::unwrap).collect()
    }

    /// A file by its name: `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`, and what was issued.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Makes `STEM.pem` and `STEM.key` in `dir`: a certificate of its own authority, for these names, valid for a day.
pub fn self_signed(dir: &Path, stem: &str, names: &[&str]) {
    let (certificate, key) = (format!("{stem}.pem"), format!("{stem}.key"));
    let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
    let names = format!("subjectAltName={}", names.join(","));
    let make = ["req", "-x509", "-days", "1", "-subj", "/CN=test", "-addext", &names, "-out", &certificate];
    openssl(dir, &[&make[..], &KEY, &["-keyout", &key]].concat());
}

fn openssl(dir: &Path, args: &[&str]) {
    let done = Command::new("openssl").args(args).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}
