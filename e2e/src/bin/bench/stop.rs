//! From Docker's event to etcd: `kill` → draining, `die` → gone.

use std::time::{Duration, Instant};

use e2e::figures::{Figure, Times};
use e2e::flock::Flock;
use e2e::terminal::Terminal;
use e2e::{Context, Etcd, Lab, LabError, Result};
use etcd_client::{EventType, WatchOptions, WatchStream};

const STOPS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(10);

/// One container after the other: started, asked to stop, ended.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let etcd = Etcd::start();
    let flock = Flock::new(lab, STOPS, &[]).await?;
    let _agent = flock.agent(lab, &etcd, &[]).await?;
    let mut client = etcd.operator().await;
    let mut stream =
        client.watch("/backends/", Some(WatchOptions::new().with_prefix())).await.during("watching the backends")?;
    let (mut starts, mut drains, mut ends) = (Times::default(), Times::default(), Times::default());
    let measuring = async {
        for number in 0..STOPS {
            for (times, act, wanted) in [
                (&mut starts, Flock::start as fn(&Flock, usize), r#""status":"up""#),
                (&mut drains, Flock::kill, r#""status":"draining""#),
                (&mut ends, Flock::die, ""),
            ] {
                let began = Instant::now();
                act(&flock, number);
                seen(&mut stream, &Flock::key(number), wanted).await?;
                times.push(began.elapsed());
            }
        }
        Ok::<_, LabError>(())
    };
    terminal.while_waiting(&format!("{STOPS} containers, one after the other"), measuring).await?;
    let figure = |what: &str, times: &Times, goal: &str| Figure {
        what: what.to_owned(),
        value: times.to_string(),
        goal: goal.to_owned(),
        conditions: format!(
            "{STOPS} times; from the event sent by a scripted Docker API to the change at a watcher of one etcd"
        ),
    };
    Ok(vec![
        figure("start event → up in etcd (its port accepts already)", &starts, ""),
        figure("kill event → draining in etcd", &drains, "p50 ≤ 5 ms"),
        figure("die event → gone from etcd", &ends, "p50 ≤ 5 ms"),
    ])
}

/// Waits for a put with `wanted` in its value, or for the deletion where nothing is wanted.
pub(super) async fn seen(stream: &mut WatchStream, key: &str, wanted: &str) -> Result<()> {
    let search = async {
        loop {
            let message = stream.message().await.during("watching")?.ok_or_else(|| LabError::new("the watch ended"))?;
            for event in message.events() {
                let Some(entry) = event.kv().filter(|entry| entry.key() == key.as_bytes()) else { continue };
                let found = match event.event_type() {
                    EventType::Put => !wanted.is_empty() && entry.value_str().is_ok_and(|v| v.contains(wanted)),
                    EventType::Delete => wanted.is_empty(),
                };
                if found {
                    return Ok(());
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, search).await.during(format!("waiting for {key} {wanted}"))?
}
