//! What broken links between hosts cost: backend hosts, a client host and etcd, each in a network of its own.

use std::time::{Duration, Instant};

use e2e::agents::Register;
use e2e::hosts::fleet::Size;
use e2e::hosts::host::on_a_machine;
use e2e::hosts::links::Way;
use e2e::hosts::{Fleet, Link, in_network};
use e2e::scene::{PATIENCE, routed};
use e2e::traffic::{Load, Plan};
use e2e::{Context, Result, given, wait};

/// How long links flap, in seconds; E2E_FLAPPING says otherwise.
const FLAPPING: u64 = 12;
/// The shortest that register takes, so that leases run out during a test.
const TTL: Duration = Duration::from_secs(2);
const SIZE: Size = Size { etcd: 1, backends: 3, ttl: "2s", dockerd: &[], etcd_away: None, haproxy: None };

async fn keys(fleet: &Fleet, count: usize) -> Result<()> {
    let there = async || fleet.keys().await.is_ok_and(|keys| keys.len() == count);
    wait::until_true(&format!("{count} registrations"), PATIENCE, there).await
}

/// Waits until HAProxy has exactly this many servers that take requests.
async fn up(fleet: &mut Fleet, count: usize) -> Result<()> {
    wait::until_true(&format!("{count} servers up"), PATIENCE, async || {
        fleet.servers().await.is_ok_and(|servers| servers.values().filter(|s| s.starts_with("UP")).count() == count)
    })
    .await
}

async fn held(fleet: &Fleet, count: f64) -> Result<()> {
    let holds = async || fleet.discover.metric("discover_held_backends").await.is_ok_and(|held| held == count);
    wait::until_true(&format!("{count} backends held"), PATIENCE, holds).await
}

/// Waits until all three are registered and routed, and nothing is held any more.
async fn settled(fleet: &mut Fleet) -> Result<()> {
    keys(fleet, 3).await?;
    held(fleet, 0.0).await?;
    up(fleet, 3).await
}

/// Requests of both kinds until `fault` is over; what they met is printed, for docs/reliability.md.
async fn cost(
    what: &str,
    fleet: &mut Fleet,
    fault: impl AsyncFnOnce(&mut Fleet) -> Result<()>,
) -> Result<e2e::traffic::Report> {
    let plan = Plan { at_most: Duration::from_mins(10), ..Plan::mixed(fleet.to()) };
    let (load, started) = (Load::start(&plan), Instant::now());
    wait::until_true("load", PATIENCE, async || load.so_far().requests > 50).await?;
    fault(fleet).await.during(what)?;
    let report = load.stop().await;
    let (failing, slowest) = (report.failing_for(), report.slowest());
    println!("FIGURE {what}: {:?}; {}, within {failing:?}; slowest {slowest:?}", started.elapsed(), report.summary());
    Ok(report)
}

#[test]
fn registers_cut_from_etcd_cost_no_request_however_they_are_cut() -> Result<()> {
    in_network(async |lab, network| {
        let mut fleet = Fleet::start(lab, network, &SIZE).await?;
        fleet.serve(&[0, 1, 2]).await?;
        let etcd = fleet.etcd_addresses();
        let hosts: Vec<_> = fleet.backends.iter().map(|backend| backend.host.clone()).collect();

        for way in [Way::Both, Way::In, Way::Out] {
            let what = format!("one host cut from etcd, {way:?}");
            let report = cost(&what, &mut fleet, async |fleet| {
                let cut = Link::cut(&hosts[0], &etcd, way)?;
                keys(fleet, 2).await?;
                cut.heal()?;
                keys(fleet, 3).await
            });
            report.await?.must_be_clean("one host was cut from etcd")?;
        }

        let seconds = given::or("E2E_FLAPPING", FLAPPING);
        let what = format!("all hosts' links to etcd flap for {seconds} s, 1 s cut and 1 s whole");
        let flapping = cost(&what, &mut fleet, async |fleet| {
            let cuts = hosts.iter().map(|host| Link::cut(host, &etcd, Way::Both)).collect::<Result<Vec<_>>>()?;
            for second in 1..seconds {
                tokio::time::sleep(Duration::from_secs(1)).await; // the fault's own length
                let change = if second % 2 == 0 { Link::again } else { Link::heal };
                cuts.iter().try_for_each(change)?;
            }
            if seconds % 2 == 1 {
                cuts.iter().try_for_each(Link::heal)?;
            }
            settled(fleet).await
        });
        flapping.await?.must_be_clean("all links to etcd flapped")?;

        let all = cost("all hosts cut from etcd for 3 x TTL", &mut fleet, async |fleet| {
            let cuts = hosts.iter().map(|host| Link::cut(host, &etcd, Way::Both)).collect::<Result<Vec<_>>>()?;
            keys(fleet, 0).await?;
            // Their leases end one after the other: the first is let go, as less than half of the pool, and comes back with the second.
            held(fleet, 3.0).await?;
            up(fleet, 3).await?;
            tokio::time::sleep(TTL * 2).await; // the fault's own length
            held(fleet, 3.0).await?;
            up(fleet, 3).await?;
            cuts.iter().try_for_each(Link::heal)?;
            settled(fleet).await
        });
        all.await?.must_be_clean("all hosts were cut from etcd")
    })
}

#[test]
fn a_client_host_cut_off_serves_on_and_catches_up() -> Result<()> {
    in_network(async |lab, network| {
        let mut fleet = Fleet::start(lab, network, &SIZE).await?;
        fleet.serve(&[0, 1, 2]).await?;
        let (client, etcd) = (fleet.client.clone(), fleet.etcd_addresses());

        let report = cost(
            "client host cut from etcd; one container started, one stopped meanwhile",
            &mut fleet,
            async |fleet| {
                let cut = Link::cut(&client, &etcd, Way::Both)?;
                let new = fleet.backends[0].run().await?.name.clone();
                keys(fleet, 4).await?;
                fleet.backends[1].containers[0].container.stop(Duration::from_secs(10)).await?;
                keys(fleet, 3).await?;
                assert_eq!(fleet.servers().await?.len(), 3, "nobody can have told it");
                cut.heal()?;
                let (healed, to) = (Instant::now(), fleet.to());
                routed(to, &new).await?;
                println!("FIGURE caught up {:?} after the link was healed", healed.elapsed());
                wait::until_true("the stopped one's end", PATIENCE, async || {
                    fleet
                        .servers()
                        .await
                        .is_ok_and(|servers| !servers.contains_key(&fleet.backends[1].containers[0].address))
                })
                .await
            },
        );
        report.await?.must_be_clean("the client host was cut from etcd")?;

        // From here on, one of the three is cut from the client only: nothing tells anybody but HAProxy's own checks.
        let lost = fleet.backends[2].host.clone();
        let cut = Link::cut(&client, &[lost.address()], Way::Both)?;
        cut.heal()?;
        let report = cost("client host cut from one backend host of three", &mut fleet, async |fleet| {
            let at = Instant::now();
            cut.again()?;
            up(fleet, 2).await?;
            println!("FIGURE HAProxy's checks took it out after {:?}", at.elapsed());
            Ok(())
        });
        let report = report.await?;
        assert!(report.failing_for() < Duration::from_secs(20), "{report}");
        let without = cost("afterwards, still cut", &mut fleet, async |fleet| {
            tokio::time::sleep(TTL).await; // a span to look at
            cut.heal()?;
            up(fleet, 3).await
        });
        without.await?.must_be_clean("its dead server was known, and when it came back")?;
        assert_eq!(fleet.keys().await?.len(), 3, "its registration is nobody's business but its own host's");
        Ok(())
    })
}

#[test]
fn loss_and_delay_on_the_way_to_etcd_cost_time_and_nothing_else() -> Result<()> {
    in_network(async |lab, network| {
        let size = Size { etcd: 1, backends: 2, etcd_away: Some(Duration::from_millis(100)), ttl: "10s", ..SIZE };
        let mut fleet = Fleet::start(lab, network, &size).await?;
        let observer = [network.observer()];
        let lossy: Vec<_> =
            fleet.backends.iter().map(|b| Link::lossy(&b.host, &observer, 0.05)).collect::<Result<_>>()?;
        let client = Link::lossy(&fleet.client, &observer, 0.05)?;
        fleet.serve(&[0, 1]).await?;
        let report = cost("5 % loss, 200 ms there and back to etcd; a start and a stop", &mut fleet, async |fleet| {
            let (at, to) = (Instant::now(), fleet.to());
            let new = fleet.backends[0].run().await?.name.clone();
            let started = at.elapsed();
            routed(to, &new).await?;
            println!(
                "FIGURE routed {:?} after its start was asked for, of which Docker took {started:?}",
                at.elapsed()
            );
            fleet.backends[1].containers[0].container.stop(Duration::from_secs(10)).await?;
            keys(fleet, 2).await
        });
        report.await?.must_be_clean("the way to etcd was long and lossy")?;
        lossy.iter().chain([&client]).try_for_each(Link::heal)
    })
}

#[test]
fn an_address_that_changes_on_a_running_host_is_published_anew() -> Result<()> {
    in_network(async |lab, network| {
        let mut fleet = Fleet::start(lab, network, &SIZE).await?;
        let (new, etcd) = (network.spare_address(), fleet.etcd());
        // On the first host the agent works the address out by itself.
        let moving = &mut fleet.backends[0];
        let args = ["--docker-host", &moving.dockerd.host(), "--ttl", SIZE.ttl, "--resync", "1s"];
        let mut register = Register::new("b1-register").on(&moving.host).args(&args);
        register.under = on_a_machine();
        moving.register.process().kill();
        moving.register = register.spawn(lab, &etcd)?;
        moving.register.ready().await?;
        fleet.serve(&[0, 1, 2]).await?;
        let port = fleet.backends[0].containers[0].address.port();

        let host = fleet.backends[0].host.clone();
        let report = cost("the address of one host of three changes", &mut fleet, async |fleet| {
            let at = Instant::now();
            host.readdress(new)?;
            wait::until_true("the new address in HAProxy", PATIENCE, async || {
                let servers = fleet.servers().await.unwrap_or_default();
                servers.get(&(new, port).into()).is_some_and(|status| status.starts_with("UP"))
            })
            .await?;
            println!("FIGURE routed under its new address {:?} after the change", at.elapsed());
            settled(fleet).await?;
            let servers = fleet.servers().await?;
            assert!(!servers.contains_key(&(host.address(), port).into()), "the old one is forgotten: {servers:?}");
            assert!(fleet.backends[0].register.log().contains("This host's address changed"));
            Ok(())
        });
        let report = report.await?;
        assert!(report.failing_for() < Duration::from_secs(20), "{report}");
        let without = cost("afterwards", &mut fleet, async |_| Ok(()));
        without.await?.must_be_clean("the host had its new address")
    })
}
