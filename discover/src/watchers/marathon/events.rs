//! Marathon's event stream (server-sent events), one for all watchers of the same URLs. An event carries nothing but that
//! it is time to look.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::backoff::{Backoff, Jitter};
use agent::sync::lock;
use agent::telemetry::Chain;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use super::client::MarathonClient;

/// A longer line is no event.
const MOST_LINE: usize = 4 << 20;
/// How many events may wait for a watcher; one that misses some looks.
const WAITING: usize = 256;

/// What the stream says.
#[derive(Debug, Clone)]
enum Heard {
    /// It has begun, anew perhaps: something may have been missed.
    Begun,
    /// Something about this application, without the slash in front.
    App(Arc<str>),
    /// Something about applications that its text names.
    Text(Arc<str>),
}

/// The stream; it begins with the first listener that waits, and ends with the last one.
#[derive(Debug)]
pub struct Events {
    client: MarathonClient,
    heard: broadcast::Sender<Heard>,
    reading: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// One watcher's ear.
#[derive(Debug)]
pub struct Listener {
    events: Arc<Events>,
    app: Arc<str>,
    heard: broadcast::Receiver<Heard>,
}

impl Events {
    /// Not begun yet.
    pub fn new(client: MarathonClient) -> Self {
        Self { client, heard: broadcast::channel(WAITING).0, reading: Mutex::new(None) }
    }

    /// Listens for `app`.
    pub fn listen(self: &Arc<Self>, app: &Arc<str>) -> Listener {
        Listener { events: self.clone(), app: app.clone(), heard: self.heard.subscribe() }
    }

    fn begin(&self) {
        let mut reading = lock(&self.reading);
        if reading.is_none() {
            let run = read(self.client.clone(), self.heard.clone());
            *reading = Some(AbortOnDropHandle::new(tokio::spawn(run)));
        }
    }
}

impl Listener {
    /// Completes when there may be news of the application. Cancel-safe.
    pub async fn heard(&mut self) {
        self.events.begin();
        loop {
            match self.heard.recv().await {
                Ok(Heard::Begun) | Err(RecvError::Lagged(_)) => return,
                Ok(Heard::App(app)) if app == self.app => return,
                Ok(Heard::Text(text)) if text.contains(&*self.app) => return,
                Ok(_) => {}
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

/// Reads the stream for ever.
async fn read(client: MarathonClient, heard: broadcast::Sender<Heard>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30)).with_jitter(Jitter::Equal);
    loop {
        match client.events().await {
            Ok(mut stream) => {
                info!(servers = ?client.urls(), "Marathon's event stream is open.");
                let _ = heard.send(Heard::Begun); // nobody may be listening just now
                let mut lines = Lines::default();
                while let Ok(Some(chunk)) = stream.chunk().await {
                    for event in lines.take(&chunk) {
                        let _ = heard.send(event);
                    }
                }
                info!("Marathon's event stream has ended.");
            }
            Err(error) => debug!(error = %Chain(&error), "No event stream; tasks are looked at by their period."),
        }
        sleep(backoff.next_delay()).await;
    }
}

/// Bytes → events.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Lines {
    fn take(&mut self, chunk: &[u8]) -> Vec<Heard> {
        let mut events = Vec::new();
        for byte in chunk {
            match byte {
                b'\n' => events.extend(self.end_line()),
                b'\r' => {}
                byte if self.line.len() < MOST_LINE => self.line.push(*byte),
                _ => {}
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<Heard> {
        let line = std::mem::take(&mut self.line);
        if let Some(data) = line.strip_prefix(b"data:") {
            self.data.extend_from_slice(data);
            self.data.truncate(MOST_LINE);
            return None;
        }
        if !line.is_empty() || self.data.is_empty() {
            return None;
        }
        let data = std::mem::take(&mut self.data);
        let value: Value = serde_json::from_slice(&data).unwrap_or_default();
        let app = value["appId"].as_str().or_else(|| value["runSpecId"].as_str());
        Some(match app {
            Some(app) => Heard::App(app.trim_matches('/').into()),
            None => Heard::Text(String::from_utf8_lossy(&data).into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = "event: event_stream_attached\ndata: {\"eventType\":\"x\"}\n\n: ping\n\nevent: status_update_event\r\n\
            data: {\"appId\":\"/a/b\",\r\ndata: \"taskStatus\":\"TASK_RUNNING\"}\r\n\r\nid: 7\n\ndata: rubbish {\n\n";
        for size in [1, 2, 7, text.len()] {
            let mut lines = Lines::default();
            let events: Vec<Heard> = text.as_bytes().chunks(size).flat_map(|chunk| lines.take(chunk)).collect();
            let shown: Vec<String> = events.iter().map(|e| format!("{e:?}")).collect();
            assert_eq!(shown.len(), 3, "{shown:?}");
            assert!(
                shown[0].starts_with("Text(") && shown[1] == "App(\"a/b\")" && shown[2].contains("rubbish"),
                "{shown:?}"
            );
        }
    }
}
