//! One subscription to the daemon, from its first event to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{debug, warn};

use super::client::{Docker, Scope};
use super::error::DockerError;
use super::event::{Event, EventKind};
use super::list::Listed;
use super::picture::{Containers, Options};
use agent::watch::Outlet;
use model::desired::{Container, ContainerId, State};

/// What was under way and has ended.
enum Done {
    Inspected(ContainerId, Result<Option<Container>, DockerError>),
    Listed(Result<Vec<Listed>, DockerError>),
    Pinged(Result<(), DockerError>),
    Kind(Result<bool, DockerError>),
}

type Pending<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send + 'a>>>;

pub(super) struct Session<'a, W> {
    docker: &'a Docker,
    options: &'a Options,
    events: Option<&'a mpsc::Sender<Event>>,
    out: &'a Outlet<Containers>,
    works: W,
    /// What is known now; published once `dirty` was empty for the first time, since only then is it complete.
    known: Containers,
    published: Option<Arc<Containers>>,
    complete: bool,
    /// To be inspected.
    dirty: BTreeSet<ContainerId>,
    /// Being inspected; true: it died meanwhile, so the answer may be from before and does not count.
    inspected: BTreeMap<ContainerId, bool>,
    /// The daemon stumbled over these; they are asked about again with the next sign of life.
    stumbled: BTreeSet<ContainerId>,
    listing: bool,
    fingerprints: BTreeMap<ContainerId, String>,
    podman: bool,
}

impl<'a, W: FnMut() + Send> Session<'a, W> {
    /// `works` is called when all that runs is known: the daemon does its work.
    pub(super) fn new(
        docker: &'a Docker,
        options: &'a Options,
        events: Option<&'a mpsc::Sender<Event>>,
        out: &'a Outlet<Containers>,
        works: W,
    ) -> Self {
        // What was known stays known until it is looked at again, so that a daemon which comes back and stumbles over one
        // container takes nothing from it.
        let known = out.current().snapshot().map(|last| (**last).clone()).unwrap_or_default();
        Self {
            docker,
            options,
            events,
            out,
            works,
            known,
            published: None,
            complete: false,
            dirty: BTreeSet::new(),
            inspected: BTreeMap::new(),
            stumbled: BTreeSet::new(),
            listing: false,
            fingerprints: BTreeMap::new(),
            podman: false,
        }
    }

    /// Runs until something fails, and says what.
    pub(super) async fn run(mut self) -> DockerError {
        match self.follow().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, DockerError> {
        let docker = self.docker;
        let mut stream = docker.events().await?;
        let mut pending: Pending<'a> = FuturesUnordered::new();
        let every = |period: Duration| {
            let period = period.max(Duration::from_millis(10));
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut resync = every(self.options.resync);
        let mut probe = every(self.options.probe);
        let mut podman_health = every(self.options.podman_health);
        self.list(&pending);
        pending.push(Box::pin(async move { Done::Kind(docker.is_podman().await) }));
        loop {
            tokio::select! {
                biased; // an event outdates an inspection that is ready
                event = stream.next() => self.event(event?),
                Some(done) = pending.next(), if !pending.is_empty() => self.done(done)?,
                _ = resync.tick() => self.list(&pending),
                _ = probe.tick() => pending.push(Box::pin(async move { Done::Pinged(docker.ping().await) })),
                _ = podman_health.tick(), if self.podman => self.look_at_health(),
            }
            self.inspect(&mut pending);
            self.publish();
        }
    }

    fn list(&mut self, pending: &Pending<'a>) {
        let docker = self.docker;
        if !std::mem::replace(&mut self.listing, true) {
            pending.push(Box::pin(async move { Done::Listed(docker.list(Scope::Running).await) }));
        }
    }

    fn event(&mut self, event: Event) {
        let (kind, id) = (event.kind, event.container.clone());
        if kind == EventKind::Other {
            return;
        }
        debug!(container = %id, ?kind, "Docker event.");
        if let Some(events) = self.events
            && let Err(error) = events.try_send(event)
        {
            warn!(container = %id, ?kind, %error, "An event could not be passed on.");
        }
        match kind {
            // Whatever runs under this id from now on is another run of it: what was known is over, without a question.
            EventKind::Die | EventKind::Destroy => {
                self.forget(&id);
                if let Some(died) = self.inspected.get_mut(&id) {
                    *died = true;
                }
                // It may have been started again before this event was read.
                self.dirty.insert(id);
            }
            // A signal changes nothing by itself, and `stop` follows `die`.
            EventKind::Kill { .. } | EventKind::Stop | EventKind::Oom | EventKind::Other => {}
            _ => {
                self.dirty.insert(id);
            }
        }
    }

    fn forget(&mut self, id: &ContainerId) {
        self.known.running.remove(id);
        self.known.refused.remove(id);
        self.fingerprints.remove(id);
    }

    /// Starts as many inspections as may be under way; one container is never inspected twice at a time.
    fn inspect(&mut self, pending: &mut Pending<'a>) {
        let docker = self.docker;
        while self.inspected.len() < self.options.parallel.max(1) {
            let Some(id) = self.dirty.iter().find(|id| !self.inspected.contains_key(*id)).cloned() else { return };
            self.dirty.remove(&id);
            self.inspected.insert(id.clone(), false);
            pending.push(Box::pin(async move {
                let answer = docker.inspect(&id).await;
                Done::Inspected(id, answer)
            }));
        }
    }

    fn done(&mut self, done: Done) -> Result<(), DockerError> {
        match done {
            Done::Inspected(id, answer) => self.learn(id, answer),
            Done::Listed(listed) => {
                self.listing = false;
                self.compare(&listed?);
                Ok(())
            }
            Done::Pinged(answer) => {
                self.dirty.append(&mut self.stumbled);
                answer
            }
            Done::Kind(podman) => {
                // A socket proxy may refuse /version; then it is taken for Docker.
                match podman {
                    Ok(podman) => self.podman = podman,
                    Err(error @ DockerError::Refused { .. }) => debug!(%error, "The daemon's kind is not known."),
                    Err(error) => return Err(error),
                }
                Ok(())
            }
        }
    }

    fn learn(&mut self, id: ContainerId, answer: Result<Option<Container>, DockerError>) -> Result<(), DockerError> {
        let died = self.inspected.remove(&id).unwrap_or(false);
        if died {
            return Ok(()); // it is dirty
        }
        match answer {
            Ok(Some(container)) if matches!(container.state, State::Running | State::Paused | State::Restarting) => {
                self.known.refused.remove(&id);
                let same = self.known.running.get(&id).is_some_and(|known| **known == container);
                if !same {
                    self.known.running.insert(id, Arc::new(container));
                }
            }
            Ok(_) => self.forget(&id),
            // What it was stays, as nothing new is known; the next list asks again.
            Err(DockerError::Container(error)) => {
                self.fingerprints.remove(&id);
                let reason: Arc<str> = error.to_string().into();
                let before = self.published.as_ref().and_then(|p| p.refused.get(&id));
                if before != Some(&reason) {
                    let known = self.known.running.contains_key(&id);
                    warn!(container = %id, %error, known, "A container cannot be described; what was known of it stays.");
                }
                self.known.refused.insert(id, reason);
            }
            // The daemon lives and stumbles over this one (it is being removed, say).
            Err(error @ DockerError::Refused { .. }) => {
                debug!(container = %id, %error, "A container could not be inspected.");
                if !self.known.running.contains_key(&id) {
                    self.known.refused.insert(id.clone(), error.to_string().into());
                }
                self.stumbled.insert(id);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What the list says of a container differs from last time, or it is new: look. It is no longer listed: it is gone.
    fn compare(&mut self, listed: &[Listed]) {
        let mut seen = BTreeSet::new();
        for entry in listed {
            let Ok(id) = entry.id.parse::<ContainerId>() else { continue };
            let fingerprint = entry.fingerprint();
            seen.insert(id.clone());
            if self.fingerprints.get(&id) != Some(&fingerprint) {
                self.fingerprints.insert(id.clone(), fingerprint);
                self.dirty.insert(id);
            }
        }
        // One that was started while the list was made may not be in it: looking decides, not the list. The first list has no
        // fingerprints to compare with, so all that was known from before this subscription is looked at.
        let known = self.known.running.keys().chain(self.known.refused.keys());
        let unlisted: Vec<ContainerId> = known.filter(|id| !seen.contains(*id)).cloned().collect();
        self.dirty.extend(unlisted);
        self.complete = true;
    }

    fn look_at_health(&mut self) {
        let checked = self.known.running.values().filter(|container| container.health.is_some());
        self.dirty.extend(checked.map(|container| container.id.clone()));
    }

    /// Publishes what changed. The first time only when all that was listed was looked at: a part of the containers is not the
    /// picture.
    fn publish(&mut self) {
        let first = self.published.is_none();
        if first && !(self.complete && self.dirty.is_empty() && self.inspected.is_empty()) {
            return;
        }
        if first {
            (self.works)();
        }
        if self.published.as_deref() == Some(&self.known) {
            return;
        }
        let snapshot = Arc::new(self.known.clone());
        self.published = Some(snapshot.clone());
        self.out.publish(snapshot);
    }
}
