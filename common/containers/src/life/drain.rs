//! Which containers drain, why, and until when. No I/O; time is given.
//!
//! A drain is state, not an edge: it begins with the signal that asks a container to stop (or with an operator), ends
//! when the container dies or starts, and one that began with a signal ends after its deadline, too, once Docker has said that the
//! container outlived the signal: then it serves on.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::docker::{Event, EventKind};
use model::desired::{Candidate, ContainerId, Drain as Announce};
use tokio::time::Instant;

/// What a container gets beyond its stop timeout: Docker kills it then, and `die` follows.
const GRACE: Duration = Duration::from_secs(5);

/// The signal that nobody can ignore.
const SIGKILL: i32 = 9;

/// Who asked for a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The container was asked to stop.
    Stop,
    /// Somebody ran `register drain`.
    Operator,
    /// A container that serves names it as the one it replaces.
    Replaced,
}

impl Cause {
    /// The word used in status, logs and values.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Operator => "operator",
            Self::Replaced => "replaced",
        }
    }
}

/// How a container is kept from new clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draining {
    /// Who asked for it.
    pub cause: Cause,
    /// When it ends by itself; `None`: not at all.
    pub deadline: Option<Instant>,
    /// Without a drain: the registration goes at once (`register.drain=off`).
    pub withdraw: bool,
    /// Its deadline has passed, and Docker has not said since then that the container still runs.
    pub overdue: bool,
}

/// All drains of a host.
#[derive(Debug, Default)]
pub struct Drains(BTreeMap<ContainerId, Draining>);

impl Drains {
    /// How `container` drains, if it does.
    pub fn get(&self, container: &ContainerId) -> Option<&Draining> {
        self.0.get(container)
    }

    /// Takes an event in; `candidate` is any registration of its container. Returns whether something changed.
    pub fn observe(&mut self, event: &Event, candidate: Option<&Candidate>, now: Instant) -> bool {
        match event.kind {
            EventKind::Kill { signal } => match candidate {
                Some(candidate) if signal.is_none_or(|s| s == candidate.stop_signal || s == SIGKILL) => {
                    self.stopping(event.container.clone(), candidate, now)
                }
                _ => false,
            },
            EventKind::Start => self.0.remove(&event.container).is_some(),
            // Not at `die`: until Docker is read again, the container would count as up. Its drain goes with it.
            _ => false,
        }
    }

    /// The container of `candidate` was asked to stop.
    fn stopping(&mut self, container: ContainerId, candidate: &Candidate, now: Instant) -> bool {
        if self.0.contains_key(&container) {
            return false; // the second signal of one `docker stop`, or an operator's drain, which has no deadline
        }
        let until = match candidate.drain {
            Announce::For(time) => time,
            Announce::UntilStopped | Announce::Off => candidate.stop_timeout + GRACE,
        };
        let withdraw = candidate.drain == Announce::Off;
        let deadline = now.checked_add(until);
        self.0.insert(container, Draining { cause: Cause::Stop, deadline, withdraw, overdue: false });
        true
    }

    /// A drain that the registry tells of at the start; its clock starts anew.
    pub fn restore(&mut self, container: ContainerId, cause: Cause, candidate: &Candidate, now: Instant) {
        match cause {
            Cause::Operator => drop(self.request(container)),
            Cause::Stop => drop(self.stopping(container, candidate, now)),
            // Follows from who serves, not from what was.
            Cause::Replaced => {}
        }
    }

    /// Drains at an operator's request. Returns whether something changed.
    pub fn request(&mut self, container: ContainerId) -> bool {
        let asked = Draining { cause: Cause::Operator, deadline: None, withdraw: false, overdue: false };
        self.0.insert(container, asked) != Some(asked)
    }

    /// Drains until `end`, when the agent ends; a drain under way goes on. Returns whether something changed.
    pub fn leave(&mut self, container: ContainerId, end: Instant) -> bool {
        if self.0.contains_key(&container) {
            return false;
        }
        let leaving =
            Draining { cause: Cause::Stop, deadline: end.checked_add(GRACE), withdraw: false, overdue: false };
        self.0.insert(container, leaving).is_none()
    }

    /// Ends any drain, at an operator's request or because the container lives on. Returns whether there was one.
    pub fn release(&mut self, container: &ContainerId) -> bool {
        self.0.remove(container).is_some()
    }

    /// Whose deadline has passed. Each drains on without one, until [`Self::ask_again`] or [`Self::release`].
    pub fn expire(&mut self, now: Instant) -> Vec<ContainerId> {
        let passed = self.0.iter_mut().filter(|(_, drain)| drain.deadline.is_some_and(|at| at <= now));
        let expired = passed.map(|(id, drain)| {
            (drain.deadline, drain.overdue) = (None, true);
            id.clone()
        });
        expired.collect()
    }

    /// It is not known whether an overdue container still runs; the question is asked again at `at`.
    pub fn ask_again(&mut self, container: &ContainerId, at: Instant) {
        if let Some(drain) = self.0.get_mut(container).filter(|drain| drain.overdue) {
            drain.deadline = Some(at);
        }
    }

    /// When the next drain ends by itself.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.values().filter_map(|d| d.deadline).min()
    }
}
