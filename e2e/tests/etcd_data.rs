//! What becomes of what is served when etcd's data changes under the agents: wiped, set back, compacted, revoked, full.

use e2e::scene::PATIENCE;
use e2e::stage::{SERVICE, Setting, Stage, TTL};
use e2e::{Context, Etcd, Lab, Result, in_lab, wait};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, CompactionOptions, DeleteOptions, Txn, TxnOp};
use nix::sys::signal::Signal;

/// A stage around one node.
async fn alone(lab: &Lab) -> Result<Stage> {
    Stage::start(lab, vec![Etcd::start()], &Setting::default()).await
}

/// What only an operator does.
async fn operator(stage: &Stage) -> Client {
    stage.etcd[0].operator().await
}

/// Waits until every key of the agents is there again and everybody answers.
async fn recovered(stage: &Stage) -> Result<()> {
    stage.settled().await?;
    wait::holds("service afterwards", TTL, async || stage.load.so_far().failed() == 0).await?;
    stage.all_answer().await
}

#[test]
fn wiped_data_is_written_anew_and_nobody_notices() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = alone(lab).await?;
        stage.etcd[0].wipe();
        recovered(&stage).await?;
        stage.cost("data wiped").await?.must_fail_nobody()?.must_unroute_nobody()?.must_write(4)?;
        // The same while nobody is there to be asked: what died meanwhile is not resurrected.
        stage.etcd[0].kill();
        stage.crash(0);
        stage.etcd[0].wipe();
        recovered(&stage).await?;
        stage.cost("data wiped, a container dead meanwhile").await?.must_fail_nobody()?.must_unroute_nobody()?;
        Ok(())
    })
}

#[test]
fn an_older_snapshot_brings_no_dead_back_and_loses_no_living() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = alone(lab).await?;
        stage.etcd[0].save_snapshot();
        stage.add(5).await?;
        stage.stop(0).await?;
        stage.settled().await?;
        stage.begin().await?;
        stage.etcd[0].restore_snapshot();
        recovered(&stage).await?;
        let cost = stage.cost("restored from a snapshot from before a start and a stop").await?;
        cost.must_fail_nobody()?.must_unroute_nobody()?;
        // The agent of the snapshot is a former self of the one that runs: no reason to stand down.
        stage.register.crash_and_restart().await?;
        stage.settled().await?;
        stage.begin().await?;
        stage.etcd[0].restore_snapshot();
        recovered(&stage).await?;
        let cost = stage.cost("restored from a snapshot from before register's restart").await?;
        cost.must_fail_nobody()?.must_unroute_nobody()?;
        assert!(stage.register.process().is_running());
        Ok(())
    })
}

#[test]
fn compaction_during_a_watch_and_during_an_outage_costs_nothing() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = alone(lab).await?;
        let compact = async |stage: &Stage| -> Result<()> {
            let mut client = operator(stage).await;
            let revision =
                client.put("/elsewhere", "", None).await.during("putting")?.header().map_or(0, |h| h.revision());
            client.compact(revision, None).await.during("compacting").map(drop)
        };
        compact(&stage).await?;
        stage.add(5).await?;
        stage.settled().await?;
        stage
            .cost("compacted during a watch, a container started after it")
            .await?
            .must_fail_nobody()?
            .must_write(1)?;
        // While the agents hang on a node that does not answer, others write and compact.
        stage.agents(Signal::SIGSTOP)?;
        compact(&stage).await?;
        stage.etcd[0].restart(); // their watches are gone with it
        compact(&stage).await?;
        stage.agents(Signal::SIGCONT)?;
        recovered(&stage).await?;
        stage.cost("compacted during an outage").await?.must_fail_nobody()?.must_unroute_nobody()?;
        Ok(())
    })
}

#[test]
fn a_lease_revoked_from_outside_is_granted_anew_and_nobody_notices() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = alone(lab).await?;
        let before = stage.entries().await?;
        let lease = before[0].lease;
        operator(&stage).await.lease_client().revoke(lease).await.during("revoking")?;
        let anew = async || stage.entries().await.is_ok_and(|e| e.len() == 4 && e.iter().all(|e| e.lease != lease));
        wait::until_true("everything under a new lease", PATIENCE, anew).await?;
        recovered(&stage).await?;
        stage.cost("lease revoked from outside").await?.must_fail_nobody()?.must_unroute_nobody()?.must_write(4)?;
        Ok(())
    })
}

/// Puts keys until etcd takes no more.
async fn fill(client: &mut Client) {
    let mut number = 0;
    while client.put(format!("/elsewhere/{number}"), vec![b'x'; 100_000], None).await.is_ok() {
        number += 1;
        assert!(number < 100, "the quota does not hold");
    }
}

/// What an operator does about it: room is made, and the alarm goes.
async fn make_room(client: &mut Client) -> Result<()> {
    let gone = client.delete("/elsewhere/", Some(DeleteOptions::new().with_prefix())).await.during("deleting")?;
    let revision = gone.header().map_or(0, |header| header.revision());
    client.compact(revision, Some(CompactionOptions::new().with_physical())).await.during("compacting")?;
    client.defragment().await.during("defragmenting")?;
    let raised = client.alarm(AlarmAction::Get, AlarmType::None, None).await.during("asking for alarms")?;
    for alarm in raised.alarms() {
        let mut of = AlarmOptions::new();
        of.with_member(alarm.member_id());
        client.alarm(AlarmAction::Deactivate, alarm.alarm(), Some(of)).await.during("disarming an alarm")?;
    }
    Ok(())
}

#[test]
fn a_full_etcd_goes_on_serving_what_it_has_lets_the_dead_go_and_says_so_once() -> Result<()> {
    in_lab(async |lab| {
        let etcd = Etcd::start_with(&testing::etcd::binaries()[0], &["--quota-backend-bytes=1000000"]);
        // The lease outlives register's restart on a busy machine.
        let ttl = TTL * 3;
        let register = vec!["--ttl".to_owned(), humantime::format_duration(ttl).to_string()];
        let mut stage = Stage::start(lab, vec![etcd], &Setting { register, ..Setting::default() }).await?;
        let mut client = operator(&stage).await;
        fill(&mut client).await;
        wait::holds("service with the alarm raised", ttl + TTL, async || stage.load.so_far().failed() == 0).await?;
        stage.cost("out of space").await?.must_be_nothing()?;

        stage.add(5).await?;
        let said = async || stage.register.metric("register_store_full").await.is_ok_and(|full| full == 1.0);
        wait::until_true("register knowing that etcd is full", PATIENCE, said).await?;
        let status = stage.register.status().await?;
        assert_eq!(status["registry"]["alarm"], "NOSPACE", "{status}");
        // What stops is withdrawn, though something else in the same turn may wait.
        stage.drain(0);
        stage.crash(0);
        let gone = stage.key(0);
        wait::until_true("a withdrawal", PATIENCE, async || !stage.has(&gone).await).await?;
        wait::holds("service meanwhile", TTL * 2, async || stage.load.so_far().failed() == 0).await?;
        assert!(!stage.has(&stage.key(5)).await, "there was room after all");
        // An agent that starts now cannot make its claim anew; its former self's lease lives on.
        stage.register.process().kill();
        stage.register.process().restart()?;
        wait::holds("the registrations", ttl + TTL, async || stage.has(&stage.key(1)).await).await?;

        make_room(&mut client).await?;
        recovered(&stage).await?;
        let room = async || stage.register.log().contains("The registry has room again");
        wait::until_true("register saying that there is room", PATIENCE, room).await?;
        stage.cost("out of space, a start and a stop and a killed register meanwhile").await?.must_fail_nobody()?;
        let log = stage.register.log();
        let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        assert_eq!([lines("is full (NOSPACE)"), lines("has room again")], [2, 1], "each agent says it once: {log}");
        assert_eq!([lines("does not serve"), lines("serves again")], [0, 0], "{log}");
        Ok(())
    })
}

#[test]
fn a_hundred_thousand_foreign_keys_are_counted_and_left_alone() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = alone(lab).await?;
        let mut client = operator(&stage).await;
        for chunk in 0..1000 {
            let puts: Vec<_> = (0..100)
                .map(|n| {
                    let service = if n == 0 { SERVICE } else { "foreign" };
                    TxnOp::put(format!("/backends/{service}/{chunk}/{n}"), "\u{1}not a backend", None)
                })
                .collect();
            client.txn(Txn::new().and_then(puts)).await.during("putting foreign keys")?;
        }
        stage.add(5).await?;
        stage.settled().await?;
        stage
            .cost("100,000 foreign keys put, and a container started")
            .await?
            .must_fail_nobody()?
            .must_unroute_nobody()?;
        println!("discover holds {} MB", stage.discover.resident_memory()? / 1_000_000);
        stage.discover.crash_and_restart().await?;
        stage.stop(5).await?;
        stage.settled().await?;
        stage.cost("discover restarted among them, and a container stopped").await?.must_fail_nobody()?;
        Ok(())
    })
}
