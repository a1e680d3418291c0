//! What etcd's faults and absences do to what is served: nothing.

use std::time::Duration;

use e2e::agents::{Discover, Register};
use e2e::docker::Spec;
use e2e::scene::{PATIENCE, Scene, loopback, routed};
use e2e::traffic::{Load, Plan};
use e2e::{Context, Etcd, Result, free_port, haproxy, in_lab, wait};
use etcd_client::DeleteOptions;

/// The shortest that register takes, so that tests see leases run out.
const TTL: Duration = Duration::from_secs(2);

/// A scene whose leases are short, a service in it, and load on that.
async fn short_leases(lab: &e2e::Lab) -> Result<(Scene, e2e::docker::Container, Load)> {
    let docker = lab.docker().await?;
    let etcd = Etcd::start();
    let register = Register::new("register").args(&["--ttl", "2s"]).start(lab, &etcd).await?;
    let discover = Discover::new("discover", &haproxy::newest()?).start(lab, &etcd).await?;
    let scene = Scene { discover, register, etcd, docker };
    let port = free_port();
    let container = scene.serve(&Spec::served("web", port), loopback(port)).await?;
    let load = Load::start(&Plan::mixed(loopback(port)));
    Ok((scene, container, load))
}

#[test]
fn agents_that_start_before_etcd_wait_for_it() -> Result<()> {
    in_lab(async |lab| {
        let docker = lab.docker().await?;
        let mut etcd = Etcd::start();
        let authority = etcd.endpoint().authority();
        etcd.kill();
        let mut register = Register::new("register").spawn(lab, &authority)?;
        let mut discover = Discover::new("discover", &haproxy::newest()?).spawn(lab, Some(&authority))?;
        let port = free_port();
        let container = docker.run(&Spec::served("web", port)).await?;
        for (agent, what) in [(&mut register, "register"), (&mut discover, "discover")] {
            wait::until_true(&format!("{what} saying that etcd refuses"), PATIENCE, async || {
                agent.log().contains("refused")
            })
            .await?;
            assert!(agent.process().is_running(), "{what} gave up");
        }
        etcd.restart();
        routed(loopback(port), container.short()).await?;
        register.ready().await?;
        discover.ready().await
    })
}

#[test]
fn a_frozen_etcd_that_forgets_the_lease_drops_nobody() -> Result<()> {
    in_lab(async |lab| {
        let (scene, container, load) = short_leases(lab).await?;
        let before = scene.entries("/backends/").await?;
        scene.etcd.freeze();
        wait::holds("service while etcd is frozen", TTL * 3, async || load.so_far().failed() == 0).await?;
        scene.etcd.thaw();
        scene.registered(&container, true).await?;
        let again = async || {
            let entries = scene.entries("/backends/").await.unwrap_or_default();
            entries.len() == 1 && (entries == before || entries[0].lease != before[0].lease)
        };
        wait::until_true("its registration, under the old lease or a new one", PATIENCE, again).await?;
        wait::holds("service afterwards", TTL, async || load.so_far().failed() == 0).await?;
        load.stop().await.must_be_clean("etcd was frozen beyond the lease's life")
    })
}

#[test]
fn an_agent_that_dies_leaves_its_last_backends_served_until_told_otherwise() -> Result<()> {
    in_lab(async |lab| {
        let (mut scene, container, load) = short_leases(lab).await?;
        scene.register.process().kill();
        scene.registered(&container, false).await?;
        let held = async || scene.discover.metric("discover_held_backends").await.is_ok_and(|held| held > 0.0);
        wait::until_true("the guard holding it", PATIENCE, held).await?;
        let before = load.answered_by(container.short());
        wait::until_true("it still serving", PATIENCE, async || load.answered_by(container.short()) > before + 100)
            .await?;
        scene.register.process().restart()?;
        scene.register.ready().await?;
        scene.registered(&container, true).await?;
        let released = async || scene.discover.metric("discover_held_backends").await.is_ok_and(|held| held == 0.0);
        wait::until_true("the hold's end", PATIENCE, released).await?;
        load.stop().await.must_be_clean("register was dead for longer than its lease")
    })
}

#[test]
fn what_an_operator_deletes_by_mistake_is_registered_again() -> Result<()> {
    in_lab(async |lab| {
        let (scene, container, load) = short_leases(lab).await?;
        let mut client = scene.etcd.operator().await;
        let all = DeleteOptions::new().with_all_keys();
        client.delete("", Some(all)).await.during("deleting every key")?;
        scene.registered(&container, true).await?;
        load.stop().await;
        Ok(())
    })
}
