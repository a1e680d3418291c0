//! What register writes to the registry.
//!
//! | module | what it holds | may do I/O |
//! |---|---|---|
//! | `plan` | registrations → keys → the writes that are missing | no |
//! | `numbers` | the keys of services without Docker | no |
//! | `registrar` | the claim on the host: `/registrars/<node>`, its lease, adoption | store |
//! | `publisher` | the task that owns the lease, and its beats | store |
//! | `writer` | the writes under it; looks after what was written | store |
//! | `report` | what the publisher tells the rest of the agent | no |
//!
//! The rule: a write happens because something changed, never to keep something alive.

pub mod metadata;
pub mod numbers;
mod plan;
pub mod publisher;
pub mod registrar;
pub mod report;
mod writer;

pub use plan::{Form, Keys, Registrations};
pub use publisher::{PublishError, Publisher, PublisherSettings};
pub use registrar::Identity;
pub use report::{Phase, Publication};

#[cfg(test)]
mod tests;
