//! What a reload must take care of: what HAProxy's checks know, and workers that hang.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use agent::telemetry::Chain;
use nix::sys::signal::Signal;
use tracing::{debug, warn};

use super::connection::{Connection, PATIENCE};
use crate::generators::haproxy::file::layout::Layout;
use crate::haproxy::api::ops::{Op, ServerRef};
use crate::haproxy::api::tables::{OperState, ServerState};
use crate::haproxy::process::launch;

impl Connection {
    /// Servers that the checks found dead. A new worker starts every server up (docs/haproxy.md).
    pub(super) async fn dead_servers(&mut self) -> Vec<ServerState> {
        let all = self.runtime.servers_state(None).await.unwrap_or_default();
        all.into_iter().filter(|s| s.oper == OperState::Stopped && s.check.enabled()).collect()
    }

    /// Of these sections those in which no server works. None, where HAProxy cannot be asked.
    pub(super) async fn without_working_server(&mut self, mut sections: BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        match self.asks() {
            true => match self.runtime.servers_state(None).await {
                Ok(all) => {
                    let working = |s: &&ServerState| s.oper != OperState::Stopped && !s.admin.in_maintenance();
                    for server in all.iter().filter(working) {
                        sections.remove(&*server.section);
                    }
                    sections
                }
                Err(_) => BTreeSet::new(),
            },
            false => BTreeSet::new(),
        }
    }

    /// Tells a new worker which servers its predecessor had found dead, so that it sends them nothing before its own
    /// first check. Those that moved meanwhile are judged anew.
    pub(super) async fn mark_dead(&mut self, dead: &[ServerState]) {
        if dead.is_empty() {
            return;
        }
        let place = |s: &ServerState| (s.section.clone(), s.name.clone(), s.addr, s.port);
        let dead: HashSet<_> = dead.iter().map(place).collect();
        let now = self.runtime.servers_state(None).await.unwrap_or_default();
        let still = now.iter().filter(|s| s.check.enabled() && dead.contains(&place(s)));
        let ops: Vec<Op> =
            still.filter_map(|s| ServerRef::new(&*s.section, &*s.name).ok()).map(Op::HealthDown).collect();
        for (op, result) in ops.iter().zip(self.runtime.apply(&ops).await) {
            if let Err(error) = result {
                debug!(%op, error = %Chain(&error), "A dead server counts as up until its first check.");
            }
        }
    }

    /// Has a new worker not ask the agents of servers that discover has in maintenance: their word would end it. (A weight of 0 in the file stays 0 by any share of it.)
    pub(super) async fn silence_agents(&mut self, layout: &Layout) {
        let mut ops = Vec::new();
        for section in &layout.sections {
            let silent = section.servers.iter().filter(|s| s.maint && s.has_agent(&section.inherited));
            ops.extend(silent.filter_map(|s| ServerRef::new(&*section.name, &*s.name).ok()).map(Op::DisableAgent));
        }
        if ops.is_empty() || !self.asks() {
            return;
        }
        for (op, result) in ops.iter().zip(self.runtime.apply(&ops).await) {
            if let Err(error) = result {
                debug!(%op, error = %Chain(&error), "An agent may end a server's maintenance until the next look.");
            }
        }
    }

    /// Ends a worker that answered nobody and still does not, now that another serves: a reload cannot take its listeners
    /// over, so it would keep its share of new connections waiting for ever. Only a child of our own master is touched.
    pub(super) async fn end_if_hung(&self, worker: i32) {
        let Some(master) = self.process.pid() else { return };
        if launch::parent(worker) != Some(master) || self.process.master.process_answers(worker, PATIENCE).await {
            return;
        }
        warn!(worker, "A worker of HAProxy that has been replaced hangs; ending it.");
        if let Err(error) = launch::send(worker, Signal::SIGKILL) {
            warn!(error = %Chain(&error), "It could not be ended.");
        }
    }
}
