//! The clock of the day jumps by an hour, forwards and back, under both agents: nobody notices.

use std::time::{Duration, Instant, SystemTime};

use e2e::clock::Clock;
use e2e::scene::PATIENCE;
use e2e::stage::{Setting, Stage, TTL};
use e2e::{Etcd, Result, in_lab, wait};
use nix::sys::signal::Signal;
use serde_json::Value;

const HOUR: i64 = 3600;
/// How long a container drains that does not end: Docker's stop timeout and five seconds. A timer is never early.
const DRAIN: Duration = Duration::from_secs(15);

/// By how many seconds a time that an agent tells differs from the machine's.
fn differs(told: &Value) -> Option<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(told.as_i64()? / 1000 - i64::try_from(now.as_secs()).ok()?)
}

/// Sets the clock, and waits until both agents go by it. A container starts, and Docker's stream begins anew, from a moment of that clock.
async fn jump(clock: &Clock, stage: &mut Stage, to: i64, newcomer: usize) -> Result<()> {
    clock.set(to)?;
    let near = |told: &Value| differs(told).is_some_and(|by| (by - to).abs() < HOUR / 2);
    wait::until_true("register going by the new time", PATIENCE, async || {
        stage.register.status().await.is_ok_and(|status| near(&status["registry"]["renewed_unix_ms"]))
    })
    .await?;
    stage.api.cut();
    stage.add(newcomer).await?;
    stage.registered().await?;
    wait::until_true("discover going by the new time", PATIENCE, async || {
        stage.discover.status().await.is_ok_and(|status| near(&status["last_turn"]["ended_unix_ms"]))
    })
    .await
}

async fn is_draining(stage: &Stage, number: usize) -> bool {
    let key = stage.key(number);
    let draining =
        |entries: Vec<e2e::scene::Entry>| entries.iter().any(|e| e.key == key && e.value["status"] == "draining");
    stage.entries().await.is_ok_and(draining)
}

/// Waits until the guard holds all five.
async fn all_held(stage: &Stage) -> Result<()> {
    let held = async || stage.discover.metric("discover_held_backends").await.is_ok_and(|held| held == 5.0);
    wait::until_true("all five held", PATIENCE, held).await
}

#[test]
fn the_clock_jumps_by_an_hour_and_back_and_nobody_notices() -> Result<()> {
    in_lab(async |lab| {
        let Some(clock) = Clock::new(lab)? else {
            testing::skipped("there is no libfaketime (Debian's package faketime)");
            return Ok(());
        };
        let setting = Setting { clock: Some(clock.clone()), ..Setting::default() };
        let mut stage = Stage::start(lab, vec![Etcd::start()], &setting).await?;

        // A drain ends when its time is up, whatever the clock says meanwhile.
        let began = Instant::now();
        stage.drain(0);
        wait::until_true("a drain", PATIENCE, async || is_draining(&stage, 0).await).await?;
        stage.begin().await?;
        jump(&clock, &mut stage, HOUR, 10).await?;
        wait::holds("service", TTL * 2, async || stage.load.so_far().failed() == 0).await?;
        let forwards = stage.cost("the clock jumps an hour forwards").await?;
        forwards.must_fail_nobody()?.must_unroute_nobody()?;
        jump(&clock, &mut stage, -HOUR, 11).await?;
        wait::holds("service", TTL * 2, async || stage.load.so_far().failed() == 0).await?;
        wait::until_true("the drain's end", PATIENCE, async || !is_draining(&stage, 0).await).await?;
        let drained = began.elapsed();
        assert!(drained >= DRAIN, "a jump ended a drain after {drained:?}");
        stage.settled().await?;
        let back = stage.cost("the clock jumps two hours back").await?;
        back.must_fail_nobody()?.must_unroute_nobody()?;
        assert_eq!(forwards.written + back.written, 3, "two starts and the drain's end: every lease lives");
        println!("a drain of {DRAIN:?} took {drained:?}");

        // So does a hold.
        stage.register.process().signal(Signal::SIGSTOP)?;
        all_held(&stage).await?;
        for to in [HOUR, 0] {
            clock.set(to)?;
            // Its successor knows since when all of it is held.
            stage.discover.crash_and_restart().await?;
            wait::holds("service while held", TTL * 2, async || stage.load.so_far().failed() == 0).await?;
            all_held(&stage).await?;
        }
        stage.routed().await?;
        stage.register.process().signal(Signal::SIGCONT)?;
        stage.settled().await?;
        let cost = stage.cost("the clock jumps forwards and back while the guard holds, and discover is killed and started after each").await?;
        cost.must_fail_nobody()?.must_unroute_nobody().map(drop)
    })
}
