//! What the status shows of services without Docker.

use std::sync::Arc;

use containers::readiness::CheckState;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use serde::Serialize;

use super::entry::Entry;
use super::outlets::Outlets;
use super::rounds::Health;
use crate::nerve::reporters::Frame;

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
    /// How it is.
    pub state: ServiceState,
    /// Why.
    pub reason: String,
    /// Its checks.
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
    /// The directory.
    pub path: String,
    /// `published`, `withdrawn`, `pending`, `away`, `refused` or `failed`.
    pub state: &'static str,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The row of one service.
pub(super) fn row(entry: &Entry, frame: &Frame, outlets: &Outlets) -> ServiceRow {
    let now = &entry.now;
    let (state, reason) = match &now.health {
        _ if now.held_back.is_some() => (ServiceState::Throttled, "rate_limiting holds its report back".to_owned()),
        Health::Up if now.service.checks.is_empty() => (ServiceState::Up, "it has no check".to_owned()),
        Health::Up => (ServiceState::Up, "its checks pass".to_owned()),
        Health::Down(why) => (ServiceState::Failing, why.clone()),
        Health::Undecided => (ServiceState::Waiting, "its checks have not decided yet".to_owned()),
    };
    let up = now.reported == Some(true);
    let reporter = |placement: crate::nerve::reporters::Placement| {
        let holds = outlets.holds(&placement, &now.service.payload, frame);
        let hindrance = outlets.hindrance(&placement, frame);
        let (state, reason) = match (up, holds, hindrance) {
            (_, _, Some((state, why))) => (state, Some(why)),
            (true, true, None) => ("published", None),
            (false, false, None) => ("withdrawn", None),
            _ => ("pending", None),
        };
        let at = placement.target.destination(frame);
        let path = placement.target.path().to_owned();
        ReporterRow { kind: placement.target.kind(), at, path, state, reason }
    };
    ServiceRow {
        service: now.service.name.clone(),
        address: now.service.address.clone(),
        state,
        reason,
        checks: now.checks.clone(),
        reporters: now.placements().map(reporter).collect(),
        refused: None,
    }
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
