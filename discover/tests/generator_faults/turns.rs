//! Turns are bounded and fair: what one service does keeps no other waiting, whether it is large or restless.

use std::net::SocketAddr;
use std::time::Duration;

use discover::generators::haproxy::turn::slices::MOST;
use model::{Backend, Mode};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::support::traffic::HttpBackend;
use super::support::world::{World, backend, each};
use super::support::{free_port, get};

/// Backends that nobody answers for, each at an address of its own.
fn crowd(count: u32, service_port: u16) -> Vec<Backend> {
    let address = |n: u32| SocketAddr::from(([127, 100, (n / 250) as u8, (n % 250 + 1) as u8], 24_499));
    (0..count).map(|n| backend(&format!("n{n}"), address(n), service_port)).collect()
}

/// Two services that serve, with checks so rare that a crowd's cost nothing.
async fn two_services(program: &std::path::Path) -> (World, [u16; 2], HttpBackend) {
    let mut world = World::with(program, |s| s.check = "check inter 100s".into());
    let (ports, http) = ([free_port(), free_port()], HttpBackend::start("b0").await);
    world.want("crowd", vec![backend("b0", http.address, ports[0])]);
    world.want("web", vec![backend("b0", http.address, ports[1])]);
    world.settle().await;
    (world, ports, http)
}

fn behind(world: &World) -> usize {
    world.haproxy.status().lock().unwrap().behind.values().sum()
}

/// Ten thousand need minutes on HAProxy 3.0 without ids, and seconds with them; nobody else's change waits for them.
#[tokio::test]
async fn a_change_and_a_death_are_not_kept_waiting_by_ten_thousand_that_arrive() {
    for program in each() {
        let (mut world, ports, _http) = two_services(&program).await;
        let other = HttpBackend::start("b1").await;
        world.want("crowd", crowd(10_000, ports[0]));
        world.turn().await.unwrap();
        assert!(world.states().await.len() <= 2 * MOST, "one turn is a slice");
        assert!(behind(&world) > 9_000);
        // The old backend of `web` dies, and another one comes.
        world.want("web", vec![backend("b1", other.address, ports[1])]);
        let began = Instant::now();
        world.turn().await.unwrap();
        assert_eq!(get(ports[1]).await, "b1");
        assert!(world.states().await.iter().all(|s| s.section != "web" || s.name == "b1" || s.admin.in_maintenance()));
        let took = began.elapsed();
        eprintln!("HAProxy {}: routed after {took:?}, {} still to come", world.version(), behind(&world));
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(behind(&world) > 5_000, "it did not wait for the crowd");
        for _ in 0..10 {
            world.turn().await.unwrap();
        }
        let slowest = world.turns.iter().rev().take(10).max().copied();
        eprintln!("slowest turn of ten: {slowest:?}");
        // Those that came are withdrawn in slices, too, and `web` changes in between.
        world.want("crowd", crowd(1, ports[0]));
        world.want("web", vec![backend("b1", other.address, ports[1]), backend("b2", other.address, ports[1])]);
        world.turn().await.unwrap();
        assert!(world.states().await.iter().any(|s| s.section == "web" && s.name == "b2"));
        world.settle().await;
        assert_eq!(world.on_disk(), world.running().await);
        assert_eq!((world.on_disk().len(), behind(&world)), (3, 0));
    }
}

/// A reload whose file grows with the newcomers would keep everybody waiting: they follow in slices.
#[tokio::test]
async fn a_new_service_of_thousands_is_loaded_with_its_first_servers_and_the_others_follow() {
    for program in each() {
        let (mut world, _ports, _http) = two_services(&program).await;
        world.want("new", crowd(1_500, free_port()));
        world.turns_until("it is loaded", async |w| w.reloads().len() == 2).await;
        assert_eq!(world.states().await.len(), 2 + MOST);
        world.settle().await;
        assert_eq!(world.states().await.len(), 2 + 1_500);
        assert_eq!(world.reloads(), ["start", "section_added"]);
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test]
async fn a_discover_that_is_killed_between_two_slices_goes_on_where_it_was() {
    for program in each() {
        let (mut world, ports, http) = two_services(&program).await;
        let mut all = crowd(1_500, ports[0]);
        all.push(backend("b0", http.address, ports[0]));
        world.want("crowd", all);
        for _ in 0..3 {
            world.turn().await.unwrap();
            assert_eq!(world.on_disk(), world.running().await, "HAProxy {}", world.version());
            world.restart();
        }
        assert!(world.states().await.len() < 1_500);
        world.settle().await;
        assert_eq!(world.states().await.len(), 2 + 1_500);
        assert_eq!(world.reloads().len(), 0, "{:?}", world.reloads());
        world.assert_disk_is_what_runs().await;
    }
}

fn tcp(id: &str, at: SocketAddr, port: u16) -> Backend {
    Backend { mode: Some(Mode::Tcp), ..backend(id, at, port) }
}

/// A session that the worker of now keeps for long.
async fn session(port: u16) -> Option<TcpStream> {
    TcpStream::connect(("127.0.0.1", port)).await.ok()
}

#[tokio::test]
async fn a_service_that_changes_its_port_all_the_time_waits_longer_each_time_and_nobody_else_does() {
    for program in each() {
        let (mut world, http, steady) = (World::new(&program), HttpBackend::start("b0").await, free_port());
        let flip = [free_port(), free_port()];
        world.want("calm", vec![tcp("b0", http.address, steady)]);
        world.want("wild", vec![tcp("b0", http.address, flip[0])]);
        world.settle().await;
        let (mut nth, mut sessions) = (0, Vec::new());
        let changes =
            |world: &World| world.haproxy.status().lock().unwrap().paused.get("wild").map_or(0, |p| p.changes);
        let deadline = Instant::now() + Duration::from_secs(60);
        while changes(&world) < 5 {
            assert!(Instant::now() < deadline, "{:#?}", world.haproxy.status().lock().unwrap());
            nth += 1;
            world.want("wild", vec![tcp("b0", http.address, flip[nth % 2])]);
            world.turn().await.unwrap();
            sessions.extend(session(steady).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let loads: Vec<u64> = world.haproxy.status().lock().unwrap().reloads.iter().map(|r| r.at_unix_ms).collect();
        assert_eq!(loads.len(), 6, "the start, three that wait for nothing, one more, and one after its pause");
        assert!(loads[0] - loads[1] >= 2_000, "{loads:?}");
        let old = world.lab.launch.master().show_proc().await.unwrap().retiring();
        assert!(old <= 5, "{old} old workers");
        // Its servers follow in the meantime, and another service's section is loaded at once.
        let (other, fresh) = (HttpBackend::start("b1").await, free_port());
        world.want("wild", vec![tcp("b1", other.address, flip[nth % 2])]);
        world.want("fresh", vec![backend("b0", http.address, fresh)]);
        world.turns_until("the new service is routed", async |_| get(fresh).await == "b0").await;
        let states = world.states().await;
        assert!(states.iter().any(|s| s.section == "wild" && s.name == "b1" && !s.admin.in_maintenance()));
        drop(sessions);
    }
}

#[tokio::test]
async fn with_too_many_old_workers_a_reload_waits_and_says_so() {
    for program in each() {
        // Sessions that outlive the test.
        let long = Duration::from_secs(600);
        let world = World::with(&program, |s| (s.frame.timeouts[1], s.frame.timeouts[2]) = (long, long));
        let (mut world, http, steady) = (world, HttpBackend::start("b0").await, free_port());
        world.want("calm", vec![tcp("b0", http.address, steady)]);
        world.settle().await;
        let mut sessions = Vec::new();
        for n in 0..18 {
            sessions.extend(session(steady).await);
            world.want(&format!("s{n}"), vec![tcp("b0", http.address, free_port())]);
            world.turns_until("it is loaded", async |w| w.reloads().len() == n + 2).await;
        }
        let last = free_port();
        world.want("last", vec![backend("b0", http.address, last)]);
        world.turns_until("the reload waits", async |w| w.haproxy.status().lock().unwrap().waiting.is_some()).await;
        let status = world.haproxy.status().lock().unwrap().clone();
        assert!(status.old_workers.is_some_and(|old| old > 16), "{status:?}");
        assert!(status.waiting.unwrap().concat().contains("old workers"));
        // Servers change all the same.
        let other = HttpBackend::start("b1").await;
        world.want("calm", vec![tcp("b1", other.address, steady)]);
        world.turn().await.unwrap();
        let states = world.states().await;
        assert!(states.iter().any(|s| s.section == "calm" && s.name == "b1" && !s.admin.in_maintenance()));
        drop(sessions);
        world.turns_until("it is loaded in the end", async |_| get(last).await == "b0").await;
    }
}
