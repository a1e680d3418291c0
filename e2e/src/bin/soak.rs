//! `make soak`: lives for an hour (`--time`) under load, with random life and faults, and prints what was held.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use e2e::soak::{soak, table};
use e2e::{Lab, LabError, Result, haproxy};

/// Lives under load, with random life and faults, and prints what register, discover and HAProxy held.
#[derive(Debug, Parser)]
struct Args {
    /// For how long
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    time: Duration,
    /// What happens is made of it [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error:?}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()));
    let (lab, haproxy) = (Lab::new()?, haproxy::newest()?);
    println!("For {}, with HAProxy {}, --seed {seed}", humantime::format_duration(args.time), haproxy.version);
    let soaked = soak(&lab, &haproxy, args.time, seed).await?;
    println!("{}", table(&soaked.holdings));
    println!("{} containers came or went, {} faults; {}", soaked.events.0, soaked.events.1, soaked.load.summary());
    println!("{}", soaked.accounts);
    soaked.holdings.must_not_grow()?;
    match soaked.accounts.without_cause() {
        0 => Ok(()),
        n => Err(LabError::new(format!("{n} requests failed without a cause"))),
    }
}
