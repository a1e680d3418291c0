//! Words of a registration that this HAProxy does not take: that backend alone is left out.

use discover::generators::haproxy::turn::status::HaproxyStatus;
use model::Backend;

use super::support::traffic::{HttpBackend, Load};
use super::support::world::{World, backend, each};
use super::support::{free_port, get, version};

/// A server keyword of HAProxy 3.2, which the versions here do not know.
const UNKNOWN: &str = "idle-ping 5s";

/// Every HAProxy of this machine that does not know the word.
fn innocent() -> Vec<std::path::PathBuf> {
    each().into_iter().filter(|program| version(program).branch() < (3, 2)).collect()
}

fn asking(backend: Backend, words: &str) -> Backend {
    Backend { haproxy_server_options: Some(words.into()), ..backend }
}

fn status(world: &World) -> HaproxyStatus {
    world.haproxy.status().lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_word_that_this_haproxy_does_not_know_is_left_out_alone_and_costs_no_reload() {
    for program in innocent() {
        let (mut world, port) = (World::new(&program), free_port());
        let mut https = Vec::new();
        for name in ["b0", "b1", "odd"] {
            https.push(HttpBackend::start(name).await);
        }
        let b = |i: usize, name: &str| backend(name, https[i].address, port);
        world.want("web", vec![b(0, "b0")]);
        world.settle().await;
        let load = Load::start(port, 4);
        for restart in [false, true] {
            if restart {
                world.restart();
            }
            world.want("web", vec![b(0, "b0"), asking(b(2, "odd"), UNKNOWN), asking(b(1, "b1"), "maxconn 50")]);
            world.settle().await;
            let names: Vec<_> = world.on_disk().into_iter().map(|s| s.1).collect();
            assert_eq!(names, ["b0", "b1"], "HAProxy {}", world.version());
            let why = status(&world).quarantined.remove("web/odd").unwrap();
            assert!(why.contains("idle-ping"), "{why}");
            assert_eq!(world.on_disk(), world.running().await);
            let reloads = if restart { vec![] } else { vec!["start"] };
            assert_eq!(world.reloads(), reloads, "HAProxy {}", world.version());
        }
        world.want("web", vec![b(0, "b0"), asking(b(2, "odd"), "maxconn 9"), asking(b(1, "b1"), "maxconn 50")]);
        world.settle().await;
        assert_eq!(world.on_disk().len(), 3, "its words are mended");
        assert!(status(&world).quarantined.is_empty());
        load.finish().await;
        world.assert_disk_is_what_runs().await;
    }
}

#[tokio::test]
async fn many_of_them_do_not_keep_the_first_config_from_being_loaded() {
    for program in innocent() {
        let (mut world, port, http) = (World::new(&program), free_port(), HttpBackend::start("good").await);
        let odd = (0..30).map(|n| asking(backend(&format!("odd{n}"), http.address, port), UNKNOWN));
        world.want("web", odd.chain([backend("good", http.address, port)]).collect());
        world.settle().await;
        assert_eq!(get(port).await, "good");
        assert_eq!(world.reloads(), ["start"], "HAProxy {}", world.version());
        assert_eq!(status(&world).quarantined.len(), 30);
    }
}

/// What the operator's own words break is nobody else's fault: nothing is left out, and what runs goes on.
#[tokio::test]
async fn a_word_of_the_operators_own_is_blamed_on_no_registration() {
    for program in innocent() {
        let mut world = World::with(&program, |s| s.check = format!("check {UNKNOWN}"));
        let (port, http) = (free_port(), HttpBackend::start("b0").await);
        let plain = backend("b1", http.address, port);
        world.want("web", vec![asking(backend("b0", http.address, port), "maxconn 50"), plain]);
        let mut error = None;
        world
            .turns_until("a turn fails", async |w| {
                error = w.turn().await.err();
                error.is_some()
            })
            .await;
        assert!(error.as_ref().unwrap().contains("idle-ping"), "{error:?}");
        world.turns_until("it is told why", async |w| !status(w).quarantined.is_empty()).await;
        let quarantined = status(&world).quarantined;
        let why = &quarantined["web/b0"];
        assert!(
            quarantined.len() == 1 && why.contains("without it, too"),
            "it waits, and is not blamed: {quarantined:?}"
        );
        let candidate = std::fs::read_to_string(world.path("haproxy.cfg.candidate")).unwrap();
        let whole = candidate.contains(UNKNOWN) && candidate.contains("server b1");
        assert!(whole, "the operator sees what was refused: {candidate}");
    }
}

/// Words outside the table of server keywords never reach HAProxy at all.
#[tokio::test]
async fn words_that_reach_elsewhere_are_quarantined_without_asking_haproxy() {
    let program = &each()[0];
    let (mut world, port, http) = (World::new(program), free_port(), HttpBackend::start("b0").await);
    let evil = asking(backend("evil", http.address, port), "crt /etc/shadow");
    world.want("web", vec![backend("b0", http.address, port), evil]);
    world.settle().await;
    assert_eq!(world.on_disk().len(), 1);
    let why = status(&world).quarantined.remove("web/evil").unwrap();
    assert!(why.contains("crt names a file"), "{why}");
}
