//! What the checks count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::Standing;
use model::desired::CheckKind;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tried {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Changed {
    kind: &'static str,
    standing: &'static str,
}

/// What the checks count; clones share it.
#[derive(Debug, Clone)]
pub struct CheckMetrics {
    tries: Family<Tried, Counter>,
    changes: Family<Changed, Counter>,
    /// What one try takes.
    pub duration: Histogram,
}

impl Default for CheckMetrics {
    fn default() -> Self {
        let duration = Histogram::new(exponential_buckets(0.000_25, 4.0, 8));
        Self { tries: Family::default(), changes: Family::default(), duration }
    }
}

impl CheckMetrics {
    /// Under these names, with the prefix that `registry` gives.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("checks", "Tries of checks by kind and outcome", self.tries.clone());
        registry.register("check_changes", "Changes of a check's standing by kind", self.changes.clone());
        let help = "What one try of a check takes";
        registry.register_with_unit("check_duration", help, Unit::Seconds, self.duration.clone());
    }

    /// The counters of one kind: tries that passed, and that failed.
    pub fn tries(&self, kind: &CheckKind) -> [Counter; 2] {
        ["pass", "fail"].map(|outcome| self.tries.get_or_create_owned(&Tried { kind: kind.as_str(), outcome }))
    }

    pub(super) fn changed(&self, kind: &CheckKind, standing: &Standing) {
        self.changes.get_or_create(&Changed { kind: kind.as_str(), standing: standing.as_str() }).inc();
    }
}
