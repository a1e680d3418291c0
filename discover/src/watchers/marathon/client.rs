//! Requests to Marathon: of several URLs the first that answers, beginning with the one that did last.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent::telemetry::Masked;
use futures_util::future::BoxFuture;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Response, Url};
use serde_json::Value;

use crate::watchers::Fault;

/// The largest answer.
const MOST_BYTES: usize = 64 << 20;
/// A peer that has gone without a word is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Why Marathon's tasks are not known.
#[derive(Debug, thiserror::Error)]
pub enum MarathonError {
    /// No connection, or it broke.
    #[error("asking {url}")]
    Transport {
        /// Without a password.
        url: String,
        source: reqwest::Error,
    },
    #[error("{url} answered {status}: {message}")]
    Refused {
        /// Without a password.
        url: String,
        status: u16,
        message: String,
    },
    /// An answer that is none.
    #[error("{url}: {why}")]
    Answer {
        /// Without a password.
        url: String,
        why: String,
    },
}

/// A client of one Marathon, which may have several URLs. Clones share connections.
#[derive(Debug, Clone)]
pub struct MarathonClient {
    http: reqwest::Client,
    urls: Arc<[Url]>,
    authorization: Option<HeaderValue>,
    patience: Duration,
    /// The URL that answered last.
    good: Arc<AtomicUsize>,
}

impl MarathonClient {
    /// A client; nothing is asked yet. URLs may be in one text, separated by commas; a user and password in one count.
    ///
    /// # Errors
    /// [`Fault`] naming the key.
    pub fn new(urls: &[String], authorization: Option<&str>, patience: Duration) -> Result<Self, Fault> {
        let key = "marathon_api_url";
        let read = |text: &str| {
            // Synapse takes HOST:PORT, too.
            let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
            let url =
                Url::parse(&whole).map_err(|e| Fault::new(key, format!("{:?}: {e}", Masked(text).to_string())))?;
            match matches!(url.scheme(), "http" | "https") && url.has_host() {
                true => Ok(url),
                false => Err(Fault::new(
                    key,
                    format!("{:?} is not http://host:port or https://host:port", Masked(text).to_string()),
                )),
            }
        };
        let texts = urls.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty());
        let urls = texts.map(read).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(Fault::new(key, "is required"));
        }
        let authorization = authorization.map(|text| {
            let mut value = HeaderValue::from_str(text)
                .map_err(|_| Fault::new("marathon_authorization", "cannot stand in a header"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        // Another part of the program may have chosen first; either serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().connect_timeout(patience).tcp_keepalive(KEEP_ALIVE).build();
        let http = http.map_err(|e| Fault::new(key, format!("making a client: {e}")))?;
        Ok(Self { http, urls: urls.into(), authorization: authorization.transpose()?, patience, good: Arc::default() })
    }

    /// What tells one Marathon, and one account there, from another.
    pub fn name(&self) -> String {
        format!("{:?} {:?}", self.urls, self.authorization.as_ref().map(|a| a.as_bytes()))
    }

    /// The URLs, without passwords.
    pub fn urls(&self) -> Vec<String> {
        self.urls.iter().map(bare).collect()
    }

    /// The tasks at `path`. An application that does not exist has none. Cancel-safe.
    ///
    /// # Errors
    /// [`MarathonError`] of the last URL, when none answers.
    pub async fn tasks(&self, path: &str) -> Result<Vec<Value>, MarathonError> {
        self.first(|url| Box::pin(self.tasks_at(url, path))).await
    }

    /// Marathon's stream of the events that tell of tasks. Cancel-safe.
    ///
    /// # Errors
    /// [`MarathonError`] of the last URL, when none answers.
    pub async fn events(&self) -> Result<Response, MarathonError> {
        self.first(|url| Box::pin(self.events_at(url))).await
    }

    async fn tasks_at(&self, url: &Url, path: &str) -> Result<Vec<Value>, MarathonError> {
        let answer = self.get(url, path, "application/json", Some(self.patience)).await?;
        let status = answer.status();
        let body = body(answer, url).await?;
        let value: Option<Value> = serde_json::from_slice(&body).ok();
        let message = value.as_ref().and_then(|v| v["message"].as_str()).unwrap_or_default();
        if status == 404 && message.contains("does not exist") {
            return Ok(Vec::new());
        }
        if !status.is_success() {
            let message = message.chars().filter(|c| !c.is_control()).take(300).collect();
            return Err(MarathonError::Refused { url: bare(url), status: status.as_u16(), message });
        }
        match value {
            Some(Value::Object(mut map)) if map.get("tasks").is_some_and(Value::is_array) => {
                Ok(map.remove("tasks").and_then(|t| t.as_array().cloned()).unwrap_or_default())
            }
            _ => Err(MarathonError::Answer { url: bare(url), why: "an answer without a list of tasks".to_owned() }),
        }
    }

    async fn events_at(&self, url: &Url) -> Result<Response, MarathonError> {
        const PATH: &str = "/v2/events?event_type=status_update_event&event_type=health_status_changed_event\
            &event_type=instance_changed_event&event_type=instance_health_changed_event&event_type=app_terminated_event\
            &event_type=deployment_success";
        let asked = tokio::time::timeout(self.patience, self.get(url, PATH, "text/event-stream", None)).await;
        let late = |_| MarathonError::Answer { url: bare(url), why: "no stream of events in time".to_owned() };
        let answer = asked.map_err(late)??;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            status => {
                let message = "no stream of events".to_owned();
                Err(MarathonError::Refused { url: bare(url), status: status.as_u16(), message })
            }
        }
    }

    /// The first URL that does it.
    async fn first<'a, T>(
        &'a self,
        ask: impl Fn(&'a Url) -> BoxFuture<'a, Result<T, MarathonError>> + Send,
    ) -> Result<T, MarathonError> {
        let begin = self.good.load(Ordering::Relaxed);
        let mut last = MarathonError::Answer { url: String::new(), why: "no URL".to_owned() };
        for n in 0..self.urls.len() {
            let at = (begin + n) % self.urls.len();
            match ask(&self.urls[at]).await {
                Ok(done) => {
                    self.good.store(at, Ordering::Relaxed);
                    return Ok(done);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn get(
        &self,
        url: &Url,
        path: &str,
        accept: &'static str,
        patience: Option<Duration>,
    ) -> Result<Response, MarathonError> {
        let base = url.as_str().trim_end_matches('/');
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        headers.extend(self.authorization.clone().map(|value| (AUTHORIZATION, value)));
        let mut request = self.http.get(format!("{base}/{}", path.trim_start_matches('/'))).headers(headers);
        if let Some(patience) = patience {
            request = request.timeout(patience);
        }
        request.send().await.map_err(|source| MarathonError::Transport { url: bare(url), source: source.without_url() })
    }
}

async fn body(mut answer: Response, url: &Url) -> Result<Vec<u8>, MarathonError> {
    let failed = |source: reqwest::Error| MarathonError::Transport { url: bare(url), source: source.without_url() };
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_BYTES {
            return Err(MarathonError::Answer { url: bare(url), why: format!("an answer above {MOST_BYTES} bytes") });
        }
    }
    Ok(body)
}

/// A URL for people: without a password.
fn bare(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_password(None); // URLs of ours have hosts, so it cannot fail
    url.to_string()
}
