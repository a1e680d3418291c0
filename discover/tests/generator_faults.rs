//! What goes wrong around a real HAProxy, and the traps of its own: each test's name says which.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::net::TcpListener;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use support::proxy::{Habit, SocketProxy};
use support::traffic::{HttpBackend, Load, Manner, post};
use support::world::{World, backend, each};
use support::{eventually, free_port, get};

const HEADER: &str = include_str!("../src/generators/haproxy/templates/header.tera");

/// One service with one backend, running.
async fn one_service(mut world: World) -> (World, u16, HttpBackend) {
    let (port, http) = (free_port(), HttpBackend::start("b0").await);
    world.want("web", vec![backend("b0", http.address, port)]);
    world.settle().await;
    assert_eq!(get(port).await, "b0");
    (world, port, http)
}

/// Trap (1.3): a bind conflict passes `haproxy -c` and closes every listener for seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_another_program_is_never_put_into_the_file_and_used_once_it_is_free() {
    for program in each() {
        let (mut world, port, http) = one_service(World::new(&program)).await;
        let load = Load::start(port, 4);
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = stranger.local_addr().unwrap().port();
        let free = free_port();
        world.want("a-taken", vec![backend("b0", http.address, taken)]);
        world.want("b-free", vec![backend("b0", http.address, free)]);
        world.settle().await;
        assert_eq!(get(free).await, "b0");
        assert_eq!(world.reloads(), ["start", "section_added"]);
        let file = std::fs::read_to_string(&world.settings.config_file).unwrap();
        assert!(!file.contains(&taken.to_string()), "{file}");
        let note = format!("{:?}", world.haproxy.status().lock().unwrap().unlisted);
        assert!(note.contains("taken by another program"), "{note}");
        drop(stranger);
        world.turns_until("it is used", async |_| get(taken).await == "b0").await;
        load.finish().await;
    }
}

/// HAProxy's own port is bound, of course; another discover must not take that for a stranger's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_edited_by_hand_is_written_anew_and_loaded_also_by_another_discover() {
    for program in each() {
        let (mut world, port, _http) = one_service(World::new(&program)).await;
        let load = Load::start(port, 4);
        for restart in [false, true] {
            let good = std::fs::read_to_string(&world.settings.config_file).unwrap();
            std::fs::write(&world.settings.config_file, good.replace("maxconn 2000", "maxconn 1999")).unwrap();
            if restart {
                world.restart();
            }
            world
                .turns_until("the file is ours again", async |w| {
                    std::fs::read_to_string(&w.settings.config_file).unwrap() == good
                })
                .await;
            assert_eq!(world.reloads().last().unwrap(), "edited_by_hand");
            load.flows(50).await;
        }
        load.finish().await;
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test]
async fn an_interrupted_reload_is_done_again() {
    for program in each() {
        let (mut world, port, _http) = one_service(World::new(&program)).await;
        std::fs::write(world.path("haproxy.cfg.reloading"), "").unwrap();
        world.restart();
        world.settle().await;
        assert_eq!(world.reloads(), ["interrupted"]);
        assert_eq!(get(port).await, "b0");
        world.assert_disk_is_what_runs().await;
    }
}

/// The header stands for any part that only HAProxy can judge. What is known to be dead goes all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_that_fails_its_check_keeps_everything_and_is_tried_again_while_servers_still_change() {
    for program in each() {
        let templates = tempfile::tempdir().unwrap();
        let header = templates.path().join("header.tera");
        std::fs::write(&header, HEADER).unwrap();
        let mut world = World::with(&program, |s| s.templates = Some(templates.path().to_owned()));
        world.interval = Duration::from_millis(50);
        let (mut world, port, http) = one_service(world).await;
        let (processes, load) = (world.processes().await, Load::start(port, 4));
        std::fs::write(&header, format!("{HEADER}\nlisten mine\n\tno-such-keyword\n")).unwrap();
        world.restart();
        let error = world.turn().await.unwrap_err();
        assert!(error.contains("no-such-keyword"), "{error}");
        let other = HttpBackend::start("b1").await;
        world.want("web", vec![backend("b0", http.address, port), backend("b1", other.address, port)]);
        let _ = world.turn().await;
        world.want("web", vec![backend("b1", other.address, port)]);
        let _ = world.turn().await;
        assert_eq!(world.on_disk(), world.running().await);
        eventually("the new server serves", async || get(port).await == "b1").await;
        world.turns_until("it is tried again", async |w| w.reloads().len() >= 2).await;
        assert!(world.reloads().iter().all(|r| r == "header!"), "{:?}", world.reloads());
        assert_eq!(world.processes().await, processes, "HAProxy was never bothered");
        load.finish().await;
    }
}

/// Trap (1.3): after a reload that fails, the live worker may be listed as an old one; it serves, and its file is back.
#[tokio::test]
async fn a_reload_that_haproxy_refuses_is_rolled_back_and_tried_again() {
    for program in each() {
        let templates = tempfile::tempdir().unwrap();
        let header = templates.path().join("header.tera");
        std::fs::write(&header, HEADER).unwrap();
        let (mut world, port, http) =
            one_service(World::with(&program, |s| s.templates = Some(templates.path().to_owned()))).await;
        let good = std::fs::read_to_string(&world.settings.config_file).unwrap();
        // The operator's own bind is not tried beforehand: HAProxy finds the conflict.
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = format!("listen mine\n\tbind {}\n", stranger.local_addr().unwrap());
        std::fs::write(&header, format!("{HEADER}\n{theirs}")).unwrap();
        world.restart();
        let error = world.turn().await.unwrap_err();
        assert!(error.contains("annot bind"), "{error}");
        assert_eq!(std::fs::read_to_string(&world.settings.config_file).unwrap(), good);
        assert!(!world.path("haproxy.cfg.reloading").exists());
        assert_eq!(get(port).await, "b0");
        let other = HttpBackend::start("b1").await;
        world.want("web", vec![backend("b0", http.address, port), backend("b1", other.address, port)]);
        let _ = world.turn().await;
        assert!(world.state("b1").await.is_some_and(|s| !s.admin.in_maintenance()), "servers change meanwhile");
        drop(stranger);
        world.settle().await;
        assert_eq!(world.reloads().last().unwrap(), "header");
        world.assert_disk_is_what_runs().await;
    }
}

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

/// A file that cannot be written keeps back no operation; it is written as soon as it can be.
#[tokio::test]
async fn a_full_disk_keeps_no_dead_server_in_the_pool_and_the_file_follows_later() {
    for program in each() {
        let lab_dir = tempfile::tempdir().unwrap();
        let dir = lab_dir.path().join("config");
        std::fs::create_dir(&dir).unwrap();
        let mut world = World::with(&program, |s| s.config_file = dir.join("haproxy.cfg"));
        world.lab.launch.config = dir.join("haproxy.cfg");
        world.restart();
        let (mut world, port, http) = one_service(world).await;
        let other = HttpBackend::start("b1").await;
        // What stands in the directory's place fails every write, for root too.
        let away = lab_dir.path().join("away");
        std::fs::rename(&dir, &away).unwrap();
        std::fs::write(&dir, "").unwrap();
        world.want("web", vec![backend("b1", other.address, port)]);
        let error = world.turn().await.unwrap_err();
        assert!(error.contains("haproxy.cfg"), "{error}");
        assert_eq!(get(port).await, "b1", "HAProxy {}", world.version());
        for _ in 0..3 {
            assert!(world.turn().await.is_err(), "it is said as long as it lasts");
        }
        std::fs::remove_file(&dir).unwrap();
        std::fs::rename(&away, &dir).unwrap();
        world.settle().await;
        assert_eq!(world.reloads(), ["start"]);
        assert_eq!(world.on_disk(), world.running().await);
        drop(http);
        world.assert_disk_is_what_runs().await;
    }
}

/// Traps (1.3, 1.8): what is told to an old worker, or in the middle of a reload, is lost without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_during_reloads_by_somebody_else_are_not_lost() {
    for program in each() {
        let (mut world, port, http) = one_service(World::new(&program)).await;
        let others = [HttpBackend::start("b1").await, HttpBackend::start("b2").await];
        let load = Load::start(port, 4);
        let master = world.lab.launch.master();
        let hands = tokio::spawn(async move {
            for _ in 0..8 {
                let _ = master.reload().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let mut n = 0;
        while !hands.is_finished() {
            n += 1;
            world.want(
                "web",
                vec![backend("b0", http.address, port), backend(&format!("c{n}"), others[n % 2].address, port)],
            );
            let _ = world.turn().await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        hands.await.unwrap();
        world.want("web", vec![backend("b0", http.address, port), backend("last", others[0].address, port)]);
        world.settle().await;
        assert_eq!(world.on_disk().len(), 2);
        assert_eq!(world.running().await, world.on_disk());
        load.finish().await;
        eprintln!("{}: {n} changes during 8 reloads; own reloads: {:?}", world.version(), world.reloads());
        world.assert_disk_is_what_runs().await;
    }
}

/// Trap (1.3): an idle session stays with the old worker; the very next change must reach the new one.
#[tokio::test]
async fn the_first_change_after_a_reload_by_hand_reaches_the_new_worker_at_once() {
    for program in each() {
        let (mut world, port, http) = one_service(World::new(&program)).await;
        world.lab.launch.master().reload().await.unwrap();
        let other = HttpBackend::start("b1").await;
        world.want("web", vec![backend("b0", http.address, port), backend("b1", other.address, port)]);
        for _ in 0..2 {
            world.turn().await.unwrap();
        }
        assert_eq!(world.running().await, world.on_disk(), "HAProxy {}", world.version());
        assert_eq!(world.on_disk().len(), 2);
        assert_eq!(world.reloads(), ["start"]);
    }
}

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
        let at = discover::haproxy::ops::ServerRef::new("web", "b1").unwrap();
        world.api().run(discover::haproxy::ops::Op::HealthDown(at)).await.unwrap();
        let load = Load::start(port, 4);
        load.flows(50).await;
        world.want("new", vec![backend("n", http[0].address, free_port())]);
        world.turn().await.unwrap();
        assert_eq!(world.reloads(), ["start", "section_added"]);
        let b1 = world.state("b1").await.unwrap();
        assert_eq!(b1.oper, discover::haproxy::tables::OperState::Stopped, "HAProxy {}, {dead}", world.version());
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

/// Trap (1.3): while 2.6 executes itself anew its master answers nobody; that is no reason to start a second HAProxy.
#[tokio::test]
async fn reloads_by_others_at_the_same_moment_never_lead_to_a_second_haproxy() {
    for program in each() {
        let (mut world, _port, http) = one_service(World::new(&program)).await;
        let master = world.processes().await.0;
        for n in 0..6 {
            let (theirs, ours) = (world.lab.launch.master(), n % 2 == 0);
            let hands = tokio::spawn(async move { _ = theirs.reload().await });
            if ours {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            world.want(&format!("s{n}"), vec![backend("b0", http.address, free_port())]);
            world.settle().await;
            hands.await.unwrap();
        }
        world.settle().await;
        assert_eq!(world.processes().await.0, master, "HAProxy {}: {:?}", world.version(), world.reloads());
        assert_eq!(world.file().unwrap().sections.len(), 7);
        world.assert_disk_is_what_runs().await;
    }
}
