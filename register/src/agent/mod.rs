//! The agent: what the keeper of containers knows in; registrations out.
//!
//! | module | what it holds |
//! |---|---|
//! | this one | the loop: whatever happens, what it may have changed is judged again |
//! | `board` | what everything came to |
//! | `found` | what the former self left in the registry |
//! | `control` | what an operator may ask |

pub mod board;
pub mod control;
pub mod found;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agent::history::History;
use agent::watch::{Inlet, Observation, replace};
use containers::docker::{Containers, Docker, Event};
use containers::life::keeper::{Keeper, News};
use containers::life::row::Row;
use containers::life::standings::{self, Standings};
use containers::life::verdict::RowState;
use containers::readiness::{CheckTarget, Readiness, ReadyMode};
use model::desired::{Candidate, ContainerId, Decision, Settings};
use model::{Prefix, Status};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::address::HostAddress;
use crate::metrics::Metrics;
use crate::publish::{Publication, Registrations};
use board::{Board, Place, Rows};
use control::{Request, resolve};
use found::Found;

/// The shortest time from one turn to the next, for what comes together is to be judged together.
const GATHER: Duration = Duration::from_millis(1);

/// The agent's inputs and outputs.
pub struct Wires {
    /// What Docker runs.
    pub containers: Inlet<Containers>,
    /// What happens to it.
    pub events: mpsc::Receiver<Event>,
    pub address: watch::Receiver<HostAddress>,
    /// How the publisher does.
    pub publication: watch::Receiver<Publication>,
    /// What an operator asks.
    pub requests: mpsc::Receiver<Request>,
    /// What to publish.
    pub desired: watch::Sender<Option<Arc<Registrations>>>,
    /// What is shown.
    pub rows: watch::Sender<Rows>,
    /// Counts whatever changed, for those who look at the status.
    pub changes: watch::Sender<u64>,
}

/// How the agent behaves.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// What is made of a container.
    pub settings: Settings,
    /// What opens the gate of a container without any check.
    pub ready: ReadyMode,
    /// What checks dial.
    pub check_target: CheckTarget,
    /// Runs commands in containers; `None`: such checks fail.
    pub docker: Option<Docker>,
    /// Where backends lie in the registry.
    pub prefix: Prefix,
    /// `--on-exit drain`: how long everything drains at the end; `None`: everything is kept.
    pub drain_at_exit: Option<Duration>,
}

/// Where the agent's inputs and outputs lead, but for containers: those are the keeper's.
struct Outside {
    address: watch::Receiver<HostAddress>,
    publication: watch::Receiver<Publication>,
    requests: mpsc::Receiver<Request>,
    desired: watch::Sender<Option<Arc<Registrations>>>,
    rows: watch::Sender<Rows>,
    changes: watch::Sender<u64>,
}

/// The agent.
pub struct Agent {
    keeper: Keeper,
    wires: Outside,
    prefix: Prefix,
    drain_at_exit: Option<Duration>,
    metrics: Metrics,
    /// What the former self left as up, until this one has written.
    former: BTreeSet<Place>,
    /// What the former self left; known once the publisher has a claim, of use until the first turn after that.
    found: Option<Found>,
    started: bool,
    board: Board,
    /// Containers that Docker lists and cannot describe: nothing may be concluded about them, and what is published of them stays.
    undescribed: BTreeSet<ContainerId>,
    said: Said,
}

/// What was taken in of the publisher's word, and what was said to the log.
#[derive(Default)]
struct Said {
    published: Option<Arc<Registrations>>,
    standings: Standings,
    /// Containers about which there may be something to say.
    changed: BTreeSet<ContainerId>,
    history: History,
    /// The first news that is not told yet.
    news: Option<Instant>,
}

impl Agent {
    /// Nothing happens before [`Self::run`].
    pub fn new(wires: Wires, settings: AgentSettings, metrics: Metrics) -> Self {
        let mut readiness = Readiness::new(settings.ready).with_metrics(metrics.checks.clone());
        readiness = readiness.with_target(settings.check_target);
        if let Some(docker) = settings.docker {
            readiness = readiness.with_docker(docker);
        }
        let Wires { containers, events, address, publication, requests, desired, rows, changes } = wires;
        Self {
            keeper: Keeper::new(containers, events, settings.settings, readiness),
            wires: Outside { address, publication, requests, desired, rows, changes },
            prefix: settings.prefix,
            drain_at_exit: settings.drain_at_exit,
            metrics,
            former: BTreeSet::new(),
            found: None,
            started: false,
            board: Board::default(),
            undescribed: BTreeSet::new(),
            said: Said::default(),
        }
    }

    /// Each change of a port's standing goes there.
    #[must_use]
    pub fn with_history(self, history: History) -> Self {
        Self { said: Said { history, ..self.said }, ..self }
    }

    /// Runs until cancelled, and with `--on-exit drain` until everything has drained. `at_end` is cancelled then;
    /// `revoke` before it where nothing is to be kept.
    pub async fn run(mut self, cancel: CancellationToken, at_end: CancellationToken, revoke: CancellationToken) {
        let _stop_publishing = at_end.drop_guard();
        let mut end: Option<Instant> = None;
        let mut next = Instant::now();
        loop {
            sleep_until(next).await;
            let due = self.said.standings.due();
            tokio::select! {
                biased;
                () = cancel.cancelled(), if end.is_none() => {
                    let Some(wait) = self.drain_at_exit else { return };
                    info!(wait_ms = wait.as_millis(), "Draining everything before the end.");
                    end = Some(Instant::now() + wait);
                }
                news = self.keeper.changed() => self.take(&news),
                Some(request) = self.wires.requests.recv() => self.serve(request),
                Ok(()) = self.wires.address.changed() => self.move_to_address(),
                Ok(()) = self.wires.publication.changed() => self.learn(),
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                    revoke.cancel();
                    return;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            if let Some(end) = end {
                self.keeper.drain_all(end);
            }
            self.turn();
            next = Instant::now() + GATHER;
        }
    }

    fn take(&mut self, news: &News) {
        self.metrics.events.inc_by(news.events);
        self.metrics.drains_reverted.inc_by(news.reverted);
        if news.looked {
            self.said.news.get_or_insert_with(Instant::now);
            self.look();
        }
    }

    /// What is decided about containers may have changed.
    fn look(&mut self) {
        let observation = self.keeper.containers();
        self.metrics.docker_up.set(i64::from(matches!(observation, Observation::Synced { .. })));
        self.wires.changes.send_modify(|n| *n += 1);
        if observation.snapshot().is_none() {
            return;
        }
        self.open_gates();
    }

    fn move_to_address(&mut self) {
        let host_ip = self.wires.address.borrow_and_update().address;
        self.keeper.move_to(host_ip);
        self.look();
    }

    /// The publisher got further.
    fn learn(&mut self) {
        self.wires.changes.send_modify(|n| *n += 1);
        let Publication { found, published, refused, .. } = self.wires.publication.borrow_and_update().clone();
        if let (Some(entries), false) = (found, self.started) {
            let found = Found::read(&self.prefix, &entries);
            self.former = found.registered.iter().filter(|key| !found.draining.contains_key(key)).cloned().collect();
            self.found = Some(found);
            self.started = true;
            self.open_gates();
        }
        let none = Registrations::new();
        let former = self.said.published.take();
        let (older, newer) = (former.as_deref().unwrap_or(&none), published.as_deref().unwrap_or(&none));
        for place in older.differences(newer) {
            self.said.changed.extend(self.board.owner(place).cloned());
            if !newer.contains_key(place) {
                self.board.forget(place);
            }
        }
        self.said.published = published;
        self.board.refuse(&refused).iter().for_each(|container| self.keeper.touch(container));
    }

    /// Makes gates for what was decided, once it is known what the former self left.
    fn open_gates(&mut self) {
        if !self.started || self.keeper.containers().snapshot().is_none() {
            return;
        }
        let mut found = self.found.take().unwrap_or_default();
        self.keep_what_was_left(std::mem::take(&mut found.left));
        // One that can be described again need not prove itself from nothing.
        let described = self.keeper.ungated().filter(|id| self.undescribed.contains(*id));
        let published = described.flat_map(|id| self.board.published_of(id));
        found.registered.extend(published.filter(|(_, b)| b.status != Status::Down).map(|(place, _)| place.clone()));
        self.keeper.open_gates(&found.registered, &found.draining);
    }

    /// What the former self published of containers that cannot be described stays as it is.
    fn keep_what_was_left(&mut self, left: Registrations) {
        let observation = self.keeper.containers();
        let Some(containers) = observation.snapshot().filter(|_| !left.is_empty()) else { return };
        for id in containers.refused.keys().filter(|id| self.keeper.is_undescribed(id)) {
            let is_its = |place: &Place| place.1.as_str().split(':').next() == Some(id.short());
            let its: Vec<_> =
                left.iter().filter(|(place, _)| is_its(place)).map(|(p, b)| (p.clone(), b.clone())).collect();
            self.board.keep(id, its);
        }
    }

    fn serve(&mut self, request: Request) {
        let decisions: Vec<_> = self.keeper.decisions().cloned().collect();
        let found = resolve(&request.whom, &decisions);
        for (id, name) in found.iter().flatten() {
            if self.keeper.operate(id, request.drain) {
                debug!(container = %name, %id, drain = request.drain, "An operator's request.");
            }
        }
        // An operator who did not wait for the answer does not need it.
        let _ = request.reply.send(found.map(|all| all.into_iter().map(|(_, name)| name).collect()));
    }

    /// Judges what may have changed. A candidate counts as published once the registry holds it.
    fn judge(&mut self) {
        let Self { keeper, board, undescribed, said, former, metrics, .. } = self;
        let published = said.published.as_deref();
        let is_published = |candidate: &Candidate| {
            let place = (candidate.service.clone(), candidate.backend.id.clone());
            match published {
                Some(published) => published.get(&place).is_some_and(|b| b.status != Status::Down),
                None => former.contains(&place),
            }
        };
        for (id, ports) in keeper.judge(is_published, false) {
            if ports.is_empty() && keeper.is_undescribed(&id) {
                undescribed.insert(id);
                continue;
            }
            undescribed.remove(&id);
            let with_checks = |(decision, judged): (Arc<Decision>, _)| {
                let checks = keeper.checks(&decision);
                (decision, judged, checks)
            };
            let ports = ports.into_iter().map(with_checks).collect();
            let started_at = keeper.started_at(&id).unwrap_or_default();
            said.changed.extend(board.put(&id, started_at, ports, published, metrics));
            said.changed.insert(id);
        }
    }

    fn turn(&mut self) {
        if !self.started || self.keeper.containers().snapshot().is_none() {
            return;
        }
        let began = Instant::now();
        self.judge();
        self.metrics.turns.inc();
        let changed = replace(&self.wires.desired, Some(Arc::new(self.board.registrations().clone())));
        if changed {
            self.metrics.changes.inc();
        }
        let shown = replace(&self.wires.rows, self.board.rows().clone());
        if changed || shown {
            self.wires.changes.send_modify(|n| *n += 1);
        }
        self.said.tell(&self.board);
        if !changed && !shown && self.said.standings.due().is_none() {
            self.said.news = None; // all that it led to is said
        }
        self.metrics.turn_duration.observe(began.elapsed().as_secs_f64());
    }
}

impl Said {
    /// Says each change of standing, once the registry has it so.
    fn tell(&mut self, board: &Board) {
        let registry = Holding { published: self.published.as_deref(), board };
        let changed = std::mem::take(&mut self.changed);
        let took = self.news.map(|since| since.elapsed());
        let changes = self.standings.tell(changed, |id| board.rows_of(id), Instant::now(), &registry);
        changes.into_iter().for_each(|change| self.history.note(change.took(took)));
    }
}

/// What the registry has, as the publisher last said, beside what it is to have.
struct Holding<'a> {
    published: Option<&'a Registrations>,
    board: &'a Board,
}

impl standings::RegistryView for Holding<'_> {
    fn is_so(&self, row: &Row) -> bool {
        let Some(published) = self.published else { return false };
        let status = place(row).and_then(|place| published.get(&place)).map(|backend| backend.status);
        match row.state {
            RowState::Up => status == Some(Status::Up),
            RowState::Down => status == Some(Status::Down),
            RowState::Draining => status != Some(Status::Up), // it may be withdrawn at once
            RowState::Waiting | RowState::Failing | RowState::Refused | RowState::Skipped => status.is_none(),
        }
    }

    fn is_taken_over(&self, row: &Row) -> bool {
        let owner = place(row).and_then(|place| self.board.owner(&place).cloned());
        owner.is_some_and(|owner| owner.short() != row.container_id)
    }
}

fn place(row: &Row) -> Option<Place> {
    Some((row.service.as_deref()?.parse().ok()?, row.id.as_deref()?.parse().ok()?))
}

#[cfg(test)]
mod tests;
