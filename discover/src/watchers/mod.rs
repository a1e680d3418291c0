//! Sources of pools. A watcher is one file here (or in `common`, where others need it too) and one line in [`AnyWatcher`].

mod configured;
pub mod docker;

use common::registry::{RegistryWatcher, Snapshot};
use common::store::etcd::EtcdStore;
use common::watch::{Outlet, Watcher};
use std::error::Error;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub use configured::{Configured, ConfiguredError, Kind, configured};

/// Every kind of watcher that there is.
pub enum AnyWatcher {
    /// The registry in etcd.
    Etcd(Box<RegistryWatcher<EtcdStore>>),
    /// The local Docker, without a registry.
    Docker(Box<docker::DockerWatcher>),
    /// Nothing is discovered: a service with default servers alone.
    Base,
}

impl AnyWatcher {
    /// Runs the watcher until `cancel`.
    ///
    /// # Errors
    /// The watcher's own, when no retry can help.
    pub async fn run(
        self,
        out: Outlet<Snapshot>,
        cancel: CancellationToken,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        match self {
            Self::Etcd(watcher) => watcher.run(out, cancel).await.map_err(Into::into),
            Self::Docker(watcher) => watcher.run(out, cancel).await.map_err(Into::into),
            Self::Base => {
                // It answers that it has nothing to say, not that there is no backend.
                out.publish(Arc::new(Snapshot::default()));
                cancel.cancelled().await;
                Ok(())
            }
        }
    }
}
