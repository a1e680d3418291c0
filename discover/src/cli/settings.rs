//! Flags that say how HAProxy is to be configured: shared by the commands that render and the one that runs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use model::{Mode, Port};

use super::Failure;
use crate::generators::haproxy::file::edge::frontend::Frame;
use crate::generators::haproxy::file::settings::{HaproxySettings, ListenerShare, PortRanges};
use crate::generators::haproxy::file::silence::Silence;
use crate::generators::haproxy::file::stats::{Stats, StatsListen, read_users};
use crate::haproxy::words::bind::ListenOn;
use crate::haproxy::words::options::unknown;

/// What haproxy.cfg is to be like.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HAProxy's config")]
pub struct HaproxyArgs {
    /// Addresses on which services listen, separated by commas [default: all, IPv4 and IPv6]
    #[arg(long, env = "DISCOVER_LISTEN", value_name = "ADDRESSES", value_delimiter = ',')]
    pub listen: Vec<IpAddr>,
    #[command(flatten)]
    pub stats: StatsArgs,
    /// Ports that services may open; none for those that are reached over the edge alone
    #[arg(long, env = "DISCOVER_SERVICE_PORTS", value_name = "RANGES", default_value = "1-65535")]
    pub service_ports: PortRanges,
    /// Mode of a service whose registrations do not say: tcp or http
    #[arg(long, env = "DISCOVER_DEFAULT_MODE", value_name = "MODE", default_value = "tcp")]
    pub default_mode: Mode,
    #[command(flatten)]
    pub checks: ServerCheckArgs,
    /// HAProxy's maxconn
    #[arg(long, env = "DISCOVER_MAXCONN", value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub maxconn: u32,
    /// The most connections of one service's port, of the edge's or of the stats page's: a share of --maxconn, or a number
    #[arg(long, env = "DISCOVER_LISTENER_MAXCONN", value_name = "SHARE", default_value_t = ListenerShare::default())]
    pub listener_maxconn: ListenerShare,
    #[command(flatten)]
    pub patience: PatienceArgs,
    /// USER or USER:GROUP that HAProxy drops to when it starts as root, or none [default: haproxy, where it exists]
    #[arg(long, env = "DISCOVER_HAPROXY_USER", value_name = "USER")]
    pub haproxy_user: Option<String>,
    /// Directory with a header.tera or section.tera to use in place of ours
    #[arg(long, env = "DISCOVER_TEMPLATES", value_name = "DIR")]
    pub templates: Option<PathBuf>,
    /// How long the section of a service without registrations stays before a reload removes it
    #[arg(long, env = "DISCOVER_SECTION_LINGER", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub section_linger: Duration,
}

/// The stats page.
#[derive(Debug, Clone, Args)]
pub struct StatsArgs {
    /// Port of HAProxy's stats page, or off
    #[arg(
        id = "stats_port",
        long = "stats-port",
        env = "DISCOVER_STATS_PORT",
        value_name = "PORT",
        default_value = "1936"
    )]
    pub port: PortOrOff,
    /// Addresses of the stats page, separated by commas, or none for no page [default: those on which services listen]
    #[arg(id = "stats_listen", long = "stats-listen", env = "DISCOVER_STATS_LISTEN", value_name = "ADDRESSES")]
    pub listen: Option<StatsListen>,
    /// Only these users may read the stats page and its /metrics: USER:PASSWORD lines, a password in clear or as a hash of crypt(3)
    #[arg(id = "stats_auth_file", long = "stats-auth-file", env = "DISCOVER_STATS_AUTH_FILE", value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
}

/// What is asked of each server.
#[derive(Debug, Clone, Args)]
pub struct ServerCheckArgs {
    /// HAProxy's check of every server, as words of its line; empty for none
    #[arg(long, env = "DISCOVER_CHECK", value_name = "WORDS", default_value = "check inter 2s rise 3 fall 2")]
    pub check: String,
    /// The most checks a second of all servers together: beyond it each is checked less often, in doubled intervals; 0 for no such bound
    #[arg(long, env = "DISCOVER_CHECK_RATE", value_name = "N", default_value_t = 500)]
    pub check_rate: u32,
    /// Ramp a new server's share up over this time
    #[arg(long, env = "DISCOVER_SLOW_START", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub slow_start: Option<Duration>,
}

/// How long HAProxy waits for others.
#[derive(Debug, Clone, Args)]
pub struct PatienceArgs {
    /// HAProxy's timeout connect
    #[arg(id = "timeout_connect", long = "timeout-connect", env = "DISCOVER_TIMEOUT_CONNECT", value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub connect: Duration,
    /// HAProxy's timeout client
    #[arg(id = "timeout_client", long = "timeout-client", env = "DISCOVER_TIMEOUT_CLIENT", value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    pub client: Duration,
    /// HAProxy's timeout server
    #[arg(id = "timeout_server", long = "timeout-server", env = "DISCOVER_TIMEOUT_SERVER", value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    pub server: Duration,
    /// How long a backend's host may acknowledge nothing of what was sent before the connection ends and what can be repeated is (four times as long in tcp sections); 0: as long as the kernel tries
    #[arg(id = "tcp_ack_timeout", long = "tcp-ack-timeout", env = "DISCOVER_TCP_ACK_TIMEOUT", value_name = "TIME", default_value = "2500ms", value_parser = or_none)]
    pub tcp_ack: Duration,
    /// How often the host of an open connection is asked whether it lives while nothing else is under way, in whole seconds; 0: never
    #[arg(long, env = "DISCOVER_TCP_KEEPALIVE", value_name = "TIME", default_value = "1s", value_parser = or_none)]
    pub tcp_keepalive: Duration,
}

/// A time, or `0` without a unit.
fn or_none(text: &str) -> Result<Duration, humantime::DurationError> {
    if text.trim() == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) }
}

/// A port, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortOrOff(pub Option<Port>);

impl std::str::FromStr for PortOrOff {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            _ => {
                text.parse().map(|p| Self(Some(p))).map_err(|_| format!("{text:?} is neither a port (1-65535) nor off"))
            }
        }
    }
}

impl StatsArgs {
    fn read(&self) -> Result<Stats, Failure> {
        let listen = match &self.listen {
            Some(StatsListen::These(addresses)) => Some(ListenOn::These(addresses.clone())),
            Some(StatsListen::None) | None => None,
        };
        let users = self.auth_file.as_deref().map(read_users).transpose().map_err(|e| Failure::usage(&e))?;
        Ok(Stats {
            port: self.port.0.filter(|_| self.listen != Some(StatsListen::None)),
            listen,
            users: users.unwrap_or_default(),
        })
    }
}

impl ServerCheckArgs {
    fn fault(&self) -> Option<String> {
        if let Some(bad) = self.check.chars().find(|c| c.is_control() || "#\"'\\$%".contains(*c)) {
            return Some(format!("--check (DISCOVER_CHECK) has the character {bad:?}"));
        }
        let word = unknown(&self.check)?;
        Some(format!("--check (DISCOVER_CHECK): {word:?} is no keyword of a server's line in any version of HAProxy"))
    }
}

impl HaproxyArgs {
    fn templates_fault(&self) -> Option<String> {
        let dir = self.templates.as_ref().filter(|dir| !dir.is_dir())?;
        Some(format!("--templates (DISCOVER_TEMPLATES): {} is no directory", dir.display()))
    }

    /// The settings, for the file and socket given. `reserved` are ports that discover itself uses.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the flag.
    pub fn settings(
        &self,
        config_file: &Path,
        socket: &Path,
        reserved: impl IntoIterator<Item = Port>,
    ) -> Result<HaproxySettings, Failure> {
        let stats = self.stats.read();
        let silence = Silence::new(self.patience.tcp_ack, self.patience.tcp_keepalive);
        let of_stats = stats.as_ref().err().map(|fault| fault.to_string());
        let faults = [self.checks.fault(), self.templates_fault(), silence.clone().err(), of_stats];
        let faults: Vec<String> = faults.into_iter().flatten().collect();
        let (Ok(stats), Ok(silence), true) = (stats, silence, faults.is_empty()) else {
            return Err(Failure::Usage(faults.join("\n")));
        };
        let listen = if self.listen.is_empty() { ListenOn::all() } else { ListenOn::These(self.listen.clone()) };
        Ok(HaproxySettings {
            config_file: config_file.to_owned(),
            socket: socket.to_owned(),
            frame: Frame {
                listen,
                timeouts: [self.patience.connect, self.patience.client, self.patience.server],
                silence,
                slow_start: self.checks.slow_start,
                default_mode: self.default_mode,
                linger: self.section_linger,
                listener_maxconn: Some(self.listener_maxconn.of(self.maxconn)),
            },
            stats,
            service_ports: self.service_ports.clone(),
            reserved: reserved.into_iter().collect(),
            check: self.checks.check.trim().to_owned(),
            check_rate: self.checks.check_rate,
            maxconn: self.maxconn,
            user: user(self.haproxy_user.as_deref()),
            templates: self.templates.clone(),
            edge: None,
        })
    }
}

/// The user and group to drop to. HAProxy started by anybody but root cannot drop, and must not be told to.
fn user(wanted: Option<&str>) -> Option<(String, String)> {
    if !nix::unistd::Uid::effective().is_root() {
        return None;
    }
    match wanted {
        Some("none" | "") => None,
        Some(wanted) => {
            let (user, group) = wanted.split_once(':').unwrap_or((wanted, wanted));
            Some((user.to_owned(), group.to_owned()))
        }
        None => {
            let exists = matches!(nix::unistd::User::from_name("haproxy"), Ok(Some(_)))
                && matches!(nix::unistd::Group::from_name("haproxy"), Ok(Some(_)));
            exists.then(|| ("haproxy".to_owned(), "haproxy".to_owned()))
        }
    }
}
