//! From a container's start to its first answer through HAProxy.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use e2e::docker::{Container, Spec};
use e2e::figures::{Figure, Times, millis};
use e2e::scene::{PATIENCE, Scene, loopback};
use e2e::terminal::Terminal;
use e2e::traffic::first_answer;
use e2e::{Context, Lab, LabError, Result, free_port, haproxy};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Starts of a container that serves at once.
const STARTS: usize = 60;
/// Starts of one that takes time before its port opens.
const LATE_STARTS: usize = 25;
/// How long it takes.
const DELAY_MS: u64 = 400;
/// Between two looks at a port that is not open yet: the error of the moment it opens.
const LOOK: Duration = Duration::from_micros(250);

/// Start event → first answer; for late ones, port accepts → first answer.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let haproxy = haproxy::newest()?;
    let scene = Scene::start(lab, &haproxy).await?;
    let port = free_port();
    let to = loopback(port);
    let spec = Spec::served("bench", port);
    // One stays, so that the service is there all the time: what is measured is a backend that comes, not a section.
    let _stays = scene.serve(&spec, to).await?;

    let (mut from_event, mut from_accept, mut resolution) = (Times::default(), Times::default(), Times::default());
    for n in 1..=STARTS {
        let what = format!("start {n} of {STARTS}");
        let start = terminal.while_waiting(&what, Box::pin(one(&scene, &spec, to))).await?;
        from_event.push(start.from_event);
        from_accept.push(start.beyond);
        resolution.push(start.resolution);
    }
    let mut late = Times::default();
    let late_spec = spec.clone().env("WHOAMI_DELAY_MS", DELAY_MS);
    for n in 1..=LATE_STARTS {
        let what = format!("late start {n} of {LATE_STARTS}");
        let start = Box::pin(one(&scene, &late_spec, to));
        late.push(terminal.while_waiting(&what, start).await?.beyond);
    }
    let conditions = |count| {
        format!(
            "{count} starts, one after the other; service with one other container, http section, HAProxy {}; \
             asked without pause on one kept connection (resolution p50 {})",
            haproxy.version,
            millis(resolution.percentile(50))
        )
    };
    let figure = |what: &str, times: &Times, goal: &str, more: &str| Figure {
        what: what.to_owned(),
        value: times.to_string(),
        goal: goal.to_owned(),
        conditions: format!("{}{more}", conditions(times.count())),
    };
    const GOAL: &str = "p50 ≤ 15 ms, p99 ≤ 50 ms";
    let late_how = format!("; the port opens {DELAY_MS} ms after the start");
    Ok(vec![
        figure("Docker's start event → first routed request", &from_event, "", ""),
        figure("start event or port accepts, whichever is later → first routed request", &from_accept, GOAL, ""),
        figure("a slow starter's port accepts → first routed request", &late, GOAL, &late_how),
    ])
}

struct Start {
    from_event: Duration,
    /// From the event, or from when its port accepted, whichever came later.
    beyond: Duration,
    resolution: Duration,
}

async fn one(scene: &Scene, spec: &Spec, to: SocketAddr) -> Result<Start> {
    let events = scene.docker.events().await?;
    let container = scene.docker.create(spec).await?;
    let name = container.short().to_owned();
    let probe = tokio::spawn(async move { first_answer(to, true, &name, PATIENCE).await });
    container.start().await?;
    let accepts = accepts(&container).await?;
    let first = probe.await.during("asking for the newcomer")??;
    let event = events.first(container.id(), "start").await?;
    if first.failed > 0 {
        return Err(LabError::new(format!("{} requests failed while a container was started", first.failed)));
    }
    container.remove().await?;
    let since = |moment: SystemTime| first.at.duration_since(moment).unwrap_or_default();
    Ok(Start { from_event: since(event.at), beyond: since(accepts.max(event.at)), resolution: first.resolution })
}

/// When its port accepted, at the latest: when Docker read the line that whoami writes once it listens, or when a dial at
/// its own address succeeded (not at the published one, where Docker's proxy accepts before it does).
async fn accepts(container: &Container) -> Result<SystemTime> {
    let address = SocketAddr::new(container.own_address().await?, 80);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_err() {
        if tokio::time::Instant::now() >= deadline {
            return Err(LabError::new(format!("{address} does not accept")));
        }
        sleep(LOOK).await;
    }
    let dialled = SystemTime::now();
    Ok(container.first_line_at().await?.map_or(dialled, |logged| logged.min(dialled)))
}
