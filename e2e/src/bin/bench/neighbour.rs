//! What one container that Docker cannot describe costs the others.

use std::time::{Duration, Instant};

use e2e::figures::{Figure, Times, millis};
use e2e::flock::{Flock, registered};
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, Result, wait};
use etcd_client::WatchOptions;
use testing::docker_api::Manner;

use super::stop::seen;

/// Containers that run when the agent starts; the first is the one that hangs.
const RUNNING: usize = 100;
const STARTS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(30);

/// The same twice: with all containers well, and with one whose inspection hangs.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut alone = Times::default();
    for hanging in [0, 1] {
        let what = format!("{RUNNING} containers, {hanging} of them hanging");
        let (first, starts) = terminal.while_waiting(&what, Box::pin(one(lab, hanging))).await?;
        let conditions =
            format!("{RUNNING} containers of a scripted Docker API run, the inspection of {hanging} hangs");
        figures.push(Figure {
            what: format!("start of register → all that are described are in etcd, {hanging} hanging"),
            value: millis(first),
            goal: if hanging == 0 { String::new() } else { "≤ 1200 ms".to_owned() },
            conditions: format!("{conditions}; from the start of the process"),
        });
        figures.push(Figure {
            what: format!("start event → up in etcd, {hanging} hanging"),
            value: starts.to_string(),
            goal: match hanging {
                0 => String::new(),
                _ => format!("p50 as without: {}", millis(alone.percentile(50))),
            },
            conditions: format!("{conditions}; {STARTS} more start, one after the other"),
        });
        alone = starts;
    }
    Ok(figures)
}

async fn one(lab: &Lab, hanging: usize) -> Result<(Duration, Times)> {
    let etcd = Etcd::start();
    let flock = Flock::new(lab, RUNNING + STARTS, &[]).await?;
    (0..RUNNING).for_each(|number| flock.start_silently(number));
    (0..hanging).for_each(|number| flock.api.inspections_of(number, Some(Manner::Hangs)));
    let mut client = etcd.operator().await;
    let began = Instant::now();
    let _agent = flock.register(&format!("flock-{hanging}"), &[]).spawn(lab, &etcd.endpoint().authority())?;
    let all = async || registered(&mut client).await.is_ok_and(|n| n == RUNNING - hanging);
    wait::until_true("the first publication", PATIENCE, all).await?;
    let first = began.elapsed();
    let options = WatchOptions::new().with_prefix();
    let mut stream = client.watch("/backends/", Some(options)).await.during("watching the backends")?;
    let mut starts = Times::default();
    for number in RUNNING..RUNNING + STARTS {
        let began = Instant::now();
        flock.start(number);
        seen(&mut stream, &Flock::key(number), r#""status":"up""#).await?;
        starts.push(began.elapsed());
    }
    Ok((first, starts))
}
