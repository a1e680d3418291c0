//! The registry for programs: which backends of a service are live now, and what changes.
//!
//! | part | what it gives |
//! |---|---|
//! | [`Client`] | where backends come from: etcd, or the Docker of this host |
//! | [`View`] | what is there now, kept current in the background; the newest state only |
//! | [`Changes`] | each change in turn, which can be resumed at a revision |
//! | [`docker`] | the watcher of one Docker daemon |
//!
//! `discover ls`, `watch`, `wait` and `exec` are made of this. A program of one's own:
//!
//! ```no_run
//! use discover::client::Client;
//! use model::Prefix;
//! use registry::store::etcd::{EtcdConfig, EtcdStore, parse_endpoints};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! agent::tls::install_provider(); // once, at the program's start
//! let store = EtcdStore::new(EtcdConfig::new(parse_endpoints("10.1.0.1,10.1.0.2", None, false)?));
//! let mut view = Client::registry(store, Prefix::default()).view();
//! let web = "web".parse()?;
//! // Waits for the registry's first answer, and for two backends that take clients.
//! view.wait_for(|services| services.live(&web).count() >= 2).await?;
//! loop {
//!     for backend in view.services().live(&web) {
//!         println!("{}", backend.address());
//!     }
//!     view.changed().await?;
//! }
//! # }
//! ```
//!
//! A registry that fails empties nothing: the last state stays, and [`View::error`] says what is wrong.

#![warn(missing_docs)]

mod changes;
pub mod docker;
#[cfg(test)]
mod tests;
mod view;

pub use changes::{Changes, Reset, ServiceChange, Told};
pub use docker::{DockerWatcher, on_this_host};
pub use view::{Ended, Services, View};

use agent::watch::Watcher as _;
use model::Prefix;
use registry::store::etcd::EtcdStore;
use registry::store::{Revision, Store};
use registry::{Follower, Owners, RegistryWatcher};

/// Where backends come from. Nothing is connected before it is used.
pub struct Client<S: Store = EtcdStore>(Origin<S>);

enum Origin<S> {
    Registry { store: S, prefix: Prefix, owners: Owners },
    Docker(Box<DockerWatcher>),
}

/// Docker counts no revisions: there is none to resume at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Docker has no revisions to resume at")]
pub struct NoRevisions;

impl<S: Store> Client<S> {
    /// What is registered below `prefix` of a store: etcd, usually.
    pub fn registry(store: S, prefix: Prefix) -> Self {
        Self(Origin::Registry { store, prefix, owners: Owners::default() })
    }

    /// Of services that the operator's table names, takes in registrations from their nodes alone. Docker has no such.
    #[must_use]
    pub fn with_owners(mut self, given: Owners) -> Self {
        if let Origin::Registry { owners, .. } = &mut self.0 {
            *owners = given;
        }
        self
    }

    /// What the containers of one Docker daemon offer, as `register` would publish it. Needs no registry.
    pub fn docker(watcher: DockerWatcher) -> Self {
        Self(Origin::Docker(Box::new(watcher)))
    }

    /// Begins to watch in a task of its own. Must be called within a tokio runtime.
    pub fn view(self) -> View {
        match self.0 {
            Origin::Registry { store, prefix, owners } => {
                View::start(|out, cancel| RegistryWatcher::new(store, prefix).with_owners(owners).run(out, cancel))
            }
            Origin::Docker(watcher) => View::start(|out, cancel| watcher.run(out, cancel)),
        }
    }

    /// The changes of all services: the whole state first, or with `after` what has changed since that revision. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// [`NoRevisions`] for `after` with Docker.
    pub fn changes(self, after: Option<Revision>) -> Result<Changes<S>, NoRevisions> {
        match self.0 {
            Origin::Registry { store, prefix, owners } => {
                let follower = Follower::new(store, prefix.clone()).with_owners(owners).by_revision();
                Ok(match after {
                    Some(revision) => Changes::of_registry(follower.from_revision(revision), prefix).resumed(),
                    None => Changes::of_registry(follower, prefix),
                })
            }
            Origin::Docker(_) if after.is_some() => Err(NoRevisions),
            Origin::Docker(_) => Ok(Changes::of_view(self.view())),
        }
    }
}
