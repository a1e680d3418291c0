//! What is done while nothing happens.

use std::time::Duration;

use e2e::figures::Figure;
use e2e::scene::{Scene, remove_all};
use e2e::terminal::Terminal;
use e2e::{Context, Lab, LabError, Result, haproxy};

const SERVICES: usize = 20;
const IDLE: Duration = Duration::from_secs(30);

/// Store puts, renders, reloads and the processor time of both agents over the idle time.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut scene = Scene::start(lab, &haproxy::newest()?).await?;
    let starting = scene.services(SERVICES);
    let containers = terminal.while_waiting(&format!("starting {SERVICES} services"), starting).await?;
    // The last reload is counted when its outcome is known, which is after its first routed request.
    let before = settled(&mut scene).await?;
    if before.contains(&0.0) {
        return Err(LabError::new(format!("something counts nothing even while services come: {before:?}")));
    }
    terminal.while_waiting("idling", tokio::time::sleep(IDLE)).await;
    let after = counts(&mut scene).await?;
    terminal.while_waiting("removing them", remove_all(containers)).await?;
    let difference: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let conditions = format!("{} s, {SERVICES} services of one container each, nothing happens", IDLE.as_secs());
    let figure = |what: &str, value: String, goal: &str| Figure {
        what: format!("idle: {what}"),
        value,
        goal: goal.to_owned(),
        conditions: conditions.clone(),
    };
    let whole = |n: usize| difference.get(n).copied().unwrap_or(f64::NAN).to_string();
    let busy = |n: usize| format!("{:.0} ms", difference.get(n).copied().unwrap_or(f64::NAN) * 1000.0);
    Ok(vec![
        figure("changes of the store (its revision)", whole(0), "0"),
        figure("renders", whole(1), "0"),
        figure("writes of haproxy.cfg", whole(2), "0"),
        figure("reloads", whole(3), "0"),
        figure("processor time of register", busy(4), ""),
        figure("processor time of discover", busy(5), ""),
    ])
}

/// The counts, once nothing has changed but processor time for a while.
async fn settled(scene: &mut Scene) -> Result<[f64; 6]> {
    let mut before = counts(scene).await?;
    for _ in 0..20 {
        // Longer than the interval between two reloads.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = counts(scene).await?;
        if now[..4] == before[..4] {
            return Ok(now);
        }
        before = now;
    }
    Err(LabError::new("things go on happening although nothing happens".to_owned()))
}

async fn counts(scene: &mut Scene) -> Result<[f64; 6]> {
    let mut client = scene.etcd.operator().await;
    let header = client.get("/", None).await.during("asking etcd for its revision")?;
    let revision = header.header().during("etcd's answer has no header")?.revision();
    let discover = &scene.discover;
    let metrics = [
        discover.metric("discover_renders_total").await?,
        discover.metric("discover_config_writes_total").await?,
        discover.metric("discover_reloads_total").await?,
    ];
    let busy = [scene.register.process().processor_time()?, scene.discover.process().processor_time()?];
    #[allow(clippy::cast_precision_loss, reason = "revisions of a test's etcd are small")]
    let revision = revision as f64;
    Ok([revision, metrics[0], metrics[1], metrics[2], busy[0].as_secs_f64(), busy[1].as_secs_f64()])
}
