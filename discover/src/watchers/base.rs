//! Nothing is discovered: a service with default servers alone.

use std::convert::Infallible;
use std::sync::Arc;

use agent::watch::{Outlet, Watcher};
use registry::Snapshot;
use tokio_util::sync::CancellationToken;

use super::{BoxWatcher, Context, Faults, Method, MethodInput};

/// `base` has no keys of its own.
#[derive(Debug, Clone, Copy)]
pub struct Base;

impl Method for Base {
    fn read(_: &MethodInput<'_>) -> Result<Self, Faults> {
        Ok(Self)
    }

    fn watcher(&self, _: &mut Context) -> BoxWatcher {
        Box::new(*self)
    }

    /// It has nothing to say, which is not that there is no backend.
    fn answers(&self) -> bool {
        false
    }
}

impl Watcher<Snapshot> for Base {
    type Error = Infallible;

    async fn run(self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), Infallible> {
        out.publish(Arc::new(Snapshot::default()));
        cancel.cancelled().await;
        Ok(())
    }
}
