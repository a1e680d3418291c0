//! discover is killed and started again and again, under load and while backends come and go.

use std::time::Duration;

use e2e::agents::Discover;
use e2e::figures::{Figure, Times};
use e2e::haproxy::{self, Haproxy};
use e2e::scene::workers;
use e2e::terminal::Terminal;
use e2e::traffic::stop_all;
use e2e::{Etcd, Lab, LabError, Result};
use std::time::Instant;

use crate::fleet::Fleet;

const SERVICES: usize = 20;
const BACKENDS: usize = 10;
const KILLS: usize = 20;
/// Changes of the registry while discover is away and after it is back: each so many.
const CHANGES: usize = 5;
const RATE: u32 = 2000;

/// With each HAProxy.
pub async fn measure(_: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for haproxy in haproxy::all()? {
        let what = format!("{KILLS} kills of discover with HAProxy {}", haproxy.version);
        // A lab of its own: HAProxy's processes are counted.
        let lab = Lab::new()?;
        figures.push(terminal.while_waiting(&what, Box::pin(kills(&lab, &haproxy))).await?);
    }
    Ok(figures)
}

async fn kills(lab: &Lab, haproxy: &Haproxy) -> Result<Figure> {
    let etcd = Etcd::start();
    let mut client = etcd.operator().await;
    let mut fleet = Fleet::new(SERVICES, BACKENDS).await?;
    for change in fleet.all() {
        change.apply(&mut client).await?;
    }
    let mut discover = Discover::new("discover", haproxy).start(lab, &etcd).await?;
    fleet.routed().await?;
    discover.quiet().await?;
    let before = workers(lab).await?;
    let (mut reloads, mut back) = (0.0, Times::default());
    let mut last = discover.metric("discover_reloads_total").await?;
    let load = fleet.load(1, 1, RATE);
    for _ in 0..KILLS {
        for _ in 0..CHANGES {
            fleet.change().apply(&mut client).await?;
        }
        reloads += discover.metric("discover_reloads_total").await? - last;
        discover.process().kill();
        for _ in 0..CHANGES {
            fleet.change().apply(&mut client).await?;
        }
        let began = Instant::now();
        discover.crash_and_restart().await?;
        back.push(began.elapsed());
        last = 0.0;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    reloads += discover.metric("discover_reloads_total").await? - last;
    let report = stop_all(load).await;
    let after = workers(lab).await?;
    if reloads == 0.0 && after != before {
        return Err(LabError::new(format!("HAProxy's processes were {before:?} and are {after:?}, without a reload")));
    }
    Ok(Figure {
        what: format!("discover killed (-9) and restarted {KILLS} times, HAProxy {}", haproxy.version),
        value: format!("{}, {reloads} reloads; ready again after {back}", report.summary()),
        goal: "0 failed, 0 reloads".to_owned(),
        conditions: format!(
            "{SERVICES} services of {BACKENDS} backends, {CHANGES} changes before and while it is away each time; asked for \
             {RATE} requests/s or more by {SERVICES} keep-alive and {SERVICES} close-per-request clients; a tool that reloads \
             at its start would have made {KILLS} reloads"
        ),
    })
}
