//! One turn of the agent: decisions × readiness × drains → what to publish, and a row for each port that says why.
//! No I/O, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::desired::{Candidate, Decision, HealthPolicy, Outcome, Skip};
use common::model::{Backend, Status};
use serde::Serialize;

use crate::publish::Registrations;
use common::drain::{Cause, Draining, Drains};
use common::readiness::{GateKey, Readiness, Verdict};

/// In a value's labels: who asked for its drain, so that a successor of this agent knows whether it has a deadline.
pub const DRAIN_BY: &str = "register.drain.by";

/// What became of one port of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowState {
    /// Published, and takes clients.
    Up,
    /// Published as draining, or withdrawn because the container stops.
    Draining,
    /// Published as down.
    Down,
    /// To be published once it is ready.
    Waiting,
    /// Withdrawn because a check fails.
    Failing,
    /// Left out.
    Skipped,
}

impl RowState {
    /// Each of them.
    pub const ALL: [Self; 6] = [Self::Up, Self::Draining, Self::Down, Self::Waiting, Self::Failing, Self::Skipped];

    /// The word used in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
            Self::Skipped => "skipped",
        }
    }
}

/// One line of the table that `status` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The container's name.
    pub container: Arc<str>,
    /// Its short id.
    pub container_id: String,
    /// The port inside it, such as `80/tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The backend's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where clients reach it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What became of it.
    pub state: RowState,
    /// Why.
    pub reason: String,
}

/// What a turn came to.
#[derive(Debug, Default, PartialEq)]
pub struct Turn {
    /// What to publish.
    pub registrations: Registrations,
    /// Everything that was looked at, but for containers that do not run.
    pub rows: Vec<Row>,
}

/// Which gate a candidate waits at.
pub fn gate_key(decision: &Decision, candidate: &Candidate) -> GateKey {
    GateKey {
        container: decision.container.clone(),
        service: candidate.service.clone(),
        id: candidate.backend.id.clone(),
    }
}

/// Puts together what is known at one moment.
pub fn turn(decisions: &[Decision], readiness: &Readiness, drains: &Drains) -> Turn {
    let mut turn = Turn::default();
    for decision in decisions {
        match &decision.outcome {
            Outcome::Skip(Skip::Stopped(_)) => {}
            Outcome::Skip(skip) => turn.rows.push(row(decision, None, RowState::Skipped, skip.to_string())),
            Outcome::Register(candidate) => {
                let verdict = readiness.verdict(&gate_key(decision, candidate));
                let (backend, state, reason) = judge(candidate, verdict, drains.get(&decision.container));
                turn.rows.push(row(decision, Some(candidate), state, reason));
                if let Some(backend) = backend {
                    turn.registrations.insert((candidate.service.clone(), backend.id.clone()), backend);
                }
            }
        }
    }
    turn
}

fn judge(candidate: &Candidate, verdict: &Verdict, drain: Option<&Draining>) -> (Option<Backend>, RowState, String) {
    let why = match verdict {
        Verdict::Waiting => {
            let at = candidate.dial.map_or_else(String::new, |a| format!(" at {a}"));
            return (
                None,
                RowState::Waiting,
                format!("not ready yet: no connection accepted{at}, or a check has not passed"),
            );
        }
        Verdict::Failing(why) if candidate.health_policy == HealthPolicy::Down => {
            return (Some(with_status(candidate, Status::Down)), RowState::Down, format!("a check fails: {why}"));
        }
        Verdict::Failing(why) => return (None, RowState::Failing, format!("a check fails: {why}")),
        Verdict::Ready(why) => why.text(),
    };
    if candidate.backend.status != Status::Up {
        return (Some(candidate.backend.clone()), RowState::Down, "its HEALTHCHECK fails".to_owned());
    }
    match drain {
        None => (Some(candidate.backend.clone()), RowState::Up, why),
        Some(drain) if drain.withdraw => {
            (None, RowState::Draining, "it was asked to stop; withdrawn at once (register.drain=off)".to_owned())
        }
        Some(drain) => {
            let mut backend = with_status(candidate, Status::Draining);
            let reason = match drain.cause {
                Cause::Stop => "it was asked to stop",
                Cause::Operator => {
                    let mut labels = BTreeMap::clone(&backend.labels);
                    labels.insert(DRAIN_BY.to_owned(), drain.cause.as_str().to_owned());
                    backend.labels = Arc::new(labels);
                    "an operator drains it (register undrain ends that)"
                }
            };
            (Some(backend), RowState::Draining, reason.to_owned())
        }
    }
}

fn with_status(candidate: &Candidate, status: Status) -> Backend {
    Backend { status, ..candidate.backend.clone() }
}

fn row(decision: &Decision, candidate: Option<&Candidate>, state: RowState, reason: String) -> Row {
    Row {
        container: decision.name.clone(),
        container_id: decision.container.short().to_owned(),
        port: decision.port.map(|(port, transport)| format!("{port}/{transport}")),
        service: candidate.map(|c| c.service.to_string()),
        id: candidate.map(|c| c.backend.id.to_string()),
        address: candidate.map(|c| c.backend.address()),
        state,
        reason,
    }
}
