//! One turn of the agent: decisions × readiness × drains → what to publish, and a row for each port that says why.
//! No I/O, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::containers::life::drain::Drains;
use common::containers::life::handover::Handovers;
pub use common::containers::life::verdict::{DRAIN_BY, RowState, gate_key};
use common::containers::life::verdict::{Judged, judge};
use common::containers::life::warmup::Warmups;
use common::containers::readiness::{CheckState, Readiness};
use common::desired::{Candidate, Decision, Outcome, Skip};
use common::store::Key;
use serde::Serialize;
use tokio::time::Instant;

use crate::publish::{Refusal, Registrations};

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
    /// Its own checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckState>,
}

/// What a turn came to.
#[derive(Debug, Default, PartialEq)]
pub struct Turn {
    /// What to publish.
    pub registrations: Registrations,
    /// Everything that was looked at, but for containers that do not run.
    pub rows: Vec<Row>,
}

impl Turn {
    /// Rows of what the registry holds for somebody else say so.
    pub fn refuse(&mut self, refused: &BTreeMap<Key, Refusal>) {
        for (key, Refusal { registration, holder, .. }) in refused {
            let Some((service, id)) = registration else { continue };
            let is_it = |row: &&mut Row| {
                row.service.as_deref() == Some(service.as_str()) && row.id.as_deref() == Some(id.as_str())
            };
            for row in self.rows.iter_mut().filter(is_it) {
                (row.state, row.reason) = (RowState::Refused, format!("not published: {key} {holder}"));
            }
        }
    }
}

/// Puts together what is known at one moment.
pub fn turn(
    decisions: &[Arc<Decision>],
    readiness: &Readiness,
    drains: &Drains,
    handovers: &Handovers,
    (warmups, now): (&mut Warmups, Instant),
) -> Turn {
    let mut turn = Turn::default();
    warmups.begin_turn();
    for decision in decisions {
        match &decision.outcome {
            Outcome::Skip(Skip::Stopped(_)) => {}
            Outcome::Skip(skip) => turn.rows.push(row(decision, None, RowState::Skipped, skip.to_string())),
            Outcome::Register(candidate) => {
                let key = gate_key(decision, candidate);
                let verdict = readiness.verdict(&key);
                let replaced = || handovers.get(&decision.container, &candidate.service);
                let drain = drains.get(&decision.container).or_else(replaced);
                let Judged { backend, state, reason } = judge(candidate, verdict, drain);
                let row = row(decision, Some(candidate), state, reason);
                turn.rows.push(Row { checks: readiness.checks(&key), ..row });
                if let Some(mut backend) = backend {
                    if state == RowState::Up {
                        backend.weight = warmups.weigh(&key, candidate, verdict, now);
                    }
                    turn.registrations.insert((candidate.service.clone(), backend.id.clone()), backend);
                }
            }
        }
    }
    turn
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
        checks: Vec::new(),
    }
}
