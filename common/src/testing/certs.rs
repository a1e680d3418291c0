//! An authority with a server's and a client's certificate, made by the `openssl` command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// Where the files are; valid for a day. A certificate that is authority and server in one would be refused.
#[derive(Clone, Debug)]
pub struct Certs {
    dir: PathBuf,
}

impl Certs {
    /// Makes them in `dir`; the server's is for 127.0.0.1 and localhost.
    pub fn make(dir: &Path) -> Self {
        let certs = Self { dir: dir.to_owned() };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let ca = ["req", "-x509", "-days", "1", "-subj", "/CN=test authority", "-out", "ca.pem", "-keyout", "ca.key"];
        certs.openssl(&[&ca[..], &key].concat());
        // The server's is a client's too: etcd's gateway dials its own server with it.
        for (name, uses) in [("server", "serverAuth,clientAuth"), ("client", "clientAuth")] {
            let [pem, key_file, request, extensions] = ["pem", "key", "csr", "ext"].map(|ext| format!("{name}.{ext}"));
            let subject = format!("/CN={name}");
            certs.openssl(&[&["req", "-subj", &subject, "-out", &request, "-keyout", &key_file][..], &key].concat());
            let text = format!("extendedKeyUsage={uses}\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n");
            fs::write(dir.join(&extensions), text).unwrap();
            let sign = ["x509", "-req", "-days", "1", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
            certs.openssl(&[&sign[..], &["-in", &request, "-out", &pem, "-extfile", &extensions]].concat());
        }
        certs
    }

    fn openssl(&self, args: &[&str]) {
        openssl(&self.dir, args);
    }

    /// Accepts TLS with the server's certificate; where `clients` are to have one, it must be of the same authority.
    pub fn acceptor(&self, alpn: &[u8], clients: bool) -> TlsAcceptor {
        let pem = |name: &str| CertificateDer::pem_file_iter(self.path(name)).unwrap().map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let config = if clients {
            let mut authorities = RootCertStore::empty();
            authorities.add_parsable_certificates(pem("ca.pem"));
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
            config.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            config.with_no_client_auth()
        };
        let mut config = config.with_single_cert(pem("server.pem").collect(), key).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// A file by its name: `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
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
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", &key];
    openssl(dir, &[&make[..], &key].concat());
}

fn openssl(dir: &Path, args: &[&str]) {
    let done = Command::new("openssl").args(args).current_dir(dir).stdin(Stdio::null()).output().unwrap();
    assert!(done.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&done.stderr));
}
