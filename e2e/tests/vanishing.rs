//! A host that vanishes under load: its packets are lost both ways, from one moment to the next, and nobody says a word.

use std::time::{Duration, Instant};

use e2e::docker::Spec;
use e2e::hosts::fleet::{Backend, Size};
use e2e::hosts::links::Way;
use e2e::hosts::{Fleet, Link, in_network};
use e2e::scene::{PATIENCE, routed};
use e2e::traffic::{Load, Plan};
use e2e::{Result, haproxy, wait};

/// Requests from the moment on that a host vanishes.
const REQUESTS: u64 = 2_000;
/// As long as a busy machine may take for what takes 3 s.
const SLOWEST: Duration = Duration::from_secs(6);

/// What clients notice when the last host vanishes. It is there again at the end.
async fn vanish(fleet: &mut Fleet, what: &str) -> Result<Duration> {
    let lost = fleet.backends[2].host.clone();
    let mut others = fleet.etcd_addresses();
    others.push(fleet.client.address());
    let plan =
        Plan { keep_alive: 30, closing: 0, rate: 10, at_most: Duration::from_mins(5), ..Plan::mixed(fleet.to()) };
    let load = Load::start(&plan);
    wait::until_true("load", PATIENCE, async || load.so_far().requests > 300).await?;
    let before = load.so_far().requests;
    let cut = Link::cut(&lost, &others, Way::Both)?;
    let at = Instant::now();
    wait::until_true("requests", Duration::from_mins(2), async || load.so_far().requests > before + REQUESTS).await?;
    let report = load.stop().await;
    println!("FIGURE {what}: {}; slowest {:?}, in {:?}", report.summary(), report.slowest(), at.elapsed());
    cut.heal()?;
    report.must_be_clean(what)?;
    Ok(report.slowest())
}

/// Waits until HAProxy has this many servers that take requests; below 3.0 retired ones linger beside them.
async fn up(fleet: &mut Fleet, count: usize) -> Result<()> {
    wait::until_true(&format!("{count} servers up"), PATIENCE, async || {
        let servers = fleet.servers().await.unwrap_or_default();
        servers.values().filter(|status| status.starts_with("UP")).count() == count
    })
    .await
}

#[test]
fn a_host_that_vanishes_costs_no_get() -> Result<()> {
    for haproxy in haproxy::all()? {
        let version = haproxy.version.clone();
        in_network(async |lab, network| {
            let size = Size { etcd: 1, backends: 3, ttl: "2s", haproxy: Some(haproxy), ..Size::default() };
            let mut fleet = Fleet::start(lab, network, &size).await?;
            fleet.serve(&[0, 1, 2]).await?;
            // Another service costs a reload, so that all servers of the first one are the file's.
            let other = Spec { publish: Backend::spec().publish, ..Spec::served("other", 8001) };
            let other = fleet.backends[0].docker.run(&other).await?;
            routed((fleet.client.address(), 8001).into(), other.short()).await?;
            up(&mut fleet, 3).await?;
            let slowest =
                vanish(&mut fleet, &format!("a host vanishes, servers of the file, HAProxy {version}")).await?;
            assert!(slowest < SLOWEST, "{slowest:?}");
            up(&mut fleet, 3).await?;

            // Servers that are added at run time have no tcp-ut: there the kernel's own patience has to be shorter.
            fleet.client.run("sysctl -q -w net.ipv4.tcp_retries2=3")?;
            fleet.serve(&[0, 1, 2]).await?;
            for backend in &mut fleet.backends {
                backend.containers.remove(0).container.stop(Duration::from_secs(10)).await?;
            }
            up(&mut fleet, 3).await?;
            vanish(&mut fleet, &format!("a host vanishes, servers added at run time, HAProxy {version}")).await?;
            Ok(())
        })?;
    }
    Ok(())
}
