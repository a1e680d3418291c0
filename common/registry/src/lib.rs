//! What lies in the registry, as pools: the reading side of what `register` writes.
//!
//! [`Table`] is pure: keys and values in, [`Snapshot`]s out, at a cost that grows with what changed. [`RegistryWatcher`]
//! feeds an outlet from a [`Store`](crate::store::Store), by a [`Follower`]: list at R, watch from R+1, list again only when there
//! is no other way.

mod follow;
mod gather;
mod known;
mod lost;
mod owners;
pub mod store;
mod table;
mod told;
mod watcher;

pub use follow::{Followed, Follower};
pub use known::Quarantined;
pub use owners::{NotOwner, Owned, OwnedError, Owners};
pub use table::{Departure, DepartureCause, GeneratorConfigs, Snapshot, Table};
pub use watcher::{RegistryError, RegistryWatcher, Retries};
