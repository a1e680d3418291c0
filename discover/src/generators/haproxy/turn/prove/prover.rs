//! The ledger of registrants' words and the search beside the turns, as one.

use agent::telemetry::Chain;
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use tracing::warn;

use super::checker::Checker;
use super::proofs::Proofs;
use super::proving::Proving;
use super::trial::{Blamed, Trial};
use crate::generators::haproxy::turn::files::ConfigFiles;
use crate::haproxy::process::blame::{Finding, NoFinding};

/// Judges registrants' words.
#[derive(Debug, Default)]
pub struct Prover {
    pub(in super::super) proofs: Proofs,
    proving: Proving,
}

impl Prover {
    /// Begins to judge the words that wait for it, in a task of its own.
    pub fn prove(&mut self, checker: Option<Checker>, files: &ConfigFiles, checks: &Counter) {
        let now = Instant::now();
        let Some(checker) = checker.filter(|_| self.proving.is_free(now)) else { return };
        let Some(batch) = self.proofs.batch(now) else { return };
        // The file names the rules' file, which must be there.
        if !files.rules().exists()
            && let Some(rules) = self.proofs.rules()
            && let Err(error) = files.write_rules(rules)
        {
            warn!(error = %Chain(&error), "The edge's rules cannot be written.");
        }
        self.proving.begin(batch, checker, files.probe(), checks.clone());
    }

    /// Takes down what a search has found. With `others_judge`, words that nobody can judge here are trusted: the reload judges them.
    pub fn hear(&mut self, others_judge: bool, now: Instant) {
        let Some((trial, found)) = self.proving.take() else { return };
        match found {
            Ok(finding) => self.judged(&trial, finding, now),
            Err(NoFinding::Unknown) if others_judge => self.proofs.trust(&trial, now),
            Err(NoFinding::Unknown) => self.proofs.put_off(&trial, "haproxy -c cannot be run", now),
            Err(NoFinding::NotTheirs(why)) => {
                warn!(
                    why,
                    "HAProxy refuses the operator's own text: the fault is no registration's, and no new words can be judged."
                );
                let why = format!("haproxy -c refuses the file without it, too, so that it cannot be judged: {why}");
                self.proofs.put_off(&trial, &why, now);
            }
        }
    }

    /// Takes down what was found out about a file's suspects, and tells who is to blame.
    pub fn judged(&mut self, trial: &Trial, finding: Finding, now: Instant) {
        self.proofs.judged(trial, finding, now).iter().for_each(tell);
    }

    /// How many servers wait for the first judgement of their words.
    pub fn waiting(&self) -> usize {
        self.proofs.waiting()
    }

    /// Whether words are being judged, or wait for it.
    pub fn is_busy(&self) -> bool {
        self.proving.is_busy() || self.waiting() > 0
    }

    /// Until when a reload waits for new words that are being judged, if it does.
    pub fn awaited(&mut self, now: Instant) -> Option<Instant> {
        if self.proving.judges_new() { self.proofs.hold(now) } else { None }
    }

    /// Waits until a search has ended; cancel-safe.
    pub async fn ended(&mut self) {
        self.proving.ended().await;
    }
}

fn tell(Blamed { example, servers, words, why }: &Blamed) {
    match servers {
        0 => warn!(section = example, why, "HAProxy refuses a service's section: it is left out of haproxy.cfg."),
        _ => {
            warn!(server = example, servers, %words, why, "HAProxy refuses words of a registration: the servers with them are left out of haproxy.cfg.")
        }
    }
}
