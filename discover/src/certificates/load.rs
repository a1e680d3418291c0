//! From files and directories to certificates that may be served. One that cannot be is named with its reason and left out alone.
//!
//! A source is a file or a directory. Of a directory counts each `*.pem`, `*.crt` and `*.cer`, and below it each directory with
//! `fullchain.pem` and `privkey.pem` (certbot's `live`). The key is in the certificate's own file, in `FILE.key`, or beside it under
//! the same name with `.key` (nginx-proxy's `certs`, Kubernetes' `tls.crt` and `tls.key`).

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::x509::{self, Facts};
use agent::files::beside;

/// The largest file read: no certificate with its chain and key comes near it.
const MAX_BYTES: u64 = 256 * 1024;
/// The most certificates taken from one source.
const MOST: usize = 10_000;

/// A certificate that may be served.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The operator's file.
    pub source: PathBuf,
    /// The name of our copy, of `A-Z a-z 0-9 . _ -`.
    pub file: String,
    /// What it says of itself.
    pub facts: Facts,
    /// Chain and key for HAProxy. Secret.
    pub pem: Arc<str>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("source", &self.source).field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// A file that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCertificate {
    /// The operator's file.
    pub source: PathBuf,
    pub why: String,
}

/// What the sources came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadedCertificates {
    /// By name of our copy.
    pub certificates: Vec<Certificate>,
    /// By file.
    pub refused: Vec<RefusedCertificate>,
}

/// Why a file is left out.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("reading {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("it holds no certificate")]
    NoCertificate,
    #[error("its PEM is broken: {0}")]
    Pem(String),
    #[error("certificate {0} of the file is not X.509")]
    NotX509(usize),
    #[error("there is no key: neither in it nor in {0}")]
    NoKey(String),
    #[error("its key cannot be used: {0}")]
    Key(rustls::Error),
    #[error("it is for no name")]
    NoName,
    #[error("it expired at {}", humantime::format_rfc3339_seconds(*.0))]
    Expired(SystemTime),
    #[error("it is not valid before {}", humantime::format_rfc3339_seconds(*.0))]
    Early(SystemTime),
    #[error("a source has {MOST} certificates at most")]
    TooMany,
}

/// Reads all sources anew. Blocks.
pub fn load(sources: &[PathBuf], now: SystemTime) -> LoadedCertificates {
    let mut loaded = LoadedCertificates::default();
    let mut taken = BTreeSet::new();
    for source in sources {
        let files = match files(source) {
            Ok(files) => files,
            Err(fault) => {
                loaded.refused.push(RefusedCertificate { source: source.clone(), why: fault.to_string() });
                continue;
            }
        };
        for (n, path) in files.into_iter().enumerate() {
            let read = if n < MOST { read(&path, now) } else { Err(Fault::TooMany) };
            match read {
                Ok((facts, pem)) => {
                    let file = name(&path, &mut taken);
                    loaded.certificates.push(Certificate { source: path, file, facts, pem });
                }
                Err(fault) => loaded.refused.push(RefusedCertificate { source: path, why: fault.to_string() }),
            }
        }
    }
    loaded.certificates.sort_by(|a, b| a.file.cmp(&b.file));
    loaded
}

/// What tells one state of a file from another.
pub type FileStamp = (PathBuf, Option<(u64, u64, i64, i64)>);

/// The state of every file that [`load`] would look at: equal ones need not be read again. Blocks.
pub fn stamps(sources: &[PathBuf]) -> Vec<FileStamp> {
    let mut paths = Vec::new();
    for source in sources {
        for path in files(source).unwrap_or_else(|_| vec![source.clone()]) {
            paths.extend(key_files(&path));
            paths.push(path);
        }
    }
    let stamp = |meta: fs::Metadata| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
    paths.into_iter().map(|path| (path.clone(), fs::metadata(path).ok().map(stamp))).collect()
}

/// The files that may hold the key of a certificate's.
fn key_files(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![beside(path, ".key"), path.with_extension("key")];
    if path.file_name().is_some_and(|name| name == "fullchain.pem") {
        files.push(path.with_file_name("privkey.pem"));
    }
    files
}

/// The files of a source that are to be certificates, sorted.
fn files(source: &Path) -> Result<Vec<PathBuf>, Fault> {
    let fault = |error| Fault::Read { path: source.to_owned(), source: error };
    if !fs::metadata(source).map_err(fault)?.is_dir() {
        return Ok(vec![source.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(source).map_err(fault)? {
        let path = entry.map_err(fault)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_certificate = path.extension().is_some_and(|e| ["pem", "crt", "cer"].iter().any(|known| e == *known));
        if hidden {
        } else if path.is_dir() {
            let chain = path.join("fullchain.pem");
            found.extend(Some(chain).filter(|chain| chain.exists()));
        } else if is_certificate {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn bytes(path: &Path) -> Result<Vec<u8>, Fault> {
    let fault = |source| Fault::Read { path: path.to_owned(), source };
    let meta = fs::metadata(path).map_err(fault)?;
    match meta.len() {
        // A pipe or a device would be waited for.
        _ if !meta.is_file() => Err(fault(io::Error::from(io::ErrorKind::InvalidInput))),
        0..=MAX_BYTES => fs::read(path).map_err(fault),
        _ => Err(Fault::TooLarge),
    }
}

fn read(path: &Path, now: SystemTime) -> Result<(Facts, Arc<str>), Fault> {
    let own = bytes(path)?;
    let chain = CertificateDer::pem_slice_iter(&own).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| Fault::Pem(e.to_string()))?;
    let facts = chain.iter().enumerate().map(|(n, der)| x509::read(der).ok_or(Fault::NotX509(n + 1)));
    let facts = facts.collect::<Result<Vec<_>, _>>()?.into_iter().next().ok_or(Fault::NoCertificate)?;
    let key = key(path, &own)?;
    let pem = pem(&chain, &key).into();
    // Whether the key is the leaf's own is asked here: HAProxy would refuse its whole file for one that is not.
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(Fault::Key)?;
    match () {
        () if facts.names.is_empty() => Err(Fault::NoName),
        () if facts.not_after <= now => Err(Fault::Expired(facts.not_after)),
        () if facts.not_before > now => Err(Fault::Early(facts.not_before)),
        () => Ok((facts, pem)),
    }
}

/// The key of a certificate's file: in it, or in one of the files beside it.
fn key(path: &Path, own: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    if let Ok(key) = PrivateKeyDer::from_pem_slice(own) {
        return Ok(key);
    }
    let files = key_files(path);
    if let Some(path) = files.iter().find(|path| path.exists()) {
        return PrivateKeyDer::from_pem_slice(&bytes(path)?).map_err(|e| Fault::Pem(e.to_string()));
    }
    let names = files.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    Err(Fault::NoKey(names.collect::<Vec<_>>().join(", ")))
}

/// Chain and key as one PEM without blank lines or words of anybody's, as HAProxy's socket wants it.
fn pem(chain: &[CertificateDer<'_>], key: &PrivateKeyDer<'_>) -> String {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    let mut text = String::new();
    let sections = chain.iter().map(|der| ("CERTIFICATE", &der[..])).chain([(label, key.secret_der())]);
    for (label, der) in sections {
        text.push_str(&format!("-----BEGIN {label}-----\n"));
        for line in BASE64.encode(der).as_bytes().chunks(64) {
            text.extend(line.iter().map(|b| char::from(*b)));
            text.push('\n');
        }
        text.push_str(&format!("-----END {label}-----\n"));
    }
    text
}

/// A name for our copy: of the file's own name (with its directory's, as certbot's files are all called alike), in safe
/// characters, each once.
fn name(path: &Path, taken: &mut BTreeSet<String>) -> String {
    let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
    let parts = [parent, path.file_stem().unwrap_or_default()].map(|part| part.to_string_lossy().into_owned());
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let stem: String = parts.join("-").chars().map(safe).take(100).collect();
    let numbered = (1..).map(|n| if n == 1 { format!("c-{stem}.pem") } else { format!("c-{stem}-{n}.pem") });
    let name = numbered.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use testing::certs::self_signed;

    fn faults(loaded: &LoadedCertificates) -> Vec<String> {
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        loaded.refused.iter().map(|r| format!("{}: {}", name(&r.source), r.why)).collect()
    }

    #[test]
    fn a_directory_is_read_in_every_layout_and_each_bad_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let read = |name: &str| fs::read_to_string(at(name)).unwrap();
        self_signed(dir.path(), "a", &["A.example", "*.a.example"]);
        self_signed(dir.path(), "b", &["b.example"]);
        fs::write(at("both.crt"), read("b.pem") + &read("b.key")).unwrap();
        fs::rename(at("b.key"), at("b.pem.key")).unwrap();
        fs::create_dir(at("c.example")).unwrap();
        self_signed(&at("c.example"), "fullchain", &["c.example"]);
        fs::rename(at("c.example/fullchain.key"), at("c.example/privkey.pem")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::write(at(".hidden.pem"), "x").unwrap();
        fs::write(at("dhparam.pem"), "-----BEGIN DH PARAMETERS-----\nAA==\n-----END DH PARAMETERS-----\n").unwrap();
        fs::write(at("keyless.pem"), read("a.pem")).unwrap();
        fs::write(at("wrong.pem"), read("a.pem") + &read("b.pem.key")).unwrap();
        fs::write(at("broken.pem"), read("a.pem").replace("MII", "M!I")).unwrap();
        fs::write(at("rubbish.pem"), "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").unwrap();
        fs::write(at("large.pem"), vec![b'x'; 300_000]).unwrap();
        let sources = [dir.path().to_owned(), at("gone")];
        let loaded = load(&sources, SystemTime::now());
        let names: Vec<_> = loaded.certificates.iter().map(|c| c.facts.names.join(" ")).collect();
        assert_eq!(names, ["a.example *.a.example", "b.example", "b.example", "c.example"], "{:?}", faults(&loaded));
        for (fault, expected) in faults(&loaded).iter().zip([
            "broken.pem: its PEM is broken",
            "dhparam.pem: it holds no certificate",
            "keyless.pem: there is no key: neither in it nor in keyless.pem.key, keyless.key",
            "large.pem: it is larger than",
            "rubbish.pem: certificate 1 of the file is not X.509",
            "wrong.pem: its key cannot be used",
            "gone: reading ",
        ]) {
            assert!(fault.starts_with(expected), "{fault}");
        }
        assert_eq!(loaded.refused.len(), 7);
        assert_eq!(stamps(&sources), stamps(&sources));
        let safe = |c: &Certificate| {
            crate::haproxy::api::command::is_safe_word(&c.file) && !format!("{c:?}").contains("PRIVATE")
        };
        assert!(loaded.certificates.iter().all(safe));

        let day = Duration::from_secs(86_400);
        let later = load(&[at("a.pem")], SystemTime::now() + 2 * day);
        assert!(faults(&later)[0].starts_with("a.pem: it expired at 20"), "{later:?}");
        let before = load(&[at("a.pem")], SystemTime::now() - 2 * day);
        assert!(faults(&before)[0].starts_with("a.pem: it is not valid before 20"), "{before:?}");
    }
}
