//! What becomes of a request: where it goes, what is told about its client, what is done on the way.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::echo::echo;
use super::{each, get, raw, routed, who, world};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_specific_host_and_then_the_longest_path_decide() {
    let (a, b, c) = (echo("a").await, echo("b").await, echo("c").await);
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        world.want("shop", vec![routed("a", a, &["shop.example", "deep.wild.example/only"])]);
        world.want("api", vec![routed("b", b, &["shop.example/api", "shop.example/api/v1/x strip", "10.1.2.3/"])]);
        world.want("wild", vec![routed("c", c, &["*.wild.example", "*.shop.example/sub"])]);
        world.settle().await;
        assert_eq!(world.reloads(), ["start"], "HAProxy {}", world.version());
        let long = format!("/{}", "x".repeat(3000));
        for (host, path, expected) in [
            ("shop.example", "/", "a"),
            ("SHOP.Example.:80", "/x?y=/api", "a"),
            ("shop.example", "/api", "b"),
            ("shop.example", "/api?q", "b"),
            ("shop.example", "/api/", "b"),
            ("shop.example", "/api/x", "b"),
            ("shop.example", "/apix", "a"),
            ("shop.example", "/API", "a"),
            ("shop.example", &long, "a"),
            ("10.1.2.3:8080", "/", "b"),
            ("x.wild.example", "/", "c"),
            ("y.x.wild.example", "/", "c"),
            ("wild.example", "/", "404"),
            ("deep.wild.example", "/only", "a"),
            ("deep.wild.example", "/", "404"),
            ("x.shop.example", "/sub/y", "c"),
            ("x.shop.example", "/", "404"),
            ("nobody.example", "/", "404"),
        ] {
            assert_eq!(who(port, host, path).await, expected, "{host}{path}, HAProxy {}", world.version());
        }
        let page = get(port, "nobody.example", "/", "").await;
        assert!(page.body.contains("no service here") && page.head.contains("text/html"), "{}", page.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_about_the_client_is_not_the_clients_to_say() {
    let (a, lies) = (
        echo("a").await,
        "x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\nx-forwarded-port: 1\r\nforwarded: for=6.6.6.6\r\nx-real-ip: 6.6.6.6\r\nx-forwarded-prefix: /evil\r\nproxy: evil\r\n",
    );
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        world.want("a", vec![routed("a", a, &["a.example", "a.example/deep/er strip"])]);
        world.settle().await;
        let told = get(port, &format!("a.example:{port}"), "/deep/er/x?y=1", lies).await.body;
        assert!(told.contains("GET /x?y=1 HTTP"), "{told}");
        for line in [
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-proto: http",
            &format!("x-forwarded-host: a.example:{port}"),
            &format!("x-forwarded-port: {port}"),
            "x-real-ip: 127.0.0.1",
            "x-forwarded-prefix: /deep/er",
        ] {
            assert!(told.lines().any(|l| l.trim_end().eq_ignore_ascii_case(line)), "{line} is not in {told}");
        }
        assert!(!told.contains("6.6.6.6") && !told.contains("evil"), "{told}");

        let (mut trusting, port) = super::world(&program, |edge| edge.trusted = vec!["127.0.0.0/8".parse().unwrap()]);
        trusting.want("a", vec![routed("a", a, &["a.example", "a.example/safe https"])]);
        trusting.settle().await;
        let told = get(port, "a.example", "/", lies).await.body.to_ascii_lowercase();
        assert!(told.contains("x-forwarded-for: 6.6.6.6") && told.contains("x-forwarded-for: 127.0.0.1"), "{told}");
        assert!(told.contains("x-forwarded-proto: https") && told.contains("x-forwarded-host: evil"), "{told}");
        assert_eq!(get(port, "a.example", "/safe", lies).await.status, 200, "it is HTTPS already, says the proxy");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_may_redirect_to_https_and_take_away_its_path() {
    let a = echo("a").await;
    for program in each() {
        let (mut world, port) = world(&program, |edge| edge.https_port = 8443.try_into().unwrap());
        world.want("a", vec![routed("a", a, &["a.example https", "a.example/api strip", "a.example/%C3%A9/x strip"])]);
        world.settle().await;
        let answer = get(port, "A.example:80", "/x?y", "").await;
        assert_eq!((answer.status, answer.header("location")), (308, Some("https://a.example:8443/x?y")));
        for (path, seen) in [
            ("/api", "GET / HTTP"),
            ("/api/", "GET / HTTP"),
            ("/api//x", "GET /x HTTP"),
            ("/%C3%A9/x/y?z", "GET /y?z HTTP"),
        ] {
            let told = get(port, "a.example", path, "").await.body;
            assert!(told.contains(seen), "{path}: {told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_and_http2_pass_through() {
    let a = echo("a").await;
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        world.want("a", vec![routed("a", a, &["a.example"])]);
        world.settle().await;
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let hello = "GET /chat HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(hello.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            assert!(socket.read_buf(&mut heard).await.unwrap() > 0, "{}", String::from_utf8_lossy(&heard));
        }
        assert!(heard.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&heard));
        for frame in [b"\x81\x05hello".as_slice(), &[0_u8; 2000]] {
            socket.write_all(frame).await.unwrap();
            let mut back = vec![0; frame.len()];
            socket.read_exact(&mut back).await.unwrap();
            assert_eq!(back, frame);
        }
        // HTTP/2 with prior knowledge; curl is what the machine has for it.
        let curl = tokio::process::Command::new("curl")
            .args(["-s", "--http2-prior-knowledge", "-w", "\n%{http_version}", "-H", "host: a.example"])
            .arg(format!("http://127.0.0.1:{port}/two"))
            .output();
        let said = String::from_utf8_lossy(&curl.await.unwrap().stdout).into_owned();
        assert!(said.contains("GET /two HTTP/1.1") && said.ends_with("\n2"), "HAProxy {}: {said}", world.version());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_is_one_json_object_for_each_request() {
    let a = echo("a").await;
    for program in each() {
        let (mut world, port) = world(&program, |edge| edge.access_log = Some("stdout".parse().unwrap()));
        world.want("a", vec![routed("a", a, &["a.example"])]);
        world.settle().await;
        get(port, "a.example", "/x\"y\\?z", "").await;
        raw(port, b"GET / HTTP/1.1\r\nhost: \"\\<\r\nconnection: close\r\n\r\n").await;
        let log = world.path("haproxy.log");
        let mut lines = Vec::new();
        super::support::eventually("both are logged", async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            lines = text.lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect();
            lines.len() >= 2
        })
        .await;
        let read =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        // Two threads of HAProxy may log in either order.
        let mut both: Vec<_> = lines.iter().map(|line| read(line)).collect();
        both.sort_by_key(|line| line["status"].as_u64());
        let (first, second) = (&both[0], &both[1]);
        assert_eq!((&first["host"], &first["service"]), (&"a.example".into(), &"a".into()), "{first}");
        assert!(first["uri"].as_str().unwrap().starts_with("/x"), "{first}");
        assert_eq!((&second["status"], &second["service"]), (&400.into(), &"-".into()), "{second}");
    }
}
