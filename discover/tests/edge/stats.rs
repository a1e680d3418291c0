//! HAProxy's stats page, which strangers reach as they reach the edge.

use discover::generators::haproxy::file::stats::{Stats, read_users};
use discover::haproxy::words::bind::ListenOn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::echo::echo;
use super::support::world::{World, backend};
use super::support::{eventually, free_port};
use super::{Answer, each};

const AT: &str = "127.0.0.5";

async fn ask(port: u16, head: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect((AT, port)).await.unwrap();
    let request = format!("{head}host: h\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    let all = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stats_page_shows_and_changes_nothing_and_asks_for_its_users() {
    let a = echo("a").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users");
    // `ops` has the password `let me "in"`, `prom` the hash of `secret`.
    std::fs::write(&file, "ops:let me \"in\"\nprom:$5$rounds=1000$ab$bw4PhTdETPYycBP1S/MfHGVqzf4cldTXkxqJJ2X8w.3\n")
        .unwrap();
    for program in each() {
        for asks in [false, true] {
            let port = free_port();
            let users = if asks { read_users(&file).unwrap() } else { Vec::new() };
            let listen = Some(ListenOn::These(vec![AT.parse().unwrap()]));
            let mut world = World::with(&program, |settings| {
                settings.stats = Stats { port: port.try_into().ok(), listen, users };
            });
            world.want("web", vec![backend("a", a, free_port())]);
            world.settle().await;
            eventually("the page is there", async || TcpStream::connect((AT, port)).await.is_ok()).await;
            assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err(), "it listens nowhere else");
            let ops = "authorization: Basic b3BzOmxldCBtZSAiaW4i\r\n";
            for wrong in ["", "authorization: Basic b3BzOm5v\r\n", "authorization: Bearer x\r\n"] {
                for path in ["/", "/metrics", "/;csv", "/;json"] {
                    let answer = ask(port, &format!("GET {path} HTTP/1.1\r\n{wrong}"), "").await;
                    assert_eq!(
                        answer.status,
                        if asks { 401 } else { 200 },
                        "{path} {wrong}, HAProxy {}",
                        world.version()
                    );
                    assert!(!asks || !answer.body.contains("web"), "{}", answer.body);
                }
            }
            // `prom` with `secret`, by its hash.
            assert_eq!(
                ask(port, "GET /metrics HTTP/1.1\r\nauthorization: Basic cHJvbTpzZWNyZXQ=\r\n", "").await.status,
                200
            );
            let page = ask(port, &format!("GET / HTTP/1.1\r\n{ops}"), "").await;
            assert!(page.status == 200 && page.body.contains("web"), "{}", page.head);
            assert!(
                !page.body.contains("value=\"disable\"") && !page.body.contains(&world.version().to_string()),
                "no form, no version"
            );
            let metrics = ask(port, &format!("GET /metrics HTTP/1.1\r\n{ops}"), "").await;
            assert!(metrics.body.contains("haproxy_backend_status"), "HAProxy {}: {}", world.version(), metrics.head);
            for action in ["disable", "stop", "shutdown", "dhlth"] {
                let answer = ask(
                    port,
                    &format!("POST / HTTP/1.1\r\n{ops}content-type: application/x-www-form-urlencoded\r\n"),
                    &format!("s=a&action={action}&b=%23web"),
                )
                .await;
                let location = answer.header("location").unwrap_or_default().to_owned();
                assert!(!location.ends_with("DONE"), "{action}: {location}");
            }
            assert!(
                world.api().servers_state(None).await.unwrap().iter().all(|s| s.admin == Default::default()),
                "nothing changed"
            );
            let config = std::fs::metadata(&world.settings.config_file).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::mode(&config) & 0o007, 0, "no stranger reads a password there");
            world.restart();
            world.settle().await;
            assert!(
                world.reloads().is_empty() && !world.haproxy.status().lock().unwrap().stats_taken,
                "it is HAProxy's own"
            );
            world.lab.stop().await;
        }
    }
}
