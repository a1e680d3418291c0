//! Who serves a place: the registrations that claim it, and nobody else, while claims come, change and go. No reload, no failed request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use discover::edge::settings::Ownership;
use model::Backend;
use tokio::task::JoinHandle;

use super::echo::echo;
use super::life::assert_same;
use super::{each, get, routed, who, world};

/// Asks a host again and again until it is told to stop: every answer is one of those, never a failure.
fn load(
    port: u16,
    host: &'static str,
    may: &'static [&'static str],
    stop: &Arc<AtomicBool>,
) -> JoinHandle<BTreeSet<String>> {
    let stop = stop.clone();
    tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        while !stop.load(SeqCst) {
            let who = who(port, host, "/").await;
            assert!(may.contains(&who.as_str()), "{host} was answered by {who}");
            seen.insert(who);
        }
        seen
    })
}

/// A number of requests of a host are answered by these alone, and by each of them: beside others' requests, turn by turn, a fixed number
/// of one's own may all go to the same.
async fn all_answer(port: u16, host: &str, of: &[&str]) {
    let (wanted, mut seen, mut asked) = (set(of), BTreeSet::new(), 0);
    let deadline = Instant::now() + Duration::from_secs(20);
    while asked < 8 || seen != wanted {
        let who = who(port, host, "/").await;
        assert!(wanted.contains(&who), "{host} was answered by {who}, not by one of {of:?}");
        assert!(Instant::now() < deadline, "{host} is answered by {seen:?} alone, not by {of:?}");
        seen.insert(who);
        asked += 1;
    }
}

fn set(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_one_image_with_hosts_of_their_own_never_get_each_others_requests() {
    let (a, b, a2) = (echo("a").await, echo("b").await, echo("a2").await);
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        let of_a = |routes: &[&str]| routed("a", a, routes);
        let of_b = |routes: &[&str]| routed("b", b, routes);
        world.want("web", vec![of_a(&["a.test"]), of_b(&["b.test"])]);
        world.settle().await;
        let stop = Arc::new(AtomicBool::new(false));
        let loads = [load(port, "a.test", &["a", "a2"], &stop), load(port, "b.test", &["b"], &stop)];
        let second = |routes: &[&str]| routed("a2", a2, routes);
        for pool in [
            // A second one of tenant a's comes, and goes.
            vec![of_a(&["a.test"]), of_b(&["b.test"]), second(&["a.test"])],
            vec![second(&["a.test"]), of_b(&["b.test"])],
            vec![of_a(&["a.test"]), of_b(&["b.test"]), second(&["a.test"])],
            // Further places of each.
            vec![of_a(&["a.test", "x.test"]), of_b(&["b.test", "y.test"]), second(&["a.test"])],
            vec![of_a(&["a.test", "x.test"]), of_b(&["b.test", "y.test"]), second(&["a.test", "x.test"])],
            vec![of_a(&["a.test"]), of_b(&["b.test"])],
        ] {
            world.want("web", pool);
            world.settle().await;
            assert_same(&world).await;
            all_answer(port, "b.test", &["b"]).await;
        }
        stop.store(true, SeqCst);
        for load in loads {
            assert!(!load.await.unwrap().is_empty());
        }
        assert_eq!(world.reloads(), ["start"], "HAProxy {}", world.version());
        let (map, file) = (assert_same(&world).await, world.file().unwrap());
        world.restart();
        world.settle().await;
        assert_eq!((world.reloads(), world.file().unwrap()), (vec![], file), "each place keeps its section");
        assert_eq!(assert_same(&world).await, map);
        // The last one of a host goes: its place says so, and is nobody else's meanwhile.
        world.want("web", vec![of_a(&["a.test"])]);
        world.settle().await;
        assert_eq!((who(port, "a.test", "/").await.as_str(), who(port, "b.test", "/").await.as_str()), ("a", "503"));
        world.want("web", vec![of_a(&["a.test"]), of_b(&["b.test"])]);
        world.settle().await;
        assert_eq!(who(port, "b.test", "/").await, "b");
        // One that stays and claims its place no more: the place is gone at once.
        world.want("web", vec![of_a(&["a.test"]), of_b(&["c.test"])]);
        world.settle().await;
        assert_eq!((who(port, "b.test", "/").await.as_str(), who(port, "c.test", "/").await.as_str()), ("404", "b"));
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_with_the_same_registrations_share_a_section_once_they_have_settled() {
    let (a, b) = (echo("a").await, echo("b").await);
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        let both = |with_b: &[&str]| vec![routed("a", a, &["a.test", "b.test"]), routed("b", b, with_b)];
        let sections = |world: &super::support::world::World| {
            world.haproxy.status().lock().unwrap().edge.clone().unwrap().sections["web"].len()
        };
        world.want("web", both(&["a.test", "b.test"]));
        world.settle().await;
        assert_eq!(sections(&world), 1);
        world.want("web", both(&["a.test"]));
        world.settle().await;
        assert_eq!(sections(&world), 2);
        all_answer(port, "b.test", &["a"]).await;
        world.want("web", both(&["a.test", "b.test"]));
        world.turns_until("one section is enough again", async |w| sections(w) == 1).await;
        world.settle().await;
        all_answer(port, "b.test", &["a", "b"]).await;
        assert_eq!(world.reloads(), ["start"]);
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_share_a_place_serve_it_together_and_hand_it_over_without_a_failure() {
    let (blue, green) = (echo("blue").await, echo("green").await);
    for program in each() {
        let (mut world, port) = world(&program, |edge| edge.ownership = Some(Ownership::Shared));
        // Both have the same id.
        let of = |at, routes: &[&str]| -> Vec<Backend> { vec![routed("one", at, routes)] };
        world.want("blue", of(blue, &["a.test"]));
        world.settle().await;
        let stop = Arc::new(AtomicBool::new(false));
        let load = load(port, "a.test", &["blue", "green"], &stop);
        world.want("green", of(green, &["a.test", "green.test"]));
        world.settle().await;
        all_answer(port, "a.test", &["blue", "green"]).await;
        all_answer(port, "green.test", &["green"]).await;
        assert!(world.haproxy.status().lock().unwrap().edge.as_ref().unwrap().lost.is_empty());
        for gone in ["blue", "green"] {
            world.want(gone, vec![]);
            world.settle().await;
            all_answer(port, "a.test", &[if gone == "blue" { "green" } else { "blue" }]).await;
            world.want(gone, of(if gone == "blue" { blue } else { green }, &["a.test"]));
            world.settle().await;
        }
        stop.store(true, SeqCst);
        assert_eq!(load.await.unwrap(), set(&["blue", "green"]));
        assert_eq!(world.reloads(), ["start"], "HAProxy {}", world.version());
        let answer = get(port, "a.test", "/", "").await;
        assert_eq!(answer.status, 200);
        world.assert_disk_is_what_runs().await;
    }
}
