//! No server is HAProxy itself, and no listener uses up the connections of the others.

use std::time::Duration;

use discover::haproxy::words::bind::ListenOn;
use model::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::traffic::HttpBackend;
use super::support::world::{World, backend, each};
use super::support::{free_port, get};

/// The first line of the answer, if there is one soon.
async fn answer(port: u16) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        text.lines().next().map(str::to_owned)
    };
    timeout(Duration::from_secs(2), ask).await.ok().flatten()
}

fn at(id: &str, host: &str, port: u16, service_port: u16) -> Backend {
    Backend { host: host.parse().unwrap(), ..backend(id, ([127, 0, 0, 1], port).into(), service_port) }
}

fn left_out(world: &World) -> Vec<String> {
    world.haproxy.status().lock().unwrap().quarantined.keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_registration_makes_haproxy_its_own_server_in_any_spelling() {
    for program in each() {
        let (stats, own, other) = (free_port(), free_port(), free_port());
        let mut world = World::with(&program, |s| {
            s.stats.port = stats.try_into().ok();
            s.frame.listen = ListenOn::These(vec!["0.0.0.0".parse().unwrap()]);
        });
        let http = HttpBackend::start("b0").await;
        let hosts = ["0.0.0.0", "127.0.0.1", "127.7.7.7", "::ffff:127.0.0.1", "localhost"];
        let own_hosts = agent::hostip::own_addresses().unwrap();
        let interface = own_hosts.iter().find(|ip| ip.is_ipv4() && !ip.is_loopback()).map(ToString::to_string);
        let hosts: Vec<&str> = hosts.into_iter().chain(interface.as_deref()).collect();
        let itself = |port: u16| hosts.iter().enumerate().map(move |(n, host)| at(&format!("s{n}"), host, port, own));
        world.want("good", vec![backend("b0", http.address, other)]);
        // Its own port, another service's, and the stats page's.
        let mut pool: Vec<Backend> = itself(own).collect();
        pool.push(at("other", "127.0.0.1", other, own));
        pool.push(at("stats", "127.0.0.1", stats, own));
        let count = pool.len();
        world.want("self", pool);
        let all_out = async |world: &mut World| left_out(world).len() == count;
        world.turns_until("all are left out", all_out).await;
        world.settle().await;
        for _ in 0..20 {
            assert_eq!(get(other).await, "b0", "HAProxy {}", world.version());
        }
        assert!(answer(own).await.unwrap().contains("503"), "HAProxy {}", world.version());
        assert!(answer(stats).await.unwrap().contains("200"), "HAProxy {}", world.version());
        assert!(left_out(&world).iter().all(|key| key.starts_with("self/")));
        world.assert_disk_is_what_runs().await;
    }
}

/// A program on a port of this host dies while its registration is held; then a service takes that port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_goes_when_haproxy_begins_to_listen_where_it_was_and_returns_when_that_ends() {
    for program in each() {
        let mut world = World::with(&program, |s| s.frame.linger = Duration::ZERO);
        let (port, taken) = (free_port(), free_port());
        let (http, program) =
            (HttpBackend::start("b0").await, HttpBackend::at("p", ([127, 0, 0, 1], taken).into()).await);
        let pool = || vec![backend("b0", http.address, port), at("p", "127.0.0.1", taken, port)];
        world.want("web", pool());
        world.want("late", vec![backend("l0", http.address, taken)]);
        world.settle().await;
        let serves = async |world: &mut World| world.state("p").await.is_some_and(|s| !s.admin.in_maintenance());
        assert!(serves(&mut world).await, "whoever listens there keeps it");
        assert!(left_out(&world).is_empty());
        program.kill();
        world
            .turns_until("the service has its port", async |world| {
                world.reloads().iter().filter(|reasons| reasons.contains("section_added")).count() == 1
            })
            .await;
        world.settle().await;
        assert_eq!(left_out(&world), ["web/p"], "HAProxy {}", world.version());
        assert!(!serves(&mut world).await);
        for _ in 0..20 {
            assert_eq!((get(port).await.as_str(), get(taken).await.as_str()), ("b0", "b0"));
        }
        world.want("late", vec![]);
        world.turns_until("the server is back", serves).await;
        world.settle().await;
        assert!(left_out(&world).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooded_service_leaves_connections_for_the_others_and_the_stats_page() {
    for program in each() {
        let (stats, flooded, other) = (free_port(), free_port(), free_port());
        let mut world = World::with(&program, |s| {
            (s.maxconn, s.frame.listener_maxconn, s.stats.port) = (60, Some(30), stats.try_into().ok());
        });
        let http = HttpBackend::start("b0").await;
        for (service, port) in [("flooded", flooded), ("other", other)] {
            world.want(service, vec![backend("b0", http.address, port)]);
        }
        world.settle().await;
        let mut flood = Vec::new();
        for _ in 0..80 {
            flood.push(TcpStream::connect(("127.0.0.1", flooded)).await.unwrap());
        }
        assert_eq!(answer(flooded).await, None, "it is flooded");
        for port in [other, stats] {
            assert!(answer(port).await.is_some_and(|line| line.contains("200")), "HAProxy {}", world.version());
        }
        drop(flood);
        world
            .turns_until("it recovers", async |_| answer(flooded).await.is_some_and(|line| line.contains("200")))
            .await;
    }
}
