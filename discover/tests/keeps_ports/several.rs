//! Service ports that change one backend after the other: no request fails, and what waits says why.

use model::Backend;

use super::created;
use super::support::traffic::{HttpBackend, Load};
use super::support::world::{World, each};
use super::support::{free_port, get};

/// What the services are told of their ports.
fn disputed(world: &World, service: &str) -> Option<String> {
    let status = world.haproxy.status();
    let status = status.lock().unwrap();
    status.disputed.get(service).map(ToString::to_string)
}

/// Who answers there, of a number of requests.
async fn all_of(port: u16) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.push(get(port).await);
    }
    seen.sort();
    seen.dedup();
    seen
}

/// One discover after the other: nothing changes, nothing is loaded.
async fn restarted(world: &mut World) {
    let file = std::fs::read(&world.settings.config_file).unwrap();
    world.restart();
    world.settle().await;
    assert_eq!(std::fs::read(&world.settings.config_file).unwrap(), file, "HAProxy {}", world.version());
    assert_eq!(world.reloads(), Vec::<String>::new(), "HAProxy {}", world.version());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_change_of_the_service_port_serves_both_until_the_old_one_is_empty() {
    let (one, two) = (HttpBackend::start("one").await, HttpBackend::start("two").await);
    for program in each() {
        let (mut world, old, new) = (World::new(&program), free_port(), free_port());
        let pool = |first: (u64, u16), second: (u64, u16)| -> Vec<Backend> {
            vec![created(first.0, "m1", &one, first.1), created(second.0, "m2", &two, second.1)]
        };
        world.want("web", pool((5, old), (6, old)));
        world.settle().await;
        assert_eq!(disputed(&world, "web"), None);
        let before = Load::start(old, 4);
        before.flows(50).await;
        world.want("web", pool((5, old), (9, new)));
        world.settle().await;
        let after = Load::start(new, 4);
        before.flows(50).await;
        after.flows(50).await;
        assert_eq!((all_of(old).await, all_of(new).await), (vec!["one".to_owned()], vec!["two".to_owned()]));
        let told = disputed(&world, "web").unwrap();
        assert!(told.contains(&old.to_string()) && told.contains(&new.to_string()), "{told}");
        assert!(told.contains("are served"), "{told}");
        before.finish().await; // its clients know the new port by now
        world.want("web", pool((10, new), (9, new)));
        world.settle().await;
        after.flows(50).await;
        assert_eq!(all_of(new).await, ["one", "two"], "HAProxy {}", world.version());
        assert_eq!(disputed(&world, "web"), None, "nothing is left to be told");
        after.finish().await;
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_one_image_with_service_ports_of_their_own_are_apart_and_stay_so_over_a_restart() {
    let (a, b, b2) = (HttpBackend::start("a").await, HttpBackend::start("b").await, HttpBackend::start("b2").await);
    for program in each() {
        let (mut world, of_a, of_b) = (World::new(&program), free_port(), free_port());
        let pool = || vec![created(5, "a", &a, of_a), created(6, "b", &b, of_b)];
        world.want("web", pool());
        world.settle().await;
        let loads = [Load::start(of_a, 2), Load::start(of_b, 2)];
        let section = format!("web:port-{of_b}");
        let file = std::fs::read_to_string(&world.settings.config_file).unwrap();
        assert!(file.contains(&section), "{file}");
        for round in 0..2 {
            assert_eq!(
                (all_of(of_a).await, all_of(of_b).await),
                (vec!["a".to_owned()], vec!["b".to_owned()]),
                "{round}"
            );
            restarted(&mut world).await;
        }
        // A second one comes to the port of its own kind, and goes: no reload.
        world.want("web", pool().into_iter().chain([created(7, "b2", &b2, of_b)]).collect());
        world.settle().await;
        assert_eq!(
            (all_of(of_a).await, all_of(of_b).await),
            (vec!["a".to_owned()], vec!["b".to_owned(), "b2".to_owned()])
        );
        world.want("web", pool());
        world.settle().await;
        assert_eq!(all_of(of_b).await, ["b"], "HAProxy {}", world.version());
        assert_eq!(world.reloads(), Vec::<String>::new(), "HAProxy {}", world.version());
        // The first one goes for good: the name of the other's section stays.
        let [for_a, for_b] = loads;
        for_a.finish().await;
        world.want("web", vec![created(6, "b", &b, of_b)]);
        world.settle().await;
        restarted(&mut world).await;
        assert_eq!(all_of(of_b).await, ["b"], "HAProxy {}", world.version());
        for_b.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_swap_their_ports_in_two_steps_and_nobody_is_refused() {
    let (x, y) = (HttpBackend::start("x").await, HttpBackend::start("y").await);
    for program in each() {
        let (mut world, first, second) = (World::new(&program), free_port(), free_port());
        world.want("x", vec![created(5, "x", &x, first)]);
        world.want("y", vec![created(6, "y", &y, second)]);
        world.settle().await;
        assert_eq!((get(first).await, get(second).await), ("x".to_owned(), "y".to_owned()));
        let loads = [Load::start(first, 4), Load::start(second, 4)];
        for load in &loads {
            load.flows(50).await;
        }
        world.want("x", vec![created(7, "x", &x, second)]);
        world.settle().await;
        let told = disputed(&world, "x").unwrap();
        assert!(told.contains(&format!("port {second} belongs to service y")), "{told}");
        assert!(told.contains(&format!("serves on port {first} until then")), "{told}");
        assert_eq!((get(first).await, get(second).await), ("x".to_owned(), "y".to_owned()), "{}", world.version());
        restarted(&mut world).await;
        world.want("y", vec![created(8, "y", &y, first)]);
        world.settle().await;
        assert_eq!((get(first).await, get(second).await), ("y".to_owned(), "x".to_owned()), "{}", world.version());
        assert_eq!((disputed(&world, "x"), disputed(&world, "y")), (None, None));
        for load in loads {
            load.flows(50).await;
            load.finish().await;
        }
        restarted(&mut world).await;
        world.assert_disk_is_what_runs().await;
    }
}
