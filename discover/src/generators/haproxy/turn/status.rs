//! What an operator wants to know about HAProxy.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::clock::unix_ms;
use model::ServiceName;
use serde::Serialize;

use super::connection::Connection;
use super::demands::{ChecksStatus, Descriptors};
use super::reason::ReloadReason;
use crate::edge::Routing;
use crate::generators::haproxy::file::places::EdgePlaces;

/// How many reloads are remembered.
const MOST_RELOADS: usize = 20;

/// What an operator wants to know about HAProxy.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HaproxyStatus {
    /// The version that runs, once it has answered.
    pub version: Option<String>,
    /// The version of the program on disk, where that was replaced since discover began: the next reload or start is by that one.
    pub installed: Option<String>,
    pub config_file: PathBuf,
    /// Why it does not answer, or did not load its config.
    pub error: Option<String>,
    /// Reasons of a reload that waits for its time.
    pub waiting: Option<Vec<String>>,
    /// Workers that finish their sessions after a reload; none where HAProxy's master cannot be asked.
    pub old_workers: Option<usize>,
    /// How many changes of servers are left to the next turns, by section: one turn does a slice.
    pub behind: BTreeMap<String, usize>,
    /// Services whose structure changes too often: its next change waits.
    pub paused: BTreeMap<String, PausedStatus>,
    /// The last reloads, newest first.
    pub reloads: VecDeque<ReloadRecord>,
    /// Services without a section, and why.
    pub unlisted: BTreeMap<ServiceName, String>,
    /// Services that listen on several ports, wait for one, or have their last one, and what is to be told of it.
    pub disputed: BTreeMap<ServiceName, String>,
    /// Another program listens on the stats page's port: there is none for now.
    pub stats_taken: bool,
    /// The HTTP edge, if there is one.
    pub edge: Option<EdgeStatus>,
    /// Host names without an address.
    pub unresolved: Vec<String>,
    /// Registrations that are left out of the file, and why.
    pub quarantined: BTreeMap<String, String>,
    /// Services without a backend that can take a request, as HAProxy says.
    pub out_of_service: BTreeSet<ServiceName>,
    /// How many servers wait until HAProxy has judged the words of their registrations.
    pub unproved: usize,
    /// How often servers are checked, once HAProxy has answered.
    pub checks: Option<ChecksStatus>,
    /// File descriptors, where they can be counted.
    pub descriptors: Option<Descriptors>,
}

/// What an operator wants to know about the edge.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EdgeStatus {
    /// Another program has its port: it listens nowhere for now.
    pub taken: bool,
    /// How many hosts and paths are routed, and names of TLS passed through.
    pub rules: usize,
    /// All that was decided, for the page.
    #[serde(skip)]
    pub routing: Arc<Routing>,
    /// The sections that each routed service has a part in.
    pub sections: BTreeMap<ServiceName, BTreeSet<String>>,
    /// Sections that wait for new services.
    pub spare: usize,
    /// Sections that HAProxy was told to make, from 3.4 on.
    pub made: usize,
    /// TLS that is passed through, where that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<SniStatus>,
    /// Hosts and paths, and names of TLS, that a service asked for in vain, and why: `HOST/PATH (SERVICE)`, `TLS of NAME (SERVICE)`.
    pub lost: BTreeMap<String, String>,
}

impl EdgeStatus {
    /// In which sections services are.
    pub fn places(&self) -> EdgePlaces<'_> {
        EdgePlaces(std::iter::once(&self.sections).chain(self.sni.as_ref().map(|sni| &sni.sections)).collect())
    }
}

/// What an operator wants to know about TLS that is passed through.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SniStatus {
    /// Whose TLS each name is.
    pub names: BTreeMap<String, ServiceName>,
    /// The sections of each such service.
    pub sections: BTreeMap<ServiceName, BTreeSet<String>>,
    /// Sections that wait for new services.
    pub spare: usize,
}

/// A service whose structure changes too often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PausedStatus {
    /// Structural changes in a row.
    pub changes: u32,
    /// Until when the next one waits, in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// The same in words.
    pub reason: String,
}

impl PausedStatus {
    /// The next change waits for so long from now.
    pub fn new(changes: u32, wait: Duration) -> Self {
        let reason = format!("its port, mode or options changed {changes} times in a row; the next change waits");
        Self { changes, until_unix_ms: unix_ms(SystemTime::now() + wait), reason }
    }
}

/// One reload.
#[derive(Debug, Clone, Serialize)]
pub struct ReloadRecord {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Why.
    pub reasons: String,
    /// What went wrong, if it did.
    pub error: Option<String>,
}

impl ReloadRecord {
    /// A reload that ended now.
    pub fn new(reasons: &BTreeSet<ReloadReason>, error: Option<String>) -> Self {
        let words: Vec<&str> = reasons.iter().map(|r| r.as_str()).collect();
        Self { at_unix_ms: unix_ms(SystemTime::now()), reasons: words.join(", "), error }
    }
}

impl HaproxyStatus {
    /// HAProxy answered.
    pub fn connected(&mut self, connection: &Connection) {
        self.version = connection.version().map(ToString::to_string);
        if self.reloads.front().is_none_or(|r| r.error.is_none()) {
            self.error = None;
        }
    }

    /// A reload ended.
    pub fn reloaded(&mut self, record: ReloadRecord) {
        self.waiting = None;
        self.error = record.error.clone();
        self.reloads.push_front(record);
        self.reloads.truncate(MOST_RELOADS);
    }
}
