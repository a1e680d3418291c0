//! The command line.

mod advice;
mod agent_view;
mod announce;
mod args;
mod assembly;
mod check;
mod description;
mod diff;
mod docker_ports;
mod edge;
mod exec;
mod first;
mod fleet;
mod haproxy;
mod history;
mod lock;
mod ls;
mod offline;
mod release;
mod render;
mod run;
mod serve;
mod settings;
mod size;
mod source;
mod variables;
mod wait;
mod watch;

use std::error::Error;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use agent::admin::client::{StatusArgs, on_this_host, status};
use agent::lifecycle::{Exit, Lifecycle};
use agent::pages::Pages;
use agent::say;
use agent::telemetry::{Chain, LogFormat, init_logging};
use agent::usage::grouped;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::supervise::{self, SuperviseArgs};

/// Keeps HAProxy at the state of the registry: watches services in etcd (or the local Docker), and routes to the live ones.
#[derive(Debug, Parser)]
#[command(name = "discover", version = crate::VERSION, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: args::RunArgs,
    /// How log lines look
    #[arg(
        long,
        env = "DISCOVER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "auto",
        value_enum,
        global = true,
        help_heading = "Log and environment"
    )]
    log_format: LogFormat,
    /// What is logged, such as `info` or `warn,discover=debug`; RUST_LOG wins [default: info; warn for watch and exec, error for one-time commands]
    #[arg(long, env = "DISCOVER_LOG", value_name = "FILTER", global = true, help_heading = "Log and environment")]
    log: Option<String>,
    /// A variable of our environment that HAProxy and the commands of the config get, too, with commas or several times; they
    /// get PATH, HOME, the language, the time zone and little more
    #[arg(
        long,
        env = "DISCOVER_PASS_ENV",
        value_name = "NAME",
        value_delimiter = ',',
        global = true,
        help_heading = "Log and environment"
    )]
    pass_env: Vec<String>,
}

/// Where the admin server of discover listens, unless said otherwise.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9181);

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent (what happens without a command, too)
    Run(Box<args::RunArgs>),
    /// Own HAProxy's processes and run the agent beside them, as PID 1 of a container
    Supervise(SuperviseArgs),
    /// Show what haproxy.cfg would be for the given backends, without a registry and without HAProxy
    Render(render::RenderArgs),
    /// Check a config, or flags and templates, and with haproxy on PATH the rendered file too
    Check(Box<args::RunArgs>),
    /// Show what the next turn would change, and whether that needs a reload and why
    Diff(Box<args::RunArgs>),
    /// List services and backends in the registry
    Ls(ls::LsArgs),
    /// Print one JSON line for each change of a service
    Watch(watch::WatchArgs),
    /// Wait until a service has live backends: exit status 0 when it has, 1 when not in time
    Wait(wait::WaitArgs),
    /// Start a program that is told by its environment where services are, such as WEB_HOST and WEB_PORT
    Exec(exec::ExecArgs),
    /// End a hold of the guard: its backends go now
    Release(release::ReleaseArgs),
    /// Show what a fleet of a given size asks of its parts, and which flags it wants
    Size(size::SizeArgs),
    /// Show what the running agent does
    Status(StatusArgs),
    /// Show what changed, when and why
    History(Box<history::HistoryArgs>),
    /// Show the whole installation, from the registry alone: hosts, their agents, services, and what is amiss
    Fleet(fleet::FleetArgs),
    /// What is made from this description
    #[command(flatten)]
    Pages(Pages),
    /// Print the version, with the commit that was built and its day
    Version,
}

/// What most people need of the many flags of `run`.
const MOST_USED: [&str; 10] =
    ["etcd_host", "docker", "config", "listen", "stats_port", "edge_listen", "mode", "check", "dir", "admin"];

/// The command line's description, its flags under headings.
fn command_line() -> clap::Command {
    ["run", "check", "diff"].into_iter().fold(grouped(Cli::command(), &MOST_USED), |program, name| {
        program.mut_subcommand(name, |command| grouped(command, &MOST_USED))
    })
}

/// Reads the command line.
///
/// # Errors
/// What is wrong with it; help and version are errors to clap.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = command_line().try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))
}

/// How a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line or the config is wrong: exit code 64.
    #[error("{0}")]
    Usage(String),
    /// Anything else: exit code 1.
    #[error(transparent)]
    Runtime(#[from] Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// A usage error from the error that says what is wrong.
    pub fn usage(error: &(dyn Error + 'static)) -> Self {
        Self::Usage(Chain(error).to_string())
    }

    pub fn runtime(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Runtime(Box::new(error))
    }
}

/// Runs the command line to its end; gives the status with which to exit.
pub async fn main(cli: Cli) -> u8 {
    let usual = match cli.command {
        None | Some(Command::Run(_) | Command::Supervise(_)) => "info",
        Some(Command::Watch(_) | Command::Exec(_)) => "warn",
        Some(_) => "error",
    };
    let filter = cli.log.as_deref().unwrap_or(usual);
    if let Err(error) = init_logging(cli.log_format, filter) {
        eprintln!("discover: {}", Chain(&error));
        return Exit::Usage.code();
    }
    agent::environment::pass_on(&cli.pass_env);
    let outcome = match cli.command {
        None => run::run(cli.run).await,
        Some(Command::Run(args)) => run::run(*args).await,
        Some(Command::Supervise(args)) => supervise(args).await,
        Some(Command::Render(args)) => render::render(&args).await,
        Some(Command::Check(args)) => check::check(&args).await,
        Some(Command::Diff(args)) => diff::diff(*args).await,
        Some(Command::Ls(args)) => ls::ls(args).await,
        Some(Command::History(args)) => Box::pin(history::history(*args)).await,
        Some(Command::Fleet(args)) => Box::pin(fleet::fleet(args)).await,
        Some(Command::Watch(args)) => Box::pin(watch::watch(args)).await,
        Some(Command::Wait(args)) => wait::wait(args).await,
        Some(Command::Exec(args)) => match Box::pin(exec::exec(args)).await {
            Ok(status) => return status,
            Err(failure) => Err(failure),
        },
        Some(Command::Release(args)) => release::release(&args).await,
        Some(Command::Size(args)) => size::size(&args),
        Some(Command::Status(args)) => {
            let default = on_this_host("DISCOVER_ADMIN", DEFAULT_ADMIN);
            status(&args, default, "discover", &mut std::io::stdout()).await.map_err(Failure::runtime)
        }
        Some(Command::Pages(pages)) => pages.make(command_line(), &mut std::io::stdout()).map_err(Failure::runtime),
        Some(Command::Version) => {
            say!("discover {}", crate::VERSION);
            Ok(())
        }
    };
    let exit = match outcome {
        Ok(()) => Exit::Ok,
        Err(Failure::Usage(message)) => {
            eprintln!("discover: {message}");
            Exit::Usage
        }
        Err(Failure::Runtime(error)) => {
            eprintln!("discover: {}", Chain(&*error));
            Exit::Runtime
        }
    };
    exit.code()
}

async fn supervise(args: SuperviseArgs) -> Result<(), Failure> {
    let options = supervise::Options::resolve(args).map_err(|e| Failure::usage(&e))?;
    // The agent's own deadline and HAProxy's grace, and what each may take to be killed.
    let longest_stop = options.grace + Duration::from_secs(30);
    let mut lifecycle = Lifecycle::new().with_drain_deadline(longest_stop);
    let cancel = lifecycle.token();
    lifecycle.listen().map_err(Failure::runtime)?;
    lifecycle.spawn("supervise", supervise::run(options, cancel));
    lifecycle.supervise().await.map_err(Failure::runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_begins_with_what_is_used_most_and_every_command_has_one() {
        let run = Cli::command().find_subcommand("run").cloned().unwrap();
        for id in MOST_USED {
            assert!(run.get_arguments().any(|arg| arg.get_id() == id), "{id}");
        }
        for line in [&["discover", "--help"][..], &["discover", "run", "--help"], &["discover", "check", "--help"]] {
            let help = parse(line.iter().map(OsString::from)).unwrap_err().to_string();
            let at = |word: &str| help.find(word).unwrap_or_else(|| panic!("{word}: {help}"));
            assert!(at("--etcd-host") < at("--docker\n") && at("--docker\n") < at("--admin "), "{help}");
            assert!(at("--admin ") < at("\nHAProxy's config:") && at("--etcd-ca") > at("\netcd:"), "{help}");
            assert!(at("--log ") > at("\nLog and environment:"), "{help}");
        }
        for command in Cli::command().get_subcommands() {
            let asked = ["discover", command.get_name(), "--help"].map(OsString::from);
            assert_eq!(parse(asked).unwrap_err().kind(), clap::error::ErrorKind::DisplayHelp);
        }
        Cli::command().debug_assert();
    }
}
