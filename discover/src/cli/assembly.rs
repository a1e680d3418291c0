//! An agent put together of what a [`Description`] says.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::debounce::Debounce;
use agent::watch::channel;
use futures_util::future::BoxFuture;
use model::ServiceMap;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::args::RunArgs;
use super::description::{Certificates, Description};
use super::source::Unstarted;
use crate::agent::{Agent, TakesTurns};
use crate::generators::haproxy::Haproxy;
use crate::generators::haproxy::turn::metrics::HaproxyMetrics;
use crate::metrics::Metrics;
use crate::reconcile::{Admission, Emptied, Guard, Memory, Near, Reconciler, Source};
use crate::state::StateFile;
use crate::status::services::HaproxyPart;
use crate::status::{StatusBoard, series};
use crate::watchers::AnyError;

/// Everything that outlives one config.
pub(super) struct Assembly {
    pub(super) args: RunArgs,
    pub(super) guard: Arc<Mutex<Guard>>,
    /// Asks for a turn.
    pub(super) wake: Arc<Notify>,
    pub(super) board: StatusBoard,
    /// Counts the turns that changed something.
    pub(super) changes: watch::Sender<u64>,
    pub(super) metrics: Metrics,
    pub(super) of_haproxy: HaproxyMetrics,
    pub(super) state_file: Option<PathBuf>,
    /// Where the history outlives a restart.
    pub(super) history_file: Option<PathBuf>,
    /// What was routed before the start.
    routed: ServiceMap,
}

/// What one agent is made of, not started.
#[derive(Default)]
pub(super) struct AgentParts {
    /// The sources, and the watchers below them.
    pub(super) sources: (Vec<Unstarted>, Vec<Source>),
    pub(super) certificates: Option<Certificates>,
    pub(super) haproxy: Option<Haproxy>,
    /// The generators beside HAProxy.
    pub(super) others: Vec<Box<dyn TakesTurns>>,
}

/// A task that may fail.
type Failing = BoxFuture<'static, Result<(), AnyError>>;

/// An agent's tasks; each runs until it is cancelled.
pub(super) struct AgentTasks {
    /// Each with the name of its source.
    pub(super) watchers: Vec<(Arc<str>, Failing)>,
    pub(super) certificates: Option<BoxFuture<'static, ()>>,
    pub(super) turns: BoxFuture<'static, ()>,
}

impl Assembly {
    /// Goes on from what was remembered.
    pub(super) fn new(description: Description<'_>, registry: &mut Registry) -> Self {
        let (args, state_file) = (description.args.clone(), description.state_file());
        let memory = state_file.clone().map(|path| StateFile::new(path).load()).unwrap_or_default();
        let (guard, routed) = remembered(description, memory);
        let board = StatusBoard::default();
        series::register(board.clone(), args.metrics_services, registry);
        Self {
            guard: Arc::new(Mutex::new(guard)),
            wake: Arc::default(),
            board,
            changes: watch::channel(0).0,
            metrics: Metrics::new(registry),
            of_haproxy: HaproxyMetrics::new(registry),
            args,
            state_file,
            history_file: description.history_file(),
            routed,
        }
    }

    /// The tasks of the agent that `description` says, made of `parts`.
    pub(super) fn tasks(
        &self,
        description: Description<'_>,
        parts: AgentParts,
        cancel: &CancellationToken,
    ) -> AgentTasks {
        let AgentParts { sources: (unstarted, inner), certificates, haproxy, others } = parts;
        self.board.set_inner(inner);
        self.board.set_certificates(certificates.as_ref().map(|(keeper, _)| keeper.loaded()));
        self.board.set_haproxy(
            haproxy.as_ref().map(|haproxy| HaproxyPart { status: haproxy.status(), traffic: haproxy.traffic() }),
        );
        let (mut sources, mut watchers) = (Vec::new(), Vec::new());
        for Unstarted { name, answers_for, watcher } in unstarted {
            let (outlet, inlet) = channel();
            sources.push(Source { name: name.clone(), required: true, answers_for, inlet });
            watchers.push((name, watcher.run(outlet, cancel.clone())));
        }
        for why in haproxy.iter().flat_map(|haproxy| description.advice(haproxy.header())) {
            warn!("{why}");
        }
        let haproxy = haproxy.map(|haproxy| Box::new(haproxy) as Box<dyn TakesTurns>);
        let agent = self.agent(description, sources, haproxy.into_iter().chain(others).collect());
        let turning = cancel.clone();
        AgentTasks {
            watchers,
            certificates: certificates.map(|(keeper, socket)| Box::pin(keeper.run(socket, cancel.clone())) as _),
            turns: Box::pin(async move {
                let Ok(()) = agent.run(turning).await;
            }),
        }
    }

    fn agent(&self, description: Description<'_>, sources: Vec<Source>, generators: Vec<Box<dyn TakesTurns>>) -> Agent {
        let pace = &self.args.pace;
        Agent {
            sources,
            reconciler: self.reconciler(description),
            generators,
            state: self.state_file.clone().map(StateFile::new),
            debounce: Debounce::new(pace.quiet, pace.max_wait),
            sync_deadline: pace.sync_deadline,
            wake: self.wake.clone(),
            board: self.board.clone(),
            changes: self.changes.clone(),
            metrics: self.metrics.clone(),
        }
    }

    fn reconciler(&self, description: Description<'_>) -> Reconciler {
        let before = self.board.services();
        let before = if before.is_empty() { &self.routed } else { &before };
        reconciler(description, self.guard.clone(), &self.routed, before)
    }
}

/// The guard that `memory` is of, and what was routed then.
pub(super) fn remembered(description: Description<'_>, memory: Memory) -> (Guard, ServiceMap) {
    let mut routed: ServiceMap = memory.told.clone();
    Admission::new(description.addresses()).admit(&mut routed);
    routed.extend(memory.kept.clone());
    (Guard::new(description.args.pace.guard(), memory, Instant::now()), routed)
}

/// The way from the sources to what ought to run: `routed` was routed at the start, and `before` was last.
pub(super) fn reconciler(
    description: Description<'_>,
    guard: Arc<Mutex<Guard>>,
    routed: &ServiceMap,
    before: &ServiceMap,
) -> Reconciler {
    let pace = &description.args.pace;
    let policies = description.policies().map(|policies| policies.beginning_with(before));
    let emptied = Emptied::new(pace.on_empty, routed.clone()).with_defaults(pace.default_servers.clone());
    let admission = Admission::new(description.addresses());
    Reconciler::new(description.args.limits, guard, admission, emptied)
        .with_policies(policies)
        .with_near(Near::new(description.args.prefer.settings()))
}
