//! How keys and values look, and how long they live.

#![allow(
    rustdoc::invalid_html_tags,
    rustdoc::broken_intra_doc_links,
    reason = "these comments are help texts, for a terminal"
)]

use std::time::Duration;

use clap::{Args, ValueEnum};
use model::{Layout, ValueFormat};

use super::times::ttl;

/// How keys and values look, and how long they live.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Keys and values")]
pub struct FormArgs {
    /// How long registrations outlive this program when it dies
    #[arg(long, env = "REGISTER_TTL", value_name = "TIME", default_value = "10s", value_parser = ttl)]
    pub ttl: Duration,
    /// Keys: service (PREFIX/<service>/<id>) or host (PREFIX/@<node>/<service>/<id>)
    #[arg(long, env = "REGISTER_LAYOUT", value_name = "LAYOUT", default_value = "service")]
    pub layout: LayoutArg,
    /// Values: json, or plain (host:port; draining then means deleting)
    #[arg(long, env = "REGISTER_VALUE", value_name = "FORMAT", default_value = "json")]
    pub value: ValueArg,
    /// Be like another program: docker-register (also write the key PREFIX/<service>/port), or, for put, etcdbridge (read its variables)
    #[arg(long, env = "REGISTER_COMPAT", value_name = "PROGRAM")]
    pub compat: Option<Compat>,
}

/// `--layout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LayoutArg {
    /// By service.
    Service,
    /// By host, then service.
    Host,
}

impl From<LayoutArg> for Layout {
    fn from(arg: LayoutArg) -> Self {
        match arg {
            LayoutArg::Service => Self::Service,
            LayoutArg::Host => Self::Host,
        }
    }
}

/// `--value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ValueArg {
    /// Nerve's object and ours.
    Json,
    /// `host:port`.
    Plain,
}

impl From<ValueArg> for ValueFormat {
    fn from(arg: ValueArg) -> Self {
        match arg {
            ValueArg::Json => Self::Json,
            ValueArg::Plain => Self::Plain,
        }
    }
}

/// `--compat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compat {
    /// Keeps `<service>/port` for docker-discover.
    DockerRegister,
    /// `put` takes etcdbridge's variables, and ends when another registration replaces its own.
    Etcdbridge,
}
