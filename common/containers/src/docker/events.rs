//! The daemon's event stream.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::error::DockerError;
use super::event::{Event, EventKind};
use model::desired::{ContainerId, parse_signal};

/// No event is longer: labels travel in it.
const MAX_LINE: usize = 1 << 20;
/// How long the rest of an event may be on its way.
const WHOLE: Duration = Duration::from_secs(2);

/// The events that matter, in Docker's words and in Podman's: health checks by `exec` make three others each time they run.
const ACTIONS: &[&str] = &[
    "create",
    "start",
    "die",
    "died",
    "kill",
    "stop",
    "pause",
    "unpause",
    "health_status",
    "rename",
    "update",
    "connect",
    "disconnect",
    "destroy",
    "remove",
    "oom",
];

/// The `filters` parameter, percent-encoded.
pub(super) fn filters() -> String {
    let filters = serde_json::json!({ "type": ["container", "network"], "event": ACTIONS }).to_string();
    let mut encoded = String::with_capacity(filters.len() * 2);
    for byte in filters.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A running subscription.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    /// The daemon, for messages.
    endpoint: Arc<str>,
    buffer: Vec<u8>,
    /// How much of the buffer was searched for a line's end.
    searched: usize,
    /// Until when what is begun in the buffer must be whole.
    due: Option<Instant>,
}

impl EventStream {
    pub(super) fn new(answer: Response<Incoming>, endpoint: Arc<str>) -> Self {
        Self { body: answer.into_body(), endpoint, buffer: Vec::new(), searched: 0, due: None }
    }

    /// The next event about a container; what is about something else is passed over. Cancel-safe.
    ///
    /// # Errors
    /// [`DockerError`] when the stream ends or breaks: subscribe again, then list again.
    pub async fn next(&mut self) -> Result<Event, DockerError> {
        loop {
            while let Some(line) = self.line() {
                if let Some(event) = parse(&line)? {
                    return Ok(event);
                }
            }
            if self.buffer.len() > MAX_LINE {
                return Err(DockerError::EventTooLong);
            }
            if self.buffer.is_empty() {
                self.due = None;
            } else {
                self.due.get_or_insert_with(|| Instant::now() + WHOLE);
            }
            let chunk = self.body.frame();
            let chunk = match self.due {
                Some(due) => timeout_at(due, chunk).await.map_err(|_| DockerError::EventCut { after: WHOLE })?,
                None => chunk.await,
            };
            let chunk = chunk.ok_or(DockerError::StreamEnded)?.map_err(|source| DockerError::Transport {
                endpoint: self.endpoint.clone(),
                request: "GET /events".into(),
                source: source.into(),
            })?;
            self.buffer.extend_from_slice(chunk.data_ref().map_or(&[], |data| data));
        }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer[self.searched..].iter().position(|b| *b == b'\n');
        let Some(end) = end.map(|at| at + self.searched) else {
            self.searched = self.buffer.len();
            return None;
        };
        (self.searched, self.due) = (0, None);
        let rest = self.buffer.split_off(end + 1);
        Some(std::mem::replace(&mut self.buffer, rest))
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Actor", default)]
    actor: Actor,
    /// Before API 1.52, beside Actor.ID.
    #[serde(default)]
    id: String,
    #[serde(rename = "timeNano", default)]
    time_nanos: i64,
}

#[derive(Deserialize, Default)]
struct Actor {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Attributes", default)]
    attributes: Value,
}

/// One line of the stream; `None`: not about a container, or about nothing we know. Only what is no JSON object is an error.
fn parse(line: &[u8]) -> Result<Option<Event>, DockerError> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let raw: Raw = serde_json::from_slice(line).map_err(DockerError::Event)?;
    let attribute = |name: &str| raw.actor.attributes[name].as_str();
    let id = match raw.kind.as_str() {
        "container" => {
            if raw.actor.id.is_empty() {
                raw.id.as_str()
            } else {
                raw.actor.id.as_str()
            }
        }
        "network" => attribute("container").unwrap_or_default(),
        _ => return Ok(None),
    };
    let Ok(container) = id.parse::<ContainerId>() else { return Ok(None) };
    let action = raw.action.split(':').next().unwrap_or_default();
    let kind = match (raw.kind.as_str(), action) {
        ("network", "connect") => EventKind::NetworkConnect,
        ("network", "disconnect") => EventKind::NetworkDisconnect,
        ("container", "start") => EventKind::Start,
        ("container", "die" | "died") => EventKind::Die,
        ("container", "kill") => EventKind::Kill { signal: attribute("signal").and_then(parse_signal) },
        ("container", "stop") => EventKind::Stop,
        ("container", "pause") => EventKind::Pause,
        ("container", "unpause") => EventKind::Unpause,
        ("container", "health_status") => EventKind::HealthStatus,
        ("container", "rename") => EventKind::Rename,
        ("container", "update") => EventKind::Update,
        ("container", "destroy" | "remove") => EventKind::Destroy,
        ("container", "oom") => EventKind::Oom,
        _ => EventKind::Other,
    };
    Ok(Some(Event { kind, container, time_nanos: raw.time_nanos }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(line: &str) -> Option<EventKind> {
        parse(line.replace("ID!", &"a".repeat(64)).as_bytes()).unwrap().map(|event| event.kind)
    }

    #[test]
    fn dockers_and_podmans_words_mean_the_same() {
        for (line, expected) in [
            (
                r#"{"status":"start","id":"ID!","Type":"container","Action":"start","Actor":{"ID":"ID!"}}"#,
                Some(EventKind::Start),
            ),
            (r#"{"id":"ID!","Type":"container","Action":"start"}"#, Some(EventKind::Start)),
            (
                r#"{"Type":"container","Action":"kill","Actor":{"ID":"ID!","Attributes":{"signal":"15"}}}"#,
                Some(EventKind::Kill { signal: Some(15) }),
            ),
            (r#"{"Type":"container","Action":"kill","Actor":{"ID":"ID!"}}"#, Some(EventKind::Kill { signal: None })),
            (
                r#"{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"ID!"}}"#,
                Some(EventKind::HealthStatus),
            ),
            (
                r#"{"Type":"container","Action":"health_status","HealthStatus":"healthy","Actor":{"ID":"ID!"}}"#,
                Some(EventKind::HealthStatus),
            ),
            (r#"{"Type":"container","Action":"died","Actor":{"ID":"ID!"}}"#, Some(EventKind::Die)),
            (r#"{"Type":"container","Action":"remove","Actor":{"ID":"ID!"}}"#, Some(EventKind::Destroy)),
            (r#"{"Type":"container","Action":"dance","Actor":{"ID":"ID!"}}"#, Some(EventKind::Other)),
            (
                r#"{"Type":"network","Action":"connect","Actor":{"ID":"net","Attributes":{"container":"ID!"}}}"#,
                Some(EventKind::NetworkConnect),
            ),
            (r#"{"Type":"pod","Action":"start","Actor":{"ID":"ID!"}}"#, None),
            (r#"{"Type":"network","Action":"create","Actor":{"ID":"net"}}"#, None),
            (r#"{"Type":"container","Action":"start","Actor":{"ID":"short"}}"#, None),
            ("  ", None),
            ("{}", None),
        ] {
            assert_eq!(kind(line), expected, "{line}");
        }
        assert!(parse(b"proxy timeout").is_err());
    }
}
