//! Why a port stands as it does: a closed set of words, for the log, the status and the metrics.

use std::fmt;

use model::desired::Skip;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use serde::{Serialize, Serializer};

use crate::readiness::Why;

/// Why a port of a container is registered, withdrawn or left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Its port accepted a connection.
    Accepted,
    ChecksPass,
    /// Its HEALTHCHECK decides, and does not fail.
    Healthcheck,
    /// `--ready none`.
    NotAsked,
    /// Nothing tells whether a UDP port works.
    Udp,
    /// It cannot be dialled: it has no address of its own, or there is no way to that.
    NotDialled,
    /// It was in the registry when this agent started.
    FoundRegistered,
    /// The container was asked to stop.
    Stop,
    /// An operator drains it.
    Operator,
    /// A container that serves names it as the one it replaces.
    Replaced,
    /// Nothing accepted a connection yet, or a check has not passed often enough.
    NotReady,
    CheckFails,
    /// Its HEALTHCHECK fails, and it is published as down.
    HealthcheckFails,
    /// Its container ends again and again.
    CrashLoop,
    /// Its key in the registry belongs to somebody else.
    KeyTaken,
    /// Its container does not run any more.
    Ended,
    /// It is left out, by this word of [`Skip::as_str`].
    LeftOut(&'static str),
}

impl Reason {
    /// The word used in log, status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::ChecksPass => "checks_pass",
            Self::Healthcheck => "healthcheck",
            Self::NotAsked => "not_asked",
            Self::Udp => "udp",
            Self::NotDialled => "not_dialled",
            Self::FoundRegistered => "found_registered",
            Self::Stop => "stop",
            Self::Operator => "operator",
            Self::Replaced => "replaced",
            Self::NotReady => "not_ready",
            Self::CheckFails => "check_fails",
            Self::HealthcheckFails => "healthcheck_fails",
            Self::CrashLoop => "crash_loop",
            Self::KeyTaken => "key_taken",
            Self::Ended => "ended",
            Self::LeftOut(word) => word,
        }
    }
}

impl From<&Why> for Reason {
    fn from(why: &Why) -> Self {
        match why {
            Why::Accepted(_) => Self::Accepted,
            Why::Checked => Self::ChecksPass,
            Why::DockerHealth => Self::Healthcheck,
            Why::NotAsked => Self::NotAsked,
            Why::Udp => Self::Udp,
            Why::NoAddress | Why::Unreachable(_) => Self::NotDialled,
            Why::Registered => Self::FoundRegistered,
        }
    }
}

impl From<&Skip> for Reason {
    fn from(skip: &Skip) -> Self {
        Self::LeftOut(skip.as_str())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), fmt::Error> {
        self.as_str().encode(encoder)
    }
}
