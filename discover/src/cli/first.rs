//! What the sources say first, for commands that look once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::client::View;
use model::ServiceMap;
use registry::store::Key;
use registry::{GeneratorConfigs, Quarantined};
use tokio::time::{Instant, timeout_at};

use super::Failure;
use super::description::read;
use super::source::{SourceArgs, Unstarted};
use crate::reconcile::{Source, merge};
use crate::synapse::Config;

/// What all sources say together.
pub(super) struct Answers {
    pub(super) services: ServiceMap,
    pub(super) generator_configs: GeneratorConfigs,
    pub(super) quarantined: BTreeMap<Key, Quarantined>,
    /// The highest one.
    pub(super) revision: i64,
}

/// Asks the source that the flags name, or with a config those of its services; gives the config, too.
///
/// # Errors
/// [`Failure::Usage`] for what is wrong with either, [`Failure::Runtime`] when an answer does not come in time.
pub(super) async fn ask(
    flags: &SourceArgs,
    config: Option<&Path>,
    patience: Duration,
) -> Result<(Option<Config>, Answers), Failure> {
    let config = config.map(|path| read(path).map_err(Failure::Usage)).transpose()?.map(|loaded| loaded.config);
    let (unstarted, _) = flags.sources(config.as_ref())?;
    Ok((config, first_answers(unstarted, patience).await?))
}

async fn first_answers(asked: Vec<Unstarted>, patience: Duration) -> Result<Answers, Failure> {
    let start = |asked: Unstarted| {
        let view = View::start(|out, cancel| asked.watcher.run(out, cancel));
        (asked.name, asked.answers_for, view)
    };
    let mut views: Vec<_> = asked.into_iter().map(start).collect();
    let deadline = Instant::now() + patience;
    for (.., view) in &mut views {
        // Whatever came of the wait, what counts is what is there after it.
        let _ = timeout_at(deadline, view.synced()).await.is_ok();
    }
    let sources = views.iter().map(|(name, answers_for, view)| Source {
        name: name.clone(),
        required: true,
        answers_for: answers_for.clone(),
        inlet: view.inlet(),
    });
    let sources: Vec<_> = sources.collect();
    let observations: Vec<_> = sources.iter().map(|s| s.inlet.borrow().clone()).collect();
    let silent = sources.iter().zip(&observations).filter(|(_, o)| o.snapshot().is_none());
    let silent: Vec<String> = silent
        .map(|(s, o)| o.error().map_or_else(|| s.name.to_string(), |why| format!("{} ({why})", s.name)))
        .collect();
    if !silent.is_empty() {
        let silent = silent.join(", ");
        return Err(Failure::Runtime(format!("no answer within {patience:?} from {silent}").into()));
    }
    let merged = merge(sources.iter().zip(observations.iter().cloned()));
    let snapshots = || observations.iter().filter_map(|o| o.snapshot());
    Ok(Answers {
        services: merged.services,
        generator_configs: merged.generator_configs,
        quarantined: snapshots().flat_map(|s| s.quarantined.iter()).map(|(k, q)| (k.clone(), q.clone())).collect(),
        revision: snapshots().map(|s| s.revision).max().unwrap_or_default(),
    })
}
