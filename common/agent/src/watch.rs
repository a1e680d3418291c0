//! The seam between a source of snapshots and its users: a latest-value channel, with the standing of what is
//! in it as part of the type.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Chain;

/// What is known from one source, and how well.
#[derive(Debug)]
pub enum Observation<T> {
    /// It has not answered yet. Nothing may be concluded.
    Pending {
        /// Why not, if it has failed.
        error: Option<Arc<str>>,
    },
    /// The source's state, complete, as it was a moment ago.
    Synced {
        /// All that the source knows.
        snapshot: Arc<T>,
    },
    /// The source fails; this is the last complete state that it told.
    Stale {
        /// All that the source knew.
        snapshot: Arc<T>,
        /// When it first failed.
        since: Instant,
        /// How it last failed.
        error: Arc<str>,
    },
}

impl<T> Observation<T> {
    /// The last complete state, if there ever was one.
    pub fn snapshot(&self) -> Option<&Arc<T>> {
        match self {
            Self::Pending { .. } => None,
            Self::Synced { snapshot } | Self::Stale { snapshot, .. } => Some(snapshot),
        }
    }

    /// `pending`, `synced` or `stale`: the lexicon's words, for status and metrics.
    pub fn standing(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Synced { .. } => "synced",
            Self::Stale { .. } => "stale",
        }
    }

    /// The last failure, while it lasts.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Pending { error } => error.as_deref(),
            Self::Synced { .. } => None,
            Self::Stale { error, .. } => Some(error),
        }
    }

    /// Since when the source has been failing.
    pub fn stale_since(&self) -> Option<Instant> {
        match self {
            Self::Stale { since, .. } => Some(*since),
            _ => None,
        }
    }
}

impl<T> Clone for Observation<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Pending { error } => Self::Pending { error: error.clone() },
            Self::Synced { snapshot } => Self::Synced { snapshot: snapshot.clone() },
            Self::Stale { snapshot, since, error } => {
                Self::Stale { snapshot: snapshot.clone(), since: *since, error: error.clone() }
            }
        }
    }
}

/// Where a watcher puts what it knows. Only complete snapshots go in; a failure changes the standing, never the content.
#[derive(Debug)]
pub struct Outlet<T>(watch::Sender<Observation<T>>);

/// Where its user reads it.
pub type Inlet<T> = watch::Receiver<Observation<T>>;

/// A new outlet, pending, with its inlet.
pub fn channel<T>() -> (Outlet<T>, Inlet<T>) {
    let (sender, receiver) = watch::channel(Observation::Pending { error: None });
    (Outlet(sender), receiver)
}

/// Puts `value` into a latest-value channel, and wakes nobody where it is the same. Returns whether it changed.
pub fn replace<T: PartialEq>(out: &watch::Sender<T>, value: T) -> bool {
    out.send_if_modified(|old| {
        let changed = *old != value;
        if changed {
            *old = value;
        }
        changed
    })
}

impl<T> Outlet<T> {
    /// Replaces the snapshot and makes the observation synced.
    pub fn publish(&self, snapshot: Arc<T>) {
        self.0.send_replace(Observation::Synced { snapshot });
    }

    /// Replaces the snapshot, where there is one, and leaves its standing: for what is certain even while the source fails.
    pub fn amend(&self, amended: Arc<T>) {
        self.0.send_if_modified(|observation| match observation {
            Observation::Pending { .. } => false,
            Observation::Synced { snapshot } | Observation::Stale { snapshot, .. } => {
                *snapshot = amended;
                true
            }
        });
    }

    /// Says that the source fails. A snapshot stays; without one the observation stays pending.
    pub fn mark_stale(&self, error: &(dyn Error + 'static)) {
        self.mark_stale_by(Chain(error).to_string().into());
    }

    /// The same, for a watcher that stands on another one: `error` is what that one said.
    pub fn mark_stale_by(&self, error: Arc<str>) {
        self.0.send_modify(|observation| {
            *observation = match observation.snapshot() {
                None => Observation::Pending { error: Some(error) },
                Some(snapshot) => Observation::Stale {
                    snapshot: snapshot.clone(),
                    since: observation.stale_since().unwrap_or_else(Instant::now),
                    error,
                },
            };
        });
    }

    /// Says that the source works again and what it last told still holds.
    pub fn mark_synced(&self) {
        self.0.send_if_modified(|observation| match observation {
            Observation::Stale { snapshot, .. } => {
                *observation = Observation::Synced { snapshot: snapshot.clone() };
                true
            }
            _ => false,
        });
    }

    /// Says all of it anew, for a watcher that stands on others: their snapshots as one, with the standing that follows
    /// from theirs.
    pub fn relay(&self, observation: Observation<T>) {
        self.0.send_replace(observation);
    }

    /// What is in it now.
    pub fn current(&self) -> Observation<T> {
        self.0.borrow().clone()
    }
}

/// A source of snapshots that runs until it is cancelled.
///
/// Every watcher passes one contract suite: the first send is complete; none is ever partial; failure means stale, not
/// empty; it resumes by itself; it ends within a second of its cancellation.
pub trait Watcher<T>: Send + 'static {
    /// Why it may give up.
    type Error: Error + Send + Sync + 'static;

    /// Runs until `cancel`. `Ok` means cancelled; `Err` means that no retry can help.
    fn run(self, out: Outlet<T>, cancel: CancellationToken) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_keeps_the_snapshot_and_the_time_of_the_first_failure() {
        let (out, inlet) = channel::<u8>();
        out.mark_stale(&std::io::Error::other("refused"));
        assert!(matches!(&*inlet.borrow(), Observation::Pending { error: Some(e) } if &**e == "refused"));
        out.publish(Arc::new(7));
        let first = Instant::now();
        out.mark_stale(&std::io::Error::other("reset"));
        tokio::time::advance(std::time::Duration::from_secs(9)).await;
        out.mark_stale(&std::io::Error::other("gone"));
        assert_eq!(inlet.borrow().stale_since(), Some(first));
        assert_eq!(
            (inlet.borrow().snapshot().map(|s| **s), inlet.borrow().error().map(str::to_owned)),
            (Some(7), Some("gone".into()))
        );
        out.amend(Arc::new(6));
        assert_eq!(
            (inlet.borrow().stale_since(), inlet.borrow().snapshot().map(|s| **s)),
            (Some(first), Some(6)),
            "what is certain while it fails"
        );
        out.mark_synced();
        assert_eq!(inlet.borrow().standing(), "synced");
    }
}
