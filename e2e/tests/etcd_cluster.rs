//! A cluster of three etcd nodes that loses one, its leader, its quorum, and all: what that does to what is served. Nothing.

use std::time::Duration;

use e2e::scene::PATIENCE;
use e2e::stage::{Setting, Stage, TTL};
use e2e::{Etcd, Result, given, in_lab, wait};

/// How often the leader is killed.
const LEADERS: usize = 3;
/// Longer than a lease lives, by far.
const BEYOND: Duration = Duration::from_millis(3 * 2000 + 500);

/// The number of the node that leads.
async fn leader(stage: &Stage) -> Result<usize> {
    wait::until("a leader", PATIENCE, async || {
        for (number, node) in stage.etcd.iter().enumerate() {
            if node.is_running() && node.leads().await {
                return Some(number);
            }
        }
        None
    })
    .await
}

#[test]
fn a_node_and_then_leader_after_leader_is_killed() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = Stage::start(lab, Etcd::cluster(3), &Setting::default()).await?;
        let follower = (leader(&stage).await? + 1) % 3;
        stage.etcd[follower].kill();
        wait::holds("service with two of three", TTL * 2, async || stage.load.so_far().failed() == 0).await?;
        stage.etcd[follower].restart();
        stage.cost("one node of three killed, and back").await?.must_be_nothing()?;
        for turn in 0..LEADERS {
            let leader = leader(&stage).await?;
            stage.etcd[leader].kill();
            // What changes meanwhile arrives.
            stage.add(10 + turn).await?;
            stage.settled().await?;
            let cost = stage.cost("the leader killed, and a container started meanwhile").await?;
            cost.must_fail_nobody()?.must_write(1)?;
            stage.etcd[leader].restart();
        }
        stage.all_answer().await?;
        stage.cost("back to three nodes").await?.must_be_nothing()
    })
}

#[test]
fn all_are_stopped_then_the_quorum_is_lost_for_longer_than_the_ttl_and_nothing_is_deleted() -> Result<()> {
    in_lab(async |lab| {
        let mut stage = Stage::start(lab, Etcd::cluster(3), &Setting::default()).await?;
        let away = given::fault_length(BEYOND);
        stage.etcd.iter_mut().for_each(Etcd::kill);
        wait::holds("service without etcd", away, async || stage.load.so_far().failed() == 0).await?;
        stage.etcd.iter_mut().for_each(Etcd::launch);
        stage.etcd.iter_mut().for_each(Etcd::served);
        wait::holds("the registrations", TTL * 2, async || stage.load.so_far().failed() == 0).await?;
        stage.settled().await?;
        stage.cost(&format!("all three stopped for {away:?}, and back")).await?.must_be_nothing()?;

        let lost = [(leader(&stage).await?), (leader(&stage).await? + 1) % 3];
        lost.iter().for_each(|number| stage.etcd[*number].kill());
        // A container dies unseen by the registry: HAProxy's checks find it out, and nobody's request fails.
        stage.crash(2);
        stage.routed().await?;
        wait::holds("service without a quorum", away, async || stage.load.so_far().failed() == 0).await?;
        lost.iter().for_each(|number| stage.etcd[*number].launch());
        lost.iter().for_each(|number| stage.etcd[*number].served());
        stage.settled().await?;
        let cost = stage.cost(&format!("quorum lost for {away:?}, a container dead meanwhile, and regained")).await?;
        cost.must_fail_nobody()?.must_unroute_nobody()?.must_write(1)?;
        Ok(())
    })
}
