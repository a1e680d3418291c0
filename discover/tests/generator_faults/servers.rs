//! Servers: what dies, lingers, returns, or is refused.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::one_service;
use super::support::traffic::{HttpBackend, Load, Manner, post};
use super::support::world::{World, backend, each};
use super::support::{eventually, free_port, get};

/// Trap (1.8): a new worker starts every server up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_servers_stay_down_across_a_reload_and_no_request_fails() {
    for program in each() {
        // So slow that no check of the new worker can find it dead in time.
        let mut world = World::with(&program, |s| s.check = "check inter 30s fastinter 100ms rise 1 fall 2".into());
        let (port, http) = (free_port(), [HttpBackend::start("b0").await, HttpBackend::start("b1").await]);
        world.want("web", (0..2).map(|i| backend(&format!("b{i}"), http[i].address, port)).collect());
        world.settle().await;
        let dead = http[1].address;
        http[1].kill();
        let at = discover::haproxy::api::ops::ServerRef::new("web", "b1").unwrap();
        world.api().run(discover::haproxy::api::ops::Op::HealthDown(at)).await.unwrap();
        let load = Load::start(port, 4);
        load.flows(50).await;
        world.want("new", vec![backend("n", http[0].address, free_port())]);
        world.turn().await.unwrap();
        assert_eq!(world.reloads(), ["start", "section_added"]);
        let b1 = world.state("b1").await.unwrap();
        assert_eq!(b1.oper, discover::haproxy::api::tables::OperState::Stopped, "HAProxy {}, {dead}", world.version());
        load.flows(100).await;
        load.finish().await;
    }
}

/// Trap (1.9): what dies under a request is masked for GET, and a POST is never executed twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_is_never_executed_twice_and_a_get_on_a_dying_server_is_repeated_elsewhere() {
    for program in each() {
        let mut world = World::with(&program, |s| s.check = String::new());
        let port = free_port();
        let good = HttpBackend::start("good").await;
        let dying = HttpBackend::with("dying", Duration::ZERO, Manner::DieAfterExecution).await;
        world.want("web", vec![backend("good", good.address, port), backend("dying", dying.address, port)]);
        world.settle().await;
        let mut failed = 0;
        for _ in 0..40 {
            failed += u64::from(!post(port).await.is_ok_and(|(status, _)| status == 200));
        }
        let executed = [good.posts.load(SeqCst), dying.posts.load(SeqCst)];
        assert_eq!(executed.iter().sum::<u64>(), 40, "HAProxy {}: {executed:?}", world.version());
        assert!(executed[1] > 5 && failed == executed[1], "the client is told: {executed:?}, {failed} failed");
        let load = Load::start(port, 4);
        load.flows(200).await;
        load.finish().await;
        assert!(dying.gets.load(SeqCst) > 20, "it took part");
    }
}

/// Traps (1.5, 1.6): `del server` can kill a 2.6, so a reload collects; above 3.0 only idle servers go, busy ones later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retired_servers_are_collected_as_the_version_can() {
    for program in each() {
        let (mut world, port, http) = one_service(World::new(&program)).await;
        let slow = HttpBackend::with("slow", Duration::from_millis(1500), Manner::Answer).await;
        world.want("web", vec![backend("slow", slow.address, port)]);
        world.settle().await;
        let request = tokio::spawn(get(port));
        eventually("it is in flight", async || slow.gets.load(SeqCst) == 1).await;
        world.want("web", vec![backend("b0", http.address, port)]);
        world.turn().await.unwrap();
        let busy = world.state("slow").await.expect("a busy server is not deleted");
        assert!(busy.admin.in_maintenance());
        assert_eq!(get(port).await, "b0");
        if world.can().del_server {
            world.turns_until("it is deleted", async |w| w.state("slow").await.is_none()).await;
            assert!(request.is_finished(), "and not before its last response");
        }
        assert_eq!(request.await.unwrap(), "slow");

        // As many as containers come and go in a busy week.
        for n in 0..70 {
            world
                .want("web", vec![backend("b0", http.address, port), backend(&format!("gone{n}"), http.address, port)]);
            world.turn().await.unwrap();
        }
        world.want("web", vec![backend("b0", http.address, port)]);
        world.settle().await;
        let left = world.states().await.len();
        match world.can().del_server {
            true => {
                world.turns_until("all are deleted", async |w| w.states().await.len() == 1).await;
                assert_eq!(world.reloads(), ["start"]);
            }
            false => {
                assert_eq!(world.reloads(), ["start", "lingering"]);
                assert!(left < 64, "{left} servers are left");
            }
        }
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test]
async fn a_server_that_returns_while_its_old_self_lingers_is_enabled_again() {
    for program in each() {
        let (mut world, port, http) = one_service(World::new(&program)).await;
        let slow = HttpBackend::with("slow", Duration::from_millis(1000), Manner::Answer).await;
        world.want("web", vec![backend("slow", slow.address, port)]);
        world.settle().await;
        let id = world.state("slow").await.unwrap().id;
        let request = tokio::spawn(get(port));
        eventually("it is in flight", async || slow.gets.load(SeqCst) == 1).await;
        world.want("web", vec![backend("b0", http.address, port)]);
        world.turn().await.unwrap();
        // The same container, restarted at another port.
        let moved = HttpBackend::start("moved").await;
        world.want("web", vec![backend("slow", moved.address, port)]);
        world.turn().await.unwrap();
        assert_eq!(world.state("slow").await.unwrap().id, id, "HAProxy {}", world.version());
        assert_eq!(get(port).await, "moved");
        assert_eq!(request.await.unwrap(), "slow");
        world.settle().await;
        assert_eq!(world.reloads(), ["start"]);
        world.assert_disk_is_what_runs().await;
    }
}

/// A refusal turns into a reload, never into silence. `init-addr` is a word that files know and `add server` does not.
#[tokio::test]
async fn what_the_runtime_api_refuses_is_done_by_a_reload() {
    for program in each() {
        let (mut world, port, http) =
            one_service(World::with(&program, |s| s.check = "check init-addr libc,none".into())).await;
        let other = HttpBackend::start("b1").await;
        world.want("web", vec![backend("b0", http.address, port), backend("b1", other.address, port)]);
        world.settle().await;
        assert_eq!(world.reloads(), ["start", "refused"], "HAProxy {}", world.version());
        assert_eq!(world.on_disk(), world.running().await);
        world.assert_disk_is_what_runs().await;
    }
}

/// Those that die together follow each other in the order of round robin: a request is repeated on one dead server after the
/// other, and three retries are not enough for five of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_a_pool_that_dies_at_once_fails_no_get() {
    for program in each() {
        // So slow that no check finds them dead in time.
        let mut world = World::with(&program, |s| s.check = "check inter 30s".into());
        let (port, mut http) = (free_port(), Vec::new());
        for n in 0..10 {
            http.push(HttpBackend::start(&format!("b{n}")).await);
        }
        world.want("web", (0..10).map(|i| backend(&format!("b{i}"), http[i].address, port)).collect());
        world.settle().await;
        let load = Load::start(port, 4);
        load.flows(100).await;
        http[..5].iter().for_each(HttpBackend::kill);
        load.flows(500).await;
        load.finish().await;
    }
}

/// HAProxy refuses `tcp-ut` in `add server`: the file says more than runs, and nobody minds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_ut_stands_in_the_file_alone_and_nothing_is_repaired_for_it() {
    for program in each() {
        let (mut world, port, http) = one_service(World::new(&program)).await;
        let second = HttpBackend::start("b1").await;
        let both = vec![backend("b0", http.address, port), backend("b1", second.address, port)];
        world.want("web", both.clone());
        world.settle().await;
        let line = |world: &World| {
            let text = std::fs::read_to_string(&world.settings.config_file).unwrap();
            text.lines().filter(|line| line.contains("tcp-ut 2500ms")).count()
        };
        assert_eq!(line(&world), 2, "HAProxy {}", world.version());
        world.assert_disk_is_what_runs().await;
        world.restart();
        world.settle().await;
        assert!(world.reloads().is_empty(), "a new discover finds nothing to do: {:?}", world.reloads());
        world.assert_disk_is_what_runs().await;
        // Another patience is another file, and no server is made anew for it at run time.
        let began = world.state("b1").await.unwrap();
        world.settings.frame.silence =
            discover::generators::haproxy::file::silence::Silence { ack: 9000, keepalive: 1 };
        world.restart();
        world.settle().await;
        assert_eq!(world.reloads(), ["section_changed"]);
        assert_eq!(world.state("b1").await.map(|now| now.name), Some(began.name));
        assert!(std::fs::read_to_string(&world.settings.config_file).unwrap().contains("tcp-ut 9000ms"));
        world.want("web", vec![both[1].clone()]);
        world.settle().await;
        assert_eq!(world.reloads(), ["section_changed"]);
        assert_eq!(get(port).await, "b1");
    }
}
