//! The command line: flags, environment, and what they must satisfy.

#![allow(
    rustdoc::invalid_html_tags,
    rustdoc::broken_intra_doc_links,
    reason = "these comments are help texts, for a terminal"
)]

mod form;
mod history;
mod own;
mod run;
mod seeds;
mod stop;
mod times;

use std::path::PathBuf;

use agent::admin::client::StatusArgs;
use agent::pages::Pages;
use agent::telemetry::LogFormat;
use agent::usage::grouped;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use model::NodeName;
use model::desired::{Family, Filter, HealthPolicy, MaxPorts, ServiceFrom};
use registry::store::etcd::EtcdArgs;

pub use form::{Compat, FormArgs, LayoutArg, ValueArg};
pub use history::HistoryArgs;
use own::pause;
pub use own::{CheckArgs, ExecArgs, OwnArgs, PutArgs, Restart, TryWhat};
pub use run::{NerveArgs, OnExit, RunArgs};
pub use stop::StopArgs;
use times::duration;

/// Where the admin server listens unless told otherwise.
pub const ADMIN: &str = "127.0.0.1:9180";
/// Where the control socket is unless told otherwise.
pub const CONTROL: &str = "/run/register/control.sock";
/// Where the history is, unless said otherwise.
const HISTORY: &str = "/var/lib/register/history.jsonl";

/// Registers the published ports of healthy Docker containers in etcd, for as long as they live.
#[derive(Debug, Parser)]
#[command(name = "register", version = crate::VERSION, about)]
#[command(after_help = "Without a command, `run` is meant: `register --ttl 5s` is `register run --ttl 5s`.\n\
    Exit status: 0 ok, 1 runtime error, 64 wrong usage.")]
pub struct Cli {
    /// How log lines look
    #[arg(
        long,
        global = true,
        env = "REGISTER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "auto",
        help_heading = "Log"
    )]
    pub log_format: LogFormat,
    /// What is logged, such as debug or warn,register=debug (RUST_LOG wins)
    #[arg(
        long,
        global = true,
        env = "REGISTER_LOG",
        value_name = "FILTER",
        default_value = "info",
        help_heading = "Log"
    )]
    pub log: String,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch Docker and keep the registry up to date (the default)
    Run(Box<RunArgs>),
    /// Print what would be registered now, as JSON; no registry is needed
    Plan(Box<DockerArgs>),
    /// Print which rule decided what about each container, and why one is not registered
    Explain(Box<ExplainArgs>),
    /// List what is in the registry
    Ls(LsArgs),
    /// Keep new clients away from a container until `undrain`, or until it stops
    Drain(DrainArgs),
    /// Let a container take clients again
    Undrain(DrainArgs),
    /// Stop containers without losing a request: drain, wait until everybody knows, `docker stop`
    Stop(StopArgs),
    /// Print the running agent's state
    Status(StatusArgs),
    /// Print what changed, when and why
    History(HistoryArgs),
    /// Register one address for as long as this command runs; no Docker is needed
    Put(Box<PutArgs>),
    /// Start a program and register it while it is healthy; no Docker is needed
    Exec(Box<ExecArgs>),
    /// Check Nerve's config: exit 0, or every problem with its key path
    Check(NerveArgs),
    /// What is made from this description
    #[command(flatten)]
    Pages(Pages),
    /// Print the version, with the commit that was built and its day
    Version,
}

/// Flags with a value that may stand before a command.
const GLOBAL: [&str; 2] = ["--log", "--log-format"];

/// What most people need of the many flags of `run`.
const MOST_USED: [&str; 10] = [
    "etcd_host",
    "host_ip",
    "node_name",
    "etcd_prefix",
    "ttl",
    "explicit",
    "service_from",
    "filter",
    "config",
    "admin",
];

impl Cli {
    /// The command line's description, its flags under headings.
    pub fn described() -> clap::Command {
        Self::command().mut_subcommand("run", |command| grouped(command, &MOST_USED))
    }

    /// Reads the command line.
    ///
    /// # Errors
    /// What is wrong with it; help and version are errors to clap.
    pub fn read(args: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Self, clap::Error> {
        let matches = Self::described().try_get_matches_from(args)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut Self::command()))
    }

    /// Puts `run` in front of arguments that name no command.
    pub fn with_default_command(args: impl IntoIterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
        let mut args: Vec<_> = args.into_iter().collect();
        let first = args.get(Self::command_at(&args)).map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let is_flag_of_run = first.starts_with('-') && !matches!(&*first, "-h" | "--help" | "-V" | "--version");
        if first.is_empty() || is_flag_of_run {
            args.insert(1.min(args.len()), "run".into());
        }
        args
    }

    /// Where the command stands. A value such as that of `--on-exit drain` is none: only what comes first is one.
    fn command_at(args: &[std::ffi::OsString]) -> usize {
        let mut at = 1;
        while let Some(arg) = args.get(at).and_then(|a| a.to_str()) {
            let (flag, joined) = arg.split_once('=').map_or((arg, false), |(flag, _)| (flag, true));
            if !GLOBAL.contains(&flag) {
                break;
            }
            at += if joined { 1 } else { 2 };
        }
        at
    }
}

/// How Docker is looked at, and what is made of what is seen.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Docker and containers")]
pub struct DockerArgs {
    /// The address at which other hosts reach this one [default: worked out, where this is the host's own network]
    #[arg(long, env = "HOST_IP", value_name = "ADDRESS")]
    pub host_ip: Option<String>,
    /// Docker's API [default: /var/run/docker.sock, else /tmp/docker.sock]
    #[arg(long, env = "DOCKER_HOST", value_name = "URL")]
    pub docker_host: Option<String>,
    /// The name of this host in the registry [default: the host name that Docker tells]
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<NodeName>,
    /// The zone of this host: registrations get the labels zone and node, for `discover --prefer`
    #[arg(long, env = "REGISTER_ZONE", value_name = "NAME")]
    pub zone: Option<NodeName>,
    /// Publish loopback addresses, too (for a demo on one host)
    #[arg(long, env = "REGISTER_ALLOW_LOOPBACK")]
    pub allow_loopback: bool,
    /// No label may say at which address a container is published: register.address does not count
    #[arg(long, env = "REGISTER_NO_ADDRESS_LABELS")]
    pub no_address_labels: bool,
    /// The most ports of one container that are registered although no label names them
    #[arg(long, env = "REGISTER_MAX_PORTS", value_name = "NUMBER", default_value_t = MaxPorts::default())]
    pub max_ports: MaxPorts,
    /// Publish containers at their own addresses, unpublished ports included
    #[arg(long, env = "REGISTER_INTERNAL")]
    pub internal: bool,
    /// The network whose address counts as a container's own
    #[arg(long, env = "REGISTER_NETWORK", value_name = "NETWORK")]
    pub network: Option<String>,
    /// Which family is taken where there are both: ipv4 or ipv6
    #[arg(long, env = "REGISTER_FAMILY", value_name = "FAMILY", default_value = "ipv4")]
    pub family: Family,
    /// Register only containers that a label or variable names
    #[arg(long, env = "REGISTER_EXPLICIT")]
    pub explicit: bool,
    /// Where a service's name comes from: image, compose, compose-project, swarm, label:KEY or template:TEXT
    #[arg(long, env = "REGISTER_SERVICE_FROM", value_name = "SOURCE", default_value = "image")]
    pub service_from: ServiceFrom,
    /// Only these containers: label=KEY[=VALUE], name=PATTERN or network=NAME; may be repeated
    #[arg(long, env = "REGISTER_FILTER", value_name = "FILTER", value_delimiter = ',')]
    pub filter: Vec<Filter>,
    /// What becomes of a container whose HEALTHCHECK has not passed: hide, down or ignore
    #[arg(long, env = "REGISTER_HEALTH", value_name = "POLICY", default_value = "hide")]
    pub health: HealthPolicy,
}

/// Flags of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Containers by name or id, or the beginning of an id [default: all that run]
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
    #[command(flatten)]
    pub docker: DockerArgs,
}

/// Flags of `ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print JSON: services, each with its backends
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub etcd: EtcdArgs,
}

/// Flags of `drain` and `undrain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// A container by name or id, or the beginning of an id
    #[arg(value_name = "CONTAINER", required_unless_present = "all", conflicts_with = "all")]
    pub containers: Vec<String>,
    /// All containers of this host
    #[arg(long)]
    pub all: bool,
    /// Socket of the running agent
    #[arg(long, env = "REGISTER_CONTROL", value_name = "PATH", default_value = CONTROL)]
    pub control: PathBuf,
}

#[cfg(test)]
mod tests;
