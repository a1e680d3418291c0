//! `discover supervise`: owns HAProxy's master, so that HAProxy survives a crash of `discover run`, and reaps what nobody else does (PID 1).
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`] | the command line, and what it comes to |
//! | [`children`] | our children and other people's zombies |
//! | `error` | why it ended badly |
//! | [`agent`] | `discover run`, started again when it ends |
//! | [`keeper`] | HAProxy, started again when it ends |
//! | [`file`](mod@file) | a config file that others write (`--file`): noticed, checked, loaded or refused |
//! | `tried` | a failing start is tried again at once with another program or config |
//! | [`spared`] | servers of such a file that HAProxy refuses are left out, and the rest is loaded |
//!
//! Two modes: beside `discover run`, which writes the config and reloads by itself; or alone with `--file CFG`, for a HAProxy container whose
//! config is mounted. To stop: the agent first, so that it no longer changes anything, then HAProxy, gracefully.

pub mod agent;
pub mod args;
pub mod children;
mod error;
pub mod file;
pub mod keeper;
pub mod spared;
mod tried;

use futures_util::future::OptionFuture;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use args::{Options, SuperviseArgs};
pub use error::SuperviseError;

use crate::haproxy::process::output::HaproxyOutput;
use children::Children;

/// Supervises until `cancel`, then stops everything in order; at most the agent's and HAProxy's grace together, and 10 s more for either.
///
/// HAProxy or the agent ending is no end of this: both are started again, after a growing delay.
pub async fn run(options: Options, cancel: CancellationToken) -> Result<(), SuperviseError> {
    let children = Children::new();
    if let Some(dir) = options.launch.master_socket.parent().filter(|d| !d.as_os_str().is_empty()) {
        let failed = |source| SuperviseError::Directory { path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    let stop_haproxy = CancellationToken::new();
    let agent = async {
        match &options.agent {
            Some(command) => agent::keep(command, &options, &children, &cancel).await,
            None => cancel.cancelled().await,
        }
        info!("Stopping HAProxy.");
        stop_haproxy.cancel();
    };
    let silence = CancellationToken::new();
    let haproxy = async {
        let ended = keeper::keep(&options, &children, &stop_haproxy).await;
        silence.cancel();
        ended
    };
    let words = options.launch.log().map(|log| HaproxyOutput::new(log.to_owned()).whole().follow(silence.clone()));
    let both = async { tokio::join!(agent, haproxy, OptionFuture::from(words)).1 };
    tokio::select! {
        ended = both => ended,
        error = children.reap_for_ever() => Err(SuperviseError::Signals(error)),
    }
}
