//! Reloads that fail, that others make, and that a stranger stands in the way of.

use std::cell::Cell;
use std::net::TcpListener;
use std::time::Duration;

use super::support::traffic::{HttpBackend, Load};
use super::support::world::{World, backend, each};
use super::support::{eventually, free_port, get};
use super::{HEADER, one_service};

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
        assert!(note.contains("another program on this host listens there"), "{note}");
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

/// Traps (1.3, 1.8): what is told to an old worker, or in the middle of a reload, is lost without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_during_reloads_by_somebody_else_are_not_lost() {
    for program in each() {
        let (mut world, port, http) = one_service(World::new(&program)).await;
        let others = [HttpBackend::start("b1").await, HttpBackend::start("b2").await];
        let load = Load::start(port, 4);
        let master = world.lab.launch.master();
        let done = Cell::new(false);
        let hands = async {
            for _ in 0..8 {
                let _ = master.reload().await;
                load.flows(50).await;
            }
            done.set(true);
        };
        let mut n = 0;
        let changes = async {
            while !done.get() {
                n += 1;
                let new = backend(&format!("c{n}"), others[n % 2].address, port);
                world.want("web", vec![backend("b0", http.address, port), new]);
                let _ = world.turn().await;
                load.flows(1).await;
            }
        };
        tokio::join!(hands, changes);
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

/// A stats page is no reason to serve nobody.
#[tokio::test]
async fn a_stats_port_of_another_program_does_not_block_the_first_start() {
    for program in each() {
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let stats = stranger.local_addr().unwrap().port();
        let (mut world, _port, _http) =
            one_service(World::with(&program, |s| s.stats.port = stats.try_into().ok())).await;
        assert_eq!(world.reloads(), ["start"], "HAProxy {}", world.version());
        assert!(world.haproxy.status().lock().unwrap().stats_taken);
        drop(stranger);
        world.turns_until("the stats page is there", async |_| get(stats).await.contains("HAProxy")).await;
        world.settle().await;
        assert_eq!(world.reloads(), ["start", "header"]);
        assert!(!world.haproxy.status().lock().unwrap().stats_taken);
        world.restart();
        world.settle().await;
        assert!(world.reloads().is_empty(), "its own port is not another program's");
    }
}
