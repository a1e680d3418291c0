//! Flags of `run`.

#![allow(
    rustdoc::invalid_html_tags,
    rustdoc::broken_intra_doc_links,
    reason = "these comments are help texts, for a terminal"
)]

use std::path::PathBuf;
use std::time::Duration;

use agent::admin::Listen;
use agent::admin::access::AccessArgs;
use clap::{Args, ValueEnum};
use containers::readiness::{CheckTarget, ReadyMode};
use registry::store::etcd::EtcdArgs;

use super::form::FormArgs;
use super::times::{duration, period, rare};
use super::{ADMIN, CONTROL, DockerArgs, HISTORY};

/// Nerve's flags.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Nerve")]
pub struct NerveArgs {
    /// Nerve's config, JSON or YAML: services without Docker
    #[arg(short, long, env = "NERVE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Takes the place of the config's instance_id
    #[arg(short, long, env = "NERVE_INSTANCE_ID", value_name = "ID")]
    pub instance_id: Option<String>,
    /// Only check the config, as `register check` does
    #[arg(short = 'k', long, env = "NERVE_CHECK_CONFIG", value_parser = clap::builder::FalseyValueParser::new())]
    pub check_config: bool,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub nerve: NerveArgs,
    /// With --config: watch Docker as well; without one Docker is always watched
    #[arg(id = "docker_too", long = "docker", help_heading = "Docker and containers", env = "REGISTER_DOCKER", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub docker_too: bool,
    #[command(flatten)]
    pub docker: DockerArgs,
    #[command(flatten)]
    pub form: FormArgs,
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// How often everything is read again, although nothing seems to have changed
    #[arg(long, help_heading = "The agent", env = "REGISTER_RESYNC", value_name = "TIME", default_value = "30s", value_parser = period)]
    pub resync: Duration,
    /// When a container without any check is published: tcp (once its port accepts) or none (at once)
    #[arg(long, help_heading = "The agent", env = "REGISTER_READY", value_name = "HOW", default_value = "tcp")]
    pub ready: ReadyMode,
    /// Write load and pressure of this host under /metadata/<node> this often [default: never]
    #[arg(long, help_heading = "The agent", env = "REGISTER_METADATA_INTERVAL", value_name = "TIME", value_parser = rare)]
    pub metadata_interval: Option<Duration>,
    /// What checks dial: own (the container's own address) or published (where that cannot be reached from here)
    #[arg(
        long,
        help_heading = "The agent",
        env = "REGISTER_CHECK_TARGET",
        value_name = "WHICH",
        default_value = "own"
    )]
    pub check_target: CheckTarget,
    /// At the end of this program: keep (registrations live for --ttl, a successor adopts them) or drain
    #[arg(long, help_heading = "The agent", env = "REGISTER_ON_EXIT", value_name = "WHAT", default_value = "keep")]
    pub on_exit: OnExit,
    /// With --on-exit drain: how long everything drains before it is deleted
    #[arg(long, help_heading = "The agent", env = "REGISTER_DRAIN_WAIT", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub drain_wait: Duration,
    /// Where the admin server listens: ADDRESS:PORT or off
    #[arg(long, env = "REGISTER_ADMIN", value_name = "ADDRESS", default_value = ADMIN)]
    pub admin: Listen,
    #[command(flatten)]
    pub access: AccessArgs,
    /// Where the history outlives a restart; where the directory is not there, it is in memory alone
    #[arg(long, env = "REGISTER_HISTORY_FILE", value_name = "FILE", default_value = HISTORY)]
    pub history_file: PathBuf,
    /// Socket for `drain` and `undrain`
    #[arg(long, help_heading = "The agent", env = "REGISTER_CONTROL", value_name = "PATH", default_value = CONTROL)]
    pub control: PathBuf,
    /// When started as root: go on as this user, with the group of Docker's socket [default or empty: stay root]
    #[arg(long, help_heading = "The agent", env = "REGISTER_USER", value_name = "NAME")]
    pub user: Option<String>,
}

impl RunArgs {
    /// Whether containers are registered: somebody who only changed Nerve's name does not ask for that.
    pub fn watches_docker(&self) -> bool {
        self.nerve.config.is_none() || self.docker_too
    }
}

/// `--on-exit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnExit {
    /// Registrations live for the rest of their time.
    Keep,
    /// Everything drains, then goes.
    Drain,
}
