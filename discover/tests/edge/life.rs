//! Rules come, change and go: without a reload, without a failed request, and what is on disk is what runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use discover::edge::Way;
use discover::edge::settings::{ConfigRule, Owners};
use discover::generators::haproxy::file::edge::RuleMap;
use discover::haproxy::api::ops::Op;

use super::echo::echo;
use super::support::world::World;
use super::{each, get, route, routed, who, world};

/// The map on disk, and the one that HAProxy has.
pub(super) async fn maps(world: &World) -> [RuleMap; 2] {
    let file = world.path("haproxy.cfg.edge.map");
    let shown = world.api().map_show(&file.display().to_string()).await.unwrap();
    [RuleMap::parse(&std::fs::read_to_string(&file).unwrap()), RuleMap::of_entries(shown)]
}

pub(super) async fn assert_same(world: &World) -> RuleMap {
    let [disk, runs] = maps(world).await;
    assert_eq!(disk, runs, "HAProxy {}", world.version());
    disk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_of_every_kind_come_change_and_go_without_a_reload_and_fail_no_request() {
    let (a, b) = (echo("a").await, echo("b").await);
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        world.want("a", vec![routed("a", a, &["a.example"])]);
        world.settle().await;
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let load = tokio::spawn({
            let (stop, good) = (stop.clone(), good.clone());
            async move {
                while !stop.load(SeqCst) {
                    assert_eq!(who(port, "a.example", "/").await, "a");
                    good.fetch_add(1, SeqCst);
                }
            }
        });
        for routes in [
            &["a.example", "x.example"][..],
            &["a.example", "x.example/y strip"],
            &["a.example", "x.example/y sticky https"],
            &["a.example", "*.x.example"],
            &["a.example"],
            &["a.example", "x.example"],
        ] {
            world.want("a", vec![routed("a", a, routes)]);
            world.settle().await;
            assert_same(&world).await;
        }
        assert_eq!(who(port, "x.example", "/").await, "a");
        // Blue hands over to green: the host is never without either.
        world.want("green", vec![routed("b", b, &["blue.example"])]);
        world.want("blue", vec![routed("a", a, &["blue.example"])]);
        world.settle().await;
        assert_eq!(who(port, "blue.example", "/").await, "a", "of two claims without an age the lowest name has it");
        let lost = world.haproxy.status().lock().unwrap().edge.clone().unwrap().lost;
        assert_eq!(lost["blue.example/ (green)"], "it is service blue's");
        world.want("blue", vec![]);
        world.settle().await;
        assert_eq!(who(port, "blue.example", "/").await, "b");
        // The last backend of a service is gone: its host says so for a while.
        world.want("green", vec![]);
        world.settle().await;
        let page = get(port, "blue.example", "/", "").await;
        assert!(page.status == 503 && page.body.contains("No backend of this service is up"), "{}", page.body);
        world.want("green", vec![routed("b", b, &["blue.example"])]);
        world.settle().await;
        assert_eq!(who(port, "blue.example", "/").await, "b");
        stop.store(true, SeqCst);
        load.await.unwrap();
        assert!(good.load(SeqCst) > 0);
        assert_eq!(world.reloads(), ["start"], "HAProxy {}", world.version());
        assert_same(&world).await;
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_a_reload_and_a_hand_in_the_map_change_nothing() {
    let (a, b) = (echo("a").await, echo("b").await);
    for program in each() {
        let (mut world, port) = world(&program, |edge| edge.spare_sections = 1);
        world.want("a", vec![routed("a", a, &["a.example", "a.example/x strip"])]);
        world.want("b", vec![routed("b", b, &["b.example"])]);
        world.settle().await;
        let (map, processes) = (assert_same(&world).await, world.processes().await);
        for _ in 0..2 {
            world.restart();
            world.settle().await;
            assert_eq!((world.reloads(), world.processes().await), (vec![], processes), "HAProxy {}", world.version());
            assert_eq!(assert_same(&world).await, map);
        }
        let file = world.path("haproxy.cfg.edge.map");
        let (name, stray) = (file.display().to_string(), |key: &str| key.to_owned());
        let hands = [
            Op::MapDel { map: name.clone(), key: stray("b.example/") },
            Op::MapSet { map: name.clone(), key: stray("a.example/"), value: "edge:none|-|x".into() },
            Op::MapAdd { map: name.clone(), key: stray("stray.example/"), value: "edge:1|-|a".into() },
            Op::MapAdd { map: name, key: stray("a.example/x/"), value: "edge:none|-|twice".into() },
        ];
        for result in world.api().apply(&hands).await {
            result.unwrap();
        }
        std::fs::write(&file, "a.example/ edge:none|-|nobody\n").unwrap();
        world.turns_until("it is mended", async |w| maps(w).await.iter().all(|m| *m == map)).await;
        assert_eq!(
            (who(port, "a.example", "/").await, who(port, "stray.example", "/").await),
            ("a".into(), "404".into())
        );
        // A change that goes to the worker of before a reload is lost with it; it is made again.
        world.lab.launch.master().reload().await.unwrap();
        world.want("c", vec![routed("b", b, &["c.example"])]);
        world.settle().await;
        world.turns_until("the new worker has it", async |_| who(port, "c.example", "/").await == "b").await;
        assert_same(&world).await;
        assert_eq!(world.reloads(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_and_the_configs_rules_hold_against_registrations() {
    let (a, b) = (echo("a").await, echo("b").await);
    for program in each() {
        let (mut world, port) = world(&program, |edge| {
            edge.owners = Owners::new([("shop.example".parse().unwrap(), vec!["shop*".parse().unwrap()])].into());
            edge.rules =
                vec![ConfigRule { service: "b".parse().unwrap(), way: Way::Http, route: route("fixed.example/") }];
        });
        world.want("evil", vec![routed("a", a, &["shop.example/pay", "fixed.example", "*.example"])]);
        world.settle().await;
        for (host, path, expected) in
            [("shop.example", "/pay", "404"), ("fixed.example", "/", "503"), ("other.example", "/", "a")]
        {
            assert_eq!(who(port, host, path).await, expected, "{host}{path}");
        }
        world.want("shop-v1", vec![routed("b", b, &["shop.example"])]);
        world.want("b", vec![routed("b", b, &[])]);
        world.settle().await;
        assert_eq!(
            (who(port, "shop.example", "/pay").await, who(port, "fixed.example", "/").await),
            ("b".into(), "b".into())
        );
        let lost = world.haproxy.status().lock().unwrap().edge.clone().unwrap().lost;
        assert!(lost["shop.example/pay (evil)"].contains("edge.hosts"), "{lost:?}");
        assert_eq!(world.reloads(), ["start"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rules_are_put_in_place_at_once_and_read_back_whole() {
    let a = echo("a").await;
    for program in each() {
        let (mut world, port) = world(&program, |edge| edge.spare_sections = 41);
        world.want("a", vec![routed("a", a, &["a.example"])]);
        world.settle().await;
        let hosts: Vec<String> = (0..1200).map(|n| format!("h{n}.example")).collect();
        let pool = hosts.chunks(30).enumerate();
        let pool =
            pool.map(|(n, hosts)| routed(&format!("b{n}"), a, &hosts.iter().map(String::as_str).collect::<Vec<_>>()));
        world.want("many", pool.collect());
        world.settle().await;
        assert_eq!(assert_same(&world).await.len(), 1201);
        for host in ["h0.example", "h777.example", "h1199.example", "a.example"] {
            assert_eq!(who(port, host, "/").await, "a", "{host}");
        }
        world.want("many", vec![]);
        world.settle().await;
        assert_eq!(world.reloads(), ["start"]);
    }
}
