//! The requests to the daemon: bollard's, over connections of ours.
//!
//! Their paths hold no API version. Every daemon answers such a path in its newest dialect (measured); Docker 29 refuses old versions.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::BollardRequest;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary, SystemInfo, SystemVersion};
use bollard::query_parameters::ListContainersOptionsBuilder;
use prometheus_client::metrics::counter::Counter;
use serde_json::Value;

use super::connection::{Connector, LONGEST};
use super::endpoint::Endpoint;
use super::error::DockerError;
use super::events::EventStream;
use super::lenient::{self, Reply};
use super::list::Listed;
use super::parse;
use agent::clock;
use model::desired::{Container, ContainerId};

/// How long the daemon may take for an answer; it is silent for seconds when it is busy, and for ever when it hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// bollard's own deadline, in seconds, which must not come before ours: it is for an answer's head alone.
const NEVER: u64 = 86_400;

/// A client of one daemon; cheap to clone. It connects when it is first used.
#[derive(Debug, Clone)]
pub struct Docker {
    pub(super) api: bollard::Docker,
    pub(super) connector: Arc<Connector>,
    /// The endpoint, for messages.
    pub(super) shown: Arc<str>,
    local: bool,
    pub(super) patience: Duration,
    pub(super) odd_words: Counter,
    /// Odd words that were logged.
    pub(super) told: Arc<Mutex<BTreeSet<String>>>,
}

/// What the daemon says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// Its lasting identity; empty where it has none (Podman).
    pub id: String,
    /// The host's name.
    pub name: String,
    pub version: String,
}

/// Which containers are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that run, the paused and restarting ones included.
    Running,
    All,
}

impl Docker {
    /// A client; nothing is connected yet. The certificates of a TLS endpoint are read.
    ///
    /// # Errors
    /// [`DockerError::Client`] when a certificate cannot be read or used.
    pub fn new(endpoint: &Endpoint) -> Result<Self, DockerError> {
        let error = |source| DockerError::Client { endpoint: endpoint.clone(), source };
        let connector = Arc::new(Connector::new(endpoint).map_err(error)?);
        let transport = {
            let connector = connector.clone();
            move |request: BollardRequest| {
                let connector = connector.clone();
                // A command's output has no limit.
                let limit = if request.uri().path().ends_with("/start") { usize::MAX } else { LONGEST };
                async move { connector.send(request, limit).await }
            }
        };
        let version = bollard::API_DEFAULT_VERSION;
        let api = bollard::Docker::connect_with_custom_transport(transport, Some("http://docker"), NEVER, version);
        Ok(Self {
            api: api.map_err(|e| error(e.into()))?,
            connector,
            shown: endpoint.to_string().into(),
            local: endpoint.is_local(),
            patience: PATIENCE,
            odd_words: Counter::default(),
            told: Arc::default(),
        })
    }

    /// The same client with another patience for each answer.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same client, counting odd words in `counter`: words in the daemon's answers that bollard does not know.
    #[must_use]
    pub fn with_odd_words(mut self, counter: Counter) -> Self {
        self.odd_words = counter;
        self
    }

    /// Whether the daemon answers at all.
    pub async fn ping(&self) -> Result<(), DockerError> {
        self.ask("GET /_ping", self.api.ping()).await.map(drop)
    }

    /// What the daemon says of itself.
    pub async fn info(&self) -> Result<Info, DockerError> {
        let SystemInfo { id, name, server_version, .. } = self.read("GET /info", self.api.info()).await?.value;
        let [id, name, version] = [id, name, server_version].map(Option::unwrap_or_default);
        Ok(Info { id, name, version })
    }

    /// Whether the daemon is Podman, whose health events are noisy or missing.
    pub async fn is_podman(&self) -> Result<bool, DockerError> {
        let version: Reply<SystemVersion> = self.read("GET /version", self.api.version()).await?;
        let components = version.value.components.unwrap_or_default();
        Ok(components.iter().any(|component| component.name.contains("Podman")))
    }

    /// The containers of `scope`, each with what the list tells of it.
    pub async fn list(&self, scope: Scope) -> Result<Vec<Listed>, DockerError> {
        let options = (scope == Scope::All).then(|| ListContainersOptionsBuilder::new().all(true).build());
        let request = "GET /containers/json";
        let unread = match self.within(request, self.api.list_containers(options)).await? {
            Ok(all) => return Ok(all.into_iter().map(Listed::from).collect()),
            Err(Error::JsonDataError { contents, .. }) => contents,
            Err(error) => return Err(self.failed(request, error)),
        };
        // An odd word fails the whole list, so each entry is read by itself.
        let entries: Vec<Value> =
            lenient::read(unread.as_bytes()).map_err(|e| DockerError::unreadable(request, e))?.value;
        let read = |entry| lenient::mend::<ContainerSummary>(entry).ok();
        Ok(entries.into_iter().filter_map(read).map(|entry| self.note(entry).value.into()).collect())
    }

    /// A container; `None`: there is none of this id any more.
    ///
    /// # Errors
    /// [`DockerError::Container`] where its description lacks something needed; any other [`DockerError`].
    pub async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, DockerError> {
        self.inspect_named(id.as_str()).await
    }

    /// A container by its name, or by the beginning of its id.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect); a name that no container can have is [`DockerError::Refused`].
    pub async fn inspect_named(&self, name: &str) -> Result<Option<Container>, DockerError> {
        // bollard's description of a container is a large value, and the box keeps it out of the caller's future.
        Box::pin(async {
            let Some(described) = self.describe(name).await? else { return Ok(None) };
            let mut container = parse::describe(described)?;
            if parse::may_be_legacy(&container) {
                parse::add_legacy_network(&mut container, &self.raw(&format!("/containers/{name}/json")).await?);
            }
            Ok(Some(container))
        })
        .await
    }

    /// All that the daemon says of a container; `None`: there is none of this name or id any more.
    pub(super) async fn describe(&self, name: &str) -> Result<Option<Reply<ContainerInspectResponse>>, DockerError> {
        let request = format!("GET /containers/{}/json", segment(name)?);
        match self.read(&request, self.api.inspect_container(name, None)).await {
            Ok(described) => Ok(Some(described)),
            Err(DockerError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stops a container as `docker stop` does, with its own signal and patience, and waits until it has ended. One that has ended already,
    /// or is gone, is no fault.
    ///
    /// # Errors
    /// Any [`DockerError`]; [`DockerError::Refused`] when Docker, or a proxy before it, does not allow that.
    pub async fn stop(&self, name: &str) -> Result<(), DockerError> {
        let Some(container) = self.inspect_named(name).await? else { return Ok(()) };
        let request = format!("POST /containers/{}/stop", segment(name)?);
        let patient = Self { patience: self.patience + container.stop_timeout, ..self.clone() };
        match patient.ask(&request, self.api.stop_container(name, None)).await {
            Err(DockerError::Refused { status: 404, .. }) => Ok(()),
            answer => answer,
        }
    }

    /// Events from now on. When this returns, nothing that happens later is missed for as long as the stream lasts.
    pub async fn events(&self) -> Result<EventStream, DockerError> {
        // The daemon answers before it subscribes; what falls in between is in its memory, if we share its clock to ask.
        let now = clock::now();
        let since =
            if self.local { format!("&since={}.{:09}", now.as_secs(), now.subsec_nanos()) } else { String::new() };
        let (path, request) = (format!("/events?filters={}{since}", super::events::filters()), "GET /events");
        let opened = self.within(request, self.get(&path, usize::MAX)).await?;
        let answer = opened.map_err(|error| self.failed(request, error))?;
        Ok(EventStream::new(answer, self.shown.clone()))
    }
}

/// A name that can stand in a path as it is.
fn segment(name: &str) -> Result<&str, DockerError> {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if (1..=255).contains(&name.len()) && name.bytes().all(safe) && !name.starts_with('.') {
        return Ok(name);
    }
    let request = format!("container {:?}", name.chars().take(80).collect::<String>());
    Err(DockerError::Refused { request, status: 400, message: "no container has such a name".to_owned() })
}
