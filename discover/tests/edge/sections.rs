//! Services of the edge: with a port of their own and without, in spare sections, by their names, and beside another program.

use std::net::TcpListener;

use model::Mode;

use super::echo::echo;
use super::support::world::backend;
use super::support::{eventually, free_port, get as plain};
use super::{each, routed, who, world};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_services_take_spare_sections_and_one_reload_makes_more() {
    let a = echo("a").await;
    for program in each() {
        // Where HAProxy makes sections, only sticky services need spare ones.
        let (mut world, port) = world(&program, |_| {});
        let sticky = if world.can().add_backend { " sticky" } else { "" };
        world.settle().await;
        let name = |n: usize| (format!("s{n}"), format!("s{n}.example"));
        for n in 0..3 {
            let (service, host) = name(n);
            world.want(&service, vec![routed("a", a, &[&format!("{host}{sticky}")])]);
            world.settle().await;
            assert_eq!(who(port, &host, "/").await, "a");
        }
        assert_eq!(world.reloads(), ["start"], "HAProxy {}", world.version());
        for n in 3..6 {
            let (service, host) = name(n);
            world.want(&service, vec![routed("a", a, &[&format!("{host}{sticky}")])]);
            world.settle().await;
            assert_eq!(who(port, &host, "/").await, "a");
        }
        assert_eq!(world.reloads(), ["start", "section_added"], "one reload made room for more");
        let status = world.haproxy.status();
        let edge = status.lock().unwrap().edge.clone().unwrap();
        assert_eq!((edge.rules, edge.sections.len(), edge.spare), (6, 6, 1));
        let before = world.file().unwrap();
        world.restart();
        world.settle().await;
        assert_eq!((world.reloads(), world.file().unwrap()), (vec![], before), "each keeps its section");
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_a_port_has_both_and_one_without_is_at_the_edge_alone() {
    let (a, b) = (echo("a").await, echo("b").await);
    for program in each() {
        let (mut world, port) = world(&program, |edge| edge.suffixes = vec!["local".parse().unwrap()]);
        let own = free_port();
        let mut both = backend("a", a, own);
        both.routes = routed("a", a, &["both.example"]).routes;
        both.mode = Some(Mode::Tcp);
        let mut database = backend("b", b, free_port());
        database.mode = Some(Mode::Tcp);
        world.want("both", vec![both]);
        world.want("alone", vec![routed("b", b, &["alone.example"])]);
        world.want("database", vec![database]);
        let like_ours = free_port();
        world.want("edge:7", vec![backend("b", b, like_ours)]);
        world.settle().await;
        for (host, expected) in [
            ("both.example", "a"),
            ("both.local", "a"),
            ("alone.example", "b"),
            ("alone.local", "b"),
            ("database.local", "404"),
        ] {
            assert_eq!(who(port, host, "/").await, expected, "{host}");
        }
        assert!(plain(own).await.starts_with('a'), "on its own port, too");
        assert!(
            plain(like_ours).await.starts_with('b'),
            "a service called like a section of ours is served as any other"
        );
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_another_program_has_the_edges_port_the_rest_serves_and_the_edge_comes_when_it_is_free() {
    let a = echo("a").await;
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        let stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let own = free_port();
        let mut both = backend("a", a, own);
        both.routes = routed("a", a, &["a.example"]).routes;
        world.want("a", vec![both]);
        world.settle().await;
        assert!(plain(own).await.starts_with('a'));
        assert!(world.haproxy.status().lock().unwrap().edge.as_ref().unwrap().taken);
        drop(stranger);
        world.turns_until("the edge listens", async |_| TcpListener::bind(("127.0.0.1", port)).is_err()).await;
        eventually("it answers", async || who(port, "a.example", "/").await == "a").await;
    }
}
