//! Where services without Docker are published: Nerve's reporters. A kind of reporter is a file here, and a line in
//! [`AnyTarget`].
//!
//! # What a file holds
//! - `KEYS`: its rows of the table of a service's keys ([`crate::nerve::config::keys`]); the table has held the config against
//!   them before `read` is called, so texts are texts, numbers numbers and a scalar is a list of one.
//! - `Target`: where one registration goes, with `read` (from the service's object, with the keys of its entry in
//!   `reporters` laid over) and `destination` (what one connection serves: equal destinations share one reporter). It
//!   orders totally, and two that write to the same place in the same way are equal.
//! - a [`Reporter`].
//!
//! # What a reporter owes
//! - *Level-triggered.* It is given all that it is to keep published, again and again as that changes ([`Wanted`], a
//!   latest-value channel), never single orders. It brings its registry to that state and keeps it there: what is
//!   missing is **published**, a placement with another payload is **updated**, what is not wanted any more is **withdrawn**.
//!   It touches nothing that it has not written itself.
//! - [`Want::Absent`] is wanted of what outlives the agent ([`AnyTarget::outlives_agent`]), for a service that is down or gone:
//!   what a former self left is looked for and removed. [`Standing::absent`] tells that the registry has confirmed it.
//! - *Make before break.* It writes what is new or changed before it removes what is gone. While a placement's payload
//!   changes there is no moment at which neither the old nor the new one is there.
//! - [`Want::Leave`] is not decided yet: what is there for it, from this agent's former self, stays as it is; what is
//!   not there is not written.
//! - *Never a write without a reason.* Nothing is rewritten to be kept alive, unless the config asks for it
//!   (`ttl_seconds`): the lease or the session does that.
//! - *Session loss* is its own matter: it opens a new session, publishes everything that is wanted again, and says
//!   meanwhile in [`Standing`] that it is away. It tries again for ever, with growing and jittered pauses; after
//!   [`Frame::max_failures`] failures in a row it throws its connection away and makes a new one.
//! - [`Standing`] tells what its registry has acknowledged. To replace a registration, wait for the new placement to be in
//!   `published` before the old one is taken out of what is wanted.
//! - A placement that can never be published (too long, a name that the registry refuses) goes to `refused` with the reason,
//!   and harms no other.
//! - *The end*: when [`Ends::stop`] is cancelled it returns within seconds. With [`Ends::withdraw`] cancelled before,
//!   everything of its own is removed first; otherwise everything stays and lives out its lease or session, so that a
//!   restart of the agent is no event for anybody.
//! - An `Err` from [`Reporter::run`] is for what no retry can mend; it ends the agent.

pub mod etcd;
pub mod zookeeper;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use agent::config::Report;
use agent::config::table::Key;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::nerve::statsd::Statsd;
pub use crate::publish::slots::{Payload, Want};

/// One registration of one service at one reporter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Placement {
    /// The service's name in the config.
    pub service: Arc<str>,
    /// The config's instance_id; part of keys and node names: 1 to 200 of `A-Z a-z 0-9 _ . : @ -`.
    pub instance: Arc<str>,
    pub target: AnyTarget,
}

/// All that one reporter answers for. A placement that is not in it is to be withdrawn.
pub type Wanted = BTreeMap<Placement, Want>;

/// What is still to be wanted once nothing of `wanted` is to be published: that what outlives the agent is absent.
pub fn withdrawn(wanted: &Wanted) -> Wanted {
    let outliving = wanted.iter().filter(|(placement, _)| placement.target.outlives_agent());
    let absent = outliving.map(|(placement, want)| {
        let (Want::Publish(payload) | Want::Leave(payload) | Want::Absent(payload)) = want;
        (placement.clone(), Want::Absent(payload.clone()))
    });
    absent.collect()
}

/// How a reporter does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// What its registry has acknowledged, and still holds as far as is known.
    pub published: BTreeMap<Placement, Payload>,
    /// What was to be absent, and of which the registry has confirmed that nothing is there.
    pub absent: BTreeSet<Placement>,
    /// Slots that can never be published, with the reason.
    pub refused: BTreeMap<Placement, String>,
    /// The lease or session, for people.
    pub session: Option<String>,
    /// Why the registry does not serve at present, and since when.
    pub away: Option<(String, Instant)>,
}

/// How a reporter ends.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// Cancelled: end.
    pub stop: CancellationToken,
    /// Cancelled before `stop`: remove everything first.
    pub withdraw: CancellationToken,
}

/// What all reporters of an agent share.
#[derive(Debug, Clone)]
pub struct Frame {
    /// `max_repeated_report_failures` of the config, which may change while it runs; at least 1.
    pub max_failures: Arc<AtomicU32>,
    /// Counts, where the config has a `statsd` section.
    pub statsd: Statsd,
    /// What etcd's reporter needs beside.
    pub etcd: Arc<etcd::EtcdFrame>,
}

/// Why a reporter gave up.
pub type ReporterError = Box<dyn Error + Send + Sync>;

/// Keeps registrations published at one destination. Constructors do no I/O.
pub trait Reporter: Send + 'static {
    /// Runs until `ends` says otherwise. See the module's doc for what it owes.
    ///
    /// # Errors
    /// What no retry can mend.
    fn run(
        self,
        wanted: watch::Receiver<Arc<Wanted>>,
        out: watch::Sender<Standing>,
        ends: Ends,
    ) -> impl Future<Output = Result<(), ReporterError>> + Send;
}

/// A reporter at work.
pub type Running = Pin<Box<dyn Future<Output = Result<(), ReporterError>> + Send>>;

/// What a reporter's `read` is given.
pub struct Reading<'a> {
    /// The service's object, with the keys of one entry of `reporters` laid over; held against the table.
    pub fields: &'a Map<String, Value>,
    /// The key path of that object, such as `services.web` or `services.web.reporters[1]`.
    pub path: &'a str,
    /// Where problems go.
    pub report: &'a mut Report,
}

impl Reading<'_> {
    pub fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key).and_then(Value::as_str)
    }

    /// The texts of a key; empty without it.
    pub fn texts(&self, key: &str) -> Vec<&str> {
        self.fields.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// An error about a key.
    pub fn error(&mut self, key: &str, why: impl Into<String>) {
        self.report.error(&format!("{}.{key}", self.path), why);
    }

    /// A notice about a key.
    pub fn notice(&mut self, key: &str, what: impl Into<String>) {
        self.report.notice(&format!("{}.{key}", self.path), what);
    }
}

/// Where a registration goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnyTarget {
    /// etcd, v3.
    Etcd(etcd::Target),
    ZooKeeper(zookeeper::Target),
}

/// The words of `reporter_type`. `base` is Nerve's empty reporter: the service is checked and published nowhere.
pub const TYPES: [&str; 3] = ["zookeeper", "etcd", "base"];

/// The rows of the table of a service's keys, of every kind of reporter.
pub const KEYS: [&[Key]; 2] = [&etcd::KEYS, &zookeeper::KEYS];

impl AnyTarget {
    /// Reads where reporters of type `word` write. `None`: nowhere, or it cannot be told, and that was reported.
    pub fn read(word: &str, mut reading: Reading<'_>) -> Option<Self> {
        match word {
            "etcd" => etcd::Target::read(&mut reading).map(Self::Etcd),
            "zookeeper" => zookeeper::Target::read(&mut reading).map(Self::ZooKeeper),
            "base" => {
                reading.notice("reporter_type", "base publishes nothing: the service is only checked");
                None
            }
            other => {
                reading.error("reporter_type", format!("{other:?} is none of {}", TYPES.join(", ")));
                None
            }
        }
    }

    /// Its `reporter_type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::ZooKeeper(_) => "zookeeper",
        }
    }

    /// What one reporter serves, for people and as its name.
    pub fn destination(&self, frame: &Frame) -> String {
        match self {
            Self::Etcd(target) => target.destination(&frame.etcd),
            Self::ZooKeeper(target) => target.destination(),
        }
    }

    /// Where within the destination, for people: a directory.
    pub fn path(&self) -> &str {
        match self {
            Self::Etcd(target) => target.path(),
            Self::ZooKeeper(target) => target.path(),
        }
    }

    /// Whether what is written there outlives the agent's lease or session.
    pub fn outlives_agent(&self) -> bool {
        matches!(self, Self::ZooKeeper(target) if target.is_persistent())
    }

    /// A reporter for this target's destination.
    pub fn reporter(
        &self,
        frame: &Frame,
        wanted: watch::Receiver<Arc<Wanted>>,
        out: watch::Sender<Standing>,
        ends: Ends,
    ) -> Running {
        match self {
            Self::Etcd(target) => Box::pin(etcd::EtcdReporter::new(target, frame).run(wanted, out, ends)),
            Self::ZooKeeper(target) => Box::pin(zookeeper::ZkReporter::new(target, frame).run(wanted, out, ends)),
        }
    }
}
