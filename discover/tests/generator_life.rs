//! The ordinary life of services on a real HAProxy: no reload, no failed request, and the file always says what runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use discover::haproxy::api::ops::{Op, ServerParams, ServerRef};
use model::Status;
use support::traffic::{HttpBackend, Load};
use support::world::{World, backend, being, each, weighing};
use support::{drain, eventually, free_port, get, stat};

/// Starts `n` backends.
async fn backends(n: usize) -> Vec<HttpBackend> {
    let mut all = Vec::new();
    for i in 0..n {
        all.push(HttpBackend::start(&format!("b{i}")).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordinary_life_needs_no_reload_fails_no_request_and_is_always_on_disk() {
    for program in each() {
        let (mut world, port, http) = (World::new(&program), free_port(), backends(4).await);
        let b = |i: usize| backend(&format!("b{i}"), http[i].address, port);
        world.want("web", vec![b(0)]);
        world.settle().await;
        assert_eq!(world.reloads(), ["start"]);
        let processes = world.processes().await;
        let load = Load::start(port, 6);
        let lives = [
            ("added", vec![b(0), b(1), b(2)]),
            ("weighed", vec![weighing(b(0), 200), b(1), weighing(b(2), 0)]),
            ("drained", vec![being(b(0), Status::Draining), b(1), b(2)]),
            ("down", vec![b(0), being(b(1), Status::Down), b(2)]),
            ("up again", vec![b(0), b(1), b(2)]),
            ("removed", vec![b(1)]),
            ("back", vec![b(0), b(1), b(3)]),
            ("replaced as a whole", vec![b(2)]),
            ("and again", vec![b(0), b(1), b(2), b(3)]),
        ];
        for (what, pool) in lives {
            world.want("web", pool);
            world.turn().await.unwrap();
            assert_eq!(world.on_disk(), world.running().await, "{what}, HAProxy {}", world.version());
            load.flows(100).await;
        }
        let answered = load.finish().await;
        assert_eq!((world.reloads(), world.processes().await), (vec!["start".to_owned()], processes));
        let mut turns = world.turns.clone();
        turns.sort();
        eprintln!("{}: {answered} requests, median turn {:?}, {turns:?}", world.version(), turns[turns.len() / 2]);
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_above_a_megabyte_is_what_runs_when_a_burst_of_changes_is_over() {
    for program in each() {
        // Servers with long names, and nobody there: what counts is the file.
        let (mut world, port) = (World::with(&program, |s| s.check = "".into()), free_port());
        let one = |n: usize| backend(&format!("{n:0>220}"), ([127, 0, 0, 1], 9).into(), port);
        let all: Vec<_> = (0..4_500).map(one).collect();
        world.want("web", all.clone());
        world.settle().await;
        for n in 0..40 {
            let mut next = all.clone();
            next[n] = weighing(one(n), 7);
            next.push(one(5_000 + n));
            next.remove(100 + n);
            world.want("web", next);
            world.turn().await.unwrap();
        }
        world.settle().await;
        assert_eq!(world.reloads().first().map(String::as_str), Some("start"));
        // A large file may be written up to 100 ms after the turn.
        eventually("the file is that of the last change", async || {
            world.turn().await.unwrap();
            let file = std::fs::read_to_string(&world.settings.config_file).unwrap();
            // Below 3.0 what went waits in maintenance for a reload that collects it.
            let serves = |n: usize| {
                let name = format!("{n:0>220}");
                file.lines().any(|line| line.contains(&name) && !line.contains(" disabled"))
            };
            file.len() > 1_000_000 && serves(5_039) && serves(100) && !serves(139) && !serves(5_000)
        })
        .await;
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_discover_changes_nothing_and_reloads_nothing() {
    for program in each() {
        let (mut world, port, http) = (World::new(&program), free_port(), backends(3).await);
        let b = |i: usize| backend(&format!("b{i}"), http[i].address, port);
        world.want("web", vec![b(0), weighing(b(1), 7), being(b(2), Status::Down)]);
        world.want("other", vec![backend("o@x", http[0].address, free_port())]);
        world.settle().await;
        world.want("web", vec![weighing(b(1), 7), being(b(2), Status::Down), b(0)]);
        world.settle().await;
        let (before, processes) = (world.running().await, world.processes().await);
        let bytes = std::fs::read(&world.settings.config_file).unwrap();
        for _ in 0..3 {
            world.restart();
            world.settle().await;
            assert_eq!(world.reloads(), Vec::<String>::new(), "HAProxy {}", world.version());
            assert_eq!((world.processes().await, world.running().await), (processes, before.clone()));
            assert_eq!(std::fs::read(&world.settings.config_file).unwrap(), bytes);
        }
    }
}

/// On 2.6 the old self still lingers in maintenance; its parameters cannot be asked of HAProxy and are noted on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_went_before_a_restart_of_discover_returns_after_it_without_a_reload() {
    for program in each() {
        let (mut world, port, http) = (World::new(&program), free_port(), backends(2).await);
        let b = |i: usize| backend(&format!("b{i}"), http[i].address, port);
        world.want("web", vec![b(0)]);
        world.settle().await;
        let load = Load::start(port, 4);
        for i in [1, 0, 1] {
            world.want("web", vec![b(i)]);
            world.turn().await.unwrap();
            load.flows(30).await;
            world.restart();
        }
        world.settle().await;
        load.finish().await;
        assert_eq!(world.reloads(), Vec::<String>::new(), "HAProxy {}", world.version());
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test]
async fn the_first_change_of_a_pool_replaces_no_server() {
    for program in each() {
        let (mut world, port, http) = (World::new(&program), free_port(), backends(2).await);
        world.want("web", vec![backend("b0", http[0].address, port)]);
        world.settle().await;
        let id = world.state("b0").await.unwrap().id;
        world.want("web", vec![backend("b0", http[0].address, port), backend("b1", http[1].address, port)]);
        world.settle().await;
        let b0 = world.state("b0").await.unwrap();
        assert_eq!((b0.id, world.reloads()), (id, vec!["start".to_owned()]));
        let metrics = metrics(&world);
        assert!(!metrics.contains("del_server"), "HAProxy {}: {metrics}", world.version());
    }
}

fn metrics(world: &World) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.registry).unwrap();
    text.lines().filter(|l| l.contains("operations")).collect::<Vec<_>>().join("\n")
}

/// Trap (1.6): on 2.6 servers added to an empty section may drop out of the pool, or never reuse a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_added_to_an_empty_section_all_get_their_share_and_reuse_connections() {
    for program in each() {
        let (mut world, port, http) = (World::new(&program), free_port(), backends(4).await);
        world.want("web", vec![being(backend("b0", http[0].address, port), Status::Down)]);
        world.settle().await;
        let all = |n: usize| (1..n).map(|i| backend(&format!("b{i}"), http[i].address, port)).collect::<Vec<_>>();
        world.want("web", all(4));
        world.settle().await;
        let load = Load::start(port, 2);
        load.flows(600).await;
        load.finish().await;
        let shares: Vec<u64> = http.iter().map(|h| h.gets.load(std::sync::atomic::Ordering::SeqCst)).collect();
        assert!(shares[1..].iter().all(|n| *n > 100) && shares[0] == 0, "HAProxy {}: {shares:?}", world.version());
        let connects = stat(&mut world.api()).await;
        let sessions: u64 = connects.iter().filter(|r| r.name.starts_with('b')).map(|r| r.idle_connections).sum();
        assert!(sessions > 0, "HAProxy {}: no idle connection is kept to any server", world.version());
        assert_eq!(world.reloads(), ["start"]);
    }
}

#[tokio::test]
async fn services_come_and_go_with_their_reasons_and_a_gone_service_may_return_without_a_reload() {
    for program in each() {
        let mut world = World::with(&program, |s| s.frame.linger = Duration::from_millis(1500));
        let (ports, http) = ([free_port(), free_port()], backends(2).await);
        let b = |i: usize| backend(&format!("b{i}"), http[i].address, ports[i]);
        world.want("one", vec![b(0)]);
        world.settle().await;
        world.want("two", vec![b(1)]);
        world.settle().await;
        assert_eq!(world.reloads(), ["start", "section_added"]);
        assert_eq!((get(ports[0]).await, get(ports[1]).await), ("b0".into(), "b1".into()));

        world.want("two", vec![]);
        world.settle().await;
        assert!(get(ports[1]).await.contains("503"), "its section stays, empty");
        world.want("two", vec![b(1)]);
        world.settle().await;
        assert_eq!(get(ports[1]).await, "b1");
        assert_eq!(world.reloads(), ["start", "section_added"], "HAProxy {}", world.version());

        world.want("two", vec![]);
        world.turns_until("the section goes", async |w| w.reloads().len() == 3).await;
        assert_eq!(world.reloads().last().unwrap(), "section_removed");
        assert!(get(ports[1]).await.contains("refused"), "nobody listens there any more");
        world.assert_disk_is_what_runs().await;

        // A port that changes hands waits a while for who had it: its last container might only be restarting.
        world.want("one", vec![]);
        world.want("three", vec![backend("b1", http[1].address, ports[0])]);
        world.turns_until("the port passes on", async |_| get(ports[0]).await == "b1").await;
        assert_eq!(world.reloads().last().unwrap(), "section_added, section_removed");
    }
}

#[tokio::test]
async fn a_reload_that_waits_for_its_time_keeps_no_server_waiting_and_spins_no_turns() {
    for program in each() {
        let mut world = World::with(&program, |s| s.frame.linger = Duration::from_millis(100));
        world.interval = Duration::from_secs(3);
        world.restart();
        let (port, http) = (free_port(), backends(2).await);
        world.want("web", vec![backend("b0", http[0].address, port)]);
        world.want("gone", vec![backend("b0", http[0].address, free_port())]);
        world.settle().await;
        world.want("gone", vec![]);
        world.want("web", vec![backend("b1", http[1].address, port)]);
        world.turn().await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await; // the section's time
        world.want("new", vec![backend("b0", http[0].address, free_port())]);
        world.turns.clear();
        let began = tokio::time::Instant::now();
        world.turn().await.unwrap();
        assert_eq!(get(port).await, "b1", "HAProxy {}", world.version());
        while world.reloads().len() < 2 {
            match world.turn().await.unwrap() {
                discover::generators::Outcome::Again(at) => tokio::time::sleep_until(at).await,
                discover::generators::Outcome::Done => panic!("a reload waits"),
            }
        }
        assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
        assert!(world.turns.len() < 30, "{} turns while a reload waits", world.turns.len());
        assert_eq!(world.reloads(), ["start", "section_added, section_removed"]);
    }
}

#[tokio::test]
async fn what_is_changed_by_hand_is_repaired_and_what_is_not_ours_is_left_alone() {
    for program in each() {
        let (templates, foreign) = (
            tempfile::tempdir().unwrap(),
            "listen theirs\n\tmode http\n\tbind 127.0.0.1:{{ 0 + FOREIGN }}\n\tserver t1 127.0.0.1:9 weight 3\n",
        );
        let header = include_str!("../src/generators/haproxy/file/templates/header.tera");
        let foreign = foreign.replace("FOREIGN", &free_port().to_string());
        std::fs::write(templates.path().join("header.tera"), format!("{header}\n{foreign}")).unwrap();
        let mut world = World::with(&program, |s| s.templates = Some(templates.path().to_owned()));
        let (port, http) = (free_port(), backends(3).await);
        world.want("web", (0..3).map(|i| backend(&format!("b{i}"), http[i].address, port)).collect());
        world.settle().await;
        let (before, processes) = (world.running().await, world.processes().await);
        let at = |name: &str| ServerRef::new("web", name).unwrap();
        let mut api = world.api();
        let theirs = ServerRef::new("theirs", "t1").unwrap();
        let hands = [
            Op::SetWeight(at("b0"), 99),
            Op::Maint(at("b1")),
            Op::SetAddr(at("b0"), "127.0.0.1:1".parse().unwrap()),
            Op::AddServer(at("stranger"), "127.0.0.1:1".parse().unwrap(), ServerParams::default()),
            Op::Ready(at("stranger")),
            Op::SetWeight(theirs, 77),
        ];
        for result in api.apply(&hands).await {
            result.unwrap();
        }
        drain(&mut api, "web/b2").await;
        if world.can().del_server {
            eventually("it is deleted", async || {
                api.del_server(at("b1")).await.unwrap() == discover::haproxy::api::runtime::DelOutcome::Deleted
            })
            .await;
        }
        // Found without anybody telling: within the time of one look.
        let wanted: Vec<_> = before.iter().filter(|s| s.0 == "web").cloned().collect();
        world
            .turns_until("it is mended", async |w| {
                w.running().await.into_iter().filter(|s| s.0 == "web").eq(wanted.iter().cloned())
                    && !w.states().await.iter().any(|s| s.admin.draining())
            })
            .await;
        assert_eq!(world.state("t1").await.unwrap().weight, 77, "not ours");
        assert_eq!((world.reloads(), world.processes().await), (vec!["start".to_owned()], processes));
        assert!(metrics_repairs(&world) >= 1);
    }
}

fn metrics_repairs(world: &World) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &world.registry).unwrap();
    text.lines().find_map(|l| l.strip_prefix("discover_repairs_total ")).unwrap().parse().unwrap()
}

/// What `make bench` does at length, in small: 20 services, 10 backends each, 300 random changes at 50 a second under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_under_load_fail_no_request_and_cost_no_reload() {
    for program in each() {
        let (mut world, http) = (World::new(&program), backends(8).await);
        let ports: Vec<u16> = (0..20).map(|_| free_port()).collect();
        let pool = |service: usize, from: usize, weight: u32| -> Vec<_> {
            let one = |i: usize| backend(&format!("s{service}-{i}"), http[i % 8].address, ports[service]);
            (from..from + 10).map(|i| weighing(one(i), weight)).collect()
        };
        for service in 0..20 {
            world.want(&format!("s{service}"), pool(service, 0, 1));
        }
        world.settle().await;
        let (processes, load) = (world.processes().await, [Load::start(ports[0], 4), Load::start(ports[7], 4)]);
        world.turns.clear();
        // A fixed sequence (a linear congruential generator): a failure can be repeated.
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((seed >> 33) % below).unwrap()
        };
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..300 {
            let service = [0, 7, random(20)][random(3)];
            world.want(&format!("s{service}"), pool(service, random(6), [1, 1, 100][random(3)]));
            world.turn().await.unwrap();
            tick.tick().await;
        }
        let mut answered = 0;
        for load in load {
            answered += load.finish().await;
        }
        let mut turns = world.turns.clone();
        turns.sort();
        let (median, worst) = (turns[turns.len() / 2], turns[turns.len() * 99 / 100]);
        let reloads = world.reloads();
        eprintln!("{}: {answered} requests; turns: median {median:?}, p99 {worst:?}; {reloads:?}", world.version());
        world.settle().await;
        assert_eq!(world.on_disk(), world.running().await);
        match world.can().del_server {
            true => assert_eq!((world.reloads(), world.processes().await), (vec!["start".to_owned()], processes)),
            // Below 3.0 retired servers are collected by a reload now and then, which fails no request either.
            false => assert!(world.reloads()[1..].iter().all(|r| r == "lingering"), "{:?}", world.reloads()),
        }
    }
}
