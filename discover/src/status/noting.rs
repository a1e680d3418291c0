//! What the board notes for the history, and what it knows of HAProxy beside its status.

use std::sync::Arc;

use agent::history::History;
use agent::sync::lock;
use agent::watch::Observation;
use registry::Snapshot;
use tokio::time::Instant;

use super::StatusBoard;
use super::chronicle::TurnEnd;
use super::rows::quarantined;
use super::services::{HaproxyPart, View};
use crate::metrics::Metrics;
use crate::reconcile::{Desired, FoundDown};

impl StatusBoard {
    /// Links to HAProxy's stats page on this port.
    pub fn set_stats_port(&self, port: Option<u16>) {
        self.lock().stats_port = port;
    }

    /// What has changed.
    pub fn history(&self) -> History {
        self.lock().chronicle.history.clone()
    }

    /// Backends that HAProxy finds down, as of the last look.
    pub fn found_down(&self) -> Arc<FoundDown> {
        self.lock().chronicle.found_down.clone()
    }

    /// Notes what a turn has changed. `since`: the first news that it was for; `ok`: it brought about what is desired.
    pub fn chronicle(
        &self,
        desired: &Desired,
        observations: &[Observation<Snapshot>],
        since: Option<Instant>,
        ok: bool,
        metrics: &Metrics,
    ) {
        let mut state = self.lock();
        let haproxy = state.haproxy.as_ref().map(|haproxy| haproxy.status.clone());
        let haproxy = haproxy.as_deref().map(lock);
        let left_out = quarantined(observations, desired);
        let end = TurnEnd { desired, observations, ok, haproxy: haproxy.as_deref(), left_out: &left_out, since };
        if let Some(since) = state.chronicle.turned(&end) {
            metrics.routed.observe(since.elapsed().as_secs_f64());
        }
    }

    /// HAProxy's part, where there is one.
    pub fn haproxy(&self) -> Option<HaproxyPart> {
        self.lock().haproxy.clone()
    }

    /// Notes what HAProxy itself has found of its servers, where it has another number that can take a request. It is asked, unless it was asked since; tells
    /// whether there was anything to note.
    pub async fn look_for_changes(&self) -> bool {
        let Some(HaproxyPart { traffic, .. }) = self.haproxy() else { return false };
        let moved = {
            let mut state = self.lock();
            if traffic.samples().has_moved() {
                state.chronicle.moved = Some(Instant::now());
            }
            state.chronicle.moved
        };
        let Some(moved) = moved else { return false };
        if traffic.is_older_than(moved) {
            if !traffic.is_rested() {
                return false; // a later look
            }
            traffic.look_now().await;
        }
        let mut state = self.lock();
        state.chronicle.moved = None;
        let (view, services) = (View::of(state.haproxy.as_ref()), state.services.clone());
        view.is_seen() && state.chronicle.looked(&services, &view)
    }
}
