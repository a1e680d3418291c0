//! Several hosts on this one: `hosts demo` is the demonstration with three backend hosts and a client host, `hosts up`
//! brings such hosts up for a person to play with. Both take root, and leave nothing behind, also when interrupted.

mod demo;
mod play;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use e2e::hosts::fleet::Size;
use e2e::hosts::{Network, missing};
use e2e::terminal::Terminal;
use e2e::{Context, Lab, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Several hosts on this one, in network namespaces
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows hosts and containers coming, going, and cut off
    Demo,
    /// Brings hosts up, takes commands from standard input, and removes all at its end
    Up {
        /// Hosts with containers
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
        backends: u8,
        /// Nodes of etcd's cluster
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
        etcd: u8,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let (args, terminal) = (Args::parse(), Terminal::detect());
    if let Some(why) = missing() {
        terminal.line(format_args!("{} {why}", terminal.bad("failed:")));
        return ExitCode::FAILURE;
    }
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(error) => {
            terminal.line(format_args!("{} {error:?}", terminal.bad("failed:")));
            return ExitCode::FAILURE;
        }
    };
    // Whatever ends it, the lab is dropped here, and everything ends with it.
    tokio::select! {
        biased;
        outcome = interrupted() => {
            terminal.line(match outcome {
                Ok(()) => "\ninterrupted: removing all hosts".to_owned(),
                Err(error) => format!("{error:?}"),
            });
            ExitCode::from(130)
        }
        outcome = run(args.command, &lab, terminal) => match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                terminal.line(format_args!("\n{}\n{} {error:?}", lab.logs(), terminal.bad("failed:")));
                ExitCode::FAILURE
            }
        }
    }
}

async fn run(command: Command, lab: &Lab, terminal: Terminal) -> Result<()> {
    let mut network = Network::new(lab).await?;
    match command {
        Command::Demo => Box::pin(demo::show(lab, &mut network, terminal)).await,
        Command::Up { backends, etcd } => {
            let size = Size { backends: backends.into(), etcd: etcd.into(), ..Size::default() };
            play::play(lab, &mut network, &size, terminal).await
        }
    }
}

async fn interrupted() -> Result<()> {
    let on = |kind| signal(kind).during("waiting for signals");
    let (mut int, mut term) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let mut hup = on(SignalKind::hangup())?;
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
        _ = hup.recv() => {}
    }
    Ok(())
}
