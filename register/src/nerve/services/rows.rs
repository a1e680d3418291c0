//! What the status shows of services without Docker.

use std::sync::Arc;

use containers::readiness::CheckState;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use serde::Serialize;

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// Its checks pass.
    Up,
    /// Not known yet.
    Waiting,
    /// A check fails.
    Failing,
    /// What its checks say is held back by its rate limit.
    Throttled,
    /// Its config is wrong.
    LeftOut,
}

impl ServiceState {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Up, Self::Waiting, Self::Failing, Self::Throttled, Self::LeftOut];

    /// The word used in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
            Self::Throttled => "throttled",
            Self::LeftOut => "left-out",
        }
    }
}

impl EncodeLabelValue for ServiceState {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceRow {
    /// Its name.
    pub service: Arc<str>,
    /// Where clients reach it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    pub state: ServiceState,
    pub reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckState>,
    /// Where it is published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reporters: Vec<ReporterRow>,
    /// What is wrong with its newest config, while the former one goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// One place where a service is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReporterRow {
    /// Its `reporter_type`.
    pub kind: &'static str,
    /// The servers.
    pub at: String,
    pub path: String,
    /// `published`, `withdrawn`, `pending`, `away`, `refused` or `failed`.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The row of a service whose config is wrong.
pub(super) fn left_out(name: &Arc<str>, reason: String) -> ServiceRow {
    ServiceRow {
        service: name.clone(),
        address: String::new(),
        state: ServiceState::LeftOut,
        reason,
        checks: Vec::new(),
        reporters: Vec::new(),
        refused: None,
    }
}
