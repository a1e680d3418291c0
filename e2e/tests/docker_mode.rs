//! `discover --docker`: the same pools straight from the local Docker, with no etcd at all.

use std::time::Duration;

use e2e::agents::Discover;
use e2e::docker::Spec;
use e2e::scene::{PATIENCE, loopback, routed, workers};
use e2e::traffic::{Load, Plan};
use e2e::{Result, free_port, haproxy, in_lab, wait};

#[test]
fn one_host_needs_no_etcd() -> Result<()> {
    in_lab(async |lab| {
        let docker = lab.docker().await?;
        let port = free_port();
        let (to, spec) = (loopback(port), Spec::served("web", port));
        // One is there before discover, one comes later: list and events.
        let first = docker.run(&spec).await?;
        let mut discover = Discover::new("discover", &haproxy::newest()?).spawn(lab, None)?;
        discover.ready().await?;
        routed(to, first.short()).await?;
        let second = docker.run(&spec).await?;
        routed(to, second.short()).await?;

        let (load, before) = (Load::start(&Plan::mixed(to)), workers(lab).await?);
        let both = async || [&first, &second].iter().all(|c| load.answered_by(c.short()) > 10);
        wait::until_true("load on both", PATIENCE, both).await?;
        first.stop(Duration::from_secs(10)).await?;
        let third = docker.run(&spec).await?;
        wait::until_true("load on the third", PATIENCE, async || load.answered_by(third.short()) > 10).await?;
        second.kill().await?;
        discover.crash_and_restart().await?;
        let answered = load.answered_by(third.short());
        wait::until_true("more load on it", PATIENCE, async || load.answered_by(third.short()) > answered + 100)
            .await?;
        load.stop().await.must_be_clean("containers came and went, and discover was killed")?;
        assert_eq!(workers(lab).await?, before, "HAProxy was reloaded or restarted");
        Ok(())
    })
}
