//! Docker's API: containers and events, and a source that keeps a picture of them.
//!
//! bollard makes the requests, over connections of ours (`connection`). Daemons from 20.10 to Podman disagree about words: a reply with
//! one that bollard does not know is read without it (`lenient`). The event stream is read line by line (`events`), because
//! bollard's own stream fails at an unknown type, drops the events behind it, hides half an event, and has no limit.

mod answers;
mod backlog;
mod client;
mod connection;
mod context;
mod endpoint;
mod error;
mod event;
mod events;
mod exec;
mod inspections;
mod learning;
mod lenient;
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
