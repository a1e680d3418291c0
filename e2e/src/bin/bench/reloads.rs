//! Reloads that somebody forces, under clients that keep their connections open.

use std::time::Duration;

use e2e::agents::Discover;
use e2e::figures::Figure;
use e2e::haproxy::{self, Haproxy};
use e2e::terminal::Terminal;
use e2e::traffic::{Load, Report, stop_all};
use e2e::{Etcd, Lab, Result};

use crate::fleet::Fleet;
use crate::plain::{Plain, reload};

const SERVICES: usize = 10;
const BACKENDS: usize = 10;
const RELOADS: usize = 50;
/// From one to the next.
const PACE: Duration = Duration::from_millis(500);
/// Clients of each service.
const CLIENTS: u32 = 5;
const RATE: u32 = 2000;

/// The sections that discover renders, and HAProxy's own defaults beside them.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for haproxy in haproxy::all()? {
        let fleet = Fleet::new(SERVICES, BACKENDS).await?;
        let what = format!("{RELOADS} reloads of HAProxy {}", haproxy.version);
        let report = terminal.while_waiting(&what, Box::pin(rendered(lab, &haproxy, &fleet))).await?;
        figures.push(figure("sections as discover renders them", &haproxy, &report, "0 failed"));
        let fleet = Fleet::new(SERVICES, BACKENDS).await?;
        let what = format!("{RELOADS} reloads of HAProxy {} with its own defaults", haproxy.version);
        let report = terminal.while_waiting(&what, Box::pin(defaults(lab, &haproxy, &fleet))).await?;
        figures.push(figure("HAProxy's own defaults", &haproxy, &report, ""));
    }
    Ok(figures)
}

async fn rendered(lab: &Lab, haproxy: &Haproxy, fleet: &Fleet) -> Result<Report> {
    let etcd = Etcd::start();
    let mut client = etcd.operator().await;
    for change in fleet.all() {
        change.apply(&mut client).await?;
    }
    let discover = Discover::new(&format!("reloads-{}", haproxy.version), haproxy);
    let master = discover.master(lab)?;
    let agent = discover.start(lab, &etcd).await?;
    fleet.routed().await?;
    agent.quiet().await?;
    under_load(fleet.load(CLIENTS, 1, RATE), async || reload(&master).await).await
}

async fn defaults(lab: &Lab, haproxy: &Haproxy, fleet: &Fleet) -> Result<Report> {
    let plain = Plain::start(lab, haproxy, &fleet.sections()).await?;
    fleet.routed().await?;
    under_load(fleet.load(CLIENTS, 1, RATE), async || plain.reload().await).await
}

async fn under_load(load: Vec<Load>, reload: impl AsyncFn() -> Result<()>) -> Result<Report> {
    let mut ticks = tokio::time::interval(PACE);
    for _ in 0..RELOADS {
        ticks.tick().await;
        reload().await?;
    }
    ticks.tick().await;
    Ok(stop_all(load).await)
}

fn figure(how: &str, haproxy: &Haproxy, report: &Report, goal: &str) -> Figure {
    Figure {
        what: format!("{RELOADS} forced reloads, {how}, HAProxy {}", haproxy.version),
        value: report.summary(),
        goal: goal.to_owned(),
        conditions: format!(
            "{SERVICES} services of {BACKENDS} backends, a reload every {} ms; asked for {RATE} requests/s or more by {} \
             keep-alive and {SERVICES} close-per-request clients",
            PACE.as_millis(),
            u64::from(CLIENTS) * SERVICES as u64
        ),
    }
}
