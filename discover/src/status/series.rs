//! What is known of each service, as metrics: made when they are scraped, so that a service that is gone leaves no series behind.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use model::ServiceName;

use super::{Routed, StatusBoard};
use crate::generators::haproxy::traffic::seen::{BackendState, ServiceTraffic};
use crate::haproxy::api::stats::Counts;

/// The state of the backends that the guard holds; each of them has another state, too.
const HELD: &str = "held";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    service: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfService {
    service: String,
}

/// What a service's series is called, what it means, and which of the counts it shows.
type Series = (&'static str, &'static str, fn(&Counts) -> u64);

const GAUGES: [Series; 2] = [
    ("service_sessions", "Sessions of a service now, as HAProxy counts them", |c| c.sessions),
    ("service_queue", "Requests that wait for a server of a service", |c| c.queued),
];
/// They begin anew with each worker of HAProxy, as counters may.
const COUNTERS: [Series; 3] = [
    ("service_requests", "Requests (of TCP: sessions) to a service since HAProxy's last reload", |c| c.requests),
    ("service_errors", "Failed connections to servers and broken answers since HAProxy's last reload", |c| c.errors),
    ("service_responses_5xx", "Answers of 500 and above since HAProxy's last reload", |c| c.responses_5xx),
];

/// Adds the services that `board` shows to the metrics of `registry`, under `discover_`: at most that many.
pub fn register(board: StatusBoard, most: usize, registry: &mut Registry) {
    registry.sub_registry_with_prefix("discover").register_collector(Box::new(Services { board, most }));
}

#[derive(Debug)]
struct Services {
    board: StatusBoard,
    /// The most services that have series.
    most: usize,
}

impl Services {
    /// The services that have series, each as it is seen: of too many first those that are not whole, then those with the most requests.
    fn chosen<'a>(&self, now: &'a Routed) -> Vec<(&'a ServiceName, ServiceTraffic)> {
        let mut all: Vec<_> = now.services.iter().map(|(name, pool)| (name, now.view.service(name, pool))).collect();
        if all.len() > self.most {
            let is_whole = |seen: &ServiceTraffic| seen.count(BackendState::Up) == seen.states.len();
            let requests = |seen: &ServiceTraffic| seen.counts.map_or(0, |counts| counts.requests);
            all.sort_by_key(|(_, seen)| (is_whole(seen), std::cmp::Reverse(requests(seen))));
            all.truncate(self.most);
            all.sort_by_key(|(name, _)| *name);
        }
        all
    }
}

impl Collector for Services {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let Some(now) = self.board.routed() else { return Ok(()) };
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let states = Family::<InState, Gauge>::default();
        let gauges: [Family<OfService, Gauge>; 2] = Default::default();
        let counters: [Family<OfService, Counter>; 3] = Default::default();
        let chosen = self.chosen(&now);
        let without = i64::try_from(now.services.len() - chosen.len()).unwrap_or(i64::MAX);
        for (name, seen) in chosen {
            let service = name.to_string();
            let held = now.held.get(name).copied().unwrap_or(0);
            let all = BackendState::ALL.iter().map(|state| (state.as_str(), seen.count(*state)));
            for (state, backends) in all.chain([(HELD, held)]) {
                let backends = i64::try_from(backends).unwrap_or(i64::MAX);
                states.get_or_create(&InState { service: service.clone(), state }).set(backends);
            }
            let Some(counts) = seen.counts else { continue };
            for (family, (.., get)) in gauges.iter().zip(GAUGES) {
                family.get_or_create(&OfService { service: service.clone() }).set(count(get(&counts)));
            }
            for (family, (.., get)) in counters.iter().zip(COUNTERS) {
                family.get_or_create(&OfService { service: service.clone() }).inc_by(get(&counts));
            }
        }
        let help = "Services without metrics of their own, beyond --metrics-services";
        show(&mut encoder, "services_without_metrics", help, &ConstGauge::new(without))?;
        let help = "Backends of a service by state; held ones are in another state, too";
        show(&mut encoder, "service_backends", help, &states)?;
        for (family, (name, help, _)) in gauges.iter().zip(GAUGES) {
            show(&mut encoder, name, help, family)?;
        }
        counters.iter().zip(COUNTERS).try_for_each(|(family, (name, help, _))| show(&mut encoder, name, help, family))
    }
}

fn show(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
