//! Docker's API: containers and events, and a source that keeps a picture of them.
//!
//! Only a handful of requests are needed, and their answers are read loosely, field by field: typed clients end an event stream
//! at a word they do not know, and daemons from 20.10 to Podman disagree about words.

mod backlog;
mod client;
mod context;
mod endpoint;
mod error;
mod event;
mod events;
mod inspections;
mod learning;
mod list;
mod own;
mod parse;
mod picture;
mod published;
mod session;
mod source;
#[cfg(test)]
mod tests;

pub use client::{Docker, Info, Scope};
pub use endpoint::{Endpoint, EndpointError};
pub use error::DockerError;
pub use event::{Event, EventKind};
pub use events::EventStream;
pub use list::Listed;
pub use own::own_ids;
pub use parse::{ParseError, container as parse_container};
pub use picture::{Containers, Options};
pub use published::{PublishedPorts, PublishedSource};
pub use source::DockerSource;
