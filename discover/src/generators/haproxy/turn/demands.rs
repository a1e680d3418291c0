//! What a file asks of HAProxy and its host: checks, and descriptors.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::generators::haproxy::file::checking::{Checking, per_second};
use crate::generators::haproxy::file::layout::Layout;

/// What HAProxy needs beside connections, listeners and checks: 28 to 50 with two threads, by version.
const OTHERS: u64 = 64;

/// How often HAProxy checks servers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChecksStatus {
    /// Checks a second, as the lines of what runs say.
    pub per_second: f64,
    /// The most that `--check-rate` lets them be, but for servers that run since before.
    pub budget: Option<u32>,
    /// How often a server that comes now is checked; none where none is.
    pub interval_ms: Option<u64>,
}

/// Descriptors of HAProxy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Descriptors {
    /// What it reserves when it loads what runs now.
    pub needed: u64,
    /// What it may have; none where that cannot be seen.
    pub limit: Option<u64>,
}

impl Descriptors {
    /// Those of `layout`, under this limit. `None` where the file does not say how many connections there may be.
    ///
    /// Source: HAProxy's `Maxsock`: two for each connection, one for each listener, check and agent.
    pub fn of(layout: &Layout, limit: Option<u64>) -> Option<Self> {
        let texts = || [&layout.header, &layout.footer].into_iter().chain(layout.sections.iter().map(|s| &s.skeleton));
        let maxconn = max_connections(&layout.header)?;
        let listeners: u64 = texts().map(|text| listeners(text)).sum();
        Some(Self { needed: 2 * maxconn + listeners + checks(layout) + OTHERS, limit })
    }

    /// Whether HAProxy cannot load it.
    pub fn are_too_few(self) -> bool {
        self.limit.is_some_and(|limit| self.needed > limit)
    }

    /// Whether nine tenths are used up.
    pub fn are_scarce(self) -> bool {
        self.limit.is_some_and(|limit| self.needed > limit / 10 * 9)
    }
}

/// `maxconn` of the section `global`.
fn max_connections(header: &str) -> Option<u64> {
    let mut lines = header.lines().skip_while(|line| line.trim() != "global").skip(1);
    let own = lines.by_ref().take_while(|line| line.is_empty() || line.starts_with([' ', '\t', '#']));
    let mut values = own.filter_map(|line| line.trim().strip_prefix("maxconn "));
    values.next()?.trim().parse().ok()
}

fn listeners(text: &str) -> u64 {
    let binds = text.lines().filter_map(|line| line.trim_start().strip_prefix("bind "));
    binds.map(|places| places.split_whitespace().next().unwrap_or_default().split(',').count() as u64).sum()
}

fn checks(layout: &Layout) -> u64 {
    let mut last: Option<(&Arc<str>, u64)> = None;
    let mut count = |params| match last {
        Some((same, count)) if Arc::ptr_eq(same, params) => count,
        _ => {
            let words = params.split_ascii_whitespace().filter(|word| ["check", "agent-check"].contains(word));
            last.insert((params, words.count() as u64)).1
        }
    };
    layout.sections.iter().flat_map(|section| &section.servers).map(|server| count(&server.params)).sum()
}

/// The same as metrics.
#[derive(Debug, Clone, Default)]
pub struct DemandMetrics {
    checks: Gauge,
    descriptors: Family<Kind, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

impl DemandMetrics {
    /// Metrics in `registry`.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("checks_per_second", "Checks that HAProxy makes a second", metrics.checks.clone());
        let help = "File descriptors that HAProxy reserves when it loads what runs, and those that it may have";
        registry.register("descriptors", help, metrics.descriptors.clone());
        metrics
    }

    /// What runs now asks for.
    pub fn set(&self, checks: f64, descriptors: Option<Descriptors>) {
        self.checks.set(checks.round() as i64);
        let show = |kind, count: u64| {
            self.descriptors.get_or_create(&Kind { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        if let Some(descriptors) = descriptors {
            show("needed", descriptors.needed);
            descriptors.limit.into_iter().for_each(|limit| show("limit", limit));
        }
    }
}

impl ChecksStatus {
    /// Of what runs.
    pub fn of(checking: &Checking, layout: &Layout) -> Self {
        let per_second = (per_second(layout) * 10.0).round() / 10.0;
        let interval_ms = checking.inter().map(|inter| u64::try_from(inter.as_millis()).unwrap_or(u64::MAX));
        Self { per_second, budget: checking.budget(), interval_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generators::haproxy::file::layout::Section;
    use crate::generators::haproxy::file::server::Server;

    #[test]
    fn descriptors_are_counted_as_haproxy_reserves_them() {
        let server = |params: &str| Server::parse(&format!("server {} 127.0.0.1:1 {params}", params.len())).unwrap();
        let servers = ["check", "check agent-check agent-port 1", "weight 3"].map(server).to_vec();
        let skeleton = "listen a\n\tbind 127.0.0.1:1,127.0.0.2:1\n\tbind :::2 v6only\n\tmaxconn 7\n".into();
        let section = Section { name: "a".into(), skeleton, servers, inherited: "".into(), text: Default::default() };
        let header = "global\n\tmaxconn 1000\n\ndefaults\n\tmaxconn 5\n\nfrontend stats\n\tbind :9\n".into();
        let layout = Layout { header, sections: vec![Arc::new(section)], ..Layout::default() };
        let of = |limit| Descriptors::of(&layout, limit).unwrap();
        assert_eq!(of(None).needed, 2000 + 4 + 3 + OTHERS);
        let [enough, scarce, few] = [10_000, 2_100, 2_070].map(|limit| of(Some(limit)));
        assert!(!enough.are_scarce() && scarce.are_scarce() && few.are_scarce());
        assert_eq!([of(None), enough, scarce, few].map(Descriptors::are_too_few), [false, false, false, true]);
        let silent = Layout { header: "global\n\tdaemon\n\ndefaults\n\tmaxconn 5\n".into(), ..layout.clone() };
        assert_eq!(Descriptors::of(&silent, Some(1)), None);
    }
}
