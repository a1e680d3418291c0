//! `discover watch`: one JSON line for each change.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use crate::client::Told;
use clap::Args;
use model::ServiceName;
use registry::store::Revision;
use tokio::io::Interest;
use tokio::net::unix::pipe;

use super::Failure;
use super::source::SourceArgs;

/// Flags of `discover watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<ServiceName>,
    /// Go on after this revision: the `revision` of the last line that was taken in
    #[arg(long, value_name = "REVISION")]
    from: Option<i64>,
}

/// Prints until nobody reads any more, or a signal.
///
/// # Errors
/// [`Failure::Usage`] for wrong flags, [`Failure::Runtime`] when the source gives up or the output cannot be written.
pub async fn watch(args: WatchArgs) -> Result<(), Failure> {
    let client = args.source.client()?;
    let from = args.from.map(|revision| Revision(revision.max(0)));
    let changes = client.changes(from).map_err(|e| Failure::usage(&e))?;
    let services: BTreeSet<ServiceName> = args.services.into_iter().collect();
    let mut changes = changes.only(services);
    let mut reader_gone = std::pin::pin!(reader_gone());
    loop {
        let told = tokio::select! {
            () = &mut reader_gone => return Ok(()),
            told = changes.next() => told.map_err(Failure::runtime)?,
        };
        match print(&told) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(Failure::runtime(e)),
        }
    }
}

/// One line, whole and at once.
fn print(told: &Told) -> io::Result<()> {
    let mut line = serde_json::to_vec(told)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Completes when the output's reader has closed it; never for a file or a terminal.
///
/// Source: epoll(7) reports `EPOLLERR` on a pipe's writing end once its reading end is closed, asked for or not.
async fn reader_gone() {
    // A regular file cannot be polled, and closes for nobody. Nothing is ever written by this end of it.
    if let Ok(fd) = io::stdout().as_fd().try_clone_to_owned()
        && let Ok(pipe) = pipe::Sender::from_owned_fd_unchecked(fd)
        && pipe.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
