//! TLS that is passed through by its name, alone on a port and beside HTTPS on one.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use discover::certificates::CertificateKeeper;
use discover::edge::EdgeSettings;
use discover::edge::settings::Owners;
use discover::metrics::Metrics;
use model::{Backend, HostPattern, Mode, SniNames};
use prometheus_client::registry::Registry;
use rustls::pki_types::ServerName;
use testing::certs::Certs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::echo::echo;
use super::life::assert_same;
use super::support::world::World;
use super::support::{eventually, free_port};
use super::{each, routed, world};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server with a certificate of its own that says its name and whatever it hears, once.
async fn server(certs: &Certs, stem: &str, name: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, name, acceptor) = (listener.local_addr().unwrap(), name.to_owned(), certs.acceptor_of(stem, &[]));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, name) = (acceptor.clone(), name.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.ok()?;
                let mut heard = [0; 64];
                let n = stream.read(&mut heard).await.ok()?;
                stream
                    .write_all(format!("{name} heard {}", String::from_utf8_lossy(&heard[..n])).as_bytes())
                    .await
                    .ok()?;
                stream.shutdown().await.ok()
            });
        }
    });
    address
}

/// What the server for `name` says, over TLS whose certificate is for that name; or why there is no TLS.
async fn ask(certs: &Certs, port: u16, name: &str, text: &str) -> Result<String, String> {
    let talk = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let server = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = certs.connector(&[]).connect(server, stream).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&all).into_owned())
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap().map_err(|e| e.to_string())
}

/// Who answers for `name`; `None`: nobody.
async fn who(certs: &Certs, port: u16, name: &str) -> Option<String> {
    let said = ask(certs, port, name, "x").await.ok()?;
    said.strip_suffix(" heard x").map(str::to_owned)
}

/// A backend that is reached by names of TLS alone.
pub(super) fn passing(id: &str, at: SocketAddr, names: &[&str]) -> Backend {
    let sni = SniNames::new(names.iter().map(|name| name.parse::<HostPattern>().unwrap())).0;
    Backend { sni, mode: Some(Mode::Tcp), ..routed(id, at, &[]) }
}

/// A world whose edge passes TLS through on a port of its own.
fn alone(program: &Path, change: impl FnOnce(&mut EdgeSettings)) -> (World, u16) {
    let port = free_port();
    let (world, _) = world(program, |edge| {
        edge.sni_port = port.try_into().ok();
        change(edge);
    });
    (world, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_tls_come_change_and_go_without_a_reload_and_fail_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Arc::new(Certs::make(dir.path()));
    certs.issue("any", &["db.example", "new.example", "*.w.example", "deep.x.w.example", "blue.example"]);
    let (a, b) = (server(&certs, "any", "a").await, server(&certs, "any", "b").await);
    for program in each() {
        let (mut world, port) = alone(&program, |_| {});
        world.want("db", vec![passing("a", a, &["db.example"])]);
        world.settle().await;
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let load = tokio::spawn({
            let (stop, good, certs) = (stop.clone(), good.clone(), certs.clone());
            async move {
                while !stop.load(SeqCst) {
                    assert_eq!(ask(&certs, port, "DB.example", "x").await, Ok("a heard x".to_owned()));
                    good.fetch_add(1, SeqCst);
                }
            }
        });
        world.want("wild", vec![passing("b", b, &["*.w.example", "new.example"])]);
        world.settle().await;
        for (name, expected) in [
            ("db.example", Some("a")),
            ("new.example", Some("b")),
            ("y.w.example", Some("b")),
            ("deep.x.w.example", Some("b")),
            ("w.example", None),
            ("other.example", None),
        ] {
            assert_eq!(who(&certs, port, name).await.as_deref(), expected, "{name}, HAProxy {}", world.version());
        }
        // Of two that ask for one name the first has it; the other has its turn when that one is gone.
        world.want("blue", vec![Backend { created: Some(3), ..passing("a", a, &["blue.example"]) }]);
        world.want("green", vec![Backend { created: Some(7), ..passing("b", b, &["blue.example"]) }]);
        world.settle().await;
        assert_eq!(who(&certs, port, "blue.example").await.as_deref(), Some("a"));
        let edge = world.haproxy.status().lock().unwrap().edge.clone().unwrap();
        assert_eq!(edge.lost["TLS of blue.example (green)"], "it is service blue's");
        let sni = edge.sni.unwrap();
        assert_eq!((sni.names["blue.example"].as_str(), sni.sections.len(), sni.spare), ("blue", 3, 1));
        assert!(edge.sections.is_empty() && edge.spare == 3, "sections of requests are others");
        world.want("blue", vec![]);
        world.settle().await;
        assert_eq!(who(&certs, port, "blue.example").await.as_deref(), Some("b"));
        world.want("wild", vec![]);
        world.settle().await;
        assert_eq!(who(&certs, port, "new.example").await, None, "its last backend is gone");
        world.want("wild", vec![passing("a", a, &["new.example"])]);
        world.settle().await;
        assert_eq!(who(&certs, port, "new.example").await.as_deref(), Some("a"));
        stop.store(true, SeqCst);
        load.await.unwrap();
        assert!(good.load(SeqCst) > 0);
        assert_eq!(world.reloads(), ["start"], "HAProxy {}", world.version());
        let map = assert_same(&world).await;
        world.assert_disk_is_what_runs().await;
        world.restart();
        world.settle().await;
        assert_eq!((world.reloads(), assert_same(&world).await), (vec![], map), "each keeps its section");
        world.want("fourth", vec![passing("b", b, &["db.example", "w.example"])]);
        world.settle().await;
        assert_eq!(world.reloads(), Vec::<String>::new());
        // One more than there are spare sections.
        world.want("fifth", vec![passing("b", b, &["z.w.example"])]);
        world.settle().await;
        assert_eq!(world.reloads(), ["section_added"]);
        assert_eq!(who(&certs, port, "db.example").await.as_deref(), Some("a"));
    }
}

/// The bytes with which a client begins TLS for `name`.
fn hello(name: &str) -> Vec<u8> {
    let name = name.as_bytes();
    let length = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
    let list = [&[0][..], &length(name.len()), name].concat();
    let server_name = [&[0, 0][..], &length(list.len() + 2), &length(list.len()), &list].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 0x01, 1, 0], &length(server_name.len()), &server_name].concat();
    let handshake = [&[1, 0][..], &length(body.len()), &body].concat();
    [&[22, 3, 1][..], &length(handshake.len()), &handshake].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_name_that_is_known_is_turned_away_and_one_in_pieces_is_understood() {
    // It says what it is sent, byte for byte.
    let mirror = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = mirror.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = mirror.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    for program in each() {
        let (mut world, port) = alone(&program, |_| {});
        world.want("m", vec![passing("m", at, &["m.example", "*.w.example"])]);
        world.settle().await;
        let sent = async |pieces: &[&[u8]]| {
            let talk = async {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                stream.set_nodelay(true).unwrap();
                for piece in pieces {
                    if stream.write_all(piece).await.is_err() {
                        break; // turned away already
                    }
                    tokio::task::yield_now().await;
                }
                let _ = stream.shutdown().await;
                let mut back = Vec::new();
                let _ = stream.read_to_end(&mut back).await;
                back
            };
            tokio::time::timeout(PATIENCE, talk).await.unwrap()
        };
        let good = hello("m.example");
        assert_eq!(sent(&[&good]).await, good, "HAProxy {}", world.version());
        assert_eq!(sent(&[&good[..3], &good[3..50], &good[50..]]).await, good, "HAProxy {}", world.version());
        for bad in ["*.w.example", "m.example|-|x", "m.example/", "sni=m.example", "edge:sni:1|-|m", "..w.example.."] {
            let answered = sent(&[&hello(bad)]).await;
            assert!(answered.is_empty() || bad == "..w.example..", "{bad}: {answered:?}");
        }
        assert!(sent(&[b"GET / HTTP/1.1\r\nhost: m.example\r\n\r\n"]).await.is_empty());
        assert!(sent(&[&good[..20]]).await.is_empty());
    }
}

/// A world whose edge has HTTPS for `*.web.example`, and passes TLS through on the same port; the port.
pub(super) fn shared(program: &Path, certs: &Certs, change: impl FnOnce(&mut EdgeSettings)) -> (World, u16) {
    let operator = certs.path("operator");
    std::fs::create_dir_all(&operator).unwrap();
    for file in ["web.pem", "web.key"] {
        std::fs::copy(certs.path(file), operator.join(file)).unwrap();
    }
    let (plain, port) = (free_port(), free_port());
    let world = World::with(program, |settings| {
        let mut edge = EdgeSettings {
            listen: format!("127.0.0.1:{plain}").parse().unwrap(),
            https_port: port.try_into().unwrap(),
            sni_port: port.try_into().ok(),
            certificates: vec![operator].into(),
            spare_sections: 3,
            ..EdgeSettings::default()
        };
        change(&mut edge);
        let edge = edge.with_copies_beside(&settings.config_file);
        CertificateKeeper::of(&edge, &Metrics::new(&mut Registry::default())).unwrap().unwrap().refresh().unwrap();
        settings.edge = Some(Arc::new(edge));
    });
    (world, port)
}

async fn over_https(certs: &Certs, port: u16, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nx-forwarded-for: 6.6.6.6\r\n\r\n");
    ask(certs, port, host, &request).await.unwrap_or_else(|e| e)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_that_passes_and_tls_that_ends_here_share_a_port() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(dir.path());
    certs.issue("web", &["shop.web.example", "db.web.example", "late.web.example"]);
    certs.issue("db", &["db.web.example", "shop.web.example", "x.y.web.example", "late.web.example"]);
    let (web, db) = (echo("web").await, server(&certs, "db", "db").await);
    for program in each() {
        let (mut world, port) = shared(&program, &certs, |_| {});
        world.want("shop", vec![routed("w", web, &["shop.web.example"])]);
        world.settle().await;
        let told = over_https(&certs, port, "shop.web.example").await;
        assert!(told.contains("\r\n\r\nweb\n"), "HAProxy {}: {told}", world.version());
        let lines = ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: https", &format!("x-forwarded-port: {port}")];
        for line in lines {
            assert!(told.lines().any(|l| l.trim_end().eq_ignore_ascii_case(line)), "{line} is not in {told}");
        }
        assert!(!told.contains("6.6.6.6"), "{told}");

        // Neither a wildcard nor a later claim takes the host's TLS away.
        world.want("db", vec![passing("d", db, &["db.web.example", "*.web.example", "shop.web.example"])]);
        world.settle().await;
        assert_eq!(who(&certs, port, "db.web.example").await.as_deref(), Some("db"));
        assert_eq!(who(&certs, port, "x.y.web.example").await.as_deref(), Some("db"));
        assert!(over_https(&certs, port, "shop.web.example").await.contains("\r\n\r\nweb\n"));
        let lost = world.haproxy.status().lock().unwrap().edge.clone().unwrap().lost;
        assert!(lost["TLS of shop.web.example (db)"].contains("for the routes of service shop"), "{lost:?}");
        world.want("late", vec![routed("w", web, &["late.web.example"])]);
        world.settle().await;
        assert!(over_https(&certs, port, "late.web.example").await.contains("\r\n\r\nweb\n"));
        world.want("db", vec![]);
        world.settle().await;
        assert!(over_https(&certs, port, "late.web.example").await.contains("\r\n\r\nweb\n"), "while rules linger");
        world.want("db", vec![passing("d", db, &["db.web.example"])]);
        world.settle().await;
        assert_eq!(world.reloads(), ["start"], "HAProxy {}", world.version());

        // A name that nobody knows gets HTTPS's own answer, and a reload finds the way inside again.
        let unknown = ask(&certs, port, "nobody.example", "x").await.unwrap_err();
        assert!(unknown.contains("UnrecognisedName"), "{unknown}");
        world.assert_disk_is_what_runs().await;
        assert!(over_https(&certs, port, "shop.web.example").await.contains("\r\n\r\nweb\n"));
        assert_eq!(who(&certs, port, "db.web.example").await.as_deref(), Some("db"));
        assert_same(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_given_a_host_has_its_tls_too_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(dir.path());
    certs.issue("web", &["shop.web.example"]);
    certs.issue("own", &["shop.web.example"]);
    let (web, own) = (echo("web").await, server(&certs, "own", "own").await);
    for program in each() {
        let (mut world, port) = shared(&program, &certs, |edge| {
            edge.owners = Owners::new([("shop.web.example".parse().unwrap(), vec!["shop-*".parse().unwrap()])].into());
        });
        world.want("evil", vec![passing("e", own, &["shop.web.example", "*.web.example"])]);
        world.want("shop-80", vec![routed("w", web, &["shop.web.example"])]);
        world.settle().await;
        assert!(over_https(&certs, port, "shop.web.example").await.contains("\r\n\r\nweb\n"));
        world.want("shop-443", vec![passing("o", own, &["shop.web.example"])]);
        world.settle().await;
        assert_eq!(who(&certs, port, "shop.web.example").await.as_deref(), Some("own"), "as the operator has said");
        let lost = world.haproxy.status().lock().unwrap().edge.clone().unwrap().lost;
        assert!(lost["TLS of shop.web.example (evil)"].contains("edge.hosts"), "{lost:?}");
        assert_eq!(world.reloads(), ["start"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_has_a_line_for_each_connection_that_passes() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(dir.path());
    certs.issue("any", &["db.example"]);
    let a = server(&certs, "any", "a").await;
    for program in each() {
        let (mut world, port) = alone(&program, |edge| edge.access_log = Some("stdout".parse().unwrap()));
        world.want("db", vec![passing("a", a, &["db.example"])]);
        world.settle().await;
        assert_eq!(who(&certs, port, "db.example").await.as_deref(), Some("a"));
        assert_eq!(who(&certs, port, "nobody.example").await, None);
        let log = world.path("haproxy.log");
        let mut lines = Vec::new();
        eventually("both are logged", async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok();
            lines = text.lines().filter(|line| line.contains("\"sni\"")).filter_map(read).collect();
            lines.len() >= 2
        })
        .await;
        let service = |name: &str| lines.iter().find(|line| line["sni"] == name).map(|line| line["service"].clone());
        assert_eq!(service("db.example"), Some("db".into()), "{lines:?}");
        assert!(service("nobody.example").is_some_and(|service| service != "db"), "{lines:?}");
    }
}

/// A client that uses one connection for two names, as HTTP/2 allows where one certificate is for both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_a_name_whose_tls_passes_is_misdirected_on_a_connection_that_ends_here() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(dir.path());
    certs.issue("web", &["shop.web.example", "db.web.example", "x.y.web.example", "both.web.example"]);
    certs.issue("db", &["db.web.example", "x.y.web.example"]);
    let (web, db) = (echo("web").await, server(&certs, "db", "db").await);
    for program in each() {
        let (mut world, port) = shared(&program, &certs, |_| {});
        world.want("shop", vec![routed("w", web, &["shop.web.example", "both.web.example"])]);
        world.settle().await;
        world.want("db", vec![passing("d", db, &["db.web.example", "*.web.example"])]);
        world.settle().await;
        let status = async |host: &str| {
            let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = ask(&certs, port, "shop.web.example", &request).await.unwrap_or_else(|e| e);
            answer.split(' ').nth(1).unwrap_or_default().to_owned()
        };
        for (host, expected) in [
            ("shop.web.example", "200"),
            ("both.web.example:443", "200"),
            ("db.web.example", "421"),
            ("DB.web.example.:443", "421"),
            ("x.y.web.example", "421"),
            ("nobody.example", "404"),
        ] {
            assert_eq!(status(host).await, expected, "{host}, HAProxy {}", world.version());
        }
        assert_eq!(world.reloads(), ["start"]);
    }
}
