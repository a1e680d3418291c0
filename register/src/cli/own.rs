//! Flags of `put` and `exec`: one registration with a lease of its own.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use model::{BackendId, Host, HostPattern, Mode, NodeName, PathPrefix, Port, Route, RouteError, ServiceName, Weight};
use registry::store::etcd::EtcdArgs;

use super::{FormArgs, duration};

/// What both have in common.
#[derive(Debug, Clone, Args)]
pub struct OwnArgs {
    /// The backend's id within the service [default: the address]
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// The port on which clients expect the service
    #[arg(long, env = "REGISTER_SERVICE_PORT", value_name = "PORT")]
    pub service_port: Option<Port>,
    /// What may be assumed about the stream: tcp or http
    #[arg(long, env = "REGISTER_MODE", value_name = "MODE")]
    pub mode: Option<Mode>,
    /// Its share of the traffic, 0 to 256
    #[arg(long, env = "REGISTER_WEIGHT", value_name = "NUMBER", value_parser = weight)]
    pub weight: Option<Weight>,
    /// A label, KEY=VALUE; may be repeated
    #[arg(long = "label", value_name = "LABEL", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// How the HTTP edge reaches it
    #[command(flatten)]
    pub routes: RouteArgs,
    /// The name of this host in the registry, with --layout host
    #[arg(long, env = "NODE_NAME", value_name = "NAME", required_if_eq("layout", "host"))]
    pub node_name: Option<NodeName>,
    #[command(flatten)]
    pub form: FormArgs,
    #[command(flatten)]
    pub etcd: EtcdArgs,
}

/// How the HTTP edge reaches it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP edge")]
pub struct RouteArgs {
    /// Under which hosts the HTTP edge reaches it, HOST[/PATH] or *.HOST[/PATH]; several with commas, may be repeated
    #[arg(long = "vhost", env = "REGISTER_VHOST", value_name = "HOST", value_delimiter = ',', value_parser = vhost)]
    pub vhosts: Vec<(HostPattern, PathPrefix)>,
    /// With --vhost: it does not see the path
    #[arg(long, requires = "vhosts")]
    pub strip_prefix: bool,
    /// With --vhost: the higher one counts where two routes fit [default: the longer one]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, requires = "vhosts")]
    pub priority: Option<i32>,
    /// With --vhost: a client stays with one backend, by a cookie
    #[arg(long, requires = "vhosts")]
    pub sticky: bool,
    /// With --vhost: plain HTTP is redirected to HTTPS
    #[arg(long, requires = "vhosts")]
    pub redirect_https: bool,
    /// The edge passes TLS of these names through to it, NAME or *.NAME; several with commas, may be repeated
    #[arg(long = "sni", env = "REGISTER_SNI", value_name = "NAME", value_delimiter = ',', conflicts_with = "vhosts")]
    pub sni: Vec<HostPattern>,
}

impl RouteArgs {
    /// The routes asked for, in the order given.
    pub fn routes(&self) -> impl Iterator<Item = Route> {
        self.vhosts.iter().map(|(host, path)| Route {
            strip_prefix: self.strip_prefix && !path.is_root(),
            priority: self.priority,
            sticky: self.sticky,
            redirect_https: self.redirect_https,
            ..Route::new(host.clone(), path.clone())
        })
    }
}

pub(super) fn vhost(text: &str) -> Result<(HostPattern, PathPrefix), String> {
    let (host, path) = text.find('/').map_or((text, "/"), |at| text.split_at(at));
    let host = host.trim().parse().map_err(|e: RouteError| e.to_string())?;
    Ok((host, path.parse().map_err(|e: RouteError| e.to_string())?))
}

/// When it counts as healthy.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Check")]
pub struct CheckArgs {
    /// Seconds or time between two tries
    #[arg(long, env = "REGISTER_CHECK_INTERVAL", value_name = "TIME", default_value = "500ms", value_parser = pause)]
    pub check_interval: Duration,
    /// How long one try may take
    #[arg(long, env = "REGISTER_CHECK_TIMEOUT", value_name = "TIME", default_value = "1s", value_parser = pause)]
    pub check_timeout: Duration,
    /// So many passes in a row make it healthy
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rise: u32,
    /// So many failures in a row make it unhealthy
    #[arg(long, value_name = "NUMBER", default_value = "2", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub fall: u32,
}

/// Flags of `put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// The service
    #[arg(required_unless_present = "compat")]
    pub service: Option<ServiceName>,
    /// Where it is reached, such as 10.0.0.5:8080 or [fd00::5]:8080
    #[arg(value_name = "HOST:PORT", required_unless_present = "compat")]
    pub address: Option<String>,
    /// Register only while this passes: tcp, or the path of an HTTP request such as /health; none asks nothing
    #[arg(long, env = "REGISTER_CHECK", value_name = "WHAT", default_value = "none")]
    pub check: TryWhat,
    /// Register only while this shell command ends with status 0
    #[arg(long, env = "REGISTER_CHECK_COMMAND", value_name = "LINE", conflicts_with = "check")]
    pub check_command: Option<String>,
    /// Take the place of this registration of the same service: its `register put --compat etcdbridge` drains it and ends
    #[arg(long, env = "REGISTER_REPLACES", value_name = "ID")]
    pub replaces: Option<BackendId>,
    #[command(flatten)]
    pub checks: CheckArgs,
    #[command(flatten)]
    pub own: OwnArgs,
}

/// Flags of `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The service
    #[arg(long, env = "REGISTER_SERVICE", value_name = "NAME")]
    pub service: ServiceName,
    /// Where others reach the program, as a URL, HOST or HOST:PORT; without a port --port counts [default: --host and --port]
    #[arg(long, env = "DISCOVERABLE_URL", value_name = "URL")]
    pub url: Option<String>,
    /// The host's address or name [default: the address of the default route's interface]
    #[arg(long, env = "HOST", value_name = "ADDRESS")]
    pub host: Option<Host>,
    /// The port on which the program listens
    #[arg(long, env = "PORT", value_name = "PORT")]
    pub port: Option<Port>,
    /// Register only while this passes: tcp, or the path of an HTTP request such as /health; none asks nothing
    #[arg(long, env = "REGISTER_CHECK", value_name = "WHAT", default_value = "tcp")]
    pub check: TryWhat,
    /// What the check dials
    #[arg(long, env = "REGISTER_CHECK_HOST", value_name = "ADDRESS", default_value = "localhost")]
    pub check_host: Host,
    #[command(flatten)]
    pub checks: CheckArgs,
    /// When asked to end: how long it drains before the program is told
    #[arg(long, env = "REGISTER_DRAIN_WAIT", value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub drain_wait: Duration,
    /// Start the program again when it ends: no, on-failure or always
    #[arg(long, env = "REGISTER_RESTART", value_name = "WHEN", default_value = "no")]
    pub restart: Restart,
    #[command(flatten)]
    pub own: OwnArgs,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// `--check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TryWhat {
    Nothing,
    /// A connection is accepted.
    Tcp,
    /// A request of this path is answered with 200 to 399.
    Http(String),
    /// A shell command ends with status 0.
    Command(String),
}

impl FromStr for TryWhat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::Nothing),
            "tcp" => Ok(Self::Tcp),
            path if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(Self::Http(path.to_owned()))
            }
            _ => Err("not tcp, none, or a path that begins with /".to_owned()),
        }
    }
}

/// `--restart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Restart {
    /// Never.
    No,
    /// When it ended with another status than 0, or by a signal.
    OnFailure,
    /// Whenever it ends.
    Always,
}

/// A time from a millisecond to an hour.
pub(super) fn pause(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if (1..=3_600_000).contains(&time.as_millis()) { Ok(time) } else { Err("not between 1ms and 1h".to_owned()) }
}

fn weight(text: &str) -> Result<Weight, String> {
    let number: u32 = text.parse().map_err(|_| "not a whole number".to_owned())?;
    Weight::try_from(number).map_err(|e| e.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("not KEY=VALUE")?;
    let plain = |text: &str| !text.chars().any(char::is_control);
    if key.is_empty() || !plain(key) || !plain(value) {
        return Err("not KEY=VALUE without control characters".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}
