//! HAProxy, started again when it ends, and in `--file` mode given each new config that is good.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::backoff::Backoff;
use agent::files::{self, FileError, Replace};
use agent::telemetry::Chain;
use agent::trouble::{News, Trouble};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::args::Options;
use super::children::{Children, Claim};
use super::error::SuperviseError;
use super::file::{FileWatch, POLL, Sight};
use super::spared::Sparing;
use super::tried::Tried;
use crate::haproxy::process::check::{CheckError, check_by, deadline};
use crate::haproxy::process::launch::{ProcessError, Running, adopt, alive};
use crate::haproxy::process::master::{MasterError, ReloadOutcome};
use crate::haproxy::process::pace::ReloadPace;
use crate::haproxy::process::ports::{BindRefusal, new_binds_are_free};
use crate::haproxy::process::tries::{Suspected, search};

/// Why a new config is not used; HAProxy goes on with the one before.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("a new bind would close every listener for seconds")]
    Bind(#[from] BindRefusal),
    #[error("keeping our copy of the config")]
    Copy(#[from] FileError),
    #[error("reloading HAProxy")]
    Reload(#[from] MasterError),
    #[error("HAProxy did not load it: {0}")]
    Load(String),
}

/// A HAProxy that runs, and the claim that keeps its status from being reaped by others.
struct Kept<'a> {
    running: Running,
    _claim: Claim<'a>,
}

/// Keeps HAProxy running until `stop`, then stops it gracefully.
///
/// # Errors
/// [`SuperviseError::Stop`]; everything else is logged, and tried again.
pub async fn keep(options: &Options, children: &Children, stop: &CancellationToken) -> Result<(), SuperviseError> {
    let mut keeper = Keeper {
        options,
        children,
        watch: options.file.clone().map(FileWatch::new),
        pace: ReloadPace::new(options.reload_interval, 0.0),
        good: None,
    };
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    // What was left by an earlier supervise is taken over; a config that changed meanwhile is then loaded like any other.
    let running = adopt(&options.launch.master()).await.unwrap_or_default();
    let mut kept = running.map(|running| Kept { running, _claim: children.claim() });
    if let Some(kept) = &kept {
        info!(master = kept.running.master, "Adopted a running HAProxy.");
    }
    let (mut failed, mut trouble) = (false, Trouble::default());
    loop {
        let serving = match kept.take() {
            Some(kept) => kept,
            None => {
                if stop.run_until_cancelled(keeper.wait_for_config(failed)).await.is_none() {
                    return Ok(());
                }
                let tried = Tried::with(&options.launch);
                // Not to be cut off: a HAProxy half started would be left behind. It has a deadline of its own.
                match keeper.start().await {
                    Ok(started) => started,
                    Err(e) => {
                        failed = true;
                        let delay = backoff.next_delay();
                        let chain = Chain(&e).to_string();
                        match trouble.fail(&chain) {
                            News::Begins => error!(error = %chain, "HAProxy does not start; it is tried again."),
                            News::OtherReason => {
                                error!(error = %chain, "HAProxy still does not start, for another reason.")
                            }
                            News::None => {}
                        }
                        if stop.run_until_cancelled(tried.wait(delay)).await == Some(true) {
                            backoff.succeeded(); // it may be mended
                        }
                        continue;
                    }
                }
            }
        };
        failed = false;
        trouble.end();
        match keeper.serve(serving, stop).await {
            Some(serving) => return serving.running.stop(options.grace).await.map_err(SuperviseError::Stop),
            None => {
                let delay = backoff.next_delay();
                error!(retry_in_ms = delay.as_millis(), "HAProxy ended; starting it again.");
                stop.run_until_cancelled(sleep(delay)).await;
            }
        }
    }
}

struct Keeper<'a> {
    options: &'a Options,
    children: &'a Children,
    watch: Option<FileWatch>,
    /// When HAProxy may be reloaded, in `--file` mode.
    pace: ReloadPace,
    /// The bytes that HAProxy runs with, in `--file` mode.
    good: Option<Vec<u8>>,
}

impl<'a> Keeper<'a> {
    async fn start(&self) -> Result<Kept<'a>, ProcessError> {
        let mut claim = self.children.claim();
        let running = self.options.launch.spawn_by(|command| claim.spawn(command)).await?;
        info!(master = running.master, "HAProxy started.");
        Ok(Kept { running, _claim: claim })
    }

    /// Without `--file`, the agent writes it; with it, the first good one is awaited, or the good one of an earlier life is used. When HAProxy
    /// did not start with what there is (`failed`), a mended file is looked for.
    async fn wait_for_config(&mut self, failed: bool) {
        for _ in 0..if failed { 2 } else { 0 } {
            self.take_new(false).await;
            sleep(POLL).await;
        }
        let config = &self.options.launch.config;
        let mut said = false;
        while self.watch.is_none() && !config.exists() {
            if !std::mem::replace(&mut said, true) {
                info!(config = %config.display(), "Waiting for the config to be written.");
            }
            sleep(POLL).await;
        }
        let patience = Instant::now() + POLL * 5;
        while self.watch.is_some() && self.good.is_none() {
            if self.take_new(false).await {
                return;
            }
            if Instant::now() > patience && config.exists() {
                let text = std::fs::read_to_string(config).unwrap_or_default();
                match self.check(config, self.deadline(&text)).await {
                    Ok(()) => {
                        warn!(config = %config.display(), "No good config yet; starting with the last one that was.");
                        self.good = std::fs::read(config).ok();
                        return;
                    }
                    Err(e) => error!(error = %Chain(&e), "The last good config is not good any more."),
                }
            }
            sleep(POLL).await;
        }
    }

    /// Until HAProxy ends (`None`) or `stop` is asked for.
    async fn serve(&mut self, mut kept: Kept<'a>, stop: &CancellationToken) -> Option<Kept<'a>> {
        loop {
            let pid = kept.running.master;
            let ended = match &mut kept.running.child {
                Some(child) => match child.try_wait() {
                    Ok(status) => status.map(|s| s.to_string()),
                    Err(e) => Some(format!("lost sight of it: {e}")),
                },
                None => (!alive(pid)).then(|| "adopted; its status went elsewhere".to_owned()),
            };
            if let Some(status) = ended {
                error!(master = pid, status, "HAProxy ended.");
                return None;
            }
            // Not cut off by `stop`: a reload under way is finished first, and it has deadlines of its own.
            if stop.is_cancelled() {
                return Some(kept);
            }
            self.take_new(true).await;
            stop.run_until_cancelled(sleep(POLL)).await;
        }
    }

    /// Looks at the file; true when a new config was found good and, if HAProxy runs, loaded.
    async fn take_new(&mut self, running: bool) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        if running && self.pace.wait(Instant::now(), true).is_some() {
            return false; // whatever changes meanwhile is seen then, as one change
        }
        let file = watch.path().display().to_string();
        let bytes = match watch.look() {
            Sight::Quiet => return false,
            Sight::Lost(why) => {
                warn!(file, why, "Cannot read the config; HAProxy goes on with the last good one.");
                return false;
            }
            Sight::New(bytes) => bytes,
        };
        match self.use_config(bytes, running).await {
            Ok(used) => {
                info!(file, bytes = used.len(), "Config in use.");
                self.pace.succeeded(Instant::now());
                self.good = Some(used);
                true
            }
            Err(e) => {
                error!(file, error = %Chain(&e), "Config refused; HAProxy goes on with the last good one.");
                false
            }
        }
    }

    /// The very bytes that were checked are what HAProxy reads, whatever others do to their file meanwhile. Gives them.
    async fn use_config(&self, bytes: Vec<u8>, running: bool) -> Result<Vec<u8>, Refused> {
        let copy = &self.options.launch.config;
        let private = Replace { mode: Some(0o600), ..Replace::default() };
        let bytes = self.checked(bytes, private).await?;
        if running {
            let old = self.good.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            // Adopted without knowing what it has: HAProxy's own ports would look taken.
            if !old.is_empty() {
                new_binds_are_free(&old, &String::from_utf8_lossy(&bytes))?;
            }
        }
        let before = std::fs::read(copy).ok();
        files::replace(copy, &bytes, private)?;
        if !running {
            return Ok(bytes);
        }
        let outcome = self.options.launch.master().reload().await;
        let refused = match outcome {
            Ok(ReloadOutcome::Loaded { worker, .. }) => {
                info!(worker, "HAProxy reloaded.");
                return Ok(bytes);
            }
            Ok(ReloadOutcome::Failed { log }) => Refused::Load(log),
            Err(e) => e.into(),
        };
        // HAProxy must find a good config when it has to start again.
        if let Some(before) = before {
            files::replace(copy, &before, private)?;
        }
        Err(refused)
    }

    /// What of `bytes` HAProxy takes: all of it, or all but servers and sections that it refuses.
    async fn checked(&self, bytes: Vec<u8>, how: Replace) -> Result<Vec<u8>, Refused> {
        let mut candidate = self.options.launch.config.clone().into_os_string();
        candidate.push(".candidate");
        let candidate = PathBuf::from(candidate);
        files::replace(&candidate, &bytes, how)?;
        let text = String::from_utf8_lossy(&bytes);
        let checked = self.check(&candidate, self.deadline(&text)).await;
        let outcome = match checked {
            Err(error) if error.verdict().is_some() => self.spared(&text, &candidate, how).await.ok_or(error.into()),
            other => other.map(|()| bytes.clone()).map_err(Refused::from),
        };
        let _ = std::fs::remove_file(&candidate); // only tidiness: the next candidate replaces it
        outcome
    }

    /// The file without those that HAProxy refuses it for; `None` when the fault is nobody's alone.
    async fn spared(&self, text: &str, candidate: &Path, how: Replace) -> Option<Vec<u8>> {
        let good = self.good.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        let sparing = Sparing::new(text, &good);
        let file = Candidate { keeper: self, sparing: &sparing, path: candidate, how };
        let finding = search(sparing.suspects(), self.deadline(text), file).await.ok()?;
        let undecided = finding.undecided.iter().map(|n| (*n, "not found out within the tries".to_owned()));
        let guilty: BTreeMap<usize, String> = finding.guilty.clone().into_iter().chain(undecided).collect();
        if guilty.is_empty() || !sparing.serves(&finding.good) {
            return None;
        }
        for (out, why) in sparing.left_out(&guilty) {
            error!(out, why, "HAProxy refuses this: it is left out, the rest of the config is used.");
        }
        Some(sparing.with(&finding.good).into_bytes())
    }

    fn deadline(&self, text: &str) -> Duration {
        let servers = text.lines().filter(|line| line.trim_start().starts_with("server ")).count();
        deadline(self.options.check_timeout, servers)
    }

    async fn check(&self, config: &Path, deadline: Duration) -> Result<(), CheckError> {
        let mut claim = self.children.claim();
        let launch = &self.options.launch;
        check_by(&launch.program, &launch.args, config, deadline, |command| claim.spawn(command)).await
    }
}

/// A config with suspects, tried as `candidate`.
struct Candidate<'a, 'b> {
    keeper: &'a Keeper<'b>,
    sparing: &'a Sparing<'a>,
    path: &'a Path,
    how: Replace,
}

impl Suspected for Candidate<'_, '_> {
    type Written = ();

    async fn write(&self, there: &BTreeSet<usize>) -> Option<()> {
        files::replace(self.path, self.sparing.with(there).as_bytes(), self.how).ok()
    }

    async fn check(&self, deadline: Duration) -> Result<(), Option<String>> {
        self.keeper.check(self.path, deadline).await.map_err(|error| error.verdict())
    }

    fn named(&self, (): &(), there: &BTreeSet<usize>, said: &str) -> BTreeMap<usize, String> {
        self.sparing.named(there, self.path, said)
    }
}
