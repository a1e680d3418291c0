//! HAProxy that dies, hangs, or cannot be spoken to.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::one_service;
use super::support::proxy::{Habit, SocketProxy};
use super::support::traffic::{HttpBackend, Load};
use super::support::world::{World, backend, each};
use super::support::{eventually, free_port, get, version};

#[tokio::test]
async fn a_worker_or_master_that_dies_is_started_again_within_seconds() {
    for program in each() {
        let (mut world, port, http) = one_service(World::new(&program)).await;
        let other = HttpBackend::start("b1").await;
        for victim in ["worker", "master", "master of another discover"] {
            let (master, worker) = world.processes().await;
            if victim.ends_with("discover") {
                world.restart();
                world.settle().await;
            }
            world.kill(if victim == "worker" { worker } else { master }).await;
            world.want("web", vec![backend("b1", other.address, port)]);
            let began = std::time::Instant::now();
            world.turns_until("it serves again", async |_| get(port).await == "b1").await;
            eprintln!("{}: after the {victim} was killed: {:?}", world.version(), began.elapsed());
            assert!(began.elapsed() < Duration::from_secs(6), "{victim}: {:?}", began.elapsed());
            world.want("web", vec![backend("b0", http.address, port)]);
            world.settle().await;
            assert_ne!(world.processes().await.0, master);
            world.assert_disk_is_what_runs().await;
        }
    }
}

#[tokio::test]
async fn haproxy_that_died_while_its_port_was_taken_goes_on_with_the_other_services() {
    for program in each() {
        let (mut world, port, http) = one_service(World::new(&program)).await;
        let other = free_port();
        world.want("other", vec![backend("b0", http.address, other)]);
        world.settle().await;
        world.kill(world.processes().await.0).await;
        let mut stranger = None;
        eventually("the port can be taken", async || {
            stranger = TcpListener::bind(("127.0.0.1", other)).ok();
            stranger.is_some()
        })
        .await;
        world.turns_until("it serves again", async |_| get(port).await == "b0").await;
        assert!(!std::fs::read_to_string(&world.settings.config_file).unwrap().contains(&other.to_string()));
        drop(stranger);
        world.turns_until("both serve", async |_| get(other).await == "b0").await;
    }
}

/// Whatever the runtime socket does, nothing is lost, and all is well once it works again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_is_missing_stale_refusing_or_closing_mid_reply_is_survived() {
    for program in each() {
        let mut world = World::new(&program);
        let proxy = SocketProxy::start(&world.path("proxy.sock"), &world.settings.socket);
        world.through(proxy.path());
        let (mut world, port, http) = one_service(world).await;
        let load = Load::start(port, 4);
        let other = HttpBackend::start("b1").await;
        for habit in [Habit::CloseMidReply, Habit::Missing, Habit::Stale, Habit::Close] {
            proxy.be(habit);
            world.want("web", vec![backend("b0", http.address, port), backend("b1", other.address, port)]);
            for _ in 0..2 {
                let _ = world.turn().await; // may fail, must not hang
            }
            proxy.be(Habit::Forward);
            world.settle().await;
            assert!(world.state("b1").await.is_some_and(|s| !s.admin.in_maintenance()), "{habit:?}");
            assert_eq!(world.on_disk(), world.running().await, "{habit:?}");
            world.want("web", vec![backend("b0", http.address, port)]);
            world.settle().await;
        }
        load.finish().await;
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test]
async fn where_the_runtime_socket_was_removed_discover_goes_through_the_master() {
    for program in each() {
        let (mut world, port, _http) = one_service(World::new(&program)).await;
        std::fs::remove_file(&world.settings.socket).unwrap();
        world.restart();
        let other = HttpBackend::start("b1").await;
        world.want("web", vec![backend("b1", other.address, port)]);
        world.turns_until("it serves what is desired", async |_| get(port).await == "b1").await;
        world.settle().await;
        assert!(world.reloads().is_empty(), "HAProxy {}: {:?}", world.version(), world.reloads());
    }
}

/// The package manager puts another version in the place of the running one: at the next reload the master executes that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_in_the_place_of_the_program_is_noticed_and_changes_go_on() {
    let all = each();
    let pairs = all.iter().flat_map(|old| all.iter().map(move |new| (old, new))).filter(|(old, new)| old != new);
    for (old, new) in pairs {
        let dir = tempfile::tempdir().unwrap();
        let (program, newer) = (dir.path().join("haproxy"), dir.path().join("haproxy.new"));
        std::fs::copy(old, &program).unwrap();
        let (mut world, port, http) = one_service(World::new(&program)).await;
        std::fs::copy(new, &newer).unwrap();
        std::fs::rename(&newer, &program).unwrap();
        let installed = version(new).to_string();
        let seen = |world: &World| world.haproxy.status().lock().unwrap().installed.clone();
        world.turns_until("it is noticed", async |world| seen(world) == Some(installed.clone())).await;
        let other = free_port();
        world.want("other", vec![backend("b0", http.address, other)]);
        let began = Instant::now();
        world.turns_until("the new service is served", async |_| get(other).await == "b0").await;
        assert!(began.elapsed() < Duration::from_secs(15), "{old:?} to {new:?}: {:?}", began.elapsed());
        let running = world.haproxy.status().lock().unwrap().version.clone();
        assert_eq!((running, get(port).await), (Some(installed), "b0".to_owned()));
    }
}
