//! What `/status` and `register status` show.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::admin::{StatusSource, Unready};
use agent::clock::unix_ms;
use agent::history::History;
use agent::watch::{Inlet, Observation};
use containers::docker::Containers;
use containers::life::row::Row;
use containers::life::verdict::RowState;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::address::HostAddress;
use crate::agent::board::Rows;
use crate::nerve::services::source::Reading;
use crate::nerve::services::{ReporterRow, ServiceRow};
use crate::publish::{Phase, Publication};

/// Reads the agent's channels; holds nothing of its own that changes.
pub struct Status {
    /// The host's name in the registry.
    pub node: String,
    /// When this agent started.
    pub started: SystemTime,
    /// Containers, where they are watched.
    pub docker: Option<DockerStatus>,
    /// Services without Docker, where there is a config.
    pub services: Option<ServicesStatus>,
    /// What has changed.
    pub history: Option<History>,
}

/// The channels of containers.
pub struct DockerStatus {
    /// Under which address what is bound to every address is published.
    pub address: watch::Receiver<HostAddress>,
    /// Where the registry is, for people.
    pub registry: String,
    /// What Docker runs.
    pub containers: Inlet<Containers>,
    /// How the publisher does.
    pub publication: watch::Receiver<Publication>,
    /// Every port that was looked at.
    pub rows: watch::Receiver<Rows>,
}

/// The channels of services without Docker.
pub struct ServicesStatus {
    /// Every service of the config.
    pub rows: watch::Receiver<Arc<[ServiceRow]>>,
    /// How reading the config goes.
    pub reading: watch::Receiver<Reading>,
}

impl DockerStatus {
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

    fn host_ip(&self) -> Value {
        let HostAddress { address, fixed, changed } = *self.address.borrow();
        json!({ "address": address, "fixed": fixed, "changed_unix_ms": changed.map(unix_ms) })
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
        if !publication.refused.is_empty() {
            let others = publication.refused.iter().map(|(key, refusal)| (key.to_string(), json!(refusal.holder)));
            registry.insert("refused".into(), others.collect::<Map<_, _>>().into());
        }
        if let Some((rival, since)) = &publication.rival {
            registry.insert("waits_since_unix_ms".into(), unix_ms(SystemTime::now() - since.elapsed()).into());
            registry.insert("waits_for".into(), rival.as_str().into());
        }
        if let Some((error, since)) = &publication.away {
            registry.insert("away_since_unix_ms".into(), unix_ms(SystemTime::now() - since.elapsed()).into());
            registry.insert("error".into(), error.as_str().into());
        }
        if let Some((error, since)) = &publication.full {
            registry.insert("alarm".into(), "NOSPACE".into());
            registry.insert("full_since_unix_ms".into(), unix_ms(SystemTime::now() - since.elapsed()).into());
            registry.entry("error").or_insert_with(|| error.as_str().into());
        }
        registry.into()
    }
}

impl DockerStatus {
    fn ready(&self) -> Result<(), Unready> {
        let observation = self.containers.borrow();
        if observation.snapshot().is_none() {
            let why = observation.error().map_or_else(|| "not listed yet".to_owned(), str::to_owned);
            return Err(Unready::new("docker", format!("Docker: {why}")));
        }
        let publication = self.publication.borrow();
        if let Some((rival, _)) = &publication.rival {
            return Err(Unready::new("second_agent", format!("registry: {rival}")));
        }
        match (publication.away.as_ref().or(publication.full.as_ref()), publication.phase) {
            (Some((why, since)), _) if since.elapsed() > Duration::from_secs(1) => {
                Err(Unready::new("registry", format!("registry: {why}")))
            }
            (_, Phase::NoLease) => Err(Unready::new("lease", "registry: no lease yet")),
            (_, Phase::Granted) if publication.published.is_none() => {
                Err(Unready::new("publishing", "registry: nothing published yet"))
            }
            _ => Ok(()),
        }
    }
}

impl ServicesStatus {
    fn config(&self) -> Value {
        let reading = self.reading.borrow();
        let mut config = Map::new();
        config.insert("file".into(), reading.file.display().to_string().into());
        config.insert("loaded_unix_ms".into(), unix_ms(reading.loaded).into());
        if let Some((why, at)) = &reading.refused {
            config.insert("refused_unix_ms".into(), unix_ms(*at).into());
            config.insert("refused".into(), why.as_str().into());
        }
        config.into()
    }

    /// One service that is down is no fault of the agent; a registry that is away is.
    fn ready(&self) -> Result<(), Unready> {
        let rows = self.rows.borrow();
        let away = |r: &&ReporterRow| matches!(r.state, "away" | "failed");
        match rows.iter().flat_map(|row| &row.reporters).find(away) {
            Some(r) => Err(Unready::new("reporter", format!("{}: {}", r.at, r.reason.as_deref().unwrap_or(r.state)))),
            None => Ok(()),
        }
    }
}

impl StatusSource for Status {
    fn version(&self) -> &'static str {
        crate::VERSION
    }

    fn status(&self) -> Value {
        let mut status = Map::new();
        let mut put = |key: &str, value: Value| drop(status.insert(key.to_owned(), value));
        put("program", "register".into());
        put("version", crate::VERSION.into());
        put("node", self.node.as_str().into());
        put("started_unix_ms", unix_ms(self.started).into());
        put("ready", self.ready().err().map_or_else(|| "yes".to_owned(), |unready| unready.detail).into());
        if let Some(docker) = &self.docker {
            let rows = docker.rows.borrow().clone();
            let (skipped, registrations): (Vec<&Row>, Vec<&Row>) =
                rows.values().map(|row| &**row).partition(|row| row.state == RowState::Skipped);
            put("docker", docker.docker());
            put("host_ip", docker.host_ip());
            put("registry", docker.registry());
            put("registrations", json!(registrations));
            put("skipped", json!(skipped));
        }
        if let Some(services) = &self.services {
            put("config", services.config());
            put("services", json!(**services.rows.borrow()));
        }
        status.into()
    }

    fn page(&self) -> Value {
        let mut page = self.status();
        page["changes_noted"] = self.history.as_ref().map_or(0, History::count).into();
        page
    }

    fn script(&self) -> &'static str {
        include_str!("page.js")
    }

    fn host(&self) -> String {
        self.node.clone()
    }

    fn live(&self) -> bool {
        true // a task that ends early ends the process, and every call is bounded in time
    }

    fn ready(&self) -> Result<(), Unready> {
        self.docker.as_ref().map_or(Ok(()), DockerStatus::ready)?;
        self.services.as_ref().map_or(Ok(()), ServicesStatus::ready)
    }

    fn reasons(&self) -> &'static [&'static str] {
        &["docker", "registry", "lease", "publishing", "reporter"]
    }
}
