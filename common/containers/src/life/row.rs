//! What is shown of one port of one container.

use std::sync::Arc;

use model::desired::Decision;
use serde::Serialize;

use super::reason::Reason;
use super::verdict::{Judged, RowState};
use crate::readiness::CheckState;

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
    /// Why, in a word.
    pub cause: Reason,
    /// Why, for people.
    pub reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckState>,
}

impl Row {
    /// Of one decision and what became of it.
    pub fn of(decision: &Decision, judged: &Judged, checks: Vec<CheckState>) -> Self {
        let candidate = decision.candidate();
        Self {
            container: decision.name.clone(),
            container_id: decision.container.short().to_owned(),
            port: decision.port.map(|(port, transport)| format!("{port}/{transport}")),
            service: candidate.map(|c| c.service.to_string()),
            id: candidate.map(|c| c.backend.id.to_string()),
            address: candidate.map(|c| c.backend.address()),
            state: judged.state,
            cause: judged.cause,
            reason: judged.reason.clone(),
            checks,
        }
    }
}
