//! One Docker daemon for all services that look at it: its containers, and its events the moment they come. It is asked from
//! the first watcher's run on, until the last one has ended.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use agent::backoff::{Backoff, Jitter};
use agent::sync::lock;
use agent::watch::{Inlet, Outlet, Watcher, channel};
use containers::docker::{Containers, Docker, DockerSource, Endpoint, Event, Options};
use tokio::sync::{broadcast, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::Context;
use super::poll::Pace;

/// How many events may wait; a watcher that misses some looks at the containers all the same.
const EVENTS: usize = 1024;

/// A daemon, not asked yet.
#[derive(Debug)]
pub struct Daemon {
    endpoint: Endpoint,
    pace: Pace,
    containers: Inlet<Containers>,
    events: broadcast::Sender<Event>,
    /// Until it is asked.
    outlet: Mutex<Option<Outlet<Containers>>>,
    asking: OnceLock<AbortOnDropHandle<()>>,
}

impl Daemon {
    /// The one of this endpoint that is looked at so often.
    pub fn shared(endpoint: &Endpoint, pace: Pace, context: &mut Context) -> Arc<Self> {
        context.shared(&format!("{endpoint:?} {:?}", pace.every), || {
            let (outlet, containers) = channel();
            let (endpoint, events) = (endpoint.clone(), broadcast::channel(EVENTS).0);
            Arc::new(Self {
                endpoint,
                pace,
                containers,
                events,
                outlet: Mutex::new(Some(outlet)),
                asking: OnceLock::new(),
            })
        })
    }

    /// Its containers and its events from now on.
    pub fn listen(&self) -> (Inlet<Containers>, broadcast::Receiver<Event>) {
        let heard = (self.containers.clone(), self.events.subscribe());
        if let Some(outlet) = lock(&self.outlet).take() {
            let asking = tokio::spawn(ask(self.endpoint.clone(), self.pace, outlet, self.events.clone()));
            let _ = self.asking.set(AbortOnDropHandle::new(asking)); // only one caller takes the outlet
        }
        heard
    }
}

/// Never ends.
async fn ask(endpoint: Endpoint, pace: Pace, out: Outlet<Containers>, events: broadcast::Sender<Event>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30)).with_jitter(Jitter::Equal);
    // Its certificates may come later.
    let docker = loop {
        match Docker::new(&endpoint) {
            Ok(docker) => break docker.with_patience(pace.patience),
            Err(error) => out.mark_stale(&error),
        }
        sleep(backoff.next_delay()).await;
    };
    let (sender, mut heard) = mpsc::channel(EVENTS);
    let options = Options { resync: pace.every, probe: pace.patience, ..Options::default() };
    let source = DockerSource::new(docker, options).with_events(sender);
    let passing = async {
        while let Some(event) = heard.recv().await {
            let _ = events.send(event); // nobody may be listening just now
        }
    };
    let (_ended, ()) = tokio::join!(source.run(out, CancellationToken::new()), passing);
}
