//! `s3_toggle`: one watcher at a time, drawn by the weights in an object of S3 (YAML, watcher: weight). It is drawn anew
//! only when the weights change; while the object cannot be read the last draw stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use agent::backoff::{Backoff, Jitter};
use agent::telemetry::Chain;
use futures_util::future::BoxFuture;
use rand::RngExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::ask::Ask;
use crate::watchers::Fault;
use crate::watchers::aws::{Aws, AwsError, AwsKeys};
use crate::watchers::group::{FIRST_WITHIN, Resolution, Resolve, Seen, first_error};
use crate::watchers::teller::Standing;

/// What counts before the object was ever read, where there is a watcher of this name: `discovery` beside discovery_multi.
const PRIMARY: &str = "primary";
/// The first delay after a failure.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    s3_url: Option<String>,
    s3_polling_interval_seconds: Option<f64>,
}

type Weights = BTreeMap<Arc<str>, u64>;

/// What is known of the draw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Draw {
    /// The object was asked for, with whatever outcome.
    tried: bool,
    drawn: Option<Arc<str>>,
}

/// Asks for the object, and draws.
struct Toggle {
    aws: Aws,
    path: String,
    every: Duration,
    names: Vec<Arc<str>>,
    draw: watch::Sender<Draw>,
}

struct S3Toggle {
    /// Not started yet.
    toggle: Option<Toggle>,
    asking: Option<AbortOnDropHandle<()>>,
    draw: watch::Receiver<Draw>,
    preset: Option<Arc<str>>,
}

pub(super) fn s3_toggle(ask: &Ask<'_>) -> Result<Box<dyn Resolve>, Fault> {
    let keys: Keys = ask.keys()?;
    let url = keys.s3_url.ok_or_else(|| Fault::new("resolver.s3_url", "is required: s3://BUCKET/KEY"))?;
    let path =
        url.strip_prefix("s3://").filter(|p| p.split_once('/').is_some_and(|(b, k)| !b.is_empty() && !k.is_empty()));
    let path = path.ok_or_else(|| Fault::new("resolver.s3_url", format!("{url:?} is not s3://BUCKET/KEY")))?.to_owned();
    let every = keys.s3_polling_interval_seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    let every = every.filter(|e| !e.is_zero());
    let every = every.ok_or_else(|| Fault::new("resolver.s3_polling_interval_seconds", "is required, above 0"))?;
    let aws: AwsKeys = ask.keys()?;
    let aws = aws
        .service("s3", every.clamp(Duration::from_secs(2), Duration::from_secs(30)), |name| std::env::var(name).ok());
    let aws = aws.map_err(|fault| Fault::new(format!("resolver.{}", fault.key), fault.why))?;
    let (sender, draw) = watch::channel(Draw::default());
    let preset = ask.names.iter().find(|n| &***n == PRIMARY).or(ask.names.first()).cloned();
    let toggle = Toggle { aws, path, every, names: ask.names.to_vec(), draw: sender };
    Ok(Box::new(S3Toggle { toggle: Some(toggle), asking: None, draw, preset }))
}

impl Resolve for S3Toggle {
    fn resolve(&mut self, seen: &[Seen], started: Instant, now: Instant) -> Resolution {
        let draw = self.draw.borrow().clone();
        if !draw.tried && now < started + FIRST_WITHIN {
            return Resolution::Wait { error: None };
        }
        let drawn = draw.drawn.or_else(|| self.preset.clone());
        let known = drawn.and_then(|name| seen.iter().find(|s| s.name == name));
        match known.and_then(|s| s.observation.snapshot().map(|snapshot| (s, snapshot))) {
            Some((s, snapshot)) => {
                Resolution::Tell { snapshot: (**snapshot).clone(), standing: Standing::of(&s.observation) }
            }
            None => Resolution::Wait { error: first_error(seen) },
        }
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(toggle) = self.toggle.take() {
                self.asking = Some(AbortOnDropHandle::new(tokio::spawn(toggle.run())));
            }
            if self.draw.changed().await.is_err() {
                std::future::pending().await
            }
        })
    }
}

impl Toggle {
    async fn run(self) {
        let mut last: Option<Weights> = None;
        let mut backoff = Backoff::new(RETRY.min(self.every), self.every.max(RETRY)).with_jitter(Jitter::Equal);
        loop {
            let read = match self.aws.get(&self.path, &[]).await {
                Ok(text) => weights(&text, &self.names),
                Err(e) => Err(e),
            };
            let delay = match read {
                Ok(weights) => {
                    backoff.succeeded();
                    if last.as_ref() != Some(&weights) {
                        let drawn = draw(&weights, rand::rng().random());
                        info!(object = %self.path, drawn = drawn.as_deref().unwrap_or("none"), "Watcher drawn by its weight.");
                        let was = self.draw.borrow().drawn.clone();
                        self.draw.send_replace(Draw { tried: true, drawn: drawn.or(was) });
                        last = Some(weights);
                    }
                    self.every
                }
                Err(error) => {
                    warn!(object = %self.path, error = %Chain(&error), "The weights cannot be read; the last draw stays.");
                    self.draw.send_if_modified(|draw| !std::mem::replace(&mut draw.tried, true));
                    backoff.next_delay()
                }
            };
            sleep(delay).await;
        }
    }
}

/// The weights of the watchers that there are; others are passed over.
fn weights(text: &str, names: &[Arc<str>]) -> Result<Weights, AwsError> {
    let unfit = |why: String| AwsError::Answer { service: "s3", why };
    let value = agent::config::source::read(text).map_err(|e| unfit(e.to_string()))?;
    let map = value.as_object().ok_or_else(|| unfit("the object is no list of watcher: weight".to_owned()))?;
    let mut weights = Weights::new();
    for (name, weight) in map {
        let number = weight.as_u64().or_else(|| weight.as_str().and_then(|w| w.parse().ok()));
        let number = number.filter(|n| *n <= u64::from(u32::MAX));
        let number = number.ok_or_else(|| unfit(format!("{name}: {weight} is no weight from 0 on")))?;
        match names.iter().find(|known| &***known == name) {
            Some(known) => drop(weights.insert(known.clone(), number)),
            None => warn!(watcher = %name, "The weights name a watcher that is not there."),
        }
    }
    match weights.values().any(|w| *w > 0) {
        true => Ok(weights),
        false => Err(unfit(format!("no watcher has a weight: {}", Value::Object(map.clone())))),
    }
}

/// Draws by weight, `at` being from 0 to below 1.
fn draw(weights: &Weights, at: f64) -> Option<Arc<str>> {
    let total: u64 = weights.values().sum();
    let mut left = (at * total as f64) as u64;
    weights
        .iter()
        .find(|(_, weight)| {
            let hit = left < **weight;
            left = left.saturating_sub(**weight);
            hit
        })
        .map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<Arc<str>> {
        ["a", "b"].map(Arc::from).into()
    }

    #[test]
    fn it_draws_by_weight_and_never_what_has_none() {
        let weights = weights("a: 1\nb: '3'\nstranger: 5\n", &names()).unwrap();
        let drawn: Vec<String> = [0.0, 0.24, 0.25, 0.9999].map(|at| draw(&weights, at).unwrap().to_string()).into();
        assert_eq!(drawn, ["a", "a", "b", "b"]);
        let none = super::weights("a: 0\nb: 7\n", &names()).unwrap();
        assert_eq!(draw(&none, 0.0).as_deref(), Some("b"));
    }

    #[test]
    fn weights_that_are_none_are_refused() {
        for bad in ["", "7", "a: x", "a: -1", "a: 0", "stranger: 1", "a: 99999999999"] {
            assert!(weights(bad, &names()).is_err(), "{bad}");
        }
    }
}
