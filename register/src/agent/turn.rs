//! One turn of the agent: what became of each port → what to publish, and a row that says why. No I/O, no clock.

use std::collections::BTreeMap;

use containers::life::reason::Reason;
use containers::life::row::Row;
use containers::life::verdict::{Judged, RowState};
use containers::readiness::CheckState;
use model::desired::Decision;
use registry::store::Key;

use crate::publish::{Refusal, Registrations};

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
        self.rows.push(Row::of(decision, &judged, checks));
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
                (row.state, row.cause) = (RowState::Refused, Reason::KeyTaken);
                row.reason = format!("not published: {key} {holder}");
            }
        }
    }
}
