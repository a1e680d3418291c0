//! Candidate × readiness × drain → how it is published, and why. No I/O, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use serde::Serialize;

use super::drain::{Cause, Draining};
use super::reason::Reason;
use crate::readiness::Verdict;
use model::desired::{Candidate, HealthPolicy, Skip};
use model::{Backend, Status};

/// In a value's labels: who asked for its drain, so that a successor of this agent knows whether it has a deadline.
pub const DRAIN_BY: &str = "register.drain.by";

/// What became of one port of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
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
    /// Not published, since its key in the registry belongs to somebody else.
    Refused,
    /// Left out.
    Skipped,
}

impl RowState {
    /// The word used in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Waiting => "waiting",
            Self::Failing => "failing",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
        }
    }
}

impl EncodeLabelValue for RowState {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

/// What became of one port.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// What is published, if anything is.
    pub backend: Option<Backend>,
    /// In one word.
    pub state: RowState,
    /// Why, in one word.
    pub cause: Reason,
    /// Why; for people.
    pub reason: String,
}

impl Judged {
    pub(super) fn skipped(skip: &Skip) -> Self {
        Self::new(None, RowState::Skipped, skip.into(), skip.to_string())
    }

    pub(super) fn between_runs(reason: String) -> Self {
        Self::new(None, RowState::Waiting, Reason::CrashLoop, reason)
    }

    fn new(backend: Option<Backend>, state: RowState, cause: Reason, reason: impl Into<String>) -> Self {
        Self { backend, state, cause, reason: reason.into() }
    }
}

/// Puts together what is known of a candidate at one moment.
pub(super) fn judge(candidate: &Candidate, verdict: &Verdict, drain: Option<&Draining>) -> Judged {
    let why = match verdict {
        Verdict::Waiting if candidate.health_policy == HealthPolicy::Down && !candidate.checks.is_empty() => {
            let down = with_status(candidate, Status::Down);
            return Judged::new(Some(down), RowState::Down, Reason::NotReady, "a check has not passed yet");
        }
        Verdict::Waiting => {
            let at = candidate.dial.map_or_else(String::new, |a| format!(" at {a}"));
            let reason = format!("not ready yet: no connection accepted{at}, or a check has not passed");
            return Judged::new(None, RowState::Waiting, Reason::NotReady, reason);
        }
        Verdict::Failing(why) if candidate.health_policy == HealthPolicy::Down => {
            let down = with_status(candidate, Status::Down);
            return Judged::new(Some(down), RowState::Down, Reason::CheckFails, format!("a check fails: {why}"));
        }
        Verdict::Failing(why) => {
            return Judged::new(None, RowState::Failing, Reason::CheckFails, format!("a check fails: {why}"));
        }
        Verdict::Ready(why) => why,
    };
    if candidate.backend.status != Status::Up {
        return Judged::new(
            Some(candidate.backend.clone()),
            RowState::Down,
            Reason::HealthcheckFails,
            "its HEALTHCHECK fails",
        );
    }
    match drain {
        None => Judged::new(Some(candidate.backend.clone()), RowState::Up, why.into(), why.text()),
        Some(drain) if drain.withdraw => {
            let reason = "it was asked to stop; withdrawn at once (register.drain=off)";
            Judged::new(None, RowState::Draining, Reason::Stop, reason)
        }
        Some(drain) => {
            let mut backend = with_status(candidate, Status::Draining);
            if drain.cause != Cause::Stop {
                let mut labels = BTreeMap::clone(&backend.labels);
                labels.insert(DRAIN_BY.to_owned(), drain.cause.as_str().to_owned());
                backend.labels = Arc::new(labels);
            }
            let (cause, reason) = match drain.cause {
                Cause::Stop if drain.overdue => {
                    (Reason::Stop, "it was asked to stop, and Docker does not say whether it has")
                }
                Cause::Stop => (Reason::Stop, "it was asked to stop"),
                Cause::Operator => (Reason::Operator, "an operator drains it (register undrain ends that)"),
                Cause::Replaced => (Reason::Replaced, "another container replaces it (register.replaces) and serves"),
            };
            Judged::new(Some(backend), RowState::Draining, cause, reason)
        }
    }
}

fn with_status(candidate: &Candidate, status: Status) -> Backend {
    Backend { status, ..candidate.backend.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::Why;
    use model::desired::{CheckKind, CheckSpec};

    fn candidate(health_policy: HealthPolicy) -> Candidate {
        Candidate { health_policy, ..testing::containers::candidate() }
    }

    #[test]
    fn what_is_published_follows_from_check_and_drain() {
        let ready = Verdict::Ready(Why::Checked);
        let failing = Verdict::Failing("refused".into());
        let drain = |cause, withdraw| Draining { cause, deadline: None, withdraw, overdue: false };
        let (hide, down) = (candidate(HealthPolicy::Hide), candidate(HealthPolicy::Down));
        for (candidate, verdict, drain, status, state) in [
            (&hide, &Verdict::Waiting, None, None, RowState::Waiting),
            (&hide, &failing, None, None, RowState::Failing),
            (&down, &failing, None, Some(Status::Down), RowState::Down),
            (&hide, &ready, None, Some(Status::Up), RowState::Up),
            (&hide, &ready, Some(drain(Cause::Stop, false)), Some(Status::Draining), RowState::Draining),
            (&hide, &ready, Some(drain(Cause::Stop, true)), None, RowState::Draining),
            (&hide, &Verdict::Waiting, Some(drain(Cause::Stop, false)), None, RowState::Waiting),
        ] {
            let Judged { backend, state: judged, .. } = judge(candidate, verdict, drain.as_ref());
            assert_eq!((backend.map(|b| b.status), judged), (status, state), "{verdict:?} {drain:?}");
        }
        let drained = judge(&hide, &ready, Some(&drain(Cause::Operator, false))).backend.unwrap();
        assert_eq!(drained.labels[DRAIN_BY], "operator");
        let checked = Candidate { checks: vec![CheckSpec::new(CheckKind::Noop)], ..down };
        assert_eq!(judge(&checked, &Verdict::Waiting, None).state, RowState::Down, "as a HEALTHCHECK that starts");
    }
}
