//! What becomes of what is served when the way to etcd fails, slows down, or its credentials run out.

use std::time::Duration;

use e2e::forwarder::{Forwarder, Way};
use e2e::scene::loopback;
use e2e::stage::{Setting, Stage, TTL};
use e2e::{Etcd, Result, in_lab, wait};
use testing::etcd::{ROOT_PASSWORD, binaries};

/// A setting with these arguments for both agents.
fn with(both: &[&str]) -> Setting {
    Setting { both: both.iter().map(|arg| (*arg).to_owned()).collect(), ..Setting::default() }
}

/// Watches that nobody's request fails for so long.
async fn serves(stage: &Stage, time: Duration) -> Result<()> {
    wait::holds("service", time, async || stage.load.so_far().failed() == 0).await
}

#[test]
fn a_slow_a_silent_and_a_one_way_node_are_left_for_another() -> Result<()> {
    in_lab(async |lab| {
        let nodes = Etcd::cluster(3);
        let way = Forwarder::start(loopback(nodes[0].endpoint().port)).await?;
        // The other two are reached straight; whoever is at the bad one must leave it.
        let others = nodes[1..].iter().map(|node| node.endpoint().authority());
        let endpoints: Vec<_> = [way.address().to_string()].into_iter().chain(others).collect();
        let setting = Setting { endpoints: endpoints.join(","), ..Setting::default() };
        let mut stage = Stage::start(lab, nodes, &setting).await?;
        let faults = [
            ("latency of 2 s each way", Way::slow(Duration::from_secs(2))),
            ("silence", Way::HANGING),
            ("answers lost", Way::DEAF),
            ("requests lost", Way::MUTE),
        ];
        for (number, (fault, how)) in faults.into_iter().enumerate() {
            way.be(how);
            stage.add(5 + number).await?;
            stage.settled().await?;
            serves(&stage, TTL * 2).await?;
            way.be(Way::CLEAR);
            stage
                .cost(&format!("one node of three with {fault} for 2 × TTL"))
                .await?
                .must_fail_nobody()?
                .must_write(1)?;
        }
        Ok(())
    })
}

#[test]
fn with_a_second_to_etcd_and_back_everything_works_only_later() -> Result<()> {
    in_lab(async |lab| {
        let etcd = Etcd::start();
        let way = Forwarder::start(loopback(etcd.endpoint().port)).await?;
        let register = ["--ttl", "10s"].map(str::to_owned).to_vec();
        let setting = Setting { endpoints: way.address().to_string(), register, ..Setting::default() };
        let mut stage = Stage::start(lab, vec![etcd], &setting).await?;
        way.be(Way::slow(Duration::from_millis(500)));
        serves(&stage, Duration::from_secs(12)).await?;
        stage.cost("500 ms to etcd and 500 ms back, for longer than the TTL of 10 s").await?.must_be_nothing()?;
        stage.add(5).await?;
        stage.settled().await?;
        stage.cost("the same, and a container started").await?.must_fail_nobody()?.must_write(1)?;
        Ok(())
    })
}

#[test]
fn expired_tokens_are_renewed_and_nobody_notices() -> Result<()> {
    for binary in binaries() {
        in_lab(async |lab| {
            let mut etcd = Etcd::start_with(&binary, &["--auth-token-ttl=1"]);
            etcd.enable_auth().await;
            let setting = with(&["--etcd-user", "root", "--etcd-password", ROOT_PASSWORD]);
            let mut stage = Stage::start(lab, vec![etcd], &setting).await?;
            for turn in 0..3 {
                serves(&stage, TTL * 2).await?;
                stage.cost("tokens of 1 s, no change for 4 s").await?.must_be_nothing()?;
                stage.add(5 + turn).await?;
                stage.settled().await?;
                stage.cost("a container started after that").await?.must_fail_nobody()?.must_write(1)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn rotated_certificates_of_a_new_authority_are_taken_up_and_nobody_notices() -> Result<()> {
    in_lab(async |lab| {
        let etcd = Etcd::start_tls();
        let file = |name: &str| etcd.certs().path(name).to_string_lossy().into_owned();
        let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(file);
        let setting = with(&["--etcd-ca", &ca, "--etcd-cert", &cert, "--etcd-key", &key]);
        let mut stage = Stage::start(lab, vec![etcd], &setting).await?;
        stage.etcd[0].rotate_certs();
        serves(&stage, TTL).await?;
        stage.etcd[0].restart();
        serves(&stage, TTL * 2).await?;
        let cost =
            stage.cost("certificates of a new authority, first under open connections, then by a restart of etcd");
        cost.await?.must_be_nothing()?;
        stage.add(5).await?;
        stage.settled().await?;
        stage.cost("a container started after that").await?.must_fail_nobody()?.must_write(1)?;
        stage.all_answer().await
    })
}
