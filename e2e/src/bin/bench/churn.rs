//! Ordinary life under load: backends come, go, drain and change weight, by the registry.

use std::time::Duration;

use e2e::agents::{Agent, Discover};
use e2e::figures::{Figure, Times};
use e2e::haproxy::{self, Haproxy};
use e2e::terminal::Terminal;
use e2e::traffic::{Report, stop_all};
use e2e::{Context, Etcd, Lab, Result};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::fleet::Fleet;
use crate::plain::Plain;

const SERVICES: usize = 20;
const BACKENDS: usize = 10;
const CHANGES: usize = 1000;
/// Between two changes: 50 a second.
const PACE: Duration = Duration::from_millis(20);
/// Requests per second.
const RATE: u32 = 2000;

/// discover with each HAProxy, and a reload on every change beside it.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for haproxy in haproxy::all()? {
        let what = format!("{CHANGES} changes with HAProxy {}", haproxy.version);
        figures.push(terminal.while_waiting(&what, Box::pin(ours(lab, &haproxy))).await?);
        let what = format!("{CHANGES} changes, each by a reload of HAProxy {}", haproxy.version);
        figures.push(terminal.while_waiting(&what, Box::pin(reloading(lab, &haproxy))).await?);
    }
    Ok(figures)
}

async fn ours(lab: &Lab, haproxy: &Haproxy) -> Result<Figure> {
    let etcd = Etcd::start();
    let mut client = etcd.operator().await;
    let mut fleet = Fleet::new(SERVICES, BACKENDS).await?;
    for change in fleet.all() {
        change.apply(&mut client).await?;
    }
    let discover = Discover::new(&format!("churn-{}", haproxy.version), haproxy).start(lab, &etcd).await?;
    fleet.routed().await?;
    discover.quiet().await?;
    let before = discover.metric("discover_reloads_total").await?;
    let load = fleet.load(1, 1, RATE);
    let mut tick = ticks();
    for _ in 0..CHANGES {
        tick.tick().await;
        fleet.change().apply(&mut client).await?;
    }
    discover.quiet().await?;
    let report = stop_all(load).await;
    let reloads = discover.metric("discover_reloads_total").await? - before;
    let why = match reloads > 0.0 {
        true => format!(" ({})", reasons(&discover).await?),
        false => String::new(),
    };
    let goal = match haproxy.version.as_str() {
        "2.6" => "0 failed; only reloads that collect servers",
        _ => "0 failed, 0 reloads",
    };
    Ok(figure("", haproxy, &report, &format!("{reloads} reloads{why}"), goal))
}

/// The reasons of the reloads since the start, each once, but for those of the start itself.
async fn reasons(discover: &Agent) -> Result<String> {
    let status = discover.status().await?;
    let reloads = status["haproxy"]["reloads"].as_array().during("the status has no reloads")?;
    let mut words: Vec<&str> = reloads.iter().filter_map(|r| r["reasons"].as_str()).collect();
    words.pop();
    words.sort_unstable();
    words.dedup();
    Ok(words.join("; "))
}

async fn reloading(lab: &Lab, haproxy: &Haproxy) -> Result<Figure> {
    let mut fleet = Fleet::new(SERVICES, BACKENDS).await?;
    let plain = Plain::start(lab, haproxy, &fleet.sections()).await?;
    fleet.routed().await?;
    let load = fleet.load(1, 1, RATE);
    let (news, mut changed) = watch::channel(fleet.sections());
    let changing = async {
        let mut tick = ticks();
        for _ in 0..CHANGES {
            tick.tick().await;
            fleet.change();
            news.send_replace(fleet.sections());
        }
        drop(news);
    };
    // Changes that come during a reload go into the next one.
    let loading = async {
        let mut times = Times::default();
        while changed.changed().await.is_ok() {
            let sections = changed.borrow_and_update().clone();
            times.push(plain.load(&sections).await?);
        }
        Ok(times)
    };
    let ((), times) = tokio::join!(changing, loading);
    let times: Times = times?;
    let report = stop_all(load).await;
    let value = format!("{} reloads, {times} each", times.count());
    Ok(figure(", each by a reload", haproxy, &report, &value, ""))
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn figure(how: &str, haproxy: &Haproxy, report: &Report, value: &str, goal: &str) -> Figure {
    let beside = match how.is_empty() {
        true => "by the registry",
        false => "HAProxy's own defaults, check and reload as fast as they go",
    };
    Figure {
        what: format!("{CHANGES} changes in ordinary life{how}, HAProxy {}", haproxy.version),
        value: format!("{}, {value}", report.summary()),
        goal: goal.to_owned(),
        conditions: format!(
            "{SERVICES} services of {BACKENDS} backends, {} changes a second (starts, drains, ends, weights), {beside}; \
             asked for {RATE} requests/s or more by {SERVICES} keep-alive and {SERVICES} close-per-request clients",
            1000 / PACE.as_millis()
        ),
    }
}
