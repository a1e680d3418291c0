//! What the source knows of a daemon's containers, and how often it looks.

use std::sync::Arc;
use std::time::Duration;

use model::SharedMap;
use model::desired::{ContainerId, ContainerMap};

/// What the source knows at one moment. Two moments share what is the same in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Containers {
    /// The containers that run, the paused and restarting ones included.
    pub running: ContainerMap,
    /// Those that the daemon lists and cannot describe, or describes in a way that cannot be read, with the reason. They may well
    /// run: nothing may be concluded about what they registered before. One that could be described before is still among the
    /// running, as it was.
    pub refused: SharedMap<ContainerId, Arc<str>>,
}

/// How the source goes about it.
#[derive(Debug, Clone)]
pub struct Options {
    /// From one list to the next.
    pub resync: Duration,
    /// From one sign of life asked of the daemon to the next.
    pub probe: Duration,
    /// How often Podman's containers with a HEALTHCHECK are looked at, as its health events are not to be relied on.
    pub podman_health: Duration,
    /// How many inspections may be under way.
    pub parallel: usize,
}

impl Default for Options {
    /// A list every 30 s, a ping every 5 s, 8 inspections at once, Podman's health every 2 s.
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self { resync: secs(30), probe: secs(5), podman_health: secs(2), parallel: 8 }
    }
}
