//! What can go wrong with the daemon.

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::lenient::Unreadable;
use super::parse::ParseError;

/// A request to the daemon that failed. The message names the request; the cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// No client can be made.
    #[error("Docker client for {endpoint}")]
    Client {
        /// Where the daemon should be.
        endpoint: Endpoint,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The request did not come through, or its answer did not.
    #[error("asking Docker at {endpoint}: {request}")]
    Transport {
        /// Where the daemon should be.
        endpoint: Arc<str>,
        request: String,
        source: bollard::errors::Error,
    },
    /// The daemon said no.
    #[error("Docker answered {status} to {request}: {message}{}", remedy(*status, request))]
    Refused {
        request: String,
        status: u16,
        /// The daemon's own words, cut short.
        message: String,
    },
    /// The answer cannot be read.
    #[error("reading Docker's answer to {request}")]
    Answer {
        request: String,
        /// Where in it, and why.
        source: Unreadable,
    },
    /// A container's description cannot be used.
    #[error("reading what Docker says of a container")]
    Container(#[from] ParseError),
    /// The daemon took longer than it may.
    #[error("Docker did not answer {request} within {seconds} s")]
    Deadline {
        request: String,
        /// The patience, in whole seconds.
        seconds: u64,
    },
    /// The answer is longer than any that a daemon gives.
    #[error("Docker's answer to {request} is above {} MB", limit >> 20)]
    TooLong {
        request: String,
        /// The limit, in bytes.
        limit: usize,
    },
    #[error("Docker's event stream ended")]
    StreamEnded,
    /// The event stream holds what is no event.
    #[error("Docker's event stream holds no JSON")]
    Event(#[source] serde_json::Error),
    /// An event began, and its rest does not come.
    #[error("Docker's event stream stopped in the middle of an event for {} s", after.as_secs())]
    EventCut { after: Duration },
    /// One event is above 1 MB.
    #[error("Docker's event stream holds a line above 1 MB")]
    EventTooLong,
}

impl DockerError {
    pub(super) fn unreadable(request: &str, source: Unreadable) -> Self {
        Self::Answer { request: request.to_owned(), source }
    }
}

/// Docker itself never answers 403: what guards its socket does.
fn remedy(status: u16, request: &str) -> String {
    match status {
        403 => format!(" (the proxy or plugin that guards Docker's socket must allow {request})"),
        _ => String::new(),
    }
}
