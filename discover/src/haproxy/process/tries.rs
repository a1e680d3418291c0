//! A search for who is to blame, over files that HAProxy is asked about: write one, have it judged, see whom its words name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::blame::{Finding, Judge, NoFinding, Patience, Verdict, find, gist};

/// How often a file is tried in one search.
const TRIES: usize = 48;

/// A file with suspects.
pub trait Suspected: Send + Sync {
    type Written: Send;

    /// Writes the file with these suspects only; `None` where it cannot be written.
    fn write(&self, there: &BTreeSet<usize>) -> impl Future<Output = Option<Self::Written>> + Send;

    /// Has HAProxy judge what was written last.
    ///
    /// # Errors
    /// Its words; `None` where no judgement can be had.
    fn check(&self, deadline: Duration) -> impl Future<Output = Result<(), Option<String>>> + Send;

    /// The suspects whose lines HAProxy's words name, with the words for each.
    fn named(&self, written: &Self::Written, there: &BTreeSet<usize>, said: &str) -> BTreeMap<usize, String>;
}

/// Finds out which of the suspects `0..count` HAProxy does not take; the first try may take `deadline`.
pub async fn search(count: usize, deadline: Duration, file: impl Suspected) -> Result<Finding, NoFinding> {
    find(count, TRIES, &mut Tries { file, patience: Patience::new(deadline) }).await
}

struct Tries<S> {
    file: S,
    patience: Patience,
}

impl<S: Suspected> Judge for Tries<S> {
    async fn with(&mut self, suspects: &BTreeSet<usize>) -> Option<Verdict> {
        let written = self.file.write(suspects).await?;
        let began = Instant::now();
        match self.file.check(self.patience.next()).await {
            Ok(()) => {
                self.patience.took(began.elapsed());
                Some(Verdict::Good)
            }
            Err(said) => {
                let said = said?;
                Some(Verdict::Bad { named: self.file.named(&written, suspects, &said), why: gist(&said) })
            }
        }
    }
}
