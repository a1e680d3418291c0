//! What 500 containers cost with an HTTP check every 2 s each.

use std::time::Duration;

use e2e::figures::{Figure, megabytes};
use e2e::flock::{Flock, registered};
use e2e::terminal::Terminal;
use e2e::{Etcd, Lab, Result, wait};

const CONTAINERS: usize = 500;
const PATIENCE: Duration = Duration::from_secs(60);
const MEASURED: Duration = Duration::from_secs(20);

/// Processor time over 20 s, and resident memory at their end.
pub async fn measure(lab: &Lab, terminal: Terminal) -> Result<Vec<Figure>> {
    let plain = without(lab, terminal).await?;
    let etcd = Etcd::start();
    let labels = [("register.check", "http"), ("register.check.interval", "2s")];
    let flock = Flock::new(lab, CONTAINERS, &labels).await?;
    (0..CONTAINERS).for_each(|number| flock.start_silently(number));
    let mut agent = flock.agent(lab, &etcd, &[]).await?;
    let mut client = etcd.operator().await;
    let all = async || registered(&mut client).await.is_ok_and(|n| n == CONTAINERS);
    wait::until_true("500 containers in etcd", PATIENCE, all).await?;
    tokio::time::sleep(Duration::from_secs(3)).await; // what the start cost is not meant
    let (busy, tries) = (agent.process().processor_time()?, agent.metric("register_checks_total").await?);
    terminal.while_waiting("checking", tokio::time::sleep(MEASURED)).await;
    let busy = agent.process().processor_time()? - busy;
    let tries = agent.metric("register_checks_total").await? - tries;
    let conditions = format!(
        "{CONTAINERS} containers of a scripted Docker API with real listeners, an http check every 2 s each; \
         {tries} checks in {} s",
        MEASURED.as_secs()
    );
    Ok(vec![
        Figure {
            what: "processor time of register with 500 http checks".to_owned(),
            value: format!("{:.1} % of a core", 100.0 * busy.as_secs_f64() / MEASURED.as_secs_f64()),
            goal: "≤ 5 %".to_owned(),
            conditions: conditions.clone(),
        },
        Figure {
            what: "resident memory of register with 500 http checks".to_owned(),
            value: megabytes(agent.resident_memory()?),
            goal: "≤ 25 MB".to_owned(),
            conditions: format!("{conditions}; {} without checks", megabytes(plain)),
        },
    ])
}

/// Resident memory with as many containers and no checks.
async fn without(lab: &Lab, terminal: Terminal) -> Result<u64> {
    let etcd = Etcd::start();
    let flock = Flock::new(lab, CONTAINERS, &[]).await?;
    (0..CONTAINERS).for_each(|number| flock.start_silently(number));
    let agent = flock.register("flock-unchecked", &[]).start(lab, &etcd).await?;
    let mut client = etcd.operator().await;
    let all = async || registered(&mut client).await.is_ok_and(|n| n == CONTAINERS);
    terminal.while_waiting("500 containers without checks", wait::until_true("all in etcd", PATIENCE, all)).await?;
    agent.resident_memory()
}
