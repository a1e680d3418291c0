//! What `/metrics` shows.

use agent::telemetry::Tasks;
use containers::life::reason::Reason;
use containers::life::row::Row;
use containers::life::verdict::RowState;
use containers::readiness::CheckMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::nerve::services::ServiceMetrics;
use crate::publish::report::PublishMetrics;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
struct StandingLabel {
    state: RowState,
    reason: Reason,
}

/// All metrics of the agent; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The publisher's part.
    pub publish: PublishMetrics,
    /// The checks' part.
    pub checks: CheckMetrics,
    /// The part of services without Docker.
    pub services: ServiceMetrics,
    /// Turns: what had changed was judged again.
    pub turns: Counter,
    /// Turns that changed what is to be published.
    pub changes: Counter,
    /// Events of containers that Docker sent.
    pub events: Counter,
    /// Odd words in Docker's answers.
    pub odd_words: Counter,
    /// Drains that ended at their deadline with the container alive.
    pub drains_reverted: Counter,
    /// What one turn takes.
    pub turn_duration: Histogram,
    /// 1 while Docker serves, else 0.
    pub docker_up: Gauge,
    ports: Family<StandingLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            publish: PublishMetrics::default(),
            checks: CheckMetrics::default(),
            services: ServiceMetrics::default(),
            turns: Counter::default(),
            changes: Counter::default(),
            events: Counter::default(),
            odd_words: Counter::default(),
            drains_reverted: Counter::default(),
            turn_duration: Histogram::new(exponential_buckets(0.000_025, 4.0, 8)),
            docker_up: Gauge::default(),
            ports: Family::default(),
        }
    }
}

impl Metrics {
    /// All of them, named `register_…`.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("register");
        self.publish.register(&mut registry);
        self.checks.register(&mut registry);
        self.services.register(&mut registry);
        registry.register("turns", "Times that what had changed was judged again", self.turns.clone());
        registry.register("changes", "Turns that changed what is to be published", self.changes.clone());
        registry.register("docker_events", "Events of containers that Docker sent", self.events.clone());
        let help = "Words in Docker's answers that are not known, and were passed over";
        registry.register("docker_odd_words", help, self.odd_words.clone());
        let help = "Drains that ended at their deadline with the container alive";
        registry.register("drains_reverted", help, self.drains_reverted.clone());
        let duration = self.turn_duration.clone();
        registry.register_with_unit("turn_duration", "What one turn takes", Unit::Seconds, duration);
        registry.register("docker_up", "Whether Docker serves", self.docker_up.clone());
        registry.register("ports", "Ports of running containers by state and reason", self.ports.clone());
        registry.register_collector(Box::new(Tasks));
        registry
    }

    /// One row more.
    pub fn came(&self, row: &Row) {
        self.ports.get_or_create(&StandingLabel { state: row.state, reason: row.cause }).inc();
    }

    /// One row less.
    pub fn gone(&self, row: &Row) {
        self.ports.get_or_create(&StandingLabel { state: row.state, reason: row.cause }).dec();
    }
}
