//! What register writes to the registry.
//!
//! | module | what it holds | may do I/O |
//! |---|---|---|
//! | `keys` | keys with their values; which kind a key is | no |
//! | `plan` | registrations → keys → the writes that are missing | no |
//! | `outstanding` | what is to be there, and which of it may not be | no |
//! | `numbers` | which key each service without Docker has | no |
//! | `ledger` | which keys are ours, and which are somebody else's | no |
//! | `fights` | pauses before a key is written once more that somebody goes on changing | no |
//! | `holders` | names for those to whom other keys belong | store |
//! | `identity` | who the agent is, and what its own key says | no |
//! | `claim` | the right to write, why there is none, and what ends it | no |
//! | `rival` | whether another agent of the same name lives | no |
//! | `registrar` | the claim on the host: `/registrars/<node>`, its lease, adoption | store |
//! | `guard` | watches that key while it is held | store |
//! | `beats`, `pulse` | renews a lease; the thread on which that is done | store |
//! | `publisher` | the task that owns the lease | store |
//! | `writer` | the writes under it; looks after what was written | store |
//! | `teller` | what others do to our keys, for people | store |
//! | `slots` | what is published of services without Docker | no |
//! | `report` | what the publisher tells the rest of the agent | no |
//!
//! The rules: nothing here knows where registrations come from. A write happens because something changed, never to keep
//! something alive; and it touches no key that hangs on another's lease.

pub(crate) mod beats;
mod claim;
pub mod fights;
mod guard;
pub mod holders;
mod identity;
pub(crate) mod keys;
pub mod ledger;
pub mod metadata;
pub mod numbers;
mod outstanding;
mod plan;
pub mod publisher;
pub mod pulse;
mod registrar;
pub mod report;
mod rival;
pub mod slots;
mod teller;
mod writer;

pub use claim::ClaimError;
pub use holders::Refusal;
pub use identity::Identity;
pub use keys::Keys;
pub use plan::{Form, Registrations};
pub use publisher::{PublishError, Publisher, PublisherSettings};

pub use report::{Phase, Publication};

#[cfg(test)]
mod tests;
