//! Sources of pools.
//!
//! A kind of watcher is one file here (or in `common`, where others need it too) with a [`Method`], and one line in the
//! list of [`methods`](self::method): the file says what the config's keys mean and makes the watcher. What all of them
//! need is here once:
//!
//! | module | what it holds |
//! |---|---|
//! | `method` | the seam: the methods by their words, what they are asked, what they share |
//! | `configured` | the watchers that a config asks for |
//! | `aws` | signed requests to AWS, with the standard credential chain |
//! | `daemon` | one Docker daemon, for all services that look at it |
//! | `group` | watchers side by side, as one |
//! | `findings` | registrations → one service's pool, each bad one left out alone |
//! | `poll` | a look that is repeated (period, jitter, back-off, patience, signals in between) as a watcher |
//! | `teller` | answers → snapshots, where something has changed |

pub mod aws;
pub mod base;
mod configured;
mod daemon;
pub mod dns;
pub mod docker_hosts;
pub mod ec2tag;
pub mod etcd;
pub mod file;
pub mod findings;
pub mod group;
pub mod marathon;
pub mod method;
pub mod multi;
pub mod poll;
pub mod teller;
pub mod zookeeper;

use std::error::Error;

pub use crate::client::docker;
use agent::watch::{Outlet, Watcher};
use futures_util::future::BoxFuture;
use registry::Snapshot;
use tokio_util::sync::CancellationToken;

pub use configured::{Configured, ConfiguredError, configured};
pub use method::{About, Context, Fault, Method, MethodInput};

/// Why a watcher of any kind gave up.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// A watcher of any kind, ready to run.
pub type BoxWatcher = Box<dyn AnyWatcher>;

/// A [`Watcher`] of whatever kind, with its own error's type forgotten.
pub trait AnyWatcher: Send {
    /// Runs until `cancel`. `Ok` means cancelled; `Err` means that no retry can help.
    fn run(
        self: Box<Self>,
        out: Outlet<Snapshot>,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<(), AnyError>>;
}

impl<W: Watcher<Snapshot>> AnyWatcher for W {
    fn run(
        self: Box<Self>,
        out: Outlet<Snapshot>,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<(), AnyError>> {
        Box::pin(async move { Ok(Watcher::run(*self, out, cancel).await?) })
    }
}
