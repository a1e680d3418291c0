//! What `/status` and `register status` show.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::admin::StatusSource;
use common::docker::Containers;
use common::watch::{Inlet, Observation};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::agent::turn::{Row, RowState};
use crate::publish::{Phase, Publication};

/// Reads the agent's channels; holds nothing of its own that changes.
pub struct Status {
    /// The host's name in the registry.
    pub node: String,
    /// Where the registry is, for people.
    pub registry: String,
    /// When this agent started.
    pub started: SystemTime,
    /// What Docker runs.
    pub containers: Inlet<Containers>,
    /// How the publisher does.
    pub publication: watch::Receiver<Publication>,
    /// Every port that was looked at.
    pub rows: watch::Receiver<Arc<[Row]>>,
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Status {
    fn docker(&self) -> Value {
        let observation = self.containers.borrow();
        let mut docker = Map::new();
        docker.insert("state".into(), observation.standing().into());
        if let Some(containers) = observation.snapshot() {
            docker.insert("containers".into(), containers.running.len().into());
        }
        let refused = observation.snapshot().map(|c| c.refused.clone()).unwrap_or_default();
        if !refused.is_empty() {
            let reasons: Map<String, Value> = refused.iter().map(|(id, why)| (id.to_string(), json!(why))).collect();
            docker.insert("refused".into(), reasons.into());
        }
        if let Observation::Stale { since, .. } = &*observation {
            let since = SystemTime::now() - since.elapsed();
            docker.insert("since_unix_ms".into(), unix_ms(since).into());
        }
        if let Some(error) = observation.error() {
            docker.insert("error".into(), error.into());
        }
        docker.into()
    }

    fn registry(&self) -> Value {
        let publication = self.publication.borrow();
        let mut registry = Map::new();
        registry.insert("at".into(), self.registry.as_str().into());
        registry.insert("state".into(), publication.phase.as_str().into());
        if let Some(lease) = publication.lease {
            registry.insert("lease".into(), lease.to_string().into());
            registry.insert("ttl_ms".into(), u64::try_from(publication.ttl.as_millis()).unwrap_or(u64::MAX).into());
        }
        if let Some(beat) = publication.beat {
            registry.insert("renewed_unix_ms".into(), unix_ms(beat).into());
        }
        if let Some((error, since)) = &publication.away {
            registry.insert("away_since_unix_ms".into(), unix_ms(*since).into());
            registry.insert("error".into(), error.as_str().into());
        }
        registry.into()
    }
}

impl StatusSource for Status {
    fn status(&self) -> Value {
        let rows = self.rows.borrow().clone();
        let (skipped, registrations): (Vec<&Row>, Vec<&Row>) =
            rows.iter().partition(|row| row.state == RowState::Skipped);
        json!({
            "program": "register",
            "version": env!("CARGO_PKG_VERSION"),
            "node": self.node,
            "started_unix_ms": unix_ms(self.started),
            "ready": self.ready().err().unwrap_or_else(|| "yes".to_owned()),
            "docker": self.docker(),
            "registry": self.registry(),
            "registrations": registrations,
            "skipped": skipped,
        })
    }

    fn live(&self) -> bool {
        true // a task that ends early ends the process, and every call is bounded in time
    }

    fn ready(&self) -> Result<(), String> {
        let observation = self.containers.borrow();
        if observation.snapshot().is_none() {
            let why = observation.error().map_or_else(|| "not listed yet".to_owned(), str::to_owned);
            return Err(format!("Docker: {why}"));
        }
        let publication = self.publication.borrow();
        match (&publication.away, publication.phase) {
            (Some((why, since)), _) if since.elapsed().unwrap_or_default() > Duration::from_secs(1) => {
                Err(format!("registry: {why}"))
            }
            (_, Phase::NoLease) => Err("registry: no lease yet".to_owned()),
            (_, Phase::Granted) if publication.published.is_none() => Err("registry: nothing published yet".to_owned()),
            _ => Ok(()),
        }
    }
}
