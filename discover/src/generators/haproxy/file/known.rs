//! What the file is made of beside the services; and what is in HAProxy already, by section: whose place is whose, and which ids are taken. Pure.

use std::cell::OnceCell;
use std::sync::Arc;

use foldhash::HashMap;
use tokio::time::Instant;

use super::checking::Checking;
use super::ids;
use super::layout::{Layout, Retired, Section};
use super::ports::Ports;
use super::server::Server;
use crate::haproxy::api::version::Capabilities;
use crate::names::Resolved;

/// What the file is made of beside the services.
#[derive(Debug)]
pub struct Given<'a> {
    /// Which service listens where, and whether the stats page can.
    pub ports: &'a Ports,
    /// Addresses of host names.
    pub names: &'a Resolved,
    /// How often servers are checked.
    pub checking: &'a Checking,
    /// What HAProxy can do.
    pub can: Capabilities,
    /// What runs: who has a place there keeps it.
    pub known: Known<'a>,
    /// The time.
    pub now: Instant,
    /// The same in seconds since 1970.
    pub unix_now: u64,
}

/// What HAProxy has loaded, and the servers that wait for their deletion.
#[derive(Debug)]
pub struct Known<'a> {
    /// What runs.
    pub running: &'a Layout,
    /// Servers that wait for their deletion.
    pub retired: &'a Retired,
    by_name: OnceCell<HashMap<&'a str, &'a Arc<Section>>>,
}

impl Given<'_> {
    /// Grows whenever a section of the same backends may come out otherwise.
    pub fn generation(&self) -> (u64, u64) {
        (self.names.generation(), self.checking.generation())
    }

    /// Gives the servers of a section what they have in HAProxy already, its ids and the intervals of their checks, and makes the section
    /// the very one that is `cached` where it says the same.
    pub fn settle(&self, mut section: Section, cached: Option<Arc<Section>>) -> Arc<Section> {
        let retired = self.known.retired.get(&section.name).into_iter().flat_map(|servers| servers.values());
        let known = self.known.servers(&section.name).iter().chain(retired);
        ids::give(&mut section.servers, known.clone());
        self.checking.keep(&mut section.servers, known);
        cached.filter(|cached| **cached == section).unwrap_or_else(|| Arc::new(section))
    }
}

impl<'a> Known<'a> {
    /// This runs, and these wait.
    pub fn new(running: &'a Layout, retired: &'a Retired) -> Self {
        Self { running, retired, by_name: OnceCell::new() }
    }

    /// The section of this name that runs. Costs a look at all of them the first time.
    pub fn section(&self, name: &str) -> Option<&'a Arc<Section>> {
        let by_name = || self.running.sections.iter().map(|section| (&*section.name, section)).collect();
        self.by_name.get_or_init(by_name).get(name).copied()
    }

    /// The section's servers that run.
    pub fn servers(&self, section: &str) -> &'a [Server] {
        self.section(section).map(|section| section.servers.as_slice()).unwrap_or_default()
    }
}
