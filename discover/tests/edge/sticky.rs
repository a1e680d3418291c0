//! Sticky sessions: a client stays with its backend while others come, go and are weighed anew.

use std::collections::BTreeSet;

use super::echo::echo;
use super::support::world::{backend, weighing};
use super::{each, get, routed, world};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_sessions_survive_changes_restarts_and_reloads() {
    let http = [echo("a").await, echo("b").await, echo("c").await];
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        let one = |n: usize, name: &str| routed(name, http[n], &["a.example sticky", "a.example/free"]);
        world.want("web", vec![one(0, "a")]);
        world.settle().await;
        world.want("web", vec![one(0, "a"), one(1, "b"), one(2, "c")]);
        world.settle().await;
        assert_eq!(get(port, "a.example", "/free", "").await.header("set-cookie"), None);
        let first = get(port, "a.example", "/", "").await;
        let cookie = first.header("set-cookie").unwrap_or_else(|| panic!("HAProxy {}", world.version()));
        let cookie = format!("cookie: {}\r\n", cookie.split(';').next().unwrap());
        let name = first.body.lines().next().unwrap().to_owned();
        let mine = ["a", "b", "c"].iter().position(|n| *n == name).unwrap();
        let stays = async |what: &str| {
            for _ in 0..6 {
                let answer = get(port, "a.example", "/", &cookie).await;
                assert!(answer.body.starts_with(&name), "{what}: {}", answer.body);
                assert_eq!(answer.header("set-cookie"), None, "{what}");
                assert!(!answer.body.contains("edge1="), "{what}: the backend does not see it: {}", answer.body);
            }
        };
        stays("at first").await;
        let others: BTreeSet<usize> = (0..3).filter(|n| *n != mine).collect();
        let gone = *others.first().unwrap();
        let left = (0..3).filter(|n| *n != gone).map(|n| one(n, ["a", "b", "c"][n])).collect::<Vec<_>>();
        world.want("web", left.clone());
        world.settle().await;
        stays("another went").await;
        world.want("web", left.into_iter().map(|b| weighing(b, 9)).collect());
        world.settle().await;
        stays("all weigh more").await;
        world.restart();
        world.settle().await;
        assert_eq!(world.reloads(), Vec::<String>::new());
        stays("discover was restarted").await;
        world.want("listens", vec![backend("x", http[0], super::free_port())]);
        world.settle().await;
        assert_eq!(world.reloads(), ["section_added"]);
        stays("HAProxy was reloaded").await;
        let spread: BTreeSet<String> = [get(port, "a.example", "/", "").await, get(port, "a.example", "/", "").await]
            .map(|a| a.body[..1].to_owned())
            .into();
        assert_eq!(spread.len(), 2, "without a cookie all get their share");
    }
}
