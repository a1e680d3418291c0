//! Whether and how discover learns which ports the containers of this host publish.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use agent::lifecycle::Lifecycle;
use agent::telemetry::Chain;
use clap::{Args, ValueEnum};
use containers::docker::{Docker, Endpoint, PublishedSource};
use tokio::sync::{Notify, watch};
use tracing::{debug, info};

use super::Failure;
use super::source::SourceArgs;
use crate::generators::haproxy::file::published::Published;

/// How long the first turn waits for Docker's first word.
const FIRST_WORD: Duration = Duration::from_secs(3);

/// Whether Docker is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AskDocker {
    /// Where its socket is there and its networks are on this host.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Flags about ports that containers publish.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HAProxy's config")]
pub(super) struct DockerPortsArgs {
    /// Keep off ports that containers of this host publish, running or stopped: auto (where Docker can be asked), on or off
    #[arg(long, env = "DISCOVER_DOCKER_PORTS", value_name = "WHEN", default_value = "auto", value_enum)]
    docker_ports: AskDocker,
}

impl DockerPortsArgs {
    /// Begins to watch; `wake` takes a turn when something else is published. `None`: Docker is not asked.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the flag.
    pub(super) async fn watch(
        &self,
        source: &SourceArgs,
        wake: Arc<Notify>,
        lifecycle: &mut Lifecycle,
    ) -> Result<Option<Published>, Failure> {
        let endpoint = match self.docker_ports {
            AskDocker::Off => return Ok(None),
            AskDocker::On => source.docker_endpoint()?,
            AskDocker::Auto => match source.docker_endpoint() {
                Ok(endpoint) if is_here(&endpoint) => endpoint,
                _ => return Ok(None),
            },
        };
        let mut source = PublishedSource::new(Docker::new(&endpoint).map_err(|e| Failure::usage(&e))?);
        let first = match tokio::time::timeout(FIRST_WORD, source.look()).await {
            Ok(Ok(published)) => {
                debug!(docker = %endpoint, ports = published.len(), "Keeping off the ports that containers publish.");
                published
            }
            Ok(Err(error)) => {
                info!(docker = %endpoint, error = %Chain(&error), "Docker does not tell which ports containers publish.");
                Default::default()
            }
            Err(_) => {
                info!(docker = %endpoint, "Docker does not tell in time which ports containers publish.");
                Default::default()
            }
        };
        let (out, told) = watch::channel(Arc::new(first));
        let cancel = lifecycle.token();
        lifecycle.spawn("docker-ports", async move {
            source.run(out, move || wake.notify_one(), cancel).await;
            Ok::<(), Infallible>(())
        });
        Ok(Some(Published::told_by(told)))
    }
}

/// Whether this daemon publishes ports where our HAProxy listens: it has a socket here that we may use, and its bridges are in our network. A
/// discover in a container with a network of its own sees none, and its ports are not the host's.
fn is_here(endpoint: &Endpoint) -> bool {
    let Endpoint::Unix(socket) = endpoint else { return false };
    let mut interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let may_ask = || UnixStream::connect(socket).err().is_none_or(|e| e.kind() != ErrorKind::PermissionDenied);
    socket.exists() && may_ask() && interfaces.any(|interface| interface.path().join("bridge").exists())
}
