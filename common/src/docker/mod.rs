//! Docker's API: containers and events, and a source that keeps a picture of them.

mod event;

pub use event::{Event, EventKind};
