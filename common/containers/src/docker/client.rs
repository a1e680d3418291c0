//! The few requests that are made of the daemon, over the API without a version: that every daemon answers, in its own newest
//! dialect (measured; Docker 29 refuses old versions). Answers are read field by field (see
//! [`parse`](super::parse)), since typed clients end the stream at an unknown word.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Identity, Method, RequestBuilder, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::endpoint::Endpoint;
use super::error::DockerError;
use super::events::EventStream;
use super::list::Listed;
use super::parse;
use agent::clock;
use model::desired::{Container, ContainerId};

/// How long the daemon may take for an answer; it is silent for seconds when it is busy, and for ever when it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes: a list of ten thousand containers stays well below it.
const LONGEST: usize = 64 << 20;

/// A client of one daemon; cheap to clone. It connects when it is first used.
#[derive(Debug, Clone)]
pub struct Docker {
    http: Client,
    base: String,
    /// The endpoint, for messages.
    shown: Arc<str>,
    local: bool,
    patience: Duration,
}

/// What the daemon says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Info {
    /// Its lasting identity; empty where it has none (Podman).
    #[serde(rename = "ID", default)]
    pub id: String,
    /// The host's name.
    #[serde(rename = "Name", default)]
    pub name: String,
    /// Its version.
    #[serde(rename = "ServerVersion", default)]
    pub version: String,
}

/// Which containers are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that run, the paused and restarting ones included.
    Running,
    /// All.
    All,
}

impl Docker {
    /// A client; nothing is connected yet. The certificates of a TLS endpoint are read.
    ///
    /// # Errors
    /// [`DockerError::Client`] when a certificate cannot be read or used.
    pub fn new(endpoint: &Endpoint) -> Result<Self, DockerError> {
        let error = |source| DockerError::Client { endpoint: endpoint.clone(), source };
        agent::tls::install_provider();
        let builder = Client::builder().no_proxy().http1_only().redirect(reqwest::redirect::Policy::none());
        let builder = builder.connect_timeout(PATIENCE).pool_max_idle_per_host(8).pool_idle_timeout(PATIENCE * 6);
        let (builder, base) = match endpoint {
            // No authority is ever asked for plain HTTP, and loading the system's costs a megabyte.
            Endpoint::Unix(path) => {
                (builder.unix_socket(path.as_path()).tls_certs_only([]), "http://docker".to_owned())
            }
            Endpoint::Http { base, certificates: Some(directory) } => {
                let read = |name: &str| {
                    let path = directory.join(name);
                    std::fs::read(&path).map_err(|e| error(format!("{}: {e}", path.display()).into()))
                };
                let authorities =
                    reqwest::Certificate::from_pem_bundle(&read("ca.pem")?).map_err(|e| error(e.into()))?;
                let mut identity = read("key.pem")?;
                identity.push(b'\n');
                identity.extend(read("cert.pem")?);
                let identity = Identity::from_pem(&identity).map_err(|e| error(e.into()))?;
                (builder.tls_certs_only(authorities).identity(identity), base.clone())
            }
            Endpoint::Http { base, certificates: None } if base.starts_with("https:") => (builder, base.clone()),
            Endpoint::Http { base, certificates: None } => (builder.tls_certs_only([]), base.clone()),
        };
        let http = builder.build().map_err(|e| error(e.into()))?;
        Ok(Self { http, base, shown: endpoint.to_string().into(), local: endpoint.is_local(), patience: PATIENCE })
    }

    /// The same client with another patience for each answer.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Whether the daemon answers at all.
    ///
    /// # Errors
    /// Any [`DockerError`].
    pub async fn ping(&self) -> Result<(), DockerError> {
        self.send(Method::GET, "/_ping", None).await.map(drop)
    }

    /// What the daemon says of itself.
    ///
    /// # Errors
    /// Any [`DockerError`].
    pub async fn info(&self) -> Result<Info, DockerError> {
        self.json(Method::GET, "/info", None).await
    }

    /// Whether the daemon is Podman, whose health events are noisy or missing.
    ///
    /// # Errors
    /// Any [`DockerError`].
    pub async fn is_podman(&self) -> Result<bool, DockerError> {
        let version: Value = self.json(Method::GET, "/version", None).await?;
        let components = version["Components"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(components.iter().any(|c| c["Name"].as_str().is_some_and(|name| name.contains("Podman"))))
    }

    /// The containers of `scope`, each with what the list tells of it.
    ///
    /// # Errors
    /// Any [`DockerError`].
    pub async fn list(&self, scope: Scope) -> Result<Vec<Listed>, DockerError> {
        let path = match scope {
            Scope::Running => "/containers/json",
            Scope::All => "/containers/json?all=1",
        };
        self.json(Method::GET, path, None).await
    }

    /// A container; `None`: there is none of this id any more.
    ///
    /// # Errors
    /// [`DockerError::Container`] where its description lacks something needed; any other [`DockerError`].
    pub async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, DockerError> {
        self.inspect_named(id.as_str()).await
    }

    /// All that the daemon says of a container, unread; `None`: there is none of this id any more.
    pub(super) async fn describe(&self, id: &ContainerId) -> Result<Option<Value>, DockerError> {
        match self.json(Method::GET, &format!("/containers/{}/json", id.as_str()), None).await {
            Ok(described) => Ok(Some(described)),
            Err(DockerError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A container by its name, or by the beginning of its id.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect); a name that no container can have is [`DockerError::Refused`].
    pub async fn inspect_named(&self, name: &str) -> Result<Option<Container>, DockerError> {
        let path = format!("/containers/{}/json", segment(name)?);
        match self.send(Method::GET, &path, None).await {
            Ok(body) => Ok(Some(parse::container(&body)?)),
            Err(DockerError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stops a container as `docker stop` does, with its own signal and patience, and waits until it has ended. One that has ended already,
    /// or is gone, is no fault.
    ///
    /// # Errors
    /// Any [`DockerError`]; [`DockerError::Refused`] where whoever answers lets nobody stop anything.
    pub async fn stop(&self, name: &str) -> Result<(), DockerError> {
        let Some(container) = self.inspect_named(name).await? else { return Ok(()) };
        let path = format!("/containers/{}/stop", segment(name)?);
        let patient = Self { patience: self.patience + container.stop_timeout, ..self.clone() };
        match patient.send(Method::POST, &path, None).await {
            Ok(_) | Err(DockerError::Refused { status: 304 | 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Events from now on. When this returns, nothing that happens later is missed for as long as the stream lasts.
    ///
    /// # Errors
    /// Any [`DockerError`].
    pub async fn events(&self) -> Result<EventStream, DockerError> {
        // The daemon answers before it subscribes; what falls in between is in its memory, if we share its clock to ask.
        let now = clock::now();
        let since =
            if self.local { format!("&since={}.{:09}", now.as_secs(), now.subsec_nanos()) } else { String::new() };
        let path = format!("/events?filters={}{since}", super::events::filters());
        let request = || "GET /events".to_owned();
        let answer = self.http.get(format!("{}{path}", self.base)).send();
        let Ok(answer) = tokio::time::timeout(self.patience, answer).await else {
            return Err(DockerError::Deadline { request: request(), seconds: self.patience.as_secs() });
        };
        let answer = answer.map_err(|source| self.transport("GET /events", source))?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            let words = tokio::time::timeout(self.patience, self.body(answer, request)).await;
            let words = words.ok().and_then(Result::ok).unwrap_or_default();
            return Err(DockerError::Refused { request: request(), status, message: message(&words) });
        }
        Ok(EventStream::new(answer, self.shown.clone()))
    }

    /// Runs a command in a container and returns its exit status, with the first 4 kB of what it printed.
    ///
    /// # Errors
    /// Any [`DockerError`]; [`DockerError::Deadline`] when it does not end within `patience` (it then runs on: Docker cannot
    /// stop it).
    pub async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        patience: Duration,
    ) -> Result<(i64, Vec<u8>), DockerError> {
        let request = || format!("exec in container {id}");
        let run = async {
            let body = json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": command });
            let path = format!("/containers/{}/exec", id.as_str());
            let made: Value = self.json(Method::POST, &path, Some(&body)).await?;
            let exec = segment(made["Id"].as_str().unwrap_or_default())?;
            // Without an Upgrade header the daemon sends the output as a body that ends with the command.
            let start = json!({ "Detach": false, "Tty": false });
            let answer = self.request(Method::POST, &format!("/exec/{exec}/start"), Some(&start)).send().await;
            let mut answer = answer.map_err(|source| self.transport(&request(), source))?;
            let mut output = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(|source| self.transport(&request(), source))? {
                output.extend_from_slice(&chunk[..chunk.len().min(4096_usize.saturating_sub(output.len()))]);
            }
            let ended: Value = self.json(Method::GET, &format!("/exec/{exec}/json"), None).await?;
            let status = ended["ExitCode"].as_i64().unwrap_or(-1);
            Ok((status, output))
        };
        match tokio::time::timeout(patience, run).await {
            Ok(ended) => ended,
            Err(_) => Err(DockerError::Deadline { request: request(), seconds: patience.as_secs() }),
        }
    }

    fn transport(&self, request: &str, source: reqwest::Error) -> DockerError {
        let endpoint = self.shown.clone();
        DockerError::Transport { endpoint, request: request.to_owned(), source: source.without_url() }
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Vec<u8>, DockerError> {
        let request = || format!("{method} {path}");
        let in_time = |error| match error {
            DockerError::Transport { request, source, .. } if source.is_timeout() => {
                DockerError::Deadline { request, seconds: self.patience.as_secs() }
            }
            other => other,
        };
        let sent = self.request(method.clone(), path, body).timeout(self.patience).send();
        let answer = sent.await.map_err(|source| in_time(self.transport(&request(), source)))?;
        let status = answer.status();
        let said = self.body(answer, request).await.map_err(in_time)?;
        if status.is_success() {
            Ok(said)
        } else {
            Err(DockerError::Refused { request: request(), status: status.as_u16(), message: message(&said) })
        }
    }

    /// The whole body of an answer, as far as one may be long.
    async fn body(&self, mut answer: Response, request: impl Fn() -> String) -> Result<Vec<u8>, DockerError> {
        let mut whole = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if whole.len() + chunk.len() > LONGEST => {
                    return Err(DockerError::TooLong { request: request(), limit: LONGEST });
                }
                Ok(Some(chunk)) => whole.extend_from_slice(&chunk),
                Ok(None) => return Ok(whole),
                Err(source) => return Err(self.transport(&request(), source)),
            }
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, DockerError> {
        let request = format!("{method} {path}");
        let answer = self.send(method, path, body).await?;
        let mut reader = serde_json::Deserializer::from_slice(&answer);
        serde_path_to_error::deserialize(&mut reader).map_err(|source| DockerError::Answer { request, source })
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

/// The daemon's own words in `{"message": "…"}`.
fn message(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = value["message"].as_str().map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.trim().chars().filter(|c| !c.is_control()).take(300).collect()
}
