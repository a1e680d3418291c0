//! What services without Docker count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::rows::{ServiceRow, ServiceState};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: ServiceState,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// What services without Docker count; clones share it.
#[derive(Debug, Clone, Default)]
pub struct ServiceMetrics {
    services: Family<StateLabel, Gauge>,
    /// Services reported up or down.
    pub(super) reports: Counter,
    /// Reports beyond a rate limit.
    pub(super) throttled: Counter,
    reloads: Family<OutcomeLabel, Counter>,
}

impl ServiceMetrics {
    /// Under these names, with the prefix that `registry` gives.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("services", "Services of the config by state", self.services.clone());
        registry.register("service_reports", "Services reported up or down", self.reports.clone());
        registry.register("service_reports_throttled", "Reports beyond a rate limit", self.throttled.clone());
        registry.register("config_reloads", "Times that the config was read again", self.reloads.clone());
    }

    /// Counts `rows` by state.
    pub(super) fn count(&self, rows: &[ServiceRow]) {
        for state in ServiceState::ALL {
            let number = rows.iter().filter(|row| row.state == state).count();
            self.services.get_or_create(&StateLabel { state }).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }

    /// The config was read again.
    pub(super) fn reloaded(&self, good: bool) {
        let outcome = if good { "taken" } else { "refused" };
        self.reloads.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}
