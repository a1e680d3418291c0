//! The demonstration: requests over three hosts, containers that come and go, a host that is cut off and returns.

use std::cell::Cell;
use std::time::Duration;

use e2e::figures::millis;
use e2e::hosts::fleet::Size;
use e2e::hosts::links::Way;
use e2e::hosts::{Fleet, Link, Network};
use e2e::terminal::Terminal;
use e2e::traffic::{Load, PATIENCE as PATIENCE_OF_CLIENTS, Plan, Report};
use e2e::{Context, Lab, Result};

use crate::table::{self, Row};

/// For anything to be routed, or to go.
const PATIENCE: Duration = Duration::from_mins(1);
/// Answers that show that requests reach a container.
const ENOUGH: u64 = 20;

/// Shows it all; an error where requests failed that need not.
pub async fn show(lab: &Lab, network: &mut Network, terminal: Terminal) -> Result<()> {
    let size = Size::default();
    terminal.heading("Three hosts with Docker and register, one with discover and HAProxy, three with etcd");
    let start = Fleet::start(lab, network, &size);
    let mut fleet = terminal.while_waiting("starting seven hosts", start).await?;
    for (number, backend) in fleet.backends.iter().enumerate() {
        terminal.done(format_args!("host b{} is {}", number + 1, backend.host.address()));
    }
    Box::pin(terminal.while_waiting("one container on each", fleet.serve(&[0, 1, 2]))).await?;

    terminal.heading(format_args!("Requests to http://{}/ on the client host are spread over all", fleet.to()));
    let mut stage = Stage { terminal, fleet, load: None };
    stage.load();
    stage.until("spreading", |rows, report| all(rows) && each(rows, report)).await?;

    terminal.heading("Two more are started");
    for number in [0, 1] {
        let backend = stage.fleet.backends.get_mut(number).during("a host that was started")?;
        backend.run().await?;
    }
    stage.until("starting", |rows, report| all(rows) && each(rows, report)).await?;

    terminal.heading("One is killed (kill -9), one is stopped (docker stop)");
    let (dead, stopped) = (placed(&stage.fleet, 0, 0)?, placed(&stage.fleet, 1, 0)?);
    let (one, other) = (dead.name.clone(), stopped.name.clone());
    dead.container.kill().await?;
    stopped.container.stop(Duration::from_secs(10)).await?;
    stage.until("leaving", |rows, _| rows.iter().all(|r| r.is_routed() != (r.name == one || r.name == other))).await?;
    let report = stage.end().await;
    report.must_be_clean("containers came and went")?;
    terminal.done(format_args!("{} of {} requests failed", terminal.bold(0), report.requests));

    cut(&mut stage).await?;
    terminal.line("");
    Ok(())
}

/// A host is cut off from everybody without a warning, and returns.
async fn cut(stage: &mut Stage) -> Result<()> {
    let terminal = stage.terminal;
    terminal.heading("Host b3 is cut off from everybody, without a warning");
    stage.load();
    let lost = placed(&stage.fleet, 2, 0)?.name.clone();
    stage.until("load on all", each_routed).await?;
    let mut others = stage.fleet.etcd_addresses();
    others.push(stage.fleet.client.address());
    let link = Link::cut(&stage.fleet.backends.get(2).during("a host that was started")?.host, &others, Way::Both)?;
    let is_lost = |row: &&Row| row.name == lost;
    // Checks and lease take about as long: whichever is first takes it out.
    let expired = Cell::new(false);
    let out = stage.until("cut off", |rows, _| {
        let row = rows.iter().find(is_lost);
        expired.set(row.is_some_and(Row::is_gone));
        !row.is_some_and(Row::is_routed)
    });
    let out = terminal.bold(millis(out.await?));
    if expired.get() {
        terminal.done(format_args!("its lease ran out, and it left the pool, after {out}"));
    } else {
        terminal.done(format_args!("HAProxy's checks took it out after {out}"));
        let gone = stage.until("cut off", |rows, _| rows.iter().find(is_lost).is_some_and(Row::is_gone)).await?;
        terminal.done(format_args!("its lease ran out, and it left the pool, {} later", terminal.bold(millis(gone))));
    }
    let report = stage.end().await;
    let (failed, requests) = (terminal.bold(report.failed()), report.requests);
    terminal.done(format_args!(
        "the cut cost {failed} of {requests} requests, over {}: those that HAProxy sent on connections which it had open \
         to b3, and whose clients gave up after {PATIENCE_OF_CLIENTS:?}",
        terminal.bold(millis(report.failing_for())),
    ));
    terminal.done(format_args!("all others went elsewhere; the slowest took {}", millis(report.slowest())));
    stage.load();
    stage.until("service without b3", each_routed).await?;
    stage.end().await.must_be_clean("the host was out of the pool")?;

    terminal.heading("Host b3 is back");
    stage.load();
    link.heal()?;
    let back = stage.until("healed", |_, report| report.answered_by(&lost) > 0).await?;
    terminal.done(format_args!("it answers again after {}", terminal.bold(millis(back))));
    stage.until("load on all", each_routed).await?;
    let report = stage.end().await;
    report.must_be_clean("the host returned")?;
    terminal.done(format_args!("{} of {} requests failed", terminal.bold(0), report.requests));
    Ok(())
}

/// What is shown: the hosts, and the load on them.
struct Stage {
    terminal: Terminal,
    fleet: Fleet,
    load: Option<Load>,
}

impl Stage {
    fn load(&mut self) {
        let plan = Plan { at_most: Duration::from_mins(10), ..Plan::mixed(self.fleet.to()) };
        self.load = Some(Load::start(&plan));
    }

    async fn end(&mut self) -> Report {
        match self.load.take() {
            Some(load) => load.stop().await,
            None => Report::default(),
        }
    }

    async fn until(&mut self, what: &str, done: impl Fn(&[Row], &Report) -> bool) -> Result<Duration> {
        let report = || self.load.as_ref().map(Load::so_far).unwrap_or_default();
        table::until(what, PATIENCE, self.terminal, &mut self.fleet, report, done).await
    }
}

fn routed(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.iter().filter(|row| row.is_routed())
}

fn all(rows: &[Row]) -> bool {
    rows.iter().all(Row::is_routed)
}

fn each(rows: &[Row], report: &Report) -> bool {
    rows.iter().all(|row| report.answered_by(&row.name) > ENOUGH)
}

fn each_routed(rows: &[Row], report: &Report) -> bool {
    routed(rows).all(|row| report.answered_by(&row.name) > ENOUGH)
}

fn placed(fleet: &Fleet, host: usize, number: usize) -> Result<&e2e::hosts::fleet::Placed> {
    let backend = fleet.backends.get(host).during("a host that was started")?;
    backend.containers.get(number).during("a container that was started")
}
