//! When a candidate may be published: one gate for each, opened by its checks, gone with the candidate.
//!
//! | module | what it holds |
//! |---|---|
//! | this one | the gates and what opens them |
//! | `gate` | one gate: what its parts say, and what follows |
//! | `attempts` | the tasks behind them: dialling until somebody answers, checks in their intervals |
//! | `tally` | rise, fall, start period: pure |
//! | `damping` | what falls again and again: pure |
//! | `metrics` | what is counted |

mod attempts;
mod damping;
mod gate;
mod metrics;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use model::desired::{Candidate, CheckKind, CheckSpec, ContainerId};
use model::{BackendId, Port, ServiceName, Transport};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::checks::{AnyCheck, OwnPort, TcpCheck};
use crate::docker::Docker;
pub use attempts::together;
use attempts::{Attempts, News};
pub use damping::{Damping, WINDOW};
use gate::{Basis, Gate, Part};
pub use gate::{CheckState, GateKey, Verdict, Why};
pub use metrics::CheckMetrics;
pub use tally::{Standing, Tally};

/// What opens the gate of a container that has no check of any kind (`--ready`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReadyMode {
    /// Its port accepts a connection.
    #[default]
    Tcp,
    /// Nothing: it is published at once.
    None,
}

/// Which address the checks of a container dial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CheckTarget {
    /// The container's own: nothing that a label says can send a check elsewhere.
    #[default]
    Own,
    /// The published one, where the containers' networks cannot be reached from here. A label may name any address
    /// there; and behind Docker's proxy a tcp check passes whatever the container does.
    Published,
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
    target: CheckTarget,
    docker: Option<Docker>,
    metrics: CheckMetrics,
    gates: BTreeMap<ContainerId, Vec<(GateKey, Gate)>>,
    numbers: u64,
    news: mpsc::Sender<News>,
    inbox: mpsc::Receiver<News>,
    waiting: Arc<AtomicUsize>,
}

impl Readiness {
    /// Without gates. Checks dial the containers' own addresses; those that run a command fail for want of a Docker.
    pub fn new(mode: ReadyMode) -> Self {
        let (news, inbox) = mpsc::channel(256);
        Self {
            mode,
            target: CheckTarget::Own,
            docker: None,
            metrics: CheckMetrics::default(),
            gates: BTreeMap::new(),
            numbers: 0,
            news,
            inbox,
            waiting: Arc::default(),
        }
    }

    /// The same, with a Docker that runs commands in containers.
    #[must_use]
    pub fn with_docker(mut self, docker: Docker) -> Self {
        self.docker = Some(docker);
        self
    }

    /// Whom to ask about a container.
    pub(crate) fn docker(&self) -> Option<&Docker> {
        self.docker.as_ref()
    }

    /// The same, counting into `metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: CheckMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// The same, dialling `target`.
    #[must_use]
    pub fn with_target(mut self, target: CheckTarget) -> Self {
        self.target = target;
        self
    }

    /// Makes gates for new candidates of `container` and drops those of candidates that are gone. `started_at` tells its
    /// runs apart. Candidates in `registered` begin open.
    pub fn update<'a>(
        &mut self,
        container: &ContainerId,
        candidates: impl Iterator<Item = &'a Candidate>,
        started_at: &str,
        registered: &BTreeSet<(ServiceName, BackendId)>,
    ) {
        let mut former = self.gates.remove(container).unwrap_or_default();
        let mut gates = Vec::new();
        for candidate in candidates {
            let key = GateKey::of(container, candidate);
            let basis = Basis {
                started_at: started_at.to_owned(),
                dial: candidate.dial,
                checks: candidate.checks.clone(),
                docker_health: candidate.docker_health,
            };
            let known = former.iter().position(|(known, _)| *known == key);
            let gate = match known.map(|place| former.swap_remove(place).1) {
                Some(gate) if gate.basis == basis => gate,
                gate => {
                    // Another address of the same run (a network was connected) need not prove itself from nothing: what
                    // is published stays until a check says otherwise.
                    let was_ready = |gate: Gate| {
                        gate.basis.started_at == basis.started_at && matches!(gate.verdict, Verdict::Ready(_))
                    };
                    let known =
                        gate.is_some_and(was_ready) || registered.contains(&(key.service.clone(), key.id.clone()));
                    self.open(&key, candidate, basis, known)
                }
            };
            gates.push((key, gate));
        }
        if !gates.is_empty() {
            gates.shrink_to_fit();
            self.gates.insert(container.clone(), gates);
        }
    }

    fn gate(&self, key: &GateKey) -> Option<&Gate> {
        self.gates.get(&key.container)?.iter().find(|(known, _)| known == key).map(|(_, gate)| gate)
    }

    /// Whether the candidate may be published.
    pub fn verdict(&self, key: &GateKey) -> &Verdict {
        self.gate(key).map_or(&Verdict::Waiting, |gate| &gate.verdict)
    }

    /// The standing of each check of the candidate; empty where it has none of its own.
    pub fn checks(&self, key: &GateKey) -> Vec<CheckState> {
        self.gate(key).map(Gate::checks).unwrap_or_default()
    }

    /// Whether the first try of every gate has come back: from then on a waiting one is known not to work yet. It takes
    /// as long as a connection may take, or a check's own timeout.
    pub fn is_settled(&self) -> bool {
        self.gates.values().flatten().all(|(_, gate)| gate.untried.is_empty())
    }

    /// Waits until a verdict changes, or a first try has come back; gives the containers for which it did. Cancel-safe.
    pub async fn changed(&mut self) -> BTreeSet<ContainerId> {
        loop {
            let Some(news) = self.inbox.recv().await else { return std::future::pending().await };
            let first = self.take(news);
            let changed: BTreeSet<ContainerId> = first.into_iter().chain(self.changed_by_now()).collect();
            if !changed.is_empty() {
                return changed;
            }
        }
    }

    /// The same of what has come already.
    pub fn changed_by_now(&mut self) -> BTreeSet<ContainerId> {
        let mut changed = BTreeSet::new();
        while let Ok(news) = self.inbox.try_recv() {
            changed.extend(self.take(news));
        }
        changed
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
            metrics: self.metrics.clone(),
        };
        let mut parts = Vec::new();
        let verdict = match self.plan(key, candidate) {
            Plan::Open(why) => Verdict::Ready(why),
            Plan::Once(_) if registered => Verdict::Ready(Why::Registered),
            Plan::Once(check) => {
                tasks.spawn(attempts(0).until_accepted(check));
                Verdict::Waiting
            }
            Plan::Watch(checks) => {
                for (part, (check, spec)) in checks.into_iter().enumerate() {
                    let standing = if registered { Standing::Passing } else { Standing::Waiting(None) };
                    parts.push(Part { kind: spec.kind.clone(), standing });
                    tasks.spawn(attempts(part).forever(check, spec, registered));
                }
                if registered { Verdict::Ready(Why::Registered) } else { Verdict::Waiting }
            }
        };
        let untried = if verdict == Verdict::Waiting { (0..tasks.len()).collect() } else { BTreeSet::new() };
        Gate { basis, number, verdict, parts, untried, _tasks: tasks }
    }

    fn take(&mut self, news: News) -> Option<ContainerId> {
        let mut gates = self.gates.get_mut(&news.key.container)?.iter_mut();
        let (_, gate) = gates.find(|(key, gate)| *key == news.key && gate.number == news.number)?;
        gate.take(news.part, news.told).then_some(news.key.container)
    }

    fn plan(&self, key: &GateKey, candidate: &Candidate) -> Plan {
        let runnable = |spec: &CheckSpec| {
            let to = self.target(candidate, spec);
            Some((AnyCheck::new(&spec.kind, to, &key.container, self.docker.as_ref())?, spec.clone()))
        };
        let mut checks: Vec<_> = candidate.checks.iter().filter_map(runnable).collect();
        // Where the container has the host's network, another program of the host may have its port.
        let own = candidate.dial.filter(|_| candidate.host_network && candidate.backend.transport == Transport::Tcp);
        let own = own.map(|address| OwnPort::new(address, key.container.clone()));
        if !checks.is_empty() {
            let own = own.map(|own| (AnyCheck::OwnPort(own.undialled()), CheckSpec::new(CheckKind::Tcp)));
            checks.extend(own);
            return Plan::Watch(checks);
        }
        match candidate.dial {
            _ if candidate.docker_health => Plan::Open(Why::DockerHealth),
            _ if self.mode == ReadyMode::None => Plan::Open(Why::NotAsked),
            _ if candidate.backend.transport == Transport::Udp => Plan::Open(Why::Udp),
            None => Plan::Open(Why::NoAddress),
            Some(address) => match own {
                // Asked again and again: the port may change hands.
                Some(own) => Plan::Watch(vec![(AnyCheck::OwnPort(own), CheckSpec::new(CheckKind::Tcp))]),
                None => Plan::Once(AnyCheck::Tcp(TcpCheck::new(address))),
            },
        }
    }

    /// What a check dials.
    fn target(&self, candidate: &Candidate, spec: &CheckSpec) -> Option<SocketAddr> {
        match self.target {
            CheckTarget::Own => {
                let mut own = candidate.dial?;
                own.set_port(spec.port.map_or(own.port(), Port::get));
                Some(own)
            }
            // A port inside the container says nothing of where that is published.
            CheckTarget::Published => Some(SocketAddr::new(candidate.backend.host.ip()?, candidate.backend.port.get())),
        }
    }
}

#[cfg(test)]
mod tests;
