//! Sections that HAProxy makes at run time, from 3.4 on: no service waits for a reload, and nothing is left of those that are gone.
//! On a real HAProxy where the lab has one; the same words are spoken to a scripted one in `discover/src/haproxy/runtime_tests.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use discover::haproxy::api::ops::{Op, SectionName, ServerRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::echo::echo;
use super::support::proxy::{Habit, SocketProxy};
use super::support::traffic::{HttpBackend, Load, Manner};
use super::support::world::World;
use super::support::{eventually, making};
use super::{get, raw, routed, who, world};

/// Asks one host again and again until it is told to stop; every answer is to be `a`'s.
fn load(port: u16, host: &'static str) -> (Arc<AtomicBool>, JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let asking = tokio::spawn(async move {
        let mut good = 0;
        while !stopped.load(SeqCst) {
            assert_eq!(who(port, host, "/").await, "a");
            good += 1;
        }
        good
    });
    (stop, asking)
}

/// The numbered sections in HAProxy that take traffic, after those of the file: both are to be the same.
async fn sections(world: &World) -> BTreeSet<String> {
    let numbered = |name: &String| name.starts_with("edge:") && name != "edge:none";
    let runs: BTreeSet<String> = world.api().published().await.unwrap().into_iter().filter(numbered).collect();
    let file = world.file().unwrap();
    let listed = file.sections.iter().map(|section| section.name.to_string()).filter(numbered).collect();
    assert_eq!(runs, listed, "HAProxy {}", world.version());
    runs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_3_4_a_new_service_gets_a_section_made_and_it_goes_with_the_service() {
    let a = echo("a").await;
    let Some(program) = making() else { return };
    let (mut world, port) = world(&program, |edge| edge.spare_sections = 0);
    world.want("first", vec![routed("a", a, &["first.example"])]);
    world.settle().await;
    let processes = world.processes().await;
    let (stop, asking) = load(port, "first.example");
    let name = |n: usize| (format!("s{n}"), format!("s{n}.example"));
    for n in 0..12 {
        let (service, host) = name(n);
        let routes = [host.as_str(), "shared.example/x strip https priority=3"];
        world.want(&service, vec![routed("a", a, &routes[..1 + usize::from(n == 3)])]);
        world.turn().await.unwrap();
        assert_eq!(who(port, &host, "/").await, "a");
    }
    assert_eq!(sections(&world).await.len(), 13);
    assert_eq!(world.haproxy.status().lock().unwrap().edge.as_ref().unwrap().made, 13);
    let before = world.file().unwrap();
    world.restart();
    world.settle().await;
    assert_eq!((world.reloads(), world.file().unwrap()), (vec![], before), "a restart of discover changes nothing");
    for n in 0..12 {
        world.want(&name(n).0, vec![routed("a", a, &[])]);
    }
    world.turns_until("their sections are gone", async |w| sections(w).await.len() == 1).await;
    // The numbers are free for others.
    world.want("again", vec![routed("a", a, &["again.example"])]);
    world.settle().await;
    assert_eq!((who(port, "again.example", "/").await, sections(&world).await.len()), ("a".into(), 2));
    stop.store(true, SeqCst);
    assert!(asking.await.unwrap() > 0);
    assert_eq!((world.reloads(), world.processes().await), (vec![], processes));
    world.assert_disk_is_what_runs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_3_4_a_service_that_becomes_sticky_moves_to_a_whole_section() {
    let a = echo("a").await;
    let Some(program) = making() else { return };
    let (mut world, port) = world(&program, |edge| edge.spare_sections = 1);
    world.want("web", vec![routed("a", a, &["a.example"])]);
    world.settle().await;
    let (stop, asking) = load(port, "a.example");
    assert_eq!(get(port, "a.example", "/", "").await.header("set-cookie"), None);
    world.want("web", vec![routed("a", a, &["a.example sticky"])]);
    world.settle().await;
    assert!(get(port, "a.example", "/", "").await.header("set-cookie").is_some());
    world.turns_until("the section that was made for it is gone", async |w| sections(w).await.len() == 1).await;
    assert_eq!(world.reloads(), ["start"]);
    // Plain again, it stays where it is; the next sticky one finds no spare section.
    world.want("web", vec![routed("a", a, &["a.example"])]);
    world.want("other", vec![routed("a", a, &["b.example sticky"])]);
    world.settle().await;
    assert_eq!(world.reloads(), ["start", "section_added"]);
    assert!(get(port, "b.example", "/", "").await.header("set-cookie").is_some());
    stop.store(true, SeqCst);
    assert!(asking.await.unwrap() > 0);
    world.assert_disk_is_what_runs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_3_4_a_section_that_is_refused_is_in_the_file_that_is_loaded_and_spare_ones_are_taken_from_then_on() {
    let a = echo("a").await;
    let Some(program) = making() else { return };
    let (mut world, port) = world(&program, |edge| edge.spare_sections = 2);
    world.want("first", vec![routed("a", a, &["first.example"])]);
    world.settle().await;
    let proxy = SocketProxy::start(&world.path("proxy.sock"), &world.settings.socket);
    proxy.be(Habit::NoSections);
    world.through(proxy.path());
    world.want("second", vec![routed("a", a, &["second.example"])]);
    world.settle().await;
    assert_eq!(who(port, "second.example", "/").await, "a");
    let reloads = world.reloads();
    assert!(reloads.len() == 1 && reloads[0].contains("refused"), "{reloads:?}");
    world.want("third", vec![routed("a", a, &["third.example"])]);
    world.settle().await;
    assert_eq!((world.reloads(), who(port, "third.example", "/").await), (reloads, "a".into()));
    assert_eq!(sections(&world).await.len(), 4, "three services, and one spare section is left");
    world.assert_disk_is_what_runs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_3_4_a_section_that_a_hand_deleted_or_made_is_made_anew_or_loaded_over() {
    let a = echo("a").await;
    let Some(program) = making() else { return };
    let (mut world, port) = world(&program, |edge| edge.spare_sections = 0);
    world.want("web", vec![routed("a", a, &["a.example"])]);
    world.settle().await;
    let (name, server) = (SectionName::new("edge:1").unwrap(), ServerRef::new("edge:1", "a").unwrap());
    for op in [Op::Maint(server.clone()), Op::DelServer(server)] {
        // A connection that was kept is closed a moment after the maintenance begins.
        eventually("it is done", async || world.api().run(op.clone()).await.is_ok()).await;
    }
    assert_eq!(
        world.api().del_section(&name).await.unwrap(),
        discover::haproxy::api::runtime::DelOutcome::Deleted,
        "HAProxy {}",
        world.version()
    );
    assert_eq!(who(port, "a.example", "/").await, "503");
    world.restart();
    world.settle().await;
    assert_eq!((who(port, "a.example", "/").await, world.reloads()), ("a".into(), vec![]));
    // Somebody else's section has the next one's name.
    let (name, defaults) = (SectionName::new("edge:2").unwrap(), SectionName::new("edge-plain").unwrap());
    world.api().run(Op::AddSection { name, defaults }).await.unwrap();
    world.want("other", vec![routed("a", a, &["b.example"])]);
    world.settle().await;
    assert_eq!((who(port, "b.example", "/").await, world.reloads()), ("a".into(), vec!["refused".into()]));
    world.want("third", vec![routed("a", a, &["c.example"])]);
    world.settle().await;
    assert_eq!((who(port, "c.example", "/").await, world.reloads().len()), ("a".into(), 1), "made again");
    world.assert_disk_is_what_runs().await;
}

/// What a made section has from `edge-plain` alone: safe retries, and the edge's own page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_3_4_a_made_section_repeats_no_post_and_answers_with_the_edges_page() {
    let Some(program) = making() else { return };
    let (mut world, port) = world(&program, |_| {});
    world.settle().await;
    let (good, dying) = (
        HttpBackend::start("good").await,
        HttpBackend::with("dying", std::time::Duration::ZERO, Manner::DieAfterExecution).await,
    );
    world.want(
        "web",
        ["good", "dying"]
            .into_iter()
            .zip([good.address, dying.address])
            .map(|(id, at)| routed(id, at, &["a.example"]))
            .collect(),
    );
    world.settle().await;
    let post = b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let mut failed = 0;
    for _ in 0..20 {
        assert_eq!(get(port, "a.example", "/", "").await.status, 200, "a GET is repeated elsewhere");
        failed += u64::from(raw(port, post).await.status != 200);
    }
    let executed = [good.posts.load(SeqCst), dying.posts.load(SeqCst)];
    assert_eq!(
        (executed.iter().sum::<u64>(), failed),
        (20, executed[1]),
        "each once, and the client is told: {executed:?}"
    );
    assert!(executed[1] > 0, "it took part");
    for backend in [&good, &dying] {
        backend.kill();
    }
    eventually("the edge's page is shown", async || {
        let answer = get(port, "a.example", "/", "").await;
        answer.status == 503 && answer.body.contains("No backend of this service is up")
    })
    .await;
    assert_eq!(world.reloads(), ["start"]);
}

/// Over kept connections, which go from one section to another: HAProxy lets go of a section that it served a moment ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_3_4_sections_come_and_go_by_the_dozen_under_load_and_fail_no_request() {
    let Some(program) = making() else { return };
    let (mut world, port) = world(&program, |edge| edge.spare_sections = 0);
    let http = HttpBackend::start("a").await;
    world.want("web", vec![routed("a", http.address, &["a"])]);
    world.settle().await;
    let (load, processes) = (Load::start(port, 4), world.processes().await);
    for round in 0..5 {
        let services: Vec<String> = (0..12).map(|n| format!("s{round}-{n}")).collect();
        for service in &services {
            world.want(service, vec![routed("a", http.address, &[&format!("{service}.example")])]);
        }
        world.settle().await;
        let mut kept = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        for service in &services {
            let request = format!("GET / HTTP/1.1\r\nhost: {service}.example\r\n\r\n");
            kept.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\na") {
                assert_ne!(
                    kept.read_buf(&mut answer).await.unwrap(),
                    0,
                    "{service}: {}",
                    String::from_utf8_lossy(&answer)
                );
            }
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{service}");
        }
        for service in &services {
            world.want(service, vec![routed("a", http.address, &[])]);
        }
        world.turns_until("their sections are gone", async |w| sections(w).await.len() == 1).await;
        for service in &services {
            world.want(service, vec![]);
        }
    }
    load.flows(50).await;
    load.finish().await;
    assert_eq!((world.reloads(), world.processes().await), (vec!["start".to_owned()], processes));
}
