//! What the daemon says happened: a hint at which container to look at again, and the earliest word of a stop.

use model::desired::ContainerId;

/// One event about one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    pub container: ContainerId,
    /// When, in nanoseconds since 1970 by the daemon's clock; 0 where it does not say.
    pub time_nanos: i64,
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Its program was started.
    Start,
    /// It ended (Podman: `died`).
    Die,
    /// It was sent a signal: at `docker stop` this comes at once, and `die` only when the program has ended.
    Kill {
        /// The signal's number; `None` where the daemon does not say.
        signal: Option<i32>,
    },
    /// `docker stop` came to its end; after `die`.
    Stop,
    /// Frozen.
    Pause,
    /// No longer frozen.
    Unpause,
    /// Its HEALTHCHECK changed its mind, or (Podman) ran.
    HealthStatus,
    /// It has another name.
    Rename,
    /// Its resources or its restart policy changed.
    Update,
    /// It joined a network.
    NetworkConnect,
    /// It left a network.
    NetworkDisconnect,
    /// It is gone (Podman: `remove`).
    Destroy,
    /// The kernel ended a process of it for want of memory.
    Oom,
    /// Something else.
    Other,
}
