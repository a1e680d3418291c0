//! A thread that renews leases, whatever the rest of the agent is busy with: the registrations of a whole host hang on one lease,
//! and no turn, however long, may cost them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use registry::store::{LeaseId, Store, StoreError};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::beats::beats;
use super::report::Reporter;

/// An agent that has not moved for so long is taken for hung: it does not see any more what it registers for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the agent shows that it moves.
const SIGN: Duration = Duration::from_secs(1);
/// What the thread needs is little.
const STACK: usize = 512 * 1024;

/// The thread; clones share it, and it ends with the last of them.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    thread: Handle,
    patience: Duration,
    began: Instant,
    /// When the agent last moved, in milliseconds since `began`.
    moved: AtomicU64,
    _end: DropGuard,
}

impl Pulse {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start() -> io::Result<Self> {
        Self::with_patience(PATIENCE)
    }

    /// The same for an agent that may stand still for so long.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn with_patience(patience: Duration) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (thread, end) = (runtime.handle().clone(), CancellationToken::new());
        let over = end.clone();
        let run = move || runtime.block_on(over.cancelled());
        std::thread::Builder::new().name("lease".into()).stack_size(STACK).spawn(run)?;
        let (began, moved, _end) = (Instant::now(), AtomicU64::new(0), end.drop_guard());
        Ok(Self(Arc::new(Inner { thread, patience, began, moved, _end })))
    }

    /// Renews `lease` as [`beats`] does, on the thread; `store` must be used by nobody else, as its connections live there. This
    /// future shows that the agent moves, and ends the renewal when it is dropped.
    pub(super) async fn beats<S: Store>(
        &self,
        store: S,
        lease: LeaseId,
        ttl: Duration,
        report: Arc<Reporter>,
    ) -> StoreError {
        self.moves();
        let pulse = self.clone();
        let renewal = async move {
            let mut hung = false;
            let may_beat = || {
                let still = pulse.stands_still();
                match (still > pulse.0.patience, std::mem::replace(&mut hung, still > pulse.0.patience)) {
                    (true, false) => {
                        let seconds = still.as_secs();
                        warn!(%lease, seconds, "The agent hangs: its lease is not renewed until it moves again.");
                    }
                    (false, true) => info!(%lease, "The agent moves again."),
                    _ => {}
                }
                !hung
            };
            beats(&store, lease, ttl, &report, may_beat).await
        };
        let mut task = AbortOnDropHandle::new(self.0.thread.spawn(renewal));
        loop {
            tokio::select! {
                ended = &mut task => match ended {
                    Ok(error) => return error,
                    Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                    Err(_) => std::future::pending().await, // never: the thread ends with `self`
                },
                () = tokio::time::sleep(SIGN) => self.moves(),
            }
        }
    }

    fn moves(&self) {
        let now = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.moved.store(now, Ordering::Relaxed);
    }

    fn stands_still(&self) -> Duration {
        self.0.began.elapsed().saturating_sub(Duration::from_millis(self.0.moved.load(Ordering::Relaxed)))
    }
}
