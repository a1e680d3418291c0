//! One subscription to the daemon, from its first event to its end.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tracing::debug;

use super::backlog::{Backlog, room};
use super::client::{Docker, Scope};
use super::error::DockerError;
use super::event::{Event, EventKind};
use super::events::EventStream;
use super::inspections::{Inspection, Inspections};
use super::list::Listed;
use super::picture::{Containers, Options};
use agent::watch::Outlet;
use model::desired::{Container, ContainerId};

/// How long the answers about many containers are gathered before they are published.
const GATHER: Duration = Duration::from_millis(20);
/// How much is taken in between two looks at the clock.
const AT_ONCE: usize = 256;

/// What was under way and has ended.
enum Done {
    /// `None`: its answer would have been about the past.
    Inspected(ContainerId, Option<Result<Option<Container>, DockerError>>),
    Listed(Result<Vec<Listed>, DockerError>),
    Pinged(Result<(), DockerError>),
    Kind(Result<bool, DockerError>),
}

type Pending<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send + 'a>>>;

/// What a subscription is made with, and where it leads.
pub(super) struct Wires<'a> {
    pub docker: &'a Docker,
    pub options: &'a Options,
    pub events: Option<&'a mpsc::Sender<Event>>,
    pub backlog: &'a mut Backlog,
    pub out: &'a Outlet<Containers>,
}

pub(super) struct Session<'a, W> {
    wires: Wires<'a>,
    works: W,
    /// What is known now; published once all that was listed was asked about, since only then is it complete.
    pub(super) known: Containers,
    published: Option<Arc<Containers>>,
    /// Since when something is known that is not published.
    unpublished: Option<Instant>,
    /// A container ended: that is published without waiting for others.
    urgent: bool,
    pub(super) inspections: Inspections,
    listing: bool,
    pinging: bool,
    /// When the first list came.
    pub(super) listed: Option<Instant>,
    /// What the list said of a container last.
    pub(super) entries: BTreeMap<ContainerId, Listed>,
    podman: bool,
}

impl<'a, W: FnMut() + Send> Session<'a, W> {
    /// `works` is called when all that runs is known: the daemon does its work.
    pub(super) fn new(wires: Wires<'a>, works: W) -> Self {
        // What was known stays known until it is looked at again, so that a daemon which comes back and stumbles over one
        // container takes nothing from it.
        let known = wires.out.current().snapshot().map(|last| (**last).clone()).unwrap_or_default();
        Self {
            works,
            known,
            published: None,
            unpublished: None,
            urgent: false,
            inspections: Inspections::new(wires.options.parallel),
            listing: false,
            pinging: false,
            listed: None,
            entries: BTreeMap::new(),
            podman: false,
            wires,
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
        let (docker, options, events) = (self.wires.docker, self.wires.options, self.wires.events);
        let mut stream = docker.events().await?;
        let mut pending: Pending<'a> = FuturesUnordered::new();
        let every = |period: Duration| {
            let period = period.max(Duration::from_millis(10));
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut resync = every(options.resync);
        let mut probe = every(options.probe);
        let mut podman_health = every(options.podman_health);
        self.list(&pending);
        pending.push(Box::pin(async move { Done::Kind(docker.is_podman().await) }));
        loop {
            let waiting = self.listed.filter(|_| self.published.is_none());
            let due = self.inspections.next_change(waiting, Instant::now());
            let due = due.into_iter().chain(self.unpublished.map(|since| since + GATHER)).min();
            tokio::select! {
                biased; // an event outdates an inspection that is ready
                event = stream.next() => self.event(event?),
                () = room(events), if !self.wires.backlog.is_empty() => {}
                Some(done) = pending.next(), if !pending.is_empty() => self.done(done)?,
                _ = resync.tick() => self.list(&pending),
                _ = probe.tick(), if !self.pinging => {
                    self.pinging = true;
                    pending.push(Box::pin(async move { Done::Pinged(docker.ping().await) }));
                }
                _ = podman_health.tick(), if self.podman => self.look_at_health(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            self.take_what_is_there(&mut stream, &mut pending)?;
            if let Some(events) = events {
                self.wires.backlog.flush(events);
            }
            self.inspect(&pending);
            self.publish(Instant::now());
        }
    }

    /// Takes in what else has come, so that it is published together.
    fn take_what_is_there(&mut self, stream: &mut EventStream, pending: &mut Pending<'a>) -> Result<(), DockerError> {
        for _ in 0..AT_ONCE {
            if let Some(event) = stream.next().now_or_never() {
                self.event(event?);
            } else if let Some(Some(done)) = pending.next().now_or_never() {
                self.done(done)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    fn list(&mut self, pending: &Pending<'a>) {
        let docker = self.wires.docker;
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
        if let Some(events) = self.wires.events {
            self.wires.backlog.pass(event, events);
        }
        match kind {
            // Whatever runs under this id from now on is another run of it: what was known is over, without a question.
            EventKind::Die | EventKind::Destroy => {
                self.forget(&id);
                self.withdraw(&id);
                self.inspections.ended(id);
                self.urgent = true;
            }
            EventKind::Start => self.inspections.started(id),
            // A signal changes nothing by itself, and `stop` follows `die`.
            EventKind::Kill { .. } | EventKind::Stop | EventKind::Oom | EventKind::Other => {}
            _ => self.inspections.want(id),
        }
    }

    pub(super) fn forget(&mut self, id: &ContainerId) {
        self.known.running.remove(id);
        self.known.refused.remove(id);
        self.entries.remove(id);
    }

    /// An end counts at once, even before this subscription's first picture.
    fn withdraw(&self, id: &ContainerId) {
        let Some(last) = self.wires.out.current().snapshot().filter(|_| self.published.is_none()).cloned() else {
            return;
        };
        if last.running.contains_key(id) || last.refused.contains_key(id) {
            let mut rest = Containers::clone(&last);
            rest.running.remove(id);
            rest.refused.remove(id);
            self.wires.out.amend(Arc::new(rest));
        }
    }

    fn inspect(&mut self, pending: &Pending<'a>) {
        let docker = self.wires.docker;
        while let Some(Inspection { id, deadline, outdated }) = self.inspections.next(Instant::now()) {
            pending.push(Box::pin(async move {
                let answer = async {
                    let asked = docker.inspect(&id);
                    let Some(deadline) = deadline else { return asked.await };
                    timeout(deadline, asked).await.unwrap_or_else(|_| {
                        let request = format!("GET /containers/{id}/json");
                        Err(DockerError::Deadline { request, seconds: deadline.as_secs() })
                    })
                };
                let answer = outdated.run_until_cancelled(answer).await;
                Done::Inspected(id, answer)
            }));
        }
    }

    fn done(&mut self, done: Done) -> Result<(), DockerError> {
        match done {
            Done::Inspected(id, None) => self.inspections.was_outdated(&id),
            Done::Inspected(id, Some(Ok(found))) => self.learn(&id, found),
            Done::Inspected(id, Some(Err(error))) => self.miss(&id, &error),
            Done::Listed(listed) => {
                self.listing = false;
                self.compare(listed?);
            }
            Done::Pinged(answer) => {
                self.pinging = false;
                answer?;
            }
            // A socket proxy may refuse /version; then it is taken for Docker.
            Done::Kind(Err(error)) => debug!(%error, "The daemon's kind is not known."),
            Done::Kind(Ok(podman)) => self.podman = podman,
        }
        Ok(())
    }

    /// Publishes what changed. The first time only when all that was listed was looked at, but for those that are late: a part of
    /// the containers is not the picture.
    fn publish(&mut self, now: Instant) {
        if self.published.is_none() {
            let settled = |listed| self.inspections.are_settled(listed, now);
            if !self.listed.is_some_and(settled) {
                return;
            }
            let unknown = self.inspections.under_way().filter(|id| !self.known.running.contains_key(*id));
            let late: Vec<ContainerId> = unknown.cloned().collect();
            for id in late {
                let reason = format!("Docker has not described {} yet", self.name(&id));
                self.keep(&id, reason.into());
            }
            (self.works)();
        }
        let urgent = std::mem::take(&mut self.urgent) || self.published.is_none() || !self.inspections.are_busy(now);
        if self.published.as_deref() == Some(&self.known) {
            self.unpublished = None;
            return;
        }
        if !urgent && now < *self.unpublished.get_or_insert(now) + GATHER {
            return;
        }
        self.unpublished = None;
        let snapshot = Arc::new(self.known.clone());
        self.published = Some(snapshot.clone());
        self.wires.out.publish(snapshot);
    }
}
