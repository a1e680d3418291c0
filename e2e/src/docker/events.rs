//! The daemon's events, collected in the background, by the daemon's own clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt;
use tokio::task::JoinHandle;

use crate::{Context, Result, wait};

/// One event about a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The container's whole id.
    pub id: String,
    /// What happened: `start`, `kill`, `die`, …
    pub action: String,
    /// When, by the daemon's clock: the same as ours where it runs on this machine.
    pub at: SystemTime,
}

/// All events since [`super::Docker::events`]. Dropping it ends the stream.
#[derive(Debug)]
pub struct Events {
    seen: Arc<Mutex<Vec<Event>>>,
    task: JoinHandle<()>,
}

impl Events {
    pub(super) async fn follow(api: &bollard::Docker) -> Result<Self> {
        // The daemon answers a request for events with its first event only; asking for those since a moment ago, by
        // the daemon's clock, leaves no gap however late it looks.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).during("reading the clock")?;
        let since = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
        let filters = HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
        let options = EventsOptions { since: Some(since), until: None, filters: Some(filters) };
        let (seen, api) = (Arc::new(Mutex::new(Vec::new())), api.clone());
        let into = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut stream = std::pin::pin!(api.events(Some(options)));
            while let Some(Ok(message)) = stream.next().await {
                let nanos = message.time_nano.and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or_default();
                let event = Event {
                    id: message.actor.and_then(|actor| actor.id).unwrap_or_default(),
                    action: message.action.unwrap_or_default(),
                    at: SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos),
                };
                into.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }
        });
        Ok(Self { seen, task })
    }

    /// The first event of that action about that container, once it is there.
    ///
    /// # Errors
    /// When it does not come within 10 s.
    pub async fn first(&self, id: &str, action: &str) -> Result<Event> {
        let what = format!("Docker's event {action} of {id}");
        wait::until(&what, Duration::from_secs(10), async || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.iter().find(|event| event.id == id && event.action == action).cloned()
        })
        .await
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}
