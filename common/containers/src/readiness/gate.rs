//! One gate: what its parts say, and what follows from that. No I/O.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;

use super::tally::Standing;
use model::desired::{Candidate, CheckKind, CheckSpec, ContainerId};
use model::{BackendId, ServiceName};

/// What one task found out.
pub(super) enum Told {
    /// The verdict of a gate without checks.
    Gate(Verdict),
    /// A check's first try came back, and changed nothing.
    Tried,
    /// A check's new standing.
    Check(Standing),
}

/// Which candidate: the same container may be in several services.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GateKey {
    pub container: ContainerId,
    pub service: ServiceName,
    /// The backend's id within it.
    pub id: BackendId,
}

impl GateKey {
    pub fn of(container: &ContainerId, candidate: &Candidate) -> Self {
        Self { container: container.clone(), service: candidate.service.clone(), id: candidate.backend.id.clone() }
    }
}

/// Whether a candidate may be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet: nothing accepted, or a check has not passed often enough.
    Waiting,
    /// Yes.
    Ready(Why),
    /// Not any more: a check fails, for this reason.
    Failing(String),
}

/// Why a candidate counts as ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Its port accepted a connection this long after its gate was made.
    Accepted(Duration),
    /// Its checks pass.
    Checked,
    /// Docker's HEALTHCHECK decides.
    DockerHealth,
    /// `--ready none`.
    NotAsked,
    /// Nothing tells whether a UDP port works.
    Udp,
    /// It has no address of its own to dial.
    NoAddress,
    /// Its own address cannot be reached from here, for this reason.
    Unreachable(String),
    /// It was in the registry when this agent started.
    Registered,
}

impl Why {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Accepted(after) => format!("its port accepted a connection after {after:.0?}"),
            Self::Checked => "its checks pass".into(),
            Self::DockerHealth => "its HEALTHCHECK decides".into(),
            Self::NotAsked => "published at once (--ready none)".into(),
            Self::Udp => "published at once: nothing tells whether a UDP port works".into(),
            Self::NoAddress => "published at once: it has no address of its own to dial".into(),
            Self::Unreachable(why) => format!("published without a check, its own address cannot be reached: {why}"),
            Self::Registered => "it was registered when this agent started".into(),
        }
    }
}

/// What a gate depends on: another value means another gate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Basis {
    pub started_at: String,
    pub dial: Option<SocketAddr>,
    pub checks: Vec<CheckSpec>,
    pub docker_health: bool,
}

/// One check of a gate.
pub(super) struct Part {
    pub kind: CheckKind,
    pub standing: Standing,
}

/// A check's standing, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckState {
    /// What is tried.
    pub check: &'static str,
    /// `waiting`, `passing`, `failing` or `flapping`.
    pub state: &'static str,
    /// Why it does not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

pub(super) struct Gate {
    pub basis: Basis,
    pub number: u64,
    pub verdict: Verdict,
    /// Its checks; all must pass.
    pub parts: Vec<Part>,
    /// Tasks whose first try has not come back.
    pub untried: BTreeSet<usize>,
    /// Dropping it ends them.
    pub _tasks: JoinSet<()>,
}

impl Gate {
    /// Each check's standing, in the order in which they were asked for.
    pub fn checks(&self) -> Vec<CheckState> {
        let state = |part: &Part| CheckState {
            check: part.kind.as_str(),
            state: part.standing.as_str(),
            reason: part.standing.reason().map(str::to_owned),
        };
        self.parts.iter().map(state).collect()
    }

    /// Takes news in; returns whether anybody should look.
    pub fn take(&mut self, part: usize, told: Told) -> bool {
        let first = self.untried.remove(&part) && self.untried.is_empty();
        let verdict = match told {
            Told::Tried => return first,
            Told::Gate(verdict) => verdict,
            Told::Check(standing) => {
                let Some(part) = self.parts.get_mut(part) else { return first };
                part.standing = standing;
                match self.all() {
                    // What was in the registry stays until a check says otherwise.
                    Verdict::Ready(_) if self.verdict == Verdict::Ready(Why::Registered) => return true,
                    verdict => verdict,
                }
            }
        };
        self.verdict = verdict;
        true
    }

    /// What the checks say together.
    fn all(&self) -> Verdict {
        let failing = |part: &Part| match &part.standing {
            Standing::Failing(why) | Standing::Flapping(why) => Some(format!("{}: {why}", part.kind.as_str())),
            Standing::Waiting(_) | Standing::Passing => None,
        };
        match self.parts.iter().find_map(failing) {
            Some(why) => Verdict::Failing(why),
            None if self.parts.iter().all(|part| part.standing == Standing::Passing) => Verdict::Ready(Why::Checked),
            None => Verdict::Waiting,
        }
    }
}
