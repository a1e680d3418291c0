//! The agent: what the keeper of containers knows in; registrations out.
//!
//! | module | what it holds |
//! |---|---|
//! | this one | the loop: whatever happens, everything that is known is judged again |
//! | `turn` | what comes of that judgement, pure |
//! | `found` | what the former self left in the registry |
//! | `control` | what an operator may ask |

pub mod control;
pub mod found;
pub mod turn;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agent::history::History;
use agent::watch::{Inlet, Observation, replace};
use containers::docker::{Containers, Docker, Event};
use containers::life::keeper::{Keeper, News};
use containers::life::row::Row;
use containers::life::standings::Standings;
use containers::life::verdict::RowState;
use containers::readiness::{CheckTarget, Readiness, ReadyMode};
use model::desired::{Candidate, ContainerId, Settings};
use model::{BackendId, Prefix, ServiceName, Status};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::address::HostAddress;
use crate::metrics::Metrics;
use crate::publish::{Publication, Registrations};
use control::{Request, resolve};
use found::Found;
use turn::Turn;

/// The agent's inputs and outputs.
pub struct Wires {
    /// What Docker runs.
    pub containers: Inlet<Containers>,
    /// What happens to it.
    pub events: mpsc::Receiver<Event>,
    /// This host's address.
    pub address: watch::Receiver<HostAddress>,
    /// How the publisher does.
    pub publication: watch::Receiver<Publication>,
    /// What an operator asks.
    pub requests: mpsc::Receiver<Request>,
    /// What to publish.
    pub desired: watch::Sender<Option<Arc<Registrations>>>,
    /// What is shown.
    pub rows: watch::Sender<Arc<[Row]>>,
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
    rows: watch::Sender<Arc<[Row]>>,
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
    former: BTreeSet<(ServiceName, BackendId)>,
    /// What the former self left; known once the publisher has a claim, of use until the first turn after that.
    found: Option<Found>,
    /// What is published of containers that Docker lists and cannot describe: nothing may be concluded about them.
    kept: Registrations,
    started: bool,
    standings: Standings,
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
            kept: Registrations::new(),
            started: false,
            standings: Standings::default(),
            history: History::default(),
            news: None,
        }
    }

    /// Each change of a port's standing goes there.
    #[must_use]
    pub fn with_history(self, history: History) -> Self {
        Self { history, ..self }
    }

    /// Runs until cancelled, and with `--on-exit drain` until everything has drained. `at_end` is cancelled then;
    /// `revoke` before it where nothing is to be kept.
    pub async fn run(mut self, cancel: CancellationToken, at_end: CancellationToken, revoke: CancellationToken) {
        let _stop_publishing = at_end.drop_guard();
        let mut end: Option<Instant> = None;
        loop {
            let due = self.standings.due();
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
        }
    }

    fn take(&mut self, news: &News) {
        self.metrics.events.inc_by(news.events);
        self.metrics.drains_reverted.inc_by(news.reverted);
        if news.looked {
            self.news.get_or_insert_with(Instant::now);
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
        self.keeper.warn_once();
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
        let found = self.wires.publication.borrow_and_update().found.clone();
        if let (Some(entries), false) = (found, self.started) {
            let found = Found::read(&self.prefix, &entries);
            self.former = found.registered.iter().filter(|key| !found.draining.contains_key(key)).cloned().collect();
            self.kept = found.left.clone();
            self.found = Some(found);
            self.started = true;
            self.open_gates();
        }
    }

    /// Makes gates for what was decided, once it is known what the former self left.
    fn open_gates(&mut self) {
        if !self.started || self.keeper.containers().snapshot().is_none() {
            return;
        }
        let mut found = self.found.take().unwrap_or_default();
        // One that can be described again need not prove itself from nothing.
        found.registered.extend(self.kept.iter().filter(|(_, b)| b.status != Status::Down).map(|(key, _)| key.clone()));
        self.keeper.open_gates(&found.registered, &found.draining);
    }

    fn serve(&mut self, request: Request) {
        let found = resolve(&request.whom, self.keeper.decisions());
        if let Ok(containers) = &found {
            let drains = &mut self.keeper.drains;
            for (id, name) in containers {
                let changed = if request.drain { drains.request(id.clone()) } else { drains.release(id) };
                if changed {
                    debug!(container = %name, %id, drain = request.drain, "An operator's request.");
                }
            }
        }
        // An operator who did not wait for the answer does not need it.
        let _ = request.reply.send(found.map(|all| all.into_iter().map(|(_, name)| name).collect()));
    }

    /// What was published of containers that cannot be described: by the turn before, or by the former self.
    fn keep_refused(&mut self) {
        let observation = self.keeper.containers();
        let Some(containers) = observation.snapshot() else { return };
        let unknown = containers.refused.keys().filter(|id| !containers.running.contains_key(*id));
        let refused: BTreeSet<&str> = unknown.map(ContainerId::short).collect();
        let is_refused = |id: &BackendId| id.as_str().split(':').next().is_some_and(|id| refused.contains(id));
        if let Some(published) = &*self.wires.desired.borrow() {
            self.kept =
                published.iter().filter(|((_, id), _)| is_refused(id)).map(|(k, b)| (k.clone(), b.clone())).collect();
        } else {
            self.kept.retain(|(_, id), _| is_refused(id));
        }
    }

    /// Judges all that is known. A candidate counts as published once the registry holds it.
    fn judge(&mut self) -> Turn {
        let publication = self.wires.publication.borrow();
        let former = &self.former;
        let is_published = |candidate: &Candidate| {
            let key = (candidate.service.clone(), candidate.backend.id.clone());
            match &publication.published {
                Some(published) => published.get(&key).is_some_and(|b| b.status != Status::Down),
                None => former.contains(&key),
            }
        };
        let mut turn = Turn::default();
        for (decision, judged) in self.keeper.judge(is_published, false) {
            turn.add(&decision, judged, self.keeper.checks(&decision));
        }
        turn.refuse(&publication.refused);
        turn
    }

    fn turn(&mut self) {
        if !self.started || self.keeper.containers().snapshot().is_none() {
            return;
        }
        let began = Instant::now();
        let mut turn = self.judge();
        self.keep_refused();
        turn.registrations.extend(self.kept.clone());
        self.metrics.turns.inc();
        self.metrics.count(&turn.rows, &self.wires.rows.borrow());
        let changed = replace(&self.wires.desired, Some(Arc::new(turn.registrations)));
        if changed {
            self.metrics.changes.inc();
        }
        let shown = replace(&self.wires.rows, turn.rows.into());
        if changed || shown {
            self.wires.changes.send_modify(|n| *n += 1);
        }
        if shown || self.standings.has_pending() || self.standings.due().is_some() {
            self.tell();
        }
        if !self.standings.has_pending() && self.standings.due().is_none() {
            self.news = None; // it led to nothing more
        }
        self.metrics.turn_duration.observe(began.elapsed().as_secs_f64());
    }

    /// Says each change of standing, once the registry has it so.
    fn tell(&mut self) {
        let publication = self.wires.publication.borrow();
        let rows = self.wires.rows.borrow();
        let published = publication.published.as_deref();
        let is_so = |row: &Row| published.is_some_and(|published| is_published_so(published, row));
        let took = self.news.map(|since| since.elapsed());
        let changes = self.standings.tell(&rows, Instant::now(), is_so);
        changes.into_iter().for_each(|change| self.history.note(change.took(took)));
    }
}

/// Whether the registry, which holds `published`, has it as `row` says.
fn is_published_so(published: &Registrations, row: &Row) -> bool {
    let key = || Some((row.service.as_deref()?.parse().ok()?, row.id.as_deref()?.parse().ok()?));
    let status = key().and_then(|key| published.get(&key)).map(|backend| backend.status);
    match row.state {
        RowState::Up => status == Some(Status::Up),
        RowState::Down => status == Some(Status::Down),
        RowState::Draining => status != Some(Status::Up), // it may be withdrawn at once
        RowState::Waiting | RowState::Failing | RowState::Refused | RowState::Skipped => status.is_none(),
    }
}

#[cfg(test)]
mod tests;
