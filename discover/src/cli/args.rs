//! The flags of `discover run` and `discover diff`.

use std::path::PathBuf;
use std::time::Duration;

use agent::admin::Listen;
use agent::admin::access::AccessArgs;
use clap::Args;
use model::Pattern;

use super::Failure;
use super::docker_ports::DockerPortsArgs;
use super::edge::EdgeArgs;
use super::settings::HaproxyArgs;
use super::source::SourceArgs;
use crate::addresses::AddressArgs;
use crate::generators::haproxy::turn::connection::ProcessMode;
use crate::haproxy::process::launch::{Launch, Output};
use crate::haproxy::process::pace::MOST_OLD;
use crate::reconcile::{DefaultServer, GuardSettings, Limits, NearSettings, OnEmpty, Preference};

/// Where the control socket is, unless said otherwise.
pub const CONTROL_SOCKET: &str = "/run/discover/control.sock";

/// Flags of `discover run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Synapse's config, JSON or YAML: services, watchers and generators come from it
    #[arg(short, long, env = "SYNAPSE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) haproxy: HaproxyArgs,
    #[command(flatten)]
    pub(super) docker_ports: DockerPortsArgs,
    #[command(flatten)]
    pub(super) edge: EdgeArgs,
    #[command(flatten)]
    pub(super) process: ProcessArgs,
    #[command(flatten)]
    pub(super) pace: PaceArgs,
    #[command(flatten)]
    pub(super) prefer: PreferArgs,
    #[command(flatten)]
    pub(super) limits: Limits,
    #[command(flatten)]
    pub(super) addresses: AddressArgs,
    /// Where the admin server listens (GET only: status page, metrics, health), or off
    #[arg(long, env = "DISCOVER_ADMIN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9181")]
    pub(super) admin: Listen,
    /// The most services that have metrics of their own: of more, those with the most requests
    #[arg(long, env = "DISCOVER_METRICS_SERVICES", value_name = "N", default_value_t = 1000)]
    pub(super) metrics_services: usize,
    /// Tell the registry that this discover is there (/discoverers/NODE, under a lease), for `discover fleet`
    #[arg(long, env = "DISCOVER_ANNOUNCE")]
    pub(super) announce: bool,
    #[command(flatten)]
    pub(super) access: AccessArgs,
    /// The Unix socket for `discover release`
    #[arg(long, help_heading = "The agent", env = "DISCOVER_CONTROL", value_name = "SOCKET", default_value = CONTROL_SOCKET)]
    pub(super) control: PathBuf,
}

/// Who runs HAProxy, and where it keeps its files.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HAProxy's process")]
pub(super) struct ProcessArgs {
    /// Who runs HAProxy [default: spawn; external below `discover supervise`]
    #[arg(long = "haproxy", env = "DISCOVER_HAPROXY", value_name = "MODE", value_enum)]
    mode: Option<ProcessMode>,
    /// HAProxy's program
    #[arg(long, env = "DISCOVER_HAPROXY_BIN", value_name = "FILE", default_value = "haproxy")]
    pub(super) haproxy_bin: PathBuf,
    /// Directory of haproxy.cfg and what must outlive a restart
    #[arg(long, env = "DISCOVER_DIR", value_name = "DIR", default_value = "/var/lib/discover")]
    pub(super) dir: PathBuf,
    /// Directory of HAProxy's sockets
    #[arg(long, env = "DISCOVER_RUN_DIR", value_name = "DIR", default_value = "/run/discover")]
    run_dir: PathBuf,
    /// haproxy.cfg [default: in --dir]
    #[arg(long, env = "DISCOVER_HAPROXY_CONFIG", value_name = "FILE")]
    haproxy_config: Option<PathBuf>,
    /// How long haproxy -c may take for a config, and 1s more for each 1,000 servers; what takes longer is refused
    #[arg(long, env = "DISCOVER_CHECK_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(super) check_timeout: Duration,
    /// HAProxy's master CLI [default: in --run-dir]
    #[arg(long, env = "DISCOVER_HAPROXY_MASTER", value_name = "SOCKET")]
    haproxy_master: Option<PathBuf>,
}

/// How fast things may go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Pace and guard")]
pub(super) struct PaceArgs {
    /// News that follows other news is gathered until it has been quiet this long …
    #[arg(long, env = "DISCOVER_QUIET", value_name = "TIME", default_value = "1ms", value_parser = humantime::parse_duration)]
    pub(super) quiet: Duration,
    /// … and at most this long after the first; news after a rest of this length is acted upon at once
    #[arg(long, env = "DISCOVER_MAX_WAIT", value_name = "TIME", default_value = "20ms", value_parser = humantime::parse_duration)]
    pub(super) max_wait: Duration,
    /// Least time between two reloads of HAProxy
    #[arg(long, env = "DISCOVER_RELOAD_INTERVAL", value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(super) reload_interval: Duration,
    /// Up to this share of the interval is added at random
    #[arg(long, env = "DISCOVER_RELOAD_JITTER", value_name = "0-1", default_value_t = 0.1)]
    pub(super) reload_jitter: f64,
    /// With more old workers of HAProxy than this that still have sessions, reloads wait longer each time
    #[arg(long, env = "DISCOVER_MAX_OLD_WORKERS", value_name = "N", default_value_t = MOST_OLD)]
    pub(super) max_old_workers: usize,
    /// How long registrations that ran out together are held; 0s turns the guard off
    #[arg(long, env = "DISCOVER_HOLD", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(super) hold: Duration,
    /// Share of a pool, in percent, above which its expiries are held
    #[arg(long, env = "DISCOVER_HOLD_ABOVE", value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) hold_above: u8,
    /// What becomes of a service whose last backend was taken away: empty, keep (its last backends stay, under HAProxy's checks) or defaults (those of --default-server)
    #[arg(long, env = "DISCOVER_ON_EMPTY", value_name = "POLICY", default_value = "empty", value_enum)]
    pub(super) on_empty: OnEmpty,
    /// A server that stands in for a service without backends, with --on-empty defaults; may be given several times
    #[arg(
        long = "default-server",
        env = "DISCOVER_DEFAULT_SERVERS",
        value_name = "SERVICE=HOST:PORT",
        value_delimiter = ','
    )]
    pub(super) default_servers: Vec<DefaultServer>,
    /// How long a source is waited for at the start, once another has answered
    #[arg(long, env = "DISCOVER_SYNC_DEADLINE", value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    pub(super) sync_deadline: Duration,
}

/// Near first.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Near first")]
pub(super) struct PreferArgs {
    /// Send requests to backends with this label first, such as zone=eu-1a or node=host-7; several with commas, the nearest first
    #[arg(long, env = "DISCOVER_PREFER", value_name = "LABEL=VALUE", value_delimiter = ',')]
    prefer: Vec<Preference>,
    /// The share of them, in percent, that has to be able to take requests; with less the next ones are asked as well
    #[arg(long, env = "DISCOVER_PREFER_MIN", value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=100))]
    prefer_min: u8,
    /// Only for these services, with * for any characters; several with commas [default: all]
    #[arg(long, env = "DISCOVER_PREFER_SERVICES", value_name = "PATTERN", value_delimiter = ',')]
    prefer_services: Vec<Pattern>,
}

impl ProcessArgs {
    /// Who runs HAProxy.
    pub(super) fn mode(&self) -> ProcessMode {
        let supervised = self.haproxy_master.is_some();
        self.mode.unwrap_or(if supervised { ProcessMode::External } else { ProcessMode::Spawn })
    }

    /// How HAProxy is started.
    pub(super) fn launch(&self) -> Launch {
        Launch {
            program: self.haproxy_bin.clone(),
            config: absolute(self.haproxy_config.clone().unwrap_or_else(|| self.dir.join("haproxy.cfg"))),
            master_socket: absolute(
                self.haproxy_master.clone().unwrap_or_else(|| self.run_dir.join("haproxy-master.sock")),
            ),
            args: Vec::new(),
            output: Output::File(absolute(self.run_dir.join("haproxy.log"))),
        }
    }

    /// HAProxy's runtime API.
    pub(super) fn socket(&self) -> PathBuf {
        absolute(self.run_dir.join("haproxy.sock"))
    }

    /// Makes the directories of HAProxy's files.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the directory.
    pub(super) fn make_directories(&self) -> Result<(), Failure> {
        let launch = self.launch();
        let parents = [launch.config.parent(), launch.master_socket.parent(), Some(self.run_dir.as_path())];
        for dir in parents.into_iter().flatten().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(|e| {
                Failure::Usage(format!("making the directory {}: {e} (see --dir and --run-dir)", dir.display()))
            })?;
        }
        Ok(())
    }
}

/// HAProxy has a working directory of its own, and takes a socket's path by its slash.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

impl PreferArgs {
    /// What is near.
    pub(super) fn settings(&self) -> NearSettings {
        let Self { prefer, prefer_min: least, prefer_services: services } = self.clone();
        NearSettings { prefer, least, services }
    }
}

impl PaceArgs {
    /// How the guard judges.
    pub(super) fn guard(&self) -> GuardSettings {
        GuardSettings { hold: self.hold, threshold_percent: self.hold_above }
    }
}
