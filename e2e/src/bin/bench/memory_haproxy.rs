//! HAProxy's memory after many servers have come and gone.

use std::time::Duration;

use discover::generators::Outcome;
use e2e::figures::{Figure, megabytes};
use e2e::haproxy::{self, Haproxy};
use e2e::terminal::Terminal;
use e2e::traffic::stop_all;
use e2e::{Lab, Result};
use tokio::time::{Instant, sleep_until};

use crate::fleet::Fleet;
use crate::local::{Local, backend};

const BACKENDS: usize = 10;
/// After these, memory is counted for the first time.
const WARM: usize = 1000;
const CYCLES: usize = 10_000;
const RATE: u32 = 200;
/// Longer than the interval between two reloads.
const SETTLING: Duration = Duration::from_secs(4);

/// With each HAProxy.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for haproxy in haproxy::all()? {
        let what = format!("{CYCLES} servers come and go in HAProxy {}", haproxy.version);
        figures.push(terminal.while_waiting(&what, Box::pin(with(lab, &haproxy))).await?);
    }
    Ok(figures)
}

async fn with(lab: &Lab, haproxy: &Haproxy) -> Result<Figure> {
    let fleet = Fleet::new(1, BACKENDS).await?;
    let mut local = Local::start(lab, "memory", haproxy, fleet.desired()?).await?;
    fleet.routed().await?;
    let load = fleet.load(1, 1, RATE);
    let pool = local.desired.services.clone();
    let mut before = 0;
    for cycle in 0..CYCLES + WARM {
        if cycle == WARM {
            before = local.resident_memory().await?;
        }
        let all = pool.values().flat_map(|p| p.backends()).map(|b| (**b).clone());
        let comes = backend(&format!("cycle{cycle}"), fleet.address(cycle), fleet.ports[0])?;
        local.want("s0", all.chain([comes]).collect())?;
        local.turn().await?;
        local.desired.services = pool.clone();
        local.turn().await?;
    }
    // A reload that waits for its time, and servers that are deleted once they are idle.
    let end = Instant::now() + SETTLING;
    while let (_, Outcome::Again(at)) = local.turn().await? {
        if at >= end {
            break;
        }
        sleep_until(at).await;
    }
    let after = local.resident_memory().await?;
    let report = stop_all(load).await;
    let mut grown = format!("{} → {}", megabytes(before), megabytes(after));
    if local.reloads() > 0 {
        grown += &format!(", {} collecting reloads", local.reloads());
    }
    Ok(Figure {
        what: format!("memory of HAProxy {} after {CYCLES} servers came and went", haproxy.version),
        value: format!("{grown}; {}", report.summary()),
        goal: if haproxy.version == "2.6" { String::new() } else { "no growth beyond noise".to_owned() },
        conditions: format!(
            "VmRSS of the worker after {WARM} cycles and {CYCLES} more; one server more, then one less, a turn each, as fast as \
             they go; under about {RATE} requests/s"
        ),
    })
}
