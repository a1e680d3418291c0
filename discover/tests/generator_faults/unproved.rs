//! Words and sections for which `haproxy -c` fails in any form: the guilty one is out, named, and everybody else is served.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Backend;
use prometheus_client::encoding::text::encode;
use tokio::time::Instant;

use super::support::traffic::{HttpBackend, Load};
use super::support::world::{World, backend, each};
use super::support::{free_port, get};

/// Words that every HAProxy takes, but not the one of [`fussy`]: it hangs, complains without a line, or crashes.
const MARKS: [(&str, &str); 3] = [("maxconn 7001", "longer than"), ("maxconn 7002", "odd"), ("maxconn 7003", "signal")];
/// What an innocent change may wait: 3 s, and 2 s more where all tests share two cores. No check's deadline fits in.
const SOON: Duration = Duration::from_secs(5);

/// A HAProxy whose `-c` fails for the words of [`MARKS`], each in its own form.
fn fussy(program: &Path, dir: &Path) -> PathBuf {
    let script = format!(
        "#!/bin/sh\nfor file; do :; done\nif [ \"$1\" = -c ]; then\n\
         grep -q 'maxconn 7001' \"$file\" && {{ sleep 600 & wait; }}\n\
         grep -q 'maxconn 7002' \"$file\" && {{ echo '[ALERT]    (9) : config : odd, and no line.' >&2; exit 1; }}\n\
         grep -q 'maxconn 7003' \"$file\" && kill -SEGV $$\n\
         fi\nexec {} \"$@\"\n",
        program.display()
    );
    let path = dir.join("haproxy");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A world whose HAProxy is fussy.
fn fussy_world(program: &Path) -> World {
    let mut world = World::new(program);
    world.lab.launch.program = fussy(program, world.lab.dir.path());
    world.restart();
    world
}

fn asking(backend: Backend, words: &str) -> Backend {
    Backend { haproxy_server_options: Some(words.into()), ..backend }
}

fn quarantined(world: &World, name: &str) -> Option<String> {
    world.haproxy.status().lock().unwrap().quarantined.get(name).cloned()
}

/// Takes turns until `port` is answered by `body`; how long that took.
async fn routed(world: &mut World, port: u16, body: &str) -> Duration {
    let began = Instant::now();
    world.turns_until("a service is routed", async |_| get(port).await == body).await;
    began.elapsed()
}

/// The file that HAProxy would start with now passes its check.
fn live_file_passes(world: &World) {
    let mut check = std::process::Command::new(&world.lab.launch.program);
    let output = check.arg("-c").arg("-f").arg(&world.settings.config_file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_form_of_the_failure_innocent_services_are_served_and_the_guilty_is_named() {
    for program in each() {
        let http = [HttpBackend::start("web").await, HttpBackend::start("own").await, HttpBackend::start("old").await];
        for (words, form) in MARKS {
            for fresh in [true, false] {
                let mut world = fussy_world(&program);
                let [web, own, old, evil] = [(); 4].map(|()| free_port());
                if !fresh {
                    world.want("evil", vec![backend("old", http[2].address, evil)]);
                    world.settle().await;
                }
                let guilty = asking(backend("odd", http[0].address, evil), words);
                world.want("evil", vec![backend("old", http[2].address, evil), guilty]);
                world.want("web", vec![backend("b0", http[0].address, web)]);
                world.want("own", vec![asking(backend("b0", http[1].address, own), "maxconn 50")]);
                world.want("old", vec![backend("b0", http[2].address, old)]);
                let took = routed(&mut world, web, "web").await;
                let about = format!("{words}, fresh {fresh}, HAProxy {}", world.version());
                assert!(took < SOON, "{took:?}: {about}");
                routed(&mut world, own, "own").await;
                world.turns_until("the guilty is named", async |w| quarantined(w, "evil/odd").is_some()).await;
                let why = quarantined(&world, "evil/odd").unwrap();
                assert!(why.contains(form), "{why}: {about}");
                assert_eq!(get(evil).await, "old", "{about}");
                live_file_passes(&world);
                world.settle().await;
                let (disk, reloads) = (world.on_disk(), world.reloads().len());
                // A restart of discover changes nothing.
                let load = Load::start(own, 2);
                world.restart();
                world.turns_until("it is named again", async |w| quarantined(w, "evil/odd").is_some()).await;
                assert_eq!((world.on_disk(), world.reloads().len()), (disk, 0), "{about}, after {reloads} reloads");
                load.finish().await;
                // HAProxy comes back from the live file.
                let master = world.processes().await.0;
                world.kill(master).await;
                let took = routed(&mut world, own, "own").await;
                assert!(took < SOON, "{took:?} to come back: {about}");
            }
        }
    }
}

/// Words of real HAProxies that fail without a line number or never end, as far as registrations may bring them at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_no_line_is_named_for_harm_nobody_else() {
    for program in each() {
        let http = HttpBackend::start("web").await;
        for words in ["check-proto h2", "check-proto fcgi", "proto fcgi", "sni str(a),map_str(/dev/zero)"] {
            let (mut world, [web, evil]) = (World::new(&program), [(); 2].map(|()| free_port()));
            let odd = asking(backend("odd", http.address, evil), words);
            world.want("evil", vec![backend("old", http.address, evil), odd]);
            world.want("web", vec![backend("b0", http.address, web)]);
            let took = routed(&mut world, web, "web").await;
            assert!(took < SOON, "{took:?}: {words}, HAProxy {}", world.version());
            world.settle().await;
            assert_eq!(get(evil).await, "web");
            live_file_passes(&world);
        }
    }
}

/// A section that HAProxy refuses for its structure is left out alone: here the operator's template has a fault for one service only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_section_that_haproxy_refuses_is_left_out_alone() {
    for program in each() {
        for fresh in [true, false] {
            let templates = tempfile::tempdir().unwrap();
            let section =
                format!("{}\n{{%- if service == \"taken\" %}}\n\tquux\n{{%- endif %}}\n", super::SECTION.trim_end());
            std::fs::write(templates.path().join("section.tera"), section).unwrap();
            let mut world = World::with(&program, |s| s.templates = Some(templates.path().to_owned()));
            let http = HttpBackend::start("web").await;
            let [a, b, web, taken] = [(); 4].map(|()| free_port());
            if !fresh {
                world.want("a", vec![backend("b0", http.address, a)]);
                world.settle().await;
            }
            world.want("a", vec![backend("b0", http.address, a)]);
            world.want("b", vec![backend("b0", http.address, b)]);
            world.want("taken", vec![backend("b0", http.address, taken)]);
            world.want("web", vec![backend("b0", http.address, web)]);
            let took = routed(&mut world, web, "web").await;
            assert!(took < SOON, "{took:?}, fresh {fresh}, HAProxy {}", world.version());
            assert_eq!([get(a).await, get(b).await], ["web", "web"]);
            let why = quarantined(&world, "taken").unwrap();
            assert!(why.contains("quux"), "{why}");
            live_file_passes(&world);
            world.want("taken", vec![]);
            world.settle().await;
            assert_eq!(quarantined(&world, "taken"), None);
        }
    }
}

/// 2,000 servers with refused words cost everybody else nothing, whether they are the same words or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_refused_words_keep_no_innocent_change_waiting() {
    let program = each().pop().unwrap();
    let many: u32 = std::env::var("REFUSED").map_or(400, |n| n.parse().unwrap());
    for distinct in [false, true] {
        let (mut world, [evil, web, next]) = (fussy_world(&program), [(); 3].map(|()| free_port()));
        let http = HttpBackend::start("web").await;
        world.want("web", vec![backend("b0", http.address, web)]);
        world.settle().await;
        let odd = |n: u32| {
            let words = if distinct { format!("maxconn 7002 minconn {}", n + 1) } else { "maxconn 7002".to_owned() };
            asking(backend(&format!("odd{n}"), http.address, evil), &words)
        };
        world.want("evil", (0..many).map(odd).collect());
        world.turn().await.unwrap();
        world.want("next", vec![backend("b0", http.address, next)]);
        let took = routed(&mut world, next, "web").await;
        world.want("web", vec![backend("b0", http.address, web), backend("b1", http.address, web)]);
        let began = Instant::now();
        world.turns_until("a server is added", async |w| w.on_disk().iter().any(|s| s.1 == "b1")).await;
        let mut text = String::new();
        encode(&mut text, &world.registry).unwrap();
        let checks = text.lines().find(|line| line.contains("config_checks_total")).unwrap();
        let slowest = world.turns.iter().max().unwrap();
        let server = began.elapsed();
        println!(
            "{many} refused, distinct {distinct}: section {took:?}, server {server:?}, {checks}, slowest turn {slowest:?}"
        );
        assert!(took < SOON && server < Duration::from_secs(2), "section {took:?}, server {server:?}");
        live_file_passes(&world);
    }
}
