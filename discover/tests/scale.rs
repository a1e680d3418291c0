//! Many servers on a real HAProxy: their ids, their checks, and the file descriptors that they take.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use discover::generators::haproxy::file::ids::is_given_here;
use model::Backend;
use support::free_port;
use support::world::{World, backend, each};

/// Backends at addresses of their own, where nobody listens.
fn backends(range: std::ops::Range<u16>, port: u16) -> Vec<Backend> {
    let at = |n: u16| SocketAddr::from(([127, 1, (n >> 8) as u8, n as u8], 9));
    range.map(|n| backend(&format!("{n:012x}"), at(n), port)).collect()
}

/// Seconds of a processor that a program takes, all in all.
fn cost(program: &Path, args: &[&str]) -> f64 {
    // cutime and cstime, in hundredths of a second. Source: proc(5).
    let children = || -> u64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap()
    };
    let before = children();
    assert!(Command::new(program).args(args).output().unwrap().status.success());
    (children() - before) as f64 / 100.0
}

/// The ids of all servers as HAProxy says them, which are those that the file says.
async fn ids(world: &World) -> BTreeMap<String, u32> {
    let of = world.states().await.into_iter().filter(|s| !s.admin.in_maintenance());
    let running: BTreeMap<String, u32> = of.map(|s| (format!("{}/{}", s.section, s.name), s.id)).collect();
    let file = world.file().unwrap();
    let in_file = file.sections.iter().flat_map(|section| {
        section.servers.iter().map(move |s| (format!("{}/{}", section.name, s.name), s.id.unwrap().get()))
    });
    assert_eq!(in_file.collect::<BTreeMap<_, _>>(), running, "HAProxy {}", world.version());
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_has_one_id_in_the_file_and_at_run_time_over_reloads_and_restarts() {
    for program in each() {
        let mut world = World::with(&program, |s| s.check = String::new());
        let ports = [free_port(), free_port()];
        world.want("web", backends(0..5, ports[0]));
        world.settle().await;
        let first = ids(&world).await;
        assert!(first.values().all(|id| is_given_here(*id)));
        world.want("web", backends(0..9, ports[0]));
        world.settle().await;
        let more = ids(&world).await;
        assert!(first.iter().all(|(server, id)| more[server] == *id));
        assert_eq!(world.reloads(), ["start"], "they were added at run time");
        world.want("other", backends(0..3, ports[1]));
        world.settle().await;
        let reloaded = ids(&world).await;
        assert!(more.iter().all(|(server, id)| reloaded[server] == *id));
        let ids_of = |service: &str| -> Vec<u32> {
            reloaded.iter().filter(|(server, _)| server.starts_with(service)).map(|(_, id)| *id).take(3).collect()
        };
        assert_eq!(ids_of("other/"), ids_of("web/"), "of one name the same in each section");
        world.restart();
        world.settle().await;
        assert_eq!(ids(&world).await, reloaded);
        assert!(world.reloads().is_empty());
        world.assert_disk_is_what_runs().await;
    }
}

/// An older discover gave ids at run time only, and none in the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_without_ids_gets_them_without_a_reload() {
    for program in each() {
        let mut world = World::with(&program, |s| s.check = String::new());
        let ports = [free_port(), free_port()];
        world.want("web", backends(0..5, ports[0]));
        world.settle().await;
        let config = world.settings.config_file.clone();
        let mut old = world.file().unwrap();
        for section in &mut old.sections {
            std::sync::Arc::make_mut(section).servers.iter_mut().for_each(|server| server.id = None);
        }
        std::fs::write(&config, old.render()).unwrap();
        world.lab.launch.master().reload().await.unwrap();
        let states = world.states().await;
        assert!(states.iter().all(|s| s.id < 100), "HAProxy's own: {states:?}");
        world.restart();
        world.want("web", backends(0..6, ports[0]));
        world.settle().await;
        assert!(world.reloads().is_empty(), "{:?}", world.reloads());
        let file = world.file().unwrap();
        assert!(file.sections[0].servers.iter().all(|server| server.id.is_some()), "for the next reload");
        world.want("other", backends(0..3, ports[1]));
        world.settle().await;
        ids(&world).await;
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_of_ten_thousand_is_checked_in_a_fraction_of_a_second() {
    for program in each() {
        let mut world = World::with(&program, |s| s.check = String::new());
        world.want("web", backends(0..9990, free_port()));
        world.settle().await;
        let config = world.settings.config_file.to_string_lossy().into_owned();
        let with_ids = cost(&program, &["-c", "-f", &config]);
        // Without ids it is two seconds on 2.6 and 3.0.
        assert!(with_ids < 0.7, "HAProxy {}: {with_ids} s", world.version());
        println!("FIGURE haproxy -c, 9,990 servers in one section, HAProxy {}: {with_ids} s", world.version());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_more_servers_each_new_one_is_checked_less_often_and_all_are_from_the_next_reload_on() {
    for program in each() {
        let mut world = World::with(&program, |s| {
            s.check = "check inter 1s rise 1 fall 2".into();
            s.check_rate = 4;
        });
        let ports = [free_port(), free_port()];
        let words = |world: &World, service: &str| -> BTreeMap<String, usize> {
            let file = world.file().unwrap();
            let section = file.sections.iter().find(|s| *s.name == *service).unwrap();
            let mut count = BTreeMap::new();
            let inter = |params: &str| params.split(" rise").next().unwrap().to_owned();
            section.servers.iter().for_each(|server| *count.entry(inter(&server.params)).or_default() += 1);
            count
        };
        let of =
            |all: &[(&str, usize)]| all.iter().map(|(text, n)| ((*text).to_owned(), *n)).collect::<BTreeMap<_, _>>();
        world.want("web", backends(0..4, ports[0]));
        world.settle().await;
        assert_eq!(words(&world, "web"), of(&[("check inter 1s", 4)]));
        world.want("web", backends(0..7, ports[0]));
        world.settle().await;
        assert_eq!(words(&world, "web"), of(&[("check inter 1s", 4), ("check inter 2s fastinter 1s downinter 1s", 3)]));
        assert_eq!(world.reloads(), ["start"], "HAProxy {}: a longer interval is no reason", world.version());
        world.restart();
        world.settle().await;
        assert_eq!(words(&world, "web"), of(&[("check inter 1s", 4), ("check inter 2s fastinter 1s downinter 1s", 3)]));
        assert!(world.reloads().is_empty(), "nor is a restart");
        let status = world.haproxy.status();
        let checks = status.lock().unwrap().checks.clone().unwrap();
        assert_eq!((checks.per_second, checks.budget, checks.interval_ms), (5.5, Some(4), Some(2000)));
        // Another service takes a reload, for its own sake.
        world.want("other", backends(0..1, ports[1]));
        world.settle().await;
        assert_eq!(words(&world, "web"), of(&[("check inter 2s fastinter 1s downinter 1s", 7)]));
        assert_eq!(world.reloads().len(), 1, "and no second one");
        let states = world.states().await.len();
        world.settle().await;
        assert_eq!(world.states().await.len(), states, "no server was replaced");
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_grows_beyond_its_descriptors_is_told_before_and_a_reload_that_fails_for_it_says_so() {
    for program in each() {
        let mut world = World::with(&program, |s| {
            s.check = "check inter 1h".into();
            s.maxconn = 100;
        });
        let ports = [free_port(), free_port()];
        world.want("web", backends(0..20, ports[0]));
        world.settle().await;
        let (master, worker) = world.processes().await;
        // As a unit or a container has it: 400 descriptors, and no privilege to go beyond.
        for pid in [master, worker] {
            let limited = Command::new("prlimit").args([&format!("--pid={pid}"), "--nofile=400:400"]).status();
            assert!(limited.unwrap().success());
        }
        if discover::haproxy::process::descriptors::limit(Some(worker)) != Some(400) {
            println!("SKIPPED: HAProxy {} may go beyond its limit here (CAP_SYS_RESOURCE)", world.version());
            continue;
        }
        world.restart();
        world.settle().await;
        let few = world.haproxy.status().lock().unwrap().descriptors.unwrap();
        assert_eq!((few.limit, few.are_scarce()), (Some(400), false), "{few:?}");
        world.want("web", backends(0..300, ports[0]));
        world.settle().await;
        assert!(world.reloads().is_empty());
        world.restart();
        world.settle().await;
        let many = world.haproxy.status().lock().unwrap().descriptors.unwrap();
        assert!(many.are_too_few(), "{many:?}");
        world.want("other", backends(0..1, ports[1]));
        let mut error = String::new();
        support::eventually("the reload fails", async || {
            error = world.turn().await.err().unwrap_or_default();
            !error.is_empty()
        })
        .await;
        assert!(
            error.contains("LimitNOFILE") && error.contains("may have 400"),
            "HAProxy {}: {error}",
            world.version()
        );
        assert_eq!(world.processes().await.0, master, "the old worker goes on");
    }
}
