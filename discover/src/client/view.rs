//! What is there now, kept current in the background.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use agent::watch::{Inlet, Observation, Outlet, channel};
use model::{Backend, ServiceMap, ServiceName, Status};
use registry::Snapshot;

/// The services of one moment.
#[derive(Debug, Clone, Copy)]
pub struct Services<'a>(pub &'a ServiceMap);

impl<'a> Services<'a> {
    /// The backends of `service` that take new clients, in discovery order; neither draining ones nor those that are down.
    pub fn live(self, service: &ServiceName) -> impl Iterator<Item = &'a Arc<Backend>> + use<'a> {
        let pool = self.0.get(service);
        pool.into_iter().flat_map(|pool| pool.backends()).filter(|backend| backend.status == Status::Up)
    }
}

/// Nothing more will come: the source has given up, which no retry could help.
#[derive(Debug, thiserror::Error)]
#[error("the source of services has ended")]
pub struct Ended(#[source] pub Option<Box<dyn Error + Send + Sync>>);

type Run = AbortOnDropHandle<Result<(), Box<dyn Error + Send + Sync>>>;

/// The newest state of one source. Dropping it ends the watching.
pub struct View {
    inlet: Inlet<Snapshot>,
    run: Option<Run>,
    /// What was read last: borrowed from by [`View::services`].
    seen: Arc<Snapshot>,
}

impl View {
    /// A view of any watcher, which begins to run in a task of its own.
    pub fn start<F, E>(watch: impl FnOnce(Outlet<Snapshot>, CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let (out, inlet) = channel();
        let watch = watch(out, CancellationToken::new());
        let run = tokio::spawn(async move { watch.await.map_err(Into::into) });
        Self { inlet, run: Some(AbortOnDropHandle::new(run)), seen: Arc::default() }
    }

    /// The services as they were at the last wait; none before the first one.
    pub fn services(&self) -> Services<'_> {
        Services(&self.seen.services)
    }

    /// All that the source told then.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.seen
    }

    /// What is known now, with its standing.
    pub fn observation(&self) -> Observation<Snapshot> {
        self.inlet.borrow().clone()
    }

    /// The same, to be waited on beside others.
    pub fn inlet(&self) -> Inlet<Snapshot> {
        self.inlet.clone()
    }

    /// How the source fails, while it does.
    pub fn error(&self) -> Option<String> {
        self.inlet.borrow().error().map(str::to_owned)
    }

    /// Waits until the source has told its whole state once; at once if it has. While it fails this waits on: bound it in
    /// time, and ask [`error`](Self::error) then. Cancel-safe.
    pub async fn synced(&mut self) -> Result<(), Ended> {
        self.wait_for(|_| true).await
    }

    /// Waits until the source tells something new (or that it fails, or works again). Cancel-safe.
    pub async fn changed(&mut self) -> Result<(), Ended> {
        if self.inlet.changed().await.is_err() {
            return Err(self.end().await);
        }
        self.refresh();
        Ok(())
    }

    /// Waits until the services are as wanted; at once if they are. Cancel-safe.
    pub async fn wait_for(&mut self, mut fits: impl FnMut(Services<'_>) -> bool) -> Result<(), Ended> {
        loop {
            if self.refresh() && fits(self.services()) {
                return Ok(());
            }
            self.changed().await?;
        }
    }

    /// Takes over the newest snapshot without a wait; `false` while there is none.
    pub fn refresh(&mut self) -> bool {
        let Some(snapshot) = self.inlet.borrow_and_update().snapshot().cloned() else { return false };
        self.seen = snapshot;
        true
    }

    async fn end(&mut self) -> Ended {
        let Some(run) = self.run.as_mut() else { return Ended(None) };
        let end = run.await;
        self.run = None;
        Ended(match end {
            Ok(ended) => ended.err(),
            Err(stopped) => Some(stopped.into()),
        })
    }
}
