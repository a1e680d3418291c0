//! `docker stop` of half the containers under load: what clients notice.

use std::time::Duration;

use e2e::docker::{Container, Spec};
use e2e::figures::Figure;
use e2e::haproxy::{self, Haproxy};
use e2e::http::Client;
use e2e::scene::{PATIENCE, Scene, loopback, remove_all, run_all};
use e2e::terminal::Terminal;
use e2e::traffic::{Load, Plan, Report, stop_all};
use e2e::{Lab, Result, free_port, wait};
use futures_util::future::join_all;
use tokio::sync::Mutex;

use crate::plain::Plain;

const CONTAINERS: usize = 10;
const STOPPED: usize = 5;
/// `docker stop`'s own default.
const GRACE: Duration = Duration::from_secs(10);
/// Requests per second of each of the eight clients.
const RATE: u32 = 100;

/// http and tcp sections, then a reload at each container's end.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for haproxy in haproxy::all()? {
        for mode in ["http", "tcp"] {
            let what = format!("docker stop, {mode} section, HAProxy {}", haproxy.version);
            let report = terminal.while_waiting(&what, Box::pin(ours(&haproxy, mode))).await?;
            let (goal, reason) = match mode {
                "http" => ("0 failed", ""),
                _ => (
                    "",
                    "; a kept connection ends with its container, under whatever request is on its way then: HAProxy cannot repeat what it does not read",
                ),
            };
            figures.push(figure(&format!("{mode} section, HAProxy {}", haproxy.version), &report, goal, reason));
        }
    }
    let haproxy = haproxy::newest()?;
    let what = format!("docker stop, a reload at each end, HAProxy {}", haproxy.version);
    let report = terminal.while_waiting(&what, Box::pin(reloading(lab, &haproxy))).await?;
    let how = format!("HAProxy's own defaults and a reload at each end, HAProxy {}", haproxy.version);
    figures.push(figure(&how, &report, "", ""));
    Ok(figures)
}

async fn ours(haproxy: &Haproxy, mode: &str) -> Result<Report> {
    let lab = Lab::new()?;
    let scene = Scene::start(&lab, haproxy).await?;
    let port = free_port();
    let spec = Spec::served("web", port).label("register.80.mode", mode);
    let containers = run_all(&scene.docker, &vec![spec; CONTAINERS]).await?;
    // What is asked of the port before HAProxy has it is no failure.
    let served = async || Client::new(loopback(port), false, PATIENCE).get("/").await.is_ok_and(|r| r.status == 200);
    wait::until_true("an answer", PATIENCE, served).await?;
    let load = load(port);
    all_answer(&load, &containers).await?;
    stop(&containers, async |_| Ok(())).await?;
    for container in &containers[..STOPPED] {
        scene.registered(container, false).await?;
    }
    after(load, containers).await
}

async fn reloading(lab: &Lab, haproxy: &Haproxy) -> Result<Report> {
    let docker = lab.docker().await?;
    let port = free_port();
    let containers = run_all(&docker, &vec![Spec::whoami("web"); CONTAINERS]).await?;
    let mut servers = Vec::new();
    for container in &containers {
        servers.push((container.short().to_owned(), container.published("80/tcp").await?));
    }
    let sections = |servers: &[(String, std::net::SocketAddr)]| {
        let lines = servers.iter().map(|(name, at)| format!("    server {name} {at} check inter 2s rise 3 fall 2\n"));
        format!("listen web\n    bind {}\n    balance roundrobin\n{}", loopback(port), lines.collect::<String>())
    };
    let plain = Plain::start(lab, haproxy, &sections(&servers)).await?;
    let load = load(port);
    all_answer(&load, &containers).await?;
    let servers = Mutex::new(servers);
    stop(&containers, async |gone: &Container| {
        let mut servers = servers.lock().await;
        servers.retain(|(name, _)| name != gone.short());
        plain.load(&sections(&servers)).await.map(drop)
    })
    .await?;
    after(load, containers).await
}

/// Four clients that keep their connection and four that do not.
fn load(port: u16) -> Load {
    Load::start(&Plan { keep_alive: 4, closing: 4, rate: RATE, ..Plan::mixed(loopback(port)) })
}

async fn all_answer(load: &Load, containers: &[Container]) -> Result<()> {
    wait::until_true("load on every container", PATIENCE, async || {
        containers.iter().all(|container| load.answered_by(container.short()) > 0)
    })
    .await
}

/// Stops the first ones at the same time; `ended` is told of each that has.
async fn stop(containers: &[Container], ended: impl AsyncFn(&Container) -> Result<()>) -> Result<()> {
    let stopping = containers[..STOPPED].iter().map(async |container| {
        container.stop(GRACE).await?;
        ended(container).await
    });
    join_all(stopping).await.into_iter().collect()
}

/// What the load saw until those that stay have answered for a while.
async fn after(load: Load, containers: Vec<Container>) -> Result<Report> {
    let stays = &containers[CONTAINERS - 1];
    let now = load.answered_by(stays.short());
    wait::until_true("answers afterwards", PATIENCE, async || load.answered_by(stays.short()) > now + 100).await?;
    let report = stop_all(vec![load]).await;
    remove_all(containers).await?;
    Ok(report)
}

fn figure(how: &str, report: &Report, goal: &str, reason: &str) -> Figure {
    Figure {
        what: format!("docker stop of {STOPPED} of {CONTAINERS} containers, {how}"),
        value: report.summary(),
        goal: goal.to_owned(),
        conditions: format!(
            "all at once, {} s of grace; GET requests by 4 keep-alive and 4 close-per-request clients, {RATE}/s each{reason}",
            GRACE.as_secs()
        ),
    }
}
