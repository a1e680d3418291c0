//! Agents with hardly enough memory, and with less than that: the kernel's own limit, and its own way to enforce it.

use e2e::agents::Agent;
use e2e::memory::MemoryGroup;
use e2e::stage::{Setting, Stage, TTL};
use e2e::{Context, Etcd, LabError, Result, in_lab, wait};

/// Starts and stops under the tight limit.
const CHANGES: usize = 5;

fn agent<'a>(stage: &'a mut Stage, who: &str) -> &'a mut Agent {
    if who == "register" { &mut stage.register } else { &mut stage.discover }
}

/// What a service manager does.
async fn started_again(stage: &mut Stage, who: &str) -> Result<()> {
    agent(stage, who).process().restart()?;
    agent(stage, who).ready().await?;
    stage.settled().await
}

/// Halves the limit until the agent is killed within its start; returns the limit in bytes.
async fn killed(stage: &mut Stage, who: &str, group: &MemoryGroup, taken: u64) -> Result<u64> {
    let before = group.kills()?;
    let mut limit = taken;
    while limit > 1 << 20 {
        limit /= 2;
        agent(stage, who).process().kill();
        group.limit(limit)?;
        agent(stage, who).process().restart()?;
        let started = agent(stage, who).ready().await.is_ok();
        if !started && group.kills()? > before {
            return Ok(limit);
        }
    }
    Err(LabError::new(format!("{who} lives with {limit} bytes")))
}

async fn starve(stage: &mut Stage, who: &str, group: &MemoryGroup, newest: &mut usize) -> Result<()> {
    agent(stage, who).process().within(group.dir());
    started_again(stage, who).await?;
    let taken = group.peak()?;
    agent(stage, who).process().kill();
    group.limit(taken + taken / 4)?;
    started_again(stage, who).await?;
    for _ in 0..CHANGES {
        *newest += 1;
        stage.add(*newest).await?;
        let oldest = stage.oldest().during("nobody is left")?;
        stage.crash(oldest);
        if !agent(stage, who).process().is_running() {
            agent(stage, who).process().restart()?;
        }
        stage.settled().await?;
    }
    println!("{who}: {} kB taken, killed {} times under a limit of 1.25 times that", taken >> 10, group.kills()?);
    stage.cost(&format!("{who} under a tight memory limit")).await?.must_fail_nobody()?;

    let limit = killed(stage, who, group, taken).await?;
    println!("{who}: killed by the kernel at {} kB", limit >> 10);
    *newest += 1;
    stage.add(*newest).await?;
    let oldest = stage.oldest().during("nobody is left")?;
    stage.crash(oldest);
    wait::holds("service meanwhile", TTL * 2, async || stage.load.so_far().failed() == 0).await?;
    group.limit(taken * 4)?;
    started_again(stage, who).await?;
    stage.cost(&format!("{who} killed for want of memory, a start and a death meanwhile")).await?.must_fail_nobody()?;
    Ok(())
}

#[test]
fn agents_short_of_memory_live_or_are_killed_and_come_back_and_nobody_notices() -> Result<()> {
    in_lab(async |lab| {
        if let Err(why) = MemoryGroup::new(lab, "probe") {
            testing::skipped(format!("no memory limits here: {why:?}"));
            return Ok(());
        }
        let mut stage = Stage::start(lab, vec![Etcd::start()], &Setting::default()).await?;
        let mut newest = 2;
        for who in ["register", "discover"] {
            let group = MemoryGroup::new(lab, who)?;
            starve(&mut stage, who, &group, &mut newest).await?;
        }
        Ok(())
    })
}
