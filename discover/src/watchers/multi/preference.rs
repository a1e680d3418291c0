//! One watcher at a time, by an order of preference. `sequential` passes on to the next when one fails; `fallback` only
//! when one has no backend.

use std::sync::Arc;
use std::time::Duration;

use agent::watch::Observation;
use serde::Deserialize;
use tokio::time::Instant;

use super::ask::{Ask, order};
use crate::watchers::Fault;
use crate::watchers::group::{FIRST_WITHIN, Resolution, Resolve, Seen, first_error};
use crate::watchers::teller::Standing;

/// A watcher that fails for less than this has not failed: a store elects a leader in less.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    sequential_order: Vec<String>,
    fallback_order: Vec<String>,
}

/// The first watcher that counts.
struct Preference {
    order: Vec<Arc<str>>,
    /// Whether one that fails is passed over.
    must_work: bool,
    due: Option<Instant>,
}

pub(super) fn sequential(ask: &Ask<'_>) -> Result<Box<dyn Resolve>, Fault> {
    let keys: Keys = ask.keys()?;
    let order = order("sequential_order", &keys.sequential_order, ask.names)?;
    Ok(Box::new(Preference { order, must_work: true, due: None }))
}

/// Without an order of its own the config's counts.
pub(super) fn fallback(ask: &Ask<'_>) -> Result<Box<dyn Resolve>, Fault> {
    let keys: Keys = ask.keys()?;
    let order = match keys.fallback_order.is_empty() {
        true => ask.names.to_vec(),
        false => order("fallback_order", &keys.fallback_order, ask.names)?,
    };
    Ok(Box::new(Preference { order, must_work: false, due: None }))
}

impl Preference {
    /// Whether the watcher can be relied on now; else until when it still may be.
    fn works(&self, seen: &Seen, now: Instant) -> bool {
        match &seen.observation {
            Observation::Synced { .. } => true,
            Observation::Stale { since, .. } => !self.must_work || now < *since + GRACE,
            Observation::Pending { .. } => false,
        }
    }
}

impl Resolve for Preference {
    fn resolve(&mut self, seen: &[Seen], started: Instant, now: Instant) -> Resolution {
        let by_order: Vec<&Seen> = self.order.iter().filter_map(|name| seen.iter().find(|s| s.name == *name)).collect();
        let grace = |s: &&Seen| s.observation.stale_since().map(|since| since + GRACE).filter(|at| *at > now);
        self.due = by_order.iter().filter_map(grace).min();
        let good = by_order.iter().position(|s| self.works(s, now) && s.backends() > 0);
        // One that is preferred may still answer: there is no going to and fro at the start. And while any has not answered,
        // though it failed, nobody says that there is no backend.
        let silent = by_order.iter().take(good.unwrap_or(by_order.len())).any(|s| s.is_silent());
        let empty = by_order.iter().all(|s| s.backends() == 0);
        let hopeful = silent || empty && by_order.iter().any(|s| s.observation.snapshot().is_none());
        if hopeful && now < started + FIRST_WITHIN {
            return Resolution::Wait { error: first_error(seen) };
        }
        // Stale beats empty; of two that are empty the preferred one says so.
        let last = || by_order.iter().position(|s| s.backends() > 0);
        let empty = || by_order.iter().position(|s| s.observation.snapshot().is_some());
        let chosen = good.or_else(last).or_else(empty).map(|at| by_order[at]);
        match chosen.and_then(|s| s.observation.snapshot().map(|snapshot| (s, snapshot))) {
            None => Resolution::Wait { error: first_error(seen) },
            Some((s, snapshot)) => {
                Resolution::Tell { snapshot: (**snapshot).clone(), standing: Standing::of(&s.observation) }
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }
}
