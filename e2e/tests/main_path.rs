//! The main path, through every real part: Docker → register → etcd → discover → HAProxy.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::docker::{Container, Spec};
use e2e::http::Client;
use e2e::scene::{PATIENCE, Scene, each_haproxy, loopback, routed, workers};
use e2e::traffic::{Load, Plan};
use e2e::{Context, Result, free_port, wait};

/// `docker stop`'s own default.
const GRACE: Duration = Duration::from_secs(10);

/// Waits until the load has reached all of them.
async fn under_load(load: &Load, containers: &[&Container]) -> Result<()> {
    wait::until_true("load on every container", PATIENCE, async || {
        containers.iter().all(|container| load.answered_by(container.short()) > 10)
    })
    .await
}

/// How often each POST was executed, over all containers; whoami logs each.
async fn executions(containers: &[&Container]) -> Result<BTreeMap<String, u32>> {
    let mut executions = BTreeMap::new();
    for container in containers {
        for line in container.log().await? {
            if let Some(request) = line.strip_prefix("executed ") {
                *executions.entry(request.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(executions)
}

#[test]
fn containers_come_and_go_without_a_failed_request() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let scene = Scene::start(lab, haproxy).await?;
        let port = free_port();
        let (to, spec) = (loopback(port), Spec::served("web", port));

        let first = scene.serve(&spec, to).await?;
        let entries = scene.entries("/backends/").await?;
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(entries[0].key, format!("/backends/web/{}", first.short()));
        assert_eq!(entries[0].value["port"], first.published("80/tcp").await?.port());
        assert_eq!(entries[0].value["host"], "127.0.0.1");
        assert_ne!(entries[0].lease, 0, "it must not outlive register");
        // From here on nothing is structure any more: no reload is due to anything below.
        let (before, reloads) = (workers(lab).await?, scene.discover.metric("discover_reloads_total").await?);
        assert!(reloads > 0.0, "the new section was one");

        let second = scene.serve(&spec, to).await?;
        let mut client = Client::new(to, true, PATIENCE);
        let mut names = Vec::new();
        for _ in 0..6 {
            names.push(client.get("/").await.during("asking")?.name().to_owned());
        }
        for container in [&first, &second] {
            assert_eq!(names.iter().filter(|name| *name == container.short()).count(), 3, "{names:?}");
        }

        let (load, posts) = (Load::start(&Plan::mixed(to)), Load::start(&Plan::posts(to, "order")));
        under_load(&load, &[&first, &second]).await?;
        first.stop(GRACE).await?;
        scene.registered(&first, false).await?;
        load.so_far().must_be_clean("a container was stopped")?;

        let third = scene.serve(&spec, to).await?;
        under_load(&load, &[&third]).await?;
        second.kill().await?;
        scene.registered(&second, false).await?;
        let (load, posts) = (load.stop().await, posts.stop().await);
        load.must_be_clean("one was stopped, one started, one killed")?;

        let executed = executions(&[&first, &second, &third]).await?;
        assert!(executed.len() > 20, "{posts}");
        assert!(executed.values().all(|times| *times == 1), "executed more than once: {executed:?}");
        assert_eq!(workers(lab).await?, before, "HAProxy was reloaded or restarted");
        assert_eq!(scene.discover.metric("discover_reloads_total").await?, reloads);
        Ok(())
    })
}

#[test]
fn restarts_of_the_plumbing_are_no_event_for_anybody() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let mut scene = Scene::start(lab, haproxy).await?;
        let port = free_port();
        let (to, spec) = (loopback(port), Spec::served("web", port));
        let first = scene.serve(&spec, to).await?;
        let (before, entries) = (workers(lab).await?, scene.entries("/backends/").await?);

        let load = Load::start(&Plan::mixed(to));
        under_load(&load, &[&first]).await?;

        scene.register.crash_and_restart().await?;
        assert_eq!(scene.entries("/backends/").await?, entries, "a restart of register rewrote something");
        load.so_far().must_be_clean("register was killed and restarted")?;

        scene.discover.crash_and_restart().await?;
        assert_eq!(workers(lab).await?, before, "a restart of discover reloaded or restarted HAProxy");
        assert_eq!(scene.discover.metric("discover_reloads_total").await?, 0.0);
        load.so_far().must_be_clean("discover was killed and restarted")?;

        scene.etcd.restart();
        let second = scene.serve(&spec, to).await?;
        under_load(&load, &[&first, &second]).await?;
        let kept: Vec<_> = scene.entries("/backends/").await?.into_iter().filter(|e| entries.contains(e)).collect();
        assert_eq!(kept, entries, "a restart of etcd made register write again");
        load.so_far().must_be_clean("etcd was killed and restarted")?;

        // All of it at once, and everything still follows.
        scene.register.process().restart()?;
        scene.discover.process().restart()?;
        scene.etcd.restart();
        let third = scene.docker.run(&spec).await?;
        routed(to, third.short()).await?;
        load.stop().await.must_be_clean("everything was restarted")?;
        assert_eq!(workers(lab).await?, before, "HAProxy was reloaded or restarted");
        Ok(())
    })
}
