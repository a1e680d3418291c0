//! discover's own metrics, but for those of a generator.

use std::time::Duration;

use agent::telemetry::Tasks;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// All of discover's metrics; clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Turns, by how they ended.
    pub turns: Family<OutcomeLabel, Counter>,
    /// From a turn's beginning to its end.
    pub turn_duration: Histogram,
    /// From the first news of a source until what it changed is routed.
    pub routed: Histogram,
    /// Backends in the pools, held ones too; those of a service without a port are not in haproxy.cfg.
    pub backends: Gauge,
    /// Services that are known.
    pub services: Gauge,
    /// Backends kept by the guard.
    pub held: Gauge,
    /// The longest time that previous backends have stood in for none (use_previous_backends), seconds as of the last turn.
    pub previous_age: Gauge,
    /// Registrations left out.
    pub quarantined: Gauge,
    pub sources: SourceMetrics,
    /// When each of the edge's certificates ends, Unix time in seconds.
    pub certificate_expiry: Family<CertificateLabel, Gauge>,
    pub certificates_left_out: Gauge,
}

/// Those of each source.
#[derive(Debug, Clone, Default)]
pub struct SourceMetrics {
    /// 1 for a source that is synced, 0 otherwise.
    pub synced: Family<SourceLabel, Gauge>,
    /// For how long a source has been failing, seconds as of the last turn; 0: it does not.
    pub stale: Family<SourceLabel, Gauge>,
    /// How many backends a source tells of.
    pub backends: Family<SourceLabel, Gauge>,
    /// How often a source began to fail.
    pub failures: Family<SourceLabel, Counter>,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    pub outcome: Ended,
}

/// Done, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Ended {
    /// As it should.
    #[allow(non_camel_case_types)]
    ok,
    /// With an error.
    #[allow(non_camel_case_types)]
    failed,
}

impl From<bool> for Ended {
    fn from(ok: bool) -> Self {
        if ok { Self::ok } else { Self::failed }
    }
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    /// Its name, from the config.
    pub source: String,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CertificateLabel {
    /// The name of our copy, made of the operator's file's.
    pub file: String,
}

impl Metrics {
    /// Metrics in `registry`, under `discover_`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            turns: Family::default(),
            // 0.1 ms to 1.6 s
            turn_duration: Histogram::new(exponential_buckets(0.0001, 2.0, 15)),
            // 1 ms to 32 s
            routed: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            backends: Gauge::default(),
            services: Gauge::default(),
            held: Gauge::default(),
            previous_age: Gauge::default(),
            quarantined: Gauge::default(),
            sources: SourceMetrics::default(),
            certificate_expiry: Family::default(),
            certificates_left_out: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("discover");
        registry.register("turns", "Turns that were applied", metrics.turns.clone());
        let duration = metrics.turn_duration.clone();
        registry.register_with_unit("turn_duration", "From a turn's beginning to its end", Unit::Seconds, duration);
        let routed = "From a source's news of a change of backends until it is routed";
        registry.register_with_unit("event_to_routed", routed, Unit::Seconds, metrics.routed.clone());
        registry.register("backends", "Backends in the pools, held ones too", metrics.backends.clone());
        registry.register("services", "Services that are known", metrics.services.clone());
        registry.register("held_backends", "Backends kept by the guard", metrics.held.clone());
        let previous = "Longest time that previous backends have stood in for none";
        registry.register_with_unit("previous_backends_age", previous, Unit::Seconds, metrics.previous_age.clone());
        registry.register("quarantined", "Registrations left out", metrics.quarantined.clone());
        registry.register("source_synced", "1 for a source that is synced", metrics.sources.synced.clone());
        registry.register_with_unit(
            "source_stale",
            "Since a source fails",
            Unit::Seconds,
            metrics.sources.stale.clone(),
        );
        registry.register("source_backends", "Backends that a source tells of", metrics.sources.backends.clone());
        registry.register("source_failures", "Times that a source began to fail", metrics.sources.failures.clone());
        let (name, expiry) = ("certificate_expiry_timestamp", metrics.certificate_expiry.clone());
        registry.register_with_unit(name, "When a certificate ends, Unix time", Unit::Seconds, expiry);
        let left_out = metrics.certificates_left_out.clone();
        registry.register("certificates_left_out", "Certificates that are left out", left_out);
        registry.register_collector(Box::new(Tasks));
        metrics
    }

    /// A turn ended.
    pub fn turn(&self, took: Duration, ok: bool) {
        self.turns.get_or_create(&OutcomeLabel { outcome: ok.into() }).inc();
        self.turn_duration.observe(took.as_secs_f64());
    }
}
