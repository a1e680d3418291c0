//! `make bench`: measures speed and cost with real parts on loopback, and prints a table.
//!
//! `bench [--write FILE] [ROW…]`: all rows, or those that are named. Each row is a file of its own, with a lab of its own,
//! and is listed in [`ROWS`].

mod beside;
mod burst;
mod catalogue;
mod checks;
mod churn;
mod crowd;
mod docker_stop;
mod edge;
mod fleet;
mod held;
mod host;
mod idle;
mod kill9;
mod large;
mod local;
mod machine;
mod memory;
mod memory_haproxy;
mod neighbour;
mod nerve;
mod ops;
mod plain;
mod put;
mod reloads;
mod restart;
mod rules;
mod scale;
mod sources;
mod start;
mod stop;
mod zookeeper;

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use agent::files::Replace;
use clap::Parser;
use e2e::figures::{Figure, between_markers, table};
use e2e::terminal::Terminal;
use e2e::{Context, Lab, Result};

/// The lines in a document between which the table goes.
const MARKER: &str = "bench";

/// The same for the rows of large sizes.
const SCALE_MARKER: &str = "bench-scale";

/// The plot's file.
const PLOT: &str = "cost-of-a-change.svg";

/// What a row's measurement gives.
type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Vec<Figure>>> + 'a>>;

/// One measurement, which may give several figures.
struct Row {
    name: &'static str,
    about: &'static str,
    measure: for<'a> fn(&'a Lab, Terminal) -> Measuring<'a>,
}

const ROWS: &[Row] = &[
    Row {
        name: "start",
        about: "from a container's start event to its first answer through HAProxy",
        measure: |lab, terminal| Box::pin(start::measure(lab, terminal)),
    },
    Row {
        name: "put",
        about: "from a put to etcd to the first answer through HAProxy",
        measure: |lab, terminal| Box::pin(put::measure(lab, terminal)),
    },
    Row {
        name: "idle",
        about: "what is done while nothing happens",
        measure: |lab, terminal| Box::pin(idle::measure(lab, terminal)),
    },
    Row {
        name: "memory",
        about: "resident memory of both agents",
        measure: |lab, terminal| Box::pin(memory::measure(lab, terminal)),
    },
    Row {
        name: "burst",
        about: "200 containers start and end at once: who is missed, who stays behind",
        measure: |lab, terminal| Box::pin(burst::measure(lab, terminal)),
    },
    Row {
        name: "stop",
        about: "from Docker's event to etcd",
        measure: |lab, terminal| Box::pin(stop::measure(lab, terminal)),
    },
    Row {
        name: "neighbour",
        about: "what one container that Docker cannot describe costs the others",
        measure: |lab, terminal| Box::pin(neighbour::measure(lab, terminal)),
    },
    Row {
        name: "checks",
        about: "what 500 HTTP checks cost",
        measure: |lab, terminal| Box::pin(checks::measure(lab, terminal)),
    },
    Row {
        name: "nerve",
        about: "what services of a Nerve config cost, by their number",
        measure: |lab, terminal| Box::pin(nerve::measure(lab, terminal)),
    },
    Row {
        name: "held",
        about: "what 1,000 registrations ask of the store",
        measure: |lab, terminal| Box::pin(held::measure(lab, terminal)),
    },
    Row {
        name: "host",
        about: "a large host: bursts of starts, kills and ends beside 2,000 containers",
        measure: |lab, terminal| Box::pin(host::measure(lab, terminal)),
    },
    Row {
        name: "restart",
        about: "what a watcher sees of an agent's restart",
        measure: |lab, terminal| Box::pin(restart::measure(lab, terminal)),
    },
    Row {
        name: "sources",
        about: "from a change at a source to the file on disk",
        measure: |lab, terminal| Box::pin(sources::measure(lab, terminal)),
    },
    Row {
        name: "catalogue",
        about: "what a large Synapse config costs to plan and render",
        measure: |lab, terminal| Box::pin(catalogue::measure(lab, terminal)),
    },
    Row {
        name: "large",
        about: "20,000 registrations in etcd: the first sync, and what they take of memory",
        measure: |lab, terminal| Box::pin(large::measure(lab, terminal)),
    },
    Row {
        name: "scale",
        about: "a change, idleness and a restart with 19,800 backends, and with a tenth of them",
        measure: |lab, terminal| Box::pin(scale::measure(lab, terminal)),
    },
    Row {
        name: "beside",
        about: "a change of one service while 10,000 backends arrive in another",
        measure: |lab, terminal| Box::pin(beside::measure(lab, terminal)),
    },
    Row {
        name: "crowd",
        about: "20,000 backends from each push source: what they take of memory",
        measure: |lab, terminal| Box::pin(crowd::measure(lab, terminal)),
    },
    Row {
        name: "churn",
        about: "1,000 changes in ordinary life under load: failed requests and reloads",
        measure: |lab, terminal| Box::pin(churn::measure(lab, terminal)),
    },
    Row {
        name: "docker-stop",
        about: "docker stop of half the containers under load: failed requests",
        measure: |lab, terminal| Box::pin(docker_stop::measure(lab, terminal)),
    },
    Row {
        name: "reloads",
        about: "50 forced reloads under load: failed requests",
        measure: |lab, terminal| Box::pin(reloads::measure(lab, terminal)),
    },
    Row {
        name: "kill9",
        about: "discover killed and restarted 20 times under load: failed requests and reloads",
        measure: |lab, terminal| Box::pin(kill9::measure(lab, terminal)),
    },
    Row {
        name: "ops",
        about: "what a runtime operation, a turn and a reload cost",
        measure: |lab, terminal| Box::pin(ops::measure(lab, terminal)),
    },
    Row {
        name: "memory-haproxy",
        about: "HAProxy's memory after 10,000 servers came and went",
        measure: |lab, terminal| Box::pin(memory_haproxy::measure(lab, terminal)),
    },
    Row {
        name: "edge",
        about: "from a registration with a host to the host's first answer at the edge",
        measure: |lab, terminal| Box::pin(edge::measure(lab, terminal)),
    },
    Row {
        name: "rules",
        about: "10,000 rules of the edge: a change, memory, latency; 1,000 changes under load",
        measure: |lab, terminal| Box::pin(rules::measure(lab, terminal)),
    },
    Row {
        name: "zookeeper",
        about: "1,000 services read from ZooKeeper, and 500 registrations held there",
        measure: |lab, terminal| Box::pin(zookeeper::measure(lab, terminal)),
    },
];

/// The rows of `make bench-scale`: large sizes, each beside a tenth of it.
const SCALE: &[Row] = &[Row {
    name: "host-10000",
    about: "a host of 10,000 containers: bursts of starts, kills and ends",
    measure: |lab, terminal| Box::pin(host::measure_large(lab, terminal)),
}];

/// Measures speed and cost with real parts on loopback, and prints a table.
#[derive(Debug, Parser)]
struct Args {
    /// Only these rows
    #[arg(value_name = "ROW", value_parser = clap::builder::PossibleValuesParser::new(ROWS.iter().chain(SCALE).map(|row| row.name)))]
    rows: Vec<String>,
    /// The rows of large sizes instead of all others; with --write they go between <!-- bench-scale:begin --> and <!-- bench-scale:end -->
    #[arg(long)]
    scale: bool,
    /// Also put the table into this file, between its lines <!-- bench:begin --> and <!-- bench:end -->; the plot of what a
    /// change costs goes beside it
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let terminal = Terminal::detect();
    match measure(&Args::parse(), terminal).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.line(format_args!("{} {error:?}", terminal.bad("failed:")));
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: &Args, terminal: Terminal) -> Result<()> {
    let mut figures = Vec::new();
    let all = if args.scale { SCALE } else { ROWS };
    let named = |row: &&Row| args.rows.iter().any(|name| name == row.name);
    let rows: Vec<&Row> = match args.rows.is_empty() {
        true => all.iter().collect(),
        false => ROWS.iter().chain(SCALE).filter(named).collect(),
    };
    for row in rows {
        terminal.heading(format_args!("{}: {}", row.name, row.about));
        let lab = Lab::new()?;
        let measured = (row.measure)(&lab, terminal).await;
        if measured.is_err() {
            terminal.line(lab.logs());
        }
        for figure in measured? {
            terminal.done(format_args!("{}: {}", figure.what, terminal.bold(&figure.value)));
            figures.push(figure);
        }
    }
    let machine = machine::describe()?;
    let text = format!("{machine}\n\n{}", table(&figures));
    terminal.line(format_args!("\n{text}"));
    if let Some(path) = &args.write {
        let what = path.display();
        let old = std::fs::read_to_string(path).during(format!("reading {what}"))?;
        let marker = if args.scale { SCALE_MARKER } else { MARKER };
        let new = between_markers(&old, marker, &text).during(format!("writing the table into {what}"))?;
        agent::files::replace(path, new.as_bytes(), Replace::default()).during(format!("writing {what}"))?;
        if (args.rows.is_empty() && !args.scale) || args.rows.iter().any(|name| name == "catalogue") {
            let svg = catalogue::plot(&Lab::new()?)?.svg();
            let path = path.with_file_name(PLOT);
            agent::files::replace(&path, svg.as_bytes(), Replace::default()).during("writing the plot")?;
        }
    }
    Ok(())
}
