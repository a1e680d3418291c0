//! The checked config. The field docs are in the table, [`super::keys`]; defaults are filled in here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::desired::CheckKind;
use model::{Host, Port};

use crate::nerve::reporters::{AnyTarget, Payload};

/// The whole config.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Who publishes.
    pub instance: Arc<str>,
    /// What is published, by name.
    pub services: BTreeMap<Arc<str>, Arc<Service>>,
    /// The file to touch.
    pub heartbeat_path: Option<PathBuf>,
    /// How many failures in a row make a reporter open a new connection; at least 1.
    pub max_failures: u32,
    /// StatsD's host and port, if it is wanted.
    pub statsd: Option<(String, u16)>,
}

/// One service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    pub name: Arc<str>,
    /// `host:port`, for people.
    pub address: String,
    /// What is published.
    pub payload: Payload,
    /// The pause between two rounds of checks.
    pub interval: Duration,
    /// All must pass, in this order; empty: it is always up.
    pub checks: Vec<CheckConf>,
    /// The first result of a check decides at once.
    pub first_result: bool,
    /// How often it may come and go.
    pub limit: Limit,
    /// Where it is published; empty: nowhere.
    pub targets: Vec<AnyTarget>,
}

impl Service {
    /// Whether `other` proves itself in the same way: then what is known of one holds for the other.
    pub fn proves_itself_as(&self, other: &Self) -> bool {
        self.checks == other.checks && self.first_result == other.first_result && self.interval == other.interval
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckConf {
    /// For people.
    pub name: String,
    /// What is tried. An exec check runs on this host.
    pub kind: CheckKind,
    /// What is dialled.
    pub host: Host,
    /// What is dialled.
    pub port: Port,
    /// How long one try may take.
    pub timeout: Duration,
    /// For http: how long each of its phases may take.
    pub phases: Option<Phases>,
    /// How many passes in a row make it pass; at least 1.
    pub rise: u32,
    /// How many failures in a row make it fail; at least 1.
    pub fall: u32,
    /// `base`: it never passes.
    pub hopeless: bool,
}

pub use containers::checks::Phases;

/// A token bucket, as Nerve has it: it begins with `average` tokens, gains as many a second, holds `burst`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Only say what would be held back.
    pub shadow: bool,
    /// Tokens a second; infinite: no limit.
    pub average: f64,
    /// The most tokens, at least 1.
    pub burst: f64,
}

impl Default for Limit {
    fn default() -> Self {
        Self { shadow: true, average: f64::INFINITY, burst: f64::INFINITY }
    }
}
