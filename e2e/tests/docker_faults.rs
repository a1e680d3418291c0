//! What a daemon that hangs, dies or restarts costs: real daemons on hosts of their own.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::docker::Container;
use e2e::flock::{Flock, registered};
use e2e::hosts::fleet::{Backend, Size};
use e2e::hosts::{Fleet, in_network};
use e2e::scene::{Entry, PATIENCE, entries, routed};
use e2e::traffic::{Load, Plan};
use e2e::{Etcd, Result, given, in_lab, wait};
use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The shortest that register takes, so that leases run out during a test.
const TTL: Duration = Duration::from_secs(2);
const SIZE: Size =
    Size { etcd: 1, backends: 1, ttl: "2s", dockerd: &["--live-restore"], etcd_away: None, haproxy: None };

async fn keys(fleet: &Fleet) -> Result<Vec<Entry>> {
    entries(&fleet.nodes[0].etcd, "/backends/").await
}

async fn count(fleet: &Fleet, count: usize) -> Result<()> {
    count_within(fleet, count, PATIENCE).await
}

async fn count_within(fleet: &Fleet, count: usize, patience: Duration) -> Result<()> {
    let there = async || keys(fleet).await.is_ok_and(|keys| keys.len() == count);
    wait::until_true(&format!("{count} registrations"), patience, there).await
}

/// The processes of the run's containers.
fn whoami(lab: &e2e::Lab) -> Vec<i32> {
    let root = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new("/whoami"));
    lab.processes("whoami").into_iter().filter(root).collect()
}

#[test]
fn a_daemon_that_hangs_or_dies_takes_no_container_with_it() -> Result<()> {
    in_network(async |lab, network| {
        let mut fleet = Fleet::start(lab, network, &SIZE).await?;
        fleet.serve(&[0, 0]).await?;
        let to = fleet.to();
        let (before, load) = (keys(&fleet).await?, Load::start(&Plan::mixed(to)));

        let hung = given::fault_length(TTL * 2);
        fleet.backends[0].dockerd.process().signal(Signal::SIGSTOP)?;
        tokio::time::sleep(hung).await; // the fault's own length
        assert_eq!(keys(&fleet).await?, before, "a hung daemon is no reason to write");
        fleet.backends[0].dockerd.process().signal(Signal::SIGCONT)?;
        let report = load.so_far();
        println!("FIGURE dockerd stopped for {hung:?}: {}; no key written", report.summary());
        report.must_be_clean("the daemon hung")?;
        fleet.serve(&[0]).await?;
        load.stop().await.must_be_clean("it went on, and one more container was started")?;

        // Stopped in order, as an upgrade of Docker does, and then killed.
        let (before, load) = (keys(&fleet).await?, Load::start(&Plan::mixed(to)));
        wait::until_true("load", PATIENCE, async || load.so_far().requests > 50).await?;
        fleet.backends[0].dockerd.process().stop(PATIENCE).await?;
        tokio::time::sleep(TTL * 2).await;
        assert_eq!(keys(&fleet).await?, before, "containers that live on are no reason to write");
        load.so_far().must_be_clean("the daemon was stopped")?;
        fleet.backends[0].dockerd.process().restart()?;
        fleet.backends[0].dockerd.answering().await?;
        wait::holds("its registrations", TTL, async || keys(&fleet).await.is_ok_and(|now| now == before)).await?;
        let (report, failing) = (load.so_far(), load.so_far().failing_for());
        println!(
            "FIGURE dockerd restarted in order, away for 4 s, live-restore: {} within {failing:?}",
            report.summary()
        );
        load.stop().await;
        fleet.serve(&[0]).await?;

        let (before, load) = (keys(&fleet).await?, Load::start(&Plan::mixed(to)));
        wait::until_true("load", PATIENCE, async || load.so_far().requests > 50).await?;
        fleet.backends[0].dockerd.process().kill();
        tokio::time::sleep(TTL * 2).await;
        assert_eq!(keys(&fleet).await?, before, "a dead daemon is no reason to write");
        fleet.backends[0].dockerd.process().restart()?;
        fleet.backends[0].dockerd.answering().await?;
        wait::holds("its registrations", TTL, async || keys(&fleet).await.is_ok_and(|now| now == before)).await?;
        let report = load.stop().await;
        // A daemon that starts makes its rules for published ports anew: for that moment nobody reaches its host.
        let failing = report.failing_for();
        println!("FIGURE dockerd killed -9, back after 4 s, live-restore: {} within {failing:?}", report.summary());
        for placed in &fleet.backends[0].containers {
            routed(to, &placed.name).await?;
        }

        // Dead again, and this time a container ends while nobody looks.
        fleet.backends[0].dockerd.process().kill();
        let victim = whoami(lab)[0];
        let load = Load::start(&Plan::mixed(to));
        kill(Pid::from_raw(victim), Signal::SIGKILL).ok();
        tokio::time::sleep(TTL).await;
        fleet.backends[0].dockerd.process().restart()?;
        let back = Instant::now();
        count(&fleet, fleet.backends[0].containers.len() - 1).await?;
        println!("FIGURE a container that ended in the gap left {:?} after the daemon's restart", back.elapsed());
        let report = load.stop().await;
        println!("FIGURE meanwhile: {} within {:?}", report.summary(), report.failing_for());
        let load = Load::start(&Plan::mixed(to));
        wait::until_true("load", PATIENCE, async || load.so_far().requests > 200).await?;
        load.stop().await.must_be_clean("the others were left")
    })
}

#[test]
fn a_daemon_that_restarts_without_live_restore_takes_its_containers_orderly() -> Result<()> {
    in_network(async |lab, network| {
        let mut fleet = Fleet::start(lab, network, &Size { backends: 2, dockerd: &[], ..SIZE }).await?;
        fleet.serve(&[0, 1]).await?;
        let (to, load) = (fleet.to(), Load::start(&Plan::mixed(fleet.to())));
        wait::until_true("load", PATIENCE, async || load.so_far().requests > 50).await?;
        fleet.backends[0].dockerd.process().stop(PATIENCE).await?;
        count(&fleet, 1).await?;
        assert_eq!(fleet.discover.metric("discover_held_backends").await?, 0.0, "somebody meant it to go");
        fleet.backends[0].dockerd.process().restart()?;
        fleet.backends[0].dockerd.answering().await?;
        let placed = &fleet.backends[0].containers[0];
        placed.container.start().await?;
        routed(to, &placed.name).await?;
        count(&fleet, 2).await?;
        let report = load.stop().await;
        println!("FIGURE dockerd stopped with its containers, and started: {report}");
        report.must_be_clean("a daemon was restarted")
    })
}

/// How long a busy machine may take for them.
const MANY: Duration = Duration::from_mins(2);
/// How many containers a real daemon starts at once; E2E_CONTAINERS says otherwise.
const AT_ONCE: usize = 30;

#[test]
fn many_started_at_once_by_a_real_daemon_are_all_registered_and_routed() -> Result<()> {
    let many = given::or("E2E_CONTAINERS", AT_ONCE);
    in_network(async |lab, network| {
        let mut fleet = Fleet::start(lab, network, &SIZE).await?;
        fleet.serve(&[0]).await?;
        let load = Load::start(&Plan::mixed(fleet.to()));
        let backend = &mut fleet.backends[0];
        let specs: Vec<_> = (0..many).map(|_| Backend::spec()).collect();
        let made = join_all(specs.iter().map(|spec| backend.docker.create(spec))).await;
        let containers = made.into_iter().collect::<Result<Vec<_>>>()?;
        let at = Instant::now();
        let started = async {
            join_all(containers.iter().map(Container::start)).await.into_iter().collect::<Result<Vec<()>>>()?;
            Ok::<_, e2e::LabError>(at.elapsed())
        };
        let started = started.await?;
        count_within(&fleet, many + 1, MANY).await?;
        let registered = at.elapsed();
        let up = |status: &String| status.starts_with("UP");
        let all_up = wait::until("servers in HAProxy", MANY, async || match fleet.servers().await {
            Ok(servers) => (servers.values().filter(|s| up(s)).count() == many + 1).then_some(()),
            Err(_) => None,
        });
        all_up.await?;
        println!(
            "FIGURE {many} containers started at once by a real daemon: Docker took {started:?}, all registered after \
             {registered:?}, all routed after {:?}",
            at.elapsed()
        );
        let report = load.stop().await;
        println!("FIGURE meanwhile: {}", report.summary());
        report.must_be_clean("many containers were started at once")
    })
}

#[test]
fn a_hundred_at_once_and_changes_while_the_stream_is_cut_all_arrive() -> Result<()> {
    const ALL: usize = 100;
    in_lab(async |lab| {
        let (etcd, mut flock) = (Etcd::start(), Flock::new(lab, ALL, &[]).await?);
        let mut client = etcd.operator().await;
        let agent = flock.agent(lab, &etcd, &["--ttl", "2s", "--resync", "10m"]).await?;
        let at = Instant::now();
        (0..ALL).for_each(|number| flock.start(number));
        let mut all = async |count: usize| {
            let there = async || registered(&mut client).await.is_ok_and(|n| n == count);
            wait::until_true(&format!("{count} registrations"), PATIENCE, there).await
        };
        all(ALL).await?;
        println!("FIGURE {ALL} containers at once: all registered after {:?}", at.elapsed());

        // Away for longer than the lease; 50 end and nobody says so.
        flock.api.go_away();
        (0..50).for_each(|number| flock.api.remove(number));
        tokio::time::sleep(TTL * 2).await;
        all(ALL).await?;
        flock.api.listen();
        let back = Instant::now();
        all(ALL - 50).await?;
        println!("FIGURE 50 that ended while the stream was cut left {:?} after it was back", back.elapsed());
        (0..50).for_each(|number| flock.start_silently(number));
        flock.api.cut();
        all(ALL).await?;
        drop(agent);
        Ok(())
    })
}
