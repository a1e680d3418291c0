//! When a candidate may be published: one gate for each, opened by its checks, gone with the candidate.
//!
//! | module | what it holds |
//! |---|---|
//! | this one | the gates and what opens them |
//! | [`attempts`] | the tasks behind them: dialling until somebody answers, checks with rise and fall |

mod attempts;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::desired::{Candidate, CheckKind, CheckSpec, ContainerId};
use crate::model::{BackendId, ServiceName, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::checks::{AnyCheck, TcpCheck};
use attempts::{Attempts, News};

/// What opens the gate of a container that has no check of any kind (`--ready`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReadyMode {
    /// Its port accepts a connection.
    #[default]
    Tcp,
    /// Nothing: it is published at once.
    None,
}

/// Which candidate: the same container may be in several services.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GateKey {
    /// The container.
    pub container: ContainerId,
    /// The service.
    pub service: ServiceName,
    /// The backend's id within it.
    pub id: BackendId,
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
struct Basis {
    started_at: String,
    dial: Option<SocketAddr>,
    checks: Vec<CheckSpec>,
    docker_health: bool,
}

struct Gate {
    basis: Basis,
    number: u64,
    verdict: Verdict,
    /// Of each check, whether it passes; all must.
    passing: Vec<bool>,
    /// Tasks whose first try has not come back.
    untried: BTreeSet<usize>,
    /// Dropping it ends them.
    _tasks: JoinSet<()>,
}

/// What is behind a gate.
enum Plan {
    Open(Why),
    /// Dial until somebody accepts.
    Once(AnyCheck),
    /// Check for as long as the candidate lives.
    Watch(Vec<(AnyCheck, CheckSpec)>),
}

/// All gates.
pub struct Readiness {
    mode: ReadyMode,
    gates: BTreeMap<GateKey, Gate>,
    numbers: u64,
    news: mpsc::Sender<News>,
    inbox: mpsc::Receiver<News>,
    waiting: Arc<AtomicUsize>,
}

impl Readiness {
    /// Without gates.
    pub fn new(mode: ReadyMode) -> Self {
        let (news, inbox) = mpsc::channel(256);
        Self { mode, gates: BTreeMap::new(), numbers: 0, news, inbox, waiting: Arc::default() }
    }

    /// Makes gates for new candidates and drops those of candidates that are gone. `started_at` tells a container's
    /// runs apart. Candidates in `registered` begin open.
    pub fn update<'a>(
        &mut self,
        candidates: impl Iterator<Item = (GateKey, &'a Candidate, &'a str)>,
        registered: &BTreeSet<(ServiceName, BackendId)>,
    ) {
        let mut former = std::mem::take(&mut self.gates);
        for (key, candidate, started_at) in candidates {
            let basis = Basis {
                started_at: started_at.to_owned(),
                dial: candidate.dial,
                checks: candidate.checks.clone(),
                docker_health: candidate.docker_health,
            };
            let gate = match former.remove(&key) {
                Some(gate) if gate.basis == basis => gate,
                _ => {
                    let known = registered.contains(&(key.service.clone(), key.id.clone()));
                    self.open(&key, candidate, basis, known)
                }
            };
            self.gates.insert(key, gate);
        }
    }

    /// Whether the candidate may be published.
    pub fn verdict(&self, key: &GateKey) -> &Verdict {
        self.gates.get(key).map_or(&Verdict::Waiting, |gate| &gate.verdict)
    }

    /// Whether the first try of every gate has come back: from then on a waiting one is known not to work yet. It takes
    /// as long as a connection may take, or a check's own timeout.
    pub fn is_settled(&self) -> bool {
        self.gates.values().all(|gate| gate.untried.is_empty())
    }

    /// Waits until a verdict changes, or a first try has come back. Cancel-safe.
    pub async fn changed(&mut self) {
        loop {
            let Some(news) = self.inbox.recv().await else { return std::future::pending().await };
            let mut changed = self.take(news);
            while let Ok(news) = self.inbox.try_recv() {
                changed |= self.take(news);
            }
            if changed {
                return;
            }
        }
    }

    fn open(&mut self, key: &GateKey, candidate: &Candidate, basis: Basis, registered: bool) -> Gate {
        self.numbers += 1;
        let number = self.numbers;
        let mut tasks = JoinSet::new();
        let attempts = |part| Attempts {
            key: key.clone(),
            number,
            part,
            out: self.news.clone(),
            waiting: Arc::clone(&self.waiting),
        };
        let (verdict, passing) = match plan(candidate, self.mode) {
            Plan::Open(why) => (Verdict::Ready(why), Vec::new()),
            Plan::Once(_) if registered => (Verdict::Ready(Why::Registered), Vec::new()),
            Plan::Once(check) => {
                tasks.spawn(attempts(0).until_accepted(check));
                (Verdict::Waiting, Vec::new())
            }
            Plan::Watch(checks) => {
                let passing = vec![registered; checks.len()];
                for (part, (check, spec)) in checks.into_iter().enumerate() {
                    tasks.spawn(attempts(part).forever(check, spec, registered));
                }
                (if registered { Verdict::Ready(Why::Registered) } else { Verdict::Waiting }, passing)
            }
        };
        let untried = if verdict == Verdict::Waiting { (0..tasks.len()).collect() } else { BTreeSet::new() };
        Gate { basis, number, verdict, passing, untried, _tasks: tasks }
    }

    fn take(&mut self, news: News) -> bool {
        let Some(gate) = self.gates.get_mut(&news.key).filter(|gate| gate.number == news.number) else { return false };
        let first = gate.untried.remove(&news.part) && gate.untried.is_empty();
        if news.verdict == Verdict::Waiting {
            return first;
        }
        if let Some(part) = gate.passing.get_mut(news.part) {
            *part = matches!(news.verdict, Verdict::Ready(_));
        }
        let blocked = matches!(news.verdict, Verdict::Ready(_)) && gate.passing.contains(&false);
        let changed = !blocked && gate.verdict != news.verdict;
        if changed {
            gate.verdict = news.verdict;
        }
        changed || first
    }
}

fn plan(candidate: &Candidate, mode: ReadyMode) -> Plan {
    let checks: Vec<_> =
        candidate.checks.iter().filter_map(|spec| Some((runnable(spec, candidate)?, spec.clone()))).collect();
    if !checks.is_empty() {
        return Plan::Watch(checks);
    }
    match candidate.dial {
        _ if candidate.docker_health => Plan::Open(Why::DockerHealth),
        _ if mode == ReadyMode::None => Plan::Open(Why::NotAsked),
        _ if candidate.backend.transport == Transport::Udp => Plan::Open(Why::Udp),
        None => Plan::Open(Why::NoAddress),
        Some(address) => Plan::Once(AnyCheck::Tcp(TcpCheck::new(address))),
    }
}

fn runnable(spec: &CheckSpec, candidate: &Candidate) -> Option<AnyCheck> {
    let mut address = candidate.dial?;
    if let Some(port) = spec.port {
        address.set_port(port.get());
    }
    match spec.kind {
        CheckKind::Tcp => Some(AnyCheck::Tcp(TcpCheck::new(address))),
        _ => None,
    }
}

/// Checks that are asked for and that this version does not run; the agent says so.
pub fn not_run(candidate: &Candidate) -> impl Iterator<Item = &CheckSpec> {
    candidate.checks.iter().filter(|spec| !matches!(spec.kind, CheckKind::Tcp | CheckKind::Docker))
}

#[cfg(test)]
mod tests;
