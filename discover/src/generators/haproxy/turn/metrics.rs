//! The HAProxy generator's metrics.

use std::collections::BTreeSet;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::demands::DemandMetrics;
use super::reason::ReloadReason;
use crate::haproxy::api::ops::Op;
use crate::metrics::{Ended, OutcomeLabel};

/// The generator's metrics; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct HaproxyMetrics {
    /// Sections rendered anew.
    pub renders: Counter,
    /// Times that haproxy.cfg was written.
    pub config_writes: Counter,
    /// Times that `haproxy -c` (or a check command) was asked.
    pub config_checks: Counter,
    /// Differences found between HAProxy and what it was left as.
    pub repairs: Counter,
    /// HAProxy's workers that finish their sessions, as of the last reload or look.
    pub old_workers: Gauge,
    /// Changes of servers that are left to the next turns.
    pub changes_waiting: Gauge,
    /// Services whose structure may not change yet.
    pub structures_waiting: Gauge,
    /// Checks and descriptors.
    pub demands: DemandMetrics,
    operations: Family<OperationLabel, Counter>,
    reloads: Family<OutcomeLabel, Counter>,
    reload_reasons: Family<ReasonLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
    outcome: Ended,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: ReloadReason,
}

impl EncodeLabelValue for ReloadReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

impl HaproxyMetrics {
    /// Metrics in `registry`, under `discover_`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("discover");
        let metrics = Self { demands: DemandMetrics::new(registry), ..Self::default() };
        registry.register("renders", "Sections rendered anew", metrics.renders.clone());
        registry.register("config_checks", "Times that a haproxy.cfg was checked", metrics.config_checks.clone());
        registry.register("config_writes", "Times that haproxy.cfg was written", metrics.config_writes.clone());
        registry.register("repairs", "Differences found in HAProxy and mended", metrics.repairs.clone());
        registry.register("old_workers", "Workers of HAProxy that finish their sessions", metrics.old_workers.clone());
        let waiting = metrics.changes_waiting.clone();
        registry.register("changes_waiting", "Changes of servers that are left to the next turns", waiting);
        let waiting = metrics.structures_waiting.clone();
        registry.register("structures_waiting", "Services whose structure may not change yet", waiting);
        registry.register("runtime_operations", "Runtime operations", metrics.operations.clone());
        registry.register("reloads", "Reloads of HAProxy", metrics.reloads.clone());
        registry.register("reload_reasons", "Why HAProxy was reloaded", metrics.reload_reasons.clone());
        metrics
    }

    /// HAProxy answered an operation.
    pub fn operation(&self, op: &Op, ok: bool) {
        self.operations.get_or_create(&OperationLabel { operation: op.kind(), outcome: ok.into() }).inc();
    }

    /// A reload ended.
    pub fn reload(&self, reasons: &BTreeSet<ReloadReason>, ok: bool) {
        self.reloads.get_or_create(&OutcomeLabel { outcome: ok.into() }).inc();
        for reason in reasons {
            self.reload_reasons.get_or_create(&ReasonLabel { reason: *reason }).inc();
        }
    }
}
