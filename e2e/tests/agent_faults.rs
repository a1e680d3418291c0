//! Agents that are killed, doubled, upgraded, starved and stopped: HAProxy goes on, and the registry holds the living.

use std::process::Command;
use std::time::{Duration, SystemTime};

use e2e::random::Random;
use e2e::scene::PATIENCE;
use e2e::stage::{Setting, Stage, TTL};
use e2e::{Context, Etcd, Lab, LabError, Result, given, in_lab, wait};
use nix::sys::signal::Signal;
use tokio::time::sleep;

/// How often each agent is killed; E2E_KILLS says otherwise.
const KILLS: u64 = 10;
/// A kill comes at most so long after a change.
const AFTER: Duration = Duration::from_millis(120);
/// How long an agent has no file descriptor: longer than the leases, and than discover lets pass without a look at what HAProxy runs (10 s).
const STARVED: Duration = Duration::from_secs(12);

/// A stage around one node.
async fn alone(lab: &Lab) -> Result<Stage> {
    Stage::start(lab, vec![Etcd::start()], &Setting::default()).await
}

/// Kills an agent again and again, each time somewhere within a change, and gives what all of it cost.
async fn kill_at_random(stage: &mut Stage, who: &str) -> Result<()> {
    let kills = given::or("E2E_KILLS", KILLS);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = given::or("E2E_SEED", now.as_secs());
    println!("E2E_SEED={seed} E2E_KILLS={kills}");
    let mut dice = Random::new(seed);
    let mut newest = 2;
    for kill in 0..kills {
        newest += 1;
        stage.add(newest).await?;
        // The oldest dies, without a word or after a drain, which is half done when the agent is killed.
        let oldest = stage.oldest().during("nobody is left")?;
        if dice.percent(50) {
            stage.drain(oldest);
        }
        sleep(AFTER * u32::try_from(dice.below(100)).unwrap_or_default() / 100).await;
        let agent = if who == "register" { &mut stage.register } else { &mut stage.discover };
        agent.process().kill();
        if dice.percent(50) {
            stage.crash(oldest);
        }
        let agent = if who == "register" { &mut stage.register } else { &mut stage.discover };
        agent.process().restart()?;
        agent.ready().await?;
        stage.crash(oldest);
        stage.settled().await.during(format!("after kill {kill} of seed {seed}"))?;
        if stage.load.so_far().failed() > 0 {
            return Err(LabError::new(format!("kill {kill} of seed {seed}: {}", stage.load.so_far())));
        }
    }
    let cost = stage.cost(&format!("{who} killed -9 at {kills} random points within starts, drains and stops")).await?;
    cost.must_fail_nobody().map(drop)
}

#[test]
fn register_killed_at_random_points_loses_and_resurrects_nobody() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = alone(lab).await?;
        kill_at_random(&mut stage, "register").await
    })
}

#[test]
fn discover_killed_at_random_points_drops_no_request_and_is_right_again_at_once() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = alone(lab).await?;
        kill_at_random(&mut stage, "discover").await
    })
}

#[test]
fn an_upgrade_in_place_and_a_second_register_write_the_registrars_key_and_nothing_else() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = alone(lab).await?;
        for agent in [&mut stage.register, &mut stage.discover] {
            agent.process().stop(PATIENCE).await?;
            agent.process().restart()?;
            agent.ready().await?;
        }
        stage.settled().await?;
        wait::holds("service afterwards", TTL * 2, async || stage.load.so_far().failed() == 0).await?;
        let cost = stage.cost("both agents stopped and started, as an upgrade does").await?;
        cost.must_fail_nobody()?.must_unroute_nobody()?.must_write(1)?;
        assert_eq!(cost.reloads, 0.0);

        let mut second = stage.second_register(lab)?;
        second.ready().await?;
        let status = stage.register.process().ended(PATIENCE).await?;
        assert!(!status.success(), "it says that it was replaced");
        assert!(stage.register.log().contains("took over"), "{}", stage.register.log());
        stage.add(5).await?;
        stage.settled().await?;
        wait::holds("service afterwards", TTL * 2, async || stage.load.so_far().failed() == 0).await?;
        let cost = stage.cost("a second register on the host, and a container started").await?;
        cost.must_fail_nobody()?.must_unroute_nobody()?.must_write(2).map(drop)
    })
}

/// Sets how many files a process may open, as an operator does.
fn limit_files(pid: i32, limit: &str) -> Result<()> {
    let done = Command::new("prlimit").arg(format!("--pid={pid}")).arg(format!("--nofile={limit}")).output();
    let done = done.during("running prlimit")?;
    match done.status.success() {
        true => Ok(()),
        false => Err(LabError::new(String::from_utf8_lossy(&done.stderr).into_owned())),
    }
}

#[test]
fn out_of_file_descriptors_the_last_state_serves_and_all_is_caught_up() -> Result<()> {
    in_lab(async |lab| {
        // No listing of all containers comes to register's help: it asks Docker again once it can.
        let mut setting = Setting::default();
        setting.register.extend(["--resync", "10m"].map(str::to_owned));
        let mut stage = Stage::start(lab, vec![Etcd::start()], &setting).await?;
        for turn in 0..2 {
            let who = ["register", "discover"][turn];
            let agent = if turn == 0 { &mut stage.register } else { &mut stage.discover };
            let (pid, log) = (agent.process().pid(), agent.log().len());
            limit_files(pid, "3:")?;
            // Its connections are gone, so that it needs new ones.
            stage.etcd[0].restart();
            stage.api.cut();
            stage.add(5 + turn).await?;
            let agent = if turn == 0 { &stage.register } else { &stage.discover };
            let said = async || agent.log()[log..].contains("Too many open files");
            wait::until_true(&format!("{who} saying that it has no file left"), PATIENCE, said).await?;
            wait::holds("service meanwhile", STARVED, async || stage.load.so_far().failed() == 0).await?;
            let agent = if turn == 0 { &mut stage.register } else { &mut stage.discover };
            assert!(agent.process().is_running(), "{who} gave up");
            limit_files(pid, "1024:")?;
            stage.settled().await?;
            let cost = stage.cost(&format!("{who} out of file descriptors for {STARVED:?}")).await?;
            cost.must_fail_nobody()?.must_unroute_nobody()?;
            assert_eq!(cost.reloads, 0.0, "what could not be looked at was not believed to be changed");
        }
        Ok(())
    })
}

#[test]
fn agents_stopped_for_longer_than_the_ttl_catch_up_and_nobody_notices() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = alone(lab).await?;
        stage.register.process().signal(Signal::SIGSTOP)?;
        let gone = async || stage.entries().await.is_ok_and(|entries| entries.is_empty());
        wait::until_true("the lease running out", PATIENCE, gone).await?;
        // The guard holds them; HAProxy's checks find the one that dies.
        wait::holds("service while held", TTL * 2, async || stage.load.so_far().failed() == 0).await?;
        stage.crash(0);
        stage.routed().await?;
        stage.register.process().signal(Signal::SIGCONT)?;
        stage.settled().await?;
        stage.all_answer().await?;
        let cost = stage.cost("register stopped for longer than the TTL, a container dead meanwhile").await?;
        cost.must_fail_nobody()?.must_unroute_nobody()?;

        stage.discover.process().signal(Signal::SIGSTOP)?;
        stage.add(5).await?;
        stage.drain(1);
        let key = stage.key(5);
        wait::until_true("the start in the registry", PATIENCE, async || stage.has(&key).await).await?;
        sleep(TTL * 2).await; // the time that the fault lasts
        stage.discover.process().signal(Signal::SIGCONT)?;
        stage.crash(1);
        stage.settled().await?;
        stage.all_answer().await?;
        stage
            .cost("discover stopped for longer than the TTL, a start and a stop meanwhile")
            .await?
            .must_fail_nobody()?;
        Ok(())
    })
}
