//! The task that keeps our copies of the certificates, and a running HAProxy, at what the operator's files are. Files come first, then
//! the commands: what a reload would read is never behind what runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::clock::since_1970;
use agent::files::{FileError, Replace, write_if_changed};
use agent::telemetry::Chain;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::load::{self, Certificate, FileStamp, LoadedCertificates, RefusedCertificate};
use super::names::CertificateNames;
use super::running::{self, Running, Step};
use crate::edge::{EdgeCertificates, EdgeSettings};
use crate::haproxy::api::command::{Command, CommandError, is_safe_word};
use crate::haproxy::api::socket::{RuntimeSocket, SocketError};
use crate::haproxy::api::tables;
use crate::metrics::{CertificateLabel, Metrics};

/// How often the operator's files are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// What the names of our copies begin with.
const OURS: &str = "c-";
const LIST: &str = "list";
const NAMES: &str = "names";
/// What haproxy.cfg names in our directory: without them HAProxy takes no such file.
pub const FILES: [&str; 2] = [LIST, NAMES];

/// What keeps HAProxy from having the certificates that it should have.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("{} cannot be named in a command to HAProxy", .0.display())]
    Directory(PathBuf),
    /// Our copies cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Our directory cannot be made or read.
    #[error("{operation} {}", path.display())]
    Io {
        /// Such as "reading".
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// HAProxy is not there.
    #[error("HAProxy's socket")]
    Socket(#[from] SocketError),
    /// A certificate does not fit a command; the next reload takes it.
    #[error("{path} cannot be sent, the next reload takes it")]
    Command { path: String, source: CommandError },
    /// HAProxy refused.
    #[error("{command}: HAProxy says {reply:?}")]
    Refused {
        /// What was sent, without a key.
        command: String,
        reply: String,
    },
}

/// The words for a `bind` line whose certificates are in `directory`: HTTP/2 where the client can, and no handshake for a name that no
/// certificate is for, so that none is needed at the start.
pub fn bind_words(directory: &Path) -> String {
    format!("ssl crt-list {} strict-sni alpn h2,http/1.1", directory.join(LIST).display())
}

/// The map of names to certificates, as the config has it.
pub fn names(directory: &Path) -> String {
    directory.join(NAMES).display().to_string()
}

/// Keeps copies and HAProxy.
#[derive(Debug)]
pub struct CertificateKeeper {
    sources: Vec<PathBuf>,
    directory: PathBuf,
    stamps: Vec<FileStamp>,
    loaded: watch::Sender<Arc<LoadedCertificates>>,
    told: BTreeSet<(PathBuf, String)>,
    metrics: Metrics,
}

impl CertificateKeeper {
    /// A keeper of what `sources` have, with its copies in `directory`. No I/O.
    pub fn new(sources: Vec<PathBuf>, directory: PathBuf, metrics: Metrics) -> Result<Self, KeepError> {
        if !directory.is_absolute() || !directory.to_str().is_some_and(is_safe_word) {
            return Err(KeepError::Directory(directory));
        }
        let (loaded, _) = watch::channel(Arc::default());
        Ok(Self { sources, directory, stamps: Vec::new(), loaded, told: BTreeSet::new(), metrics })
    }

    /// A keeper of an edge's certificates, if it is to have any. No I/O.
    pub fn of(edge: &EdgeSettings, metrics: &Metrics) -> Result<Option<Self>, KeepError> {
        let EdgeCertificates { given, copies } = &edge.certificates;
        let wanted = (!given.is_empty()).then(|| given.clone());
        wanted.map(|sources| Self::new(sources, copies.clone(), metrics.clone())).transpose()
    }

    /// What is served and what was left out, as it changes.
    pub fn loaded(&self) -> watch::Receiver<Arc<LoadedCertificates>> {
        self.loaded.subscribe()
    }

    /// Reads the operator's files, where they changed since the last time or a certificate ran out, and writes our copies. To be called
    /// before HAProxy reads a config that names them. Whether anything was written. Blocks.
    ///
    /// # Errors
    /// [`KeepError::File`], [`KeepError::Io`]: our own copies cannot be written.
    pub fn refresh(&mut self) -> Result<bool, KeepError> {
        let (stamps, now) = (load::stamps(&self.sources), SystemTime::now());
        let before = self.loaded.borrow().clone();
        let ran_out = before.certificates.iter().any(|c| c.facts.not_after <= now);
        let written_once = FILES.iter().all(|file| self.directory.join(file).exists());
        if stamps == self.stamps && !ran_out && written_once {
            return Ok(false);
        }
        let loaded = keep_good(load::load(&self.sources, now), &before, now);
        let written = write(&self.directory, &loaded.certificates)?;
        self.tell(&loaded);
        self.stamps = stamps;
        self.loaded.send_replace(Arc::new(loaded));
        Ok(written)
    }

    /// Follows the operator's files until `cancel`, and keeps HAProxy at them; without a socket the next reload takes them.
    pub async fn run(mut self, mut socket: Option<RuntimeSocket>, cancel: CancellationToken) {
        let (mut settled, mut said) = (false, String::new());
        loop {
            let looked = spawn_blocking(move || {
                let changed = self.refresh();
                (self, changed)
            });
            let Ok((keeper, changed)) = looked.await else { return };
            self = keeper;
            let done = match (changed, &mut socket) {
                (Err(e), _) => Err(e),
                (Ok(changed), Some(socket)) if changed || !settled => {
                    let Some(done) = cancel.run_until_cancelled(self.apply(socket)).await else { return };
                    done
                }
                (Ok(_), _) => Ok(()),
            };
            let why = done.err().map(|e| Chain(&e).to_string());
            settled = why.is_none();
            if let Some(why) = why.as_ref().filter(|why| **why != said) {
                warn!(error = %why, "HAProxy may not have all certificates yet; trying again.");
            }
            said = why.unwrap_or_default();
            if cancel.run_until_cancelled(sleep(PERIOD)).await.is_none() {
                return;
            }
        }
    }

    /// Brings a running HAProxy to what our copies are, without a reload. Each certificate is on its own.
    ///
    /// # Errors
    /// The first thing that failed; the rest was done.
    pub async fn apply(&self, socket: &mut RuntimeSocket) -> Result<(), KeepError> {
        socket.reopen();
        let list = self.directory.join(LIST).display().to_string();
        let running = self.running(socket, &list).await?;
        let wanted = self.loaded.borrow().clone();
        let path = |certificate: &Certificate| self.path(certificate);
        let mut result = Ok(());
        for steps in running::plan(&running, &wanted.certificates, &list, path) {
            let done = match steps {
                Ok(steps) => self.walk(socket, &steps).await,
                Err((path, source)) => Err(KeepError::Command { path, source }),
            };
            result = result.and(done);
        }
        result.and(self.apply_names(socket, &wanted).await)
    }

    /// Brings HAProxy's map of names to ours.
    async fn apply_names(&self, socket: &mut RuntimeSocket, wanted: &LoadedCertificates) -> Result<(), KeepError> {
        let map = names(&self.directory);
        let unsent = |source| KeepError::Command { path: map.clone(), source };
        let shown = socket.run(&Command::new(["show", "map", &map]).map_err(unsent)?).await?;
        // A HAProxy of before an upgrade has none until it is reloaded.
        let Ok(running) = tables::map_entries(shown.text()) else { return Ok(()) };
        for op in CertificateNames::of(&wanted.certificates).changes(&map, running) {
            let command = op.command().map_err(unsent)?;
            let reply = socket.run(&command).await?;
            op.judge(&reply)
                .map_err(|refusal| KeepError::Refused { command: command.to_string(), reply: refusal.text })?;
        }
        Ok(())
    }

    async fn walk(&self, socket: &mut RuntimeSocket, steps: &[Step]) -> Result<(), KeepError> {
        for step in steps {
            let reply = socket.run(&step.command).await?;
            let text = reply.text();
            if !step.success.iter().any(|word| text.contains(word)) {
                // A transaction that stays open would be in the way of all others.
                if let Ok(abort) = Command::new(["abort", "ssl", "cert", &step.path]) {
                    drop(socket.run(&abort).await);
                }
                let reply = text.trim().chars().take(300).collect();
                return Err(KeepError::Refused { command: step.command.to_string(), reply });
            }
        }
        if let Some(last) = steps.last() {
            info!(certificate = %last.path, last = %last.command, "Certificate changed in the running HAProxy.");
        }
        Ok(())
    }

    /// What HAProxy has of ours.
    async fn running(&self, socket: &mut RuntimeSocket, list: &str) -> Result<Running, KeepError> {
        let command = |words: &[&str]| {
            Command::new(words.iter().copied()).map_err(|source| KeepError::Command { path: list.to_owned(), source })
        };
        let ours = self.directory.join(OURS).display().to_string();
        let shown = socket.run(&command(&["show", "ssl", "cert"])?).await?;
        let mut loaded = BTreeMap::new();
        for path in running::paths(shown.text()).filter(|path| path.starts_with(&ours)) {
            let one = socket.run(&command(&["show", "ssl", "cert", path])?).await?;
            loaded.insert(path.to_owned(), running::serial(one.text()));
        }
        let shown = socket.run(&command(&["show", "ssl", "crt-list", list])?).await?;
        let listed = running::listed(shown.text()).filter(|path| path.starts_with(&ours)).map(str::to_owned).collect();
        Ok(Running { loaded, listed })
    }

    fn path(&self, certificate: &Certificate) -> String {
        self.directory.join(&certificate.file).display().to_string()
    }

    /// Each fault once, until it is another one.
    fn tell(&mut self, loaded: &LoadedCertificates) {
        self.metrics.certificate_expiry.clear();
        for certificate in &loaded.certificates {
            let expiry = i64::try_from(since_1970(certificate.facts.not_after).as_secs()).unwrap_or(i64::MAX);
            let label = CertificateLabel { file: certificate.file.clone() };
            self.metrics.certificate_expiry.get_or_create(&label).set(expiry);
        }
        self.metrics.certificates_left_out.set(i64::try_from(loaded.refused.len()).unwrap_or(i64::MAX));
        let faults: BTreeSet<_> = loaded.refused.iter().map(|r| (r.source.clone(), r.why.clone())).collect();
        for (file, why) in faults.difference(&self.told) {
            warn!(file = %file.display(), %why, "Certificate left out.");
        }
        info!(certificates = loaded.certificates.len(), left_out = faults.len(), "Certificates read.");
        self.told = faults;
    }
}

/// What was good and is not any more goes on as it was, as long as its file is there and its time has not run out.
fn keep_good(mut loaded: LoadedCertificates, before: &LoadedCertificates, now: SystemTime) -> LoadedCertificates {
    let lost =
        |r: &RefusedCertificate| before.certificates.iter().find(|c| c.source == r.source && c.facts.not_after > now);
    let kept = loaded.refused.iter().filter(|r| r.source.is_file()).filter_map(lost);
    for certificate in kept.cloned().collect::<Vec<_>>() {
        if loaded.certificates.iter().all(|c| c.file != certificate.file) {
            loaded.certificates.push(certificate);
        }
    }
    loaded.certificates.sort_by(|a, b| a.file.cmp(&b.file));
    loaded
}

/// Our copies, then the list of them; those that are not wanted any more go. Whether anything changed.
fn write(directory: &Path, certificates: &[Certificate]) -> Result<bool, KeepError> {
    let fault = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| KeepError::Io { operation, path, source }
    };
    fs::create_dir_all(directory).map_err(fault("making", directory))?;
    let how = Replace { mode: Some(0o600), ..Replace::default() };
    let (mut changed, mut list) = (false, String::new());
    for certificate in certificates {
        let path = directory.join(&certificate.file);
        changed |= write_if_changed(&path, certificate.pem.as_bytes(), how)?;
        list.push_str(&format!("{}\n", path.display()));
    }
    changed |= write_if_changed(&directory.join(LIST), list.as_bytes(), how)?;
    changed |= write_if_changed(&directory.join(NAMES), CertificateNames::of(certificates).render().as_bytes(), how)?;
    for entry in fs::read_dir(directory).map_err(fault("reading", directory))?.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(OURS) && name.ends_with(".pem"));
        if ours && certificates.iter().all(|certificate| *certificate.file != *name) {
            fs::remove_file(entry.path()).map_err(fault("removing", &entry.path()))?;
            changed = true;
        }
    }
    Ok(changed)
}
