//! Words of a registration that are more than words: they reach no HAProxy, and nobody else notices.

use std::sync::{Arc, Mutex};

use model::Backend;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::support::making;
use super::support::traffic::HttpBackend;
use super::support::world::{World, backend, each};
use super::support::{free_port, get};

/// A backend that keeps every byte that it is sent, and answers nothing.
async fn listener() -> (std::net::SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let (listener, kept) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(Mutex::new(Vec::new())));
    let (address, keep) = (listener.local_addr().unwrap(), kept.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let keep = keep.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                    keep.lock().unwrap().extend_from_slice(&bytes[..n]);
                }
            });
        }
    });
    (address, kept)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_word_of_a_registration_sends_a_byte_of_the_environment_or_of_a_file() {
    // Cargo gives every test this variable: it stands for a password.
    let (variable, secret) = ("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"));
    for program in each().into_iter().chain(making()) {
        let (mut world, port, http) = (World::new(&program), free_port(), HttpBackend::start("good").await);
        let (address, kept) = listener().await;
        let file = world.path("secret");
        std::fs::write(&file, "key out-of-the-file\n").unwrap();
        let file = file.display();
        let mut expressions = vec![
            format!("env({variable})"),
            format!("str(env({variable}))"),
            format!("str(key),map_str({file})"),
            "str(a),map_str(/dev/zero)".to_owned(),
            "var(proc.x)".to_owned(),
            format!("${{{variable}}}"),
            format!("\"${variable}\""),
            format!("str(${variable})"),
            format!("%[env({variable})]"),
            format!("str(a),concat(,env({variable}))"),
        ];
        expressions.push(file.to_string());
        let words =
            ["sni", "pool-conn-name", "check-sni", "verifyhost", "check-pool-conn-name", "set-proxy-v2-tlv-fmt(0xE1)"];
        let evil = words
            .iter()
            .flat_map(|word| expressions.iter().map(move |e| format!("ssl verify none no-check {word} {e}")));
        let evil: Vec<String> =
            evil.chain([format!("cookie ${variable}"), "proto fcgi".into(), "check-proto h2".into()]).collect();
        let asking = |(n, words): (usize, &String)| Backend {
            haproxy_server_options: Some(words.as_str().into()),
            ..backend(&format!("evil{n}"), address, port)
        };
        let all = evil.iter().enumerate().map(asking).chain([backend("good", http.address, port)]);
        world.want("web", all.collect());
        world.settle().await;
        for _ in 0..20 {
            assert_eq!(get(port).await, "good", "HAProxy {}", world.version());
        }
        assert_eq!(world.on_disk().len(), 1);
        let quarantined = world.haproxy.status().lock().unwrap().quarantined.clone();
        assert_eq!(quarantined.len(), evil.len(), "{quarantined:?}");
        assert_eq!(world.reloads(), ["start"], "they cost nothing");
        let heard = String::from_utf8_lossy(&kept.lock().unwrap()).into_owned();
        assert!(!heard.contains(secret) && !heard.contains("out-of-the-file"), "{heard:?}");
    }
}

/// Names that are discover's own, and ids that HAProxy's alphabet does not hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_backends_called_like_anything_of_ours_are_served() {
    for program in each().into_iter().chain(making()) {
        let mut world = World::with(&program, |s| s.stats.port = Some(free_port().try_into().unwrap()));
        let names = [
            "stats",
            "stats:service",
            "edge",
            "edge:1",
            "edge:none",
            "edge-plain",
            "GLOBAL",
            "MASTER",
            "0",
            "defaults",
            "none",
        ];
        let mut wanted = Vec::new();
        for name in names {
            let (port, one, two) = (free_port(), HttpBackend::start(name).await, HttpBackend::start(name).await);
            world.want(name, vec![backend("n@1", one.address, port), backend("n.1-82b6", two.address, port)]);
            wanted.push((name, port, one, two));
        }
        world.settle().await;
        for (name, port, ..) in &wanted {
            for _ in 0..4 {
                assert_eq!(get(*port).await, *name, "HAProxy {}", world.version());
            }
        }
        assert_eq!(world.on_disk().len(), 2 * names.len());
        assert!(world.on_disk().iter().any(|s| s.0 == "stats:service" && s.1 == "n.-at-1"));
    }
}
