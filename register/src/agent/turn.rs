//! One turn of the agent: what became of each port → what to publish, and a row that says why. No I/O, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use containers::life::verdict::{Judged, RowState};
use containers::readiness::CheckState;
use model::desired::Decision;
use registry::store::Key;
use serde::Serialize;

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
    /// Takes in what became of one port.
    pub fn add(&mut self, decision: &Decision, judged: Judged, checks: Vec<CheckState>) {
        self.rows.push(row(decision, &judged, checks));
        if let (Some(candidate), Some(backend)) = (decision.candidate(), judged.backend) {
            self.registrations.insert((candidate.service.clone(), backend.id.clone()), backend);
        }
    }

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

fn row(decision: &Decision, judged: &Judged, checks: Vec<CheckState>) -> Row {
    let candidate = decision.candidate();
    Row {
        container: decision.name.clone(),
        container_id: decision.container.short().to_owned(),
        port: decision.port.map(|(port, transport)| format!("{port}/{transport}")),
        service: candidate.map(|c| c.service.to_string()),
        id: candidate.map(|c| c.backend.id.to_string()),
        address: candidate.map(|c| c.backend.address()),
        state: judged.state,
        reason: judged.reason.clone(),
        checks,
    }
}
