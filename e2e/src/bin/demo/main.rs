//! `make demo`, once the stack is up: shows real containers appearing in and leaving a real load balancer. With the word
//! `edge` it is `make demo-edge`.
//!
//! It leaves the stack up. `stack` knows the compose project; this file is what `make demo` shows, with `edge` for its HTTP
//! edge; `tiers` is what `make demo-edge` shows.

mod edge;
mod stack;
mod tiers;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use e2e::docker::Container;
use e2e::figures::millis;
use e2e::http::Client;
use e2e::terminal::Terminal;
use e2e::traffic::{Load, Plan, first_answer};
use e2e::{Context, Lab, LabError, Result, wait};
use stack::{Project, Stack, status_address};

/// For the stack to serve: images are there, but etcd, both agents and HAProxy start.
const SERVING: Duration = Duration::from_mins(1);
/// For a container that was started.
const ROUTED: Duration = Duration::from_secs(20);
/// Requests that show the alternation.
const SHOWN: usize = 6;
/// Containers that are started in addition.
const MORE: usize = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let terminal = Terminal::detect();
    let tiers = std::env::args().nth(1).as_deref() == Some("edge");
    let project = if tiers { stack::EDGE } else { stack::DEMO };
    match Box::pin(show(terminal, project, tiers)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal.line(format_args!("\n  {} {error:?}", terminal.bad("failed:")));
            for hint in stack::hints(project).await {
                terminal.line(format_args!("     {hint}"));
            }
            ExitCode::FAILURE
        }
    }
}

async fn show(terminal: Terminal, project: Project, tiers: bool) -> Result<()> {
    let lab = Lab::new()?;
    let stack = Stack::find(lab.docker().await?, project).await?;
    if tiers {
        return tiers::show(terminal, &stack).await;
    }
    let to = stack.service_address()?;
    terminal.heading("A service with two containers");
    let wait = terminal.while_waiting("waiting until HAProxy serves them", serving(to, &stack.first));
    wait.await?;
    stack.remove_leftovers().await?;
    alternate(terminal, to, stack.first.len()).await?;

    terminal.heading("Two more are started");
    let mut started = Vec::new();
    for _ in 0..MORE {
        started.push(appear(terminal, &stack, to).await?);
    }
    alternate(terminal, to, stack.first.len() + MORE).await?;

    terminal.heading("One is killed, under load");
    if let Some(victim) = started.pop() {
        disappear(terminal, &stack, to, victim).await?;
    }
    let edge = Box::pin(edge::show(terminal, &stack)).await?;
    started.into_iter().for_each(Container::keep);
    summary(terminal, to, edge);
    Ok(())
}

/// Waits until each of the containers has answered.
async fn serving(to: SocketAddr, whoami: &[String]) -> Result<()> {
    let mut client = Client::new(to, true, Duration::from_secs(2));
    let mut silent = whoami.to_vec();
    let what = format!("answers of both containers on http://{to}/");
    wait::until_true(&what, SERVING, async || {
        if let Ok(reply) = client.get("/").await {
            silent.retain(|name| name != reply.name());
        }
        silent.is_empty()
    })
    .await
}

/// Shows who answers; all of them must.
async fn alternate(terminal: Terminal, to: SocketAddr, expected: usize) -> Result<()> {
    let mut client = Client::new(to, true, Duration::from_secs(2));
    let mut names = Vec::new();
    for _ in 0..SHOWN {
        let reply = client.get("/").await.during(format!("asking http://{to}/"))?;
        names.push(reply.name().to_owned());
    }
    terminal.line(format_args!("     GET http://{to}/ → {}", names.join(" ")));
    names.sort();
    names.dedup();
    if names.len() != expected {
        return Err(LabError::new(format!("{} containers answered, not {expected}", names.len())));
    }
    Ok(())
}

/// Starts a container and tells how long after Docker's event its first answer came.
async fn appear(terminal: Terminal, stack: &Stack, to: SocketAddr) -> Result<Container> {
    let events = stack.docker.events().await?;
    let container = stack.create_more().await?;
    let name = container.short().to_owned();
    let probe = tokio::spawn({
        let name = name.clone();
        async move { first_answer(to, true, &name, ROUTED).await }
    });
    let wait = async {
        container.start().await?;
        probe.await.during("asking for the newcomer")?
    };
    let first = terminal.while_waiting(&format!("starting {name}"), wait).await?;
    let event = events.first(container.id(), "start").await?;
    let after = first.at.duration_since(event.at).unwrap_or_default();
    terminal.done(format_args!("{name} serves {} after Docker's start event", terminal.bold(millis(after))));
    Ok(container)
}

/// Kills a container under load and tells what was lost.
async fn disappear(terminal: Terminal, stack: &Stack, to: SocketAddr, victim: Container) -> Result<()> {
    let (events, name) = (stack.docker.events().await?, victim.short().to_owned());
    let load = Load::start(&Plan { rate: 100, at_most: ROUTED * 2, ..Plan::mixed(to) });
    let killed = async {
        wait::until_true("load on the victim", ROUTED, async || load.answered_by(&name) > 20).await?;
        victim.kill().await?;
        let kill = events.first(victim.id(), "kill").await?;
        // A while longer, to see whether anything still goes there.
        wait::until_true("a second of load afterwards", ROUTED, async || {
            kill.at.elapsed().unwrap_or_default() > Duration::from_secs(1)
        })
        .await?;
        Ok::<_, LabError>(kill.at)
    };
    let killed = terminal.while_waiting(&format!("kill -9 {name}"), killed).await?;
    let report = load.stop().await;
    report.must_be_clean("a container was killed")?;
    let last = report.answers.get(&name).map_or(SystemTime::UNIX_EPOCH, |answers| answers.last);
    let when = match last.duration_since(killed) {
        Ok(after) => format!("{} after", terminal.bold(millis(after))),
        Err(before) => format!("{} before", terminal.bold(millis(before.duration()))),
    };
    let requests = report.requests;
    terminal.done(format_args!("{name} is dead; its last answer came {when} Docker's kill event"));
    terminal.done(format_args!("{} of {requests} requests failed", terminal.bold(0)));
    victim.remove().await
}

fn summary(terminal: Terminal, to: SocketAddr, edge: SocketAddr) {
    terminal.heading("All of this goes on running");
    for (what, address) in [
        ("the service", format!("http://{to}/")),
        ("at the edge", format!("curl -H 'Host: whoami.local' http://{edge}/")),
        ("HAProxy's statistics", format!("http://{}/", status_address(stack::STATS))),
        ("register's status", format!("http://{}/", status_address(stack::REGISTER))),
        ("discover's status", format!("http://{}/", status_address(stack::DISCOVER))),
    ] {
        terminal.line(format_args!("     {what:<21} {}", terminal.bold(address)));
    }
    terminal.line(format_args!(
        "     {:<21} docker run -d -l register.service=whoami -l register.80.service-port={} \\",
        "one more",
        to.port()
    ));
    terminal.line(format_args!("     {:<21}   -l register.80.mode=http -p 127.0.0.1::80 {}", "", e2e::docker::WHOAMI));
    terminal.line(format_args!("     {:<21} {}\n", "stop and remove all", terminal.bold("make demo-down")));
}
