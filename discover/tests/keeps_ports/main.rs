//! Who serves keeps its port, on a real HAProxy: against whoever asks for it, over restarts of discover and of the agents that
//! registered it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod several;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use discover::generators::haproxy::file::published::Published;
use discover::reconcile::Held;
use model::{Backend, Mode};
use support::traffic::HttpBackend;
use support::world::{World, backend, each};
use support::{free_port, get};
use tokio::time::Instant;

/// A backend as the registry tells it, created at that revision.
fn created(revision: u64, id: &str, at: &HttpBackend, port: u16) -> Backend {
    let mut backend = backend(id, at.address, port);
    backend.created = Some(revision);
    backend
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_comes_later_takes_the_port_of_who_serves() {
    let (web, evil) = (HttpBackend::start("web").await, HttpBackend::start("evil").await);
    for program in each() {
        // A lower and a higher name, with a lower and a higher id, flat or of a host's layout (which only the registry sees).
        for (name, id) in [("0", "0"), ("a-evil", "z@9"), ("zz-evil", "0"), ("web.1", "z")] {
            let (mut world, port) = (World::new(&program), free_port());
            world.want("web", vec![created(5, "m", &web, port)]);
            world.settle().await;
            let serves = async |world: &mut World, when: &str| {
                world.settle().await;
                assert_eq!(get(port).await, "web", "HAProxy {}: {name} {when}", world.version());
            };
            world.want(name, vec![created(3, id, &evil, port)]);
            serves(&mut world, "asks with an older registration that was left out before").await;
            world.want("web", vec![created(99, "m", &web, port)]);
            serves(&mut world, "asks while the agent's registrations are made anew").await;
            world.restart();
            serves(&mut world, "asks when discover is restarted").await;
            // In the service itself, with another port: it is one of its backends, and moves nothing.
            world.want("web", vec![created(100, "m2", &web, port), created(4, id, &evil, free_port())]);
            world.settle().await;
            assert!(["web", "evil"].contains(&get(port).await.as_str()), "HAProxy {}", world.version());
            let status = world.haproxy.status();
            let (unlisted, disputed) = {
                let status = status.lock().unwrap();
                (status.unlisted.clone(), status.disputed.clone())
            };
            assert!(unlisted[name].contains("belongs to service web"), "{unlisted:?}");
            assert!(disputed["web"].contains(&format!("backend {id} asks for port")), "{disputed:?}");
            world.restart();
            world.settle().await;
            assert!(["web", "evil"].contains(&get(port).await.as_str()), "discover is restarted once more");
            world.assert_disk_is_what_runs().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_last_container_loses_no_port_and_one_that_has_really_gone_passes_it_on() {
    let (web, other) = (HttpBackend::start("web").await, HttpBackend::start("other").await);
    for program in each() {
        let (mut world, port) = (World::with(&program, |s| s.frame.linger = Duration::from_secs(2)), free_port());
        world.want("web", vec![created(5, "m", &web, port)]);
        world.settle().await;
        world.want("other", vec![created(6, "o", &other, port)]);
        world.settle().await;
        world.want("web", vec![]);
        world.settle().await;
        assert!(get(port).await.contains("503"), "HAProxy {}", world.version());
        world.want("web", vec![created(9, "m", &web, port)]);
        world.settle().await;
        assert_eq!(get(port).await, "web", "HAProxy {}", world.version());
        world.want("web", vec![]);
        world.turns_until("the port passes on", async |_| get(port).await == "other").await;
        world.want("web", vec![created(1, "m", &web, port)]);
        world.settle().await;
        assert_eq!(get(port).await, "other", "HAProxy {}: who serves now keeps it", world.version());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_held_keeps_its_port_while_its_backends_work_and_yields_when_none_does() {
    let new = HttpBackend::start("new").await;
    for program in each() {
        let old = HttpBackend::start("old").await;
        let (mut world, port) = (World::new(&program), free_port());
        world.want("app-v1", vec![created(1, "a", &old, port)]);
        world.settle().await;
        let held = Held { since: Instant::now(), until: Instant::now() + Duration::from_secs(600) };
        world.desired.held.insert("app-v1".parse().unwrap(), BTreeMap::from([("a".parse().unwrap(), held)]));
        world.want("app-v2", vec![created(2, "b", &new, port)]);
        world.settle().await;
        let deadline = Instant::now() + Duration::from_millis(2500);
        world.turns_until("some time passes", async |_| Instant::now() > deadline).await;
        assert_eq!(get(port).await, "old", "HAProxy {}: its registration is gone, it works", world.version());
        drop(old);
        world.turns_until("the live one serves", async |_| get(port).await == "new").await;
        let status = world.haproxy.status();
        assert!(status.lock().unwrap().unlisted["app-v1"].contains("app-v2"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_changes_no_services_mode_and_neither_does_a_lost_port_key() {
    let web = HttpBackend::start("web").await;
    for program in each() {
        let (mut world, port) = (World::with(&program, |s| s.frame.default_mode = Mode::Tcp), free_port());
        let plain = |revision: u64, id: &str| Backend { mode: None, ..created(revision, id, &web, port) };
        world.want("web", vec![plain(5, "m")]);
        world.settle().await;
        let skeleton = |world: &World| world.file().unwrap().sections[0].skeleton.to_string();
        let before = skeleton(&world);
        assert!(before.contains("mode tcp"), "{before}");
        world.want("web", vec![created(6, "0", &web, port), plain(9, "m")]);
        world.settle().await;
        world.restart();
        world.settle().await;
        world.want("web", vec![Backend { service_port: None, ..plain(9, "m") }]);
        world.settle().await;
        world.restart();
        world.settle().await;
        assert_eq!(skeleton(&world), before, "HAProxy {}", world.version());
        assert_eq!(world.reloads(), Vec::<String>::new(), "nor is anything reloaded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_a_container_publishes_is_never_bound_until_the_container_is_removed() {
    let web = HttpBackend::start("web").await;
    for program in each() {
        let (mut world, port) = (World::new(&program), free_port());
        let address = format!("0.0.0.0:{port}").parse().unwrap();
        let (told, heard) = tokio::sync::watch::channel(Arc::new([(address, "shop-1".into())].into()));
        world.haproxy.keep_off(Published::told_by(heard));
        world.want("web", vec![created(5, "m", &web, port)]);
        world.settle().await;
        std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
        let status = world.haproxy.status();
        assert!(status.lock().unwrap().unlisted["web"].contains("container shop-1"), "HAProxy {}", world.version());
        told.send_replace(Arc::default());
        world.turns_until("it serves", async |_| get(port).await == "web").await;
        told.send_replace(Arc::new([(address, "late".into())].into()));
        world.settle().await;
        assert_eq!(get(port).await, "web", "HAProxy {}: a container that came later takes no port", world.version());
    }
}
