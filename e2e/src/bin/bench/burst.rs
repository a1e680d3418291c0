//! Bursts of starts and ends on a scripted Docker API: who is missed, who stays behind, and how long it takes.

use std::time::{Duration, Instant};

use e2e::figures::{Figure, millis};
use e2e::flock::{Flock, registered};
use e2e::terminal::Terminal;
use e2e::{Etcd, Lab, Result, wait};

const STARTS: usize = 200;
const GAPS: [u64; 3] = [0, 2, 20];
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than anything that is still under way may take, shorter than the resync that would hide a loss.
const QUIET: Duration = Duration::from_secs(2);

/// 200 starts, then 200 ends, with each gap.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for gap in GAPS.map(Duration::from_millis) {
        let what = format!("{STARTS} starts and ends, {} ms apart", gap.as_millis());
        figures.push(terminal.while_waiting(&what, Box::pin(burst(lab, gap))).await?);
    }
    Ok(figures)
}

async fn burst(lab: &Lab, gap: Duration) -> Result<Figure> {
    let etcd = Etcd::start();
    let mut client = etcd.operator().await;
    let flock = Flock::new(lab, STARTS, &[]).await?;
    let name = format!("burst-{}", gap.as_millis());
    let _agent = flock.register(&name, &["--resync", "10m"]).start(lab, &etcd).await?;

    for number in 0..STARTS {
        flock.start(number);
        pause(gap).await;
    }
    let (up, started) = settled(&mut client, STARTS).await?;
    for number in 0..STARTS {
        flock.kill(number);
        flock.die(number);
        pause(gap).await;
    }
    let (left, ended) = settled(&mut client, 0).await?;
    Ok(Figure {
        what: format!("burst of {STARTS} starts, then ends, {} ms apart", gap.as_millis()),
        value: format!(
            "missed {}, stale {left}, settled {} after the last start, {} after the last end",
            STARTS - up,
            millis(started),
            millis(ended)
        ),
        goal: "missed 0, stale 0".to_owned(),
        conditions: "scripted Docker API, real listeners, one etcd; a resync every 10 min, so that only events help"
            .to_owned(),
    })
}

async fn pause(gap: Duration) {
    if gap.is_zero() { tokio::task::yield_now().await } else { tokio::time::sleep(gap).await }
}

/// How many are registered in the end, and how long it took.
async fn settled(client: &mut etcd_client::Client, wanted: usize) -> Result<(usize, Duration)> {
    let began = Instant::now();
    let mut reached = None;
    // A wish that does not come true is the figure, not an error.
    let _ = wait::until_true("all registered", PATIENCE, async || {
        let done = registered(client).await.is_ok_and(|n| n == wanted);
        if done {
            reached.get_or_insert(began.elapsed());
        }
        done
    })
    .await;
    tokio::time::sleep(QUIET).await;
    Ok((registered(client).await?, reached.unwrap_or(PATIENCE)))
}
