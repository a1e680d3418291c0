//! Headers and hosts that a client makes up: a sweep of spellings, against a backend that says what it was sent.

use super::echo::echo;
use super::{Answer, each, get, raw, routed, world};

/// Words for headers that tell who the client is or what it asked a proxy for; `-` is any separator.
const FORGED: &[&str] = &[
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-ssl",
    "x-forwarded-scheme",
    "x-forwarded-user",
    "x-forwarded-server",
    "x-forwarded-client-cert",
    "x-forwarded-prefix",
    "x-forwarded-by",
    "x-forwarded",
    "x-forwarded-fo",
    "x-forwarded-forx",
    "x-forwarded-protocol",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-forwarded-tls-client-cert",
    "x-real-ip",
    "x-real-port",
    "forwarded",
    "forwarded-for",
    "front-end-https",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-original-forwarded-for",
    "x-rewrite-url",
    "x-host",
    "x-http-host-override",
    "x-scheme",
    "x-url-scheme",
    "x-ssl",
    "x-ssl-client-cert",
    "x-ssl-cert",
    "x-tls-client-subject",
    "x-mtls-clientcert",
    "x-client-ip",
    "x-client-cert",
    "x-client-dn",
    "x-client-verify",
    "x-cluster-client-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-remote-user",
    "x-originating-ip",
    "x-webauth-user",
    "x-arr-clientcert",
    "x-arr-ssl",
    "x-amzn-mtls-clientcert",
    "x-azure-clientip",
    "x-appengine-user-ip",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-accel-mapping",
    "x-sendfile-type",
    "client-ip",
    "client-cert",
    "client-cert-chain",
    "true-client-ip",
    "real-ip",
    "remote-user",
    "remote-addr",
    "ssl-client-cert",
    "ssl-client-verify",
    "ssl-client-s-dn",
    "tls-client-subject",
    "cf-connecting-ip",
    "cf-visitor",
    "fastly-client-ip",
    "fastly-ssl",
    "wl-proxy-client-ip",
    "wl-proxy-ssl",
    "proxy-client-ip",
    "proxy-ssl-id",
    "proxy",
    "https",
    "proxy-connection",
];
/// What is none of that.
const HONEST: &[&str] = &[
    "x-request-id",
    "x-forward-to",
    "forward",
    "x-realm",
    "via",
    "x-http-method-override",
    "x-client-info",
    "x-client-version",
    "x-api-key",
    "access_token",
    "x_custom_header",
    "httpsify",
    "x-hosting",
    "x-schemes",
    "proxied",
    "proxy-authorization",
    "x-protocol",
    "cookie",
    "authorization",
    "x-fastly",
    "origin",
    "referer",
    "sslify",
    "remote",
    "x-clientele",
];
const SEPARATORS: &[&str] = &["-", "_", ".", "~", "!", "--", "-_", "_-", "|"];
/// What the edge says itself.
const OWN: &[&str] = &["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip"];

fn cased(name: &str, case: usize) -> String {
    let upper =
        |(at, c): (usize, char)| if case == 1 || (case == 2 && at % 2 == 0) { c.to_ascii_uppercase() } else { c };
    name.chars().enumerate().map(upper).collect()
}

/// Every spelling of every name.
fn spellings() -> Vec<String> {
    let mut all = Vec::new();
    for (at, name) in FORGED.iter().enumerate() {
        for (n, separator) in SEPARATORS.iter().enumerate() {
            all.push(cased(&name.replace('-', separator), (at + n) % 3));
        }
        // Mixed: each separator of its own kind.
        let mut kinds = SEPARATORS.iter().cycle().skip(at);
        let mixed: String = name.split('-').map(|word| format!("{word}{}", kinds.next().unwrap())).collect();
        all.push(mixed.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned());
    }
    all.sort();
    all.dedup();
    all
}

/// The names of the headers that came with `value`.
fn came(answer: &Answer, value: &str) -> Vec<String> {
    let lines = answer.body.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(_, v)| v.trim() == value).map(|(name, _)| name.to_ascii_lowercase()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_a_forged_header_reaches_a_backend_and_what_is_honest_does() {
    let a = echo("a").await;
    for program in each() {
        let trusting = |yes: bool| {
            super::world(&program, move |edge| {
                edge.trusted = yes.then(|| "127.0.0.0/8".parse().unwrap()).into_iter().collect()
            })
        };
        for trusts in [false, true] {
            let (mut world, port) = trusting(trusts);
            world.want("a", vec![routed("a", a, &["a.example"])]);
            world.settle().await;
            for some in spellings().chunks(40) {
                let lines: String = some.iter().map(|name| format!("{name}: evil\r\n")).collect();
                let answer = get(port, "a.example", "/", &lines).await;
                assert_eq!(answer.status, 200, "{lines}, HAProxy {}", world.version());
                let mut came = came(&answer, "evil");
                came.retain(|name| !trusts || !OWN.contains(&name.as_str()));
                assert!(came.is_empty(), "{came:?}, trusts: {trusts}, HAProxy {}", world.version());
            }
            let lines: String = HONEST.iter().map(|name| format!("{name}: good\r\n")).collect();
            assert_eq!(came(&get(port, "a.example", "/", &lines).await, "good"), HONEST, "HAProxy {}", world.version());
            let lies: String = OWN.iter().map(|name| format!("{name}: 6.6.6.6\r\n")).collect();
            let heard = came(&get(port, "a.example", "/", &lies).await, "6.6.6.6");
            let mut expected = if trusts { OWN.to_vec() } else { Vec::new() };
            expected.sort_unstable();
            let mut heard: Vec<&str> = heard.iter().map(String::as_str).collect();
            heard.sort_unstable();
            assert_eq!(heard, expected, "HAProxy {}", world.version());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_of_connection_and_no_upgrade_but_websocket_goes_on() {
    let a = echo("a").await;
    let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n";
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        world.want("a", vec![routed("a", a, &["a.example"])]);
        world.settle().await;
        for headers in [
            "connection: X-Forwarded-For\r\n",
            "connection: close, x-forwarded-proto, X-Real-IP\r\n",
            "connection: x_forwarded_for\r\nconnection: keep-alive, cookie\r\n",
            "connection: TE, authorization\r\n",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
            "connection: upgrade, http2_settings\r\nupgrade: h2c\r\nhttp2_settings: AAMAAABkAAQAAP__\r\n",
            "connection: upgrade\r\nupgrade: TLS/1.0, HTTP/1.1\r\n",
            "connection: upgrade\r\nupgrade: websocket2\r\n",
            "upgrade: websocket\r\n",
            "upgrade: h2c\r\nconnection: x-upgrade\r\n",
        ] {
            let request = format!("GET / HTTP/1.1\r\nhost: a.example\r\n{headers}connection: close\r\n\r\n");
            let answer = raw(port, request.as_bytes()).await;
            assert_eq!(answer.status, 200, "{headers}, HAProxy {}", world.version());
            let told = answer.body.to_ascii_lowercase();
            for word in ["upgrade", "settings", "\nconnection: x", "cookie", "authorization", "te\r"] {
                assert!(!told.contains(word), "{word}: {headers}{told}, HAProxy {}", world.version());
            }
            assert!(
                told.contains("x-forwarded-for: 127.0.0.1") && told.contains("x-forwarded-proto: http\r"),
                "{told}"
            );
        }
        for headers in [
            "upgrade: websocket\r\nconnection: upgrade, x-forwarded-for\r\n",
            "upgrade: WebSocket\r\nconnection: Upgrade\r\n",
        ] {
            let request = format!("GET / HTTP/1.1\r\nhost: a.example\r\n{headers}{key}\r\n");
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
            let mut heard = [0; 12];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut heard).await.unwrap();
            assert_eq!(&heard, b"HTTP/1.1 101", "{headers}, HAProxy {}", world.version());
        }
        for request in ["CONNECT a.example:80", "CONNECT a.example"] {
            let answer = raw(port, format!("{request} HTTP/1.1\r\nhost: a.example:80\r\n\r\n").as_bytes()).await;
            assert!([400, 405].contains(&answer.status), "{request}: {}", answer.head);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_host_that_is_one_as_a_whole_reaches_a_backend() {
    let a = echo("a").await;
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        world.want(
            "a",
            vec![routed("a", a, &["a.example", "*.w.example", "under_score.example", "10.1.2.3", "single"])],
        );
        world.settle().await;
        let good = [
            "a.example",
            "A.Example",
            "a.example.",
            "a.example:80",
            "a.example.:8443",
            "x.w.example",
            "y.x.w.example:1",
            "under_score.example",
            "10.1.2.3",
            "10.1.2.3:65535",
            "single",
            "SINGLE:443",
            "a.example\t",
            "  a.example",
        ];
        for host in good {
            let answer = get(port, host, "/", "").await;
            assert_eq!(answer.status, 200, "{host:?}, HAProxy {}", world.version());
            let told = format!("x-forwarded-host: {}\r\n", host.trim());
            assert!(
                answer.body.contains(&format!("host: {}\r\n", host.trim())) && answer.body.contains(&told),
                "{}",
                answer.body
            );
        }
        let ports = [
            "",
            "0",
            "00",
            "080",
            "65536",
            "70000",
            "99999",
            "100000",
            "abc",
            "80a",
            "-1",
            "+80",
            "8 0",
            "80:80",
            "@evil.com",
            "80@evil.com",
            "\"<x>",
            "80/",
            "80/x",
            "80?x",
            "80#x",
            "%38%30",
            "\u{b2}",
            "*",
        ];
        let mut bad: Vec<String> =
            ports.iter().flat_map(|port| [format!("a.example:{port}"), format!("[::1]:{port}")]).collect();
        bad.extend(
            [
                "",
                ":",
                ":80",
                ".",
                "..",
                ".a.example",
                "a..example",
                "a.example..",
                "..w.example",
                "*.w.example",
                "a.example/",
                "a.example/x",
                "a.example?x",
                "a.example#x",
                "a.example@evil.com",
                "user@a.example",
                "user:pw@a.example",
                "http://a.example",
                "a.example, evil.com",
                "a.example evil.com",
                "a.example\tevil.com",
                "a.example;x",
                "a.example\\x",
                "a.exa%6dple",
                "a.example%00",
                "\u{e9}.w.example",
                "[::1",
                "::1",
                "[::1]x",
                "[a.example]",
                "[::1%25eth0]",
                "[]",
                "a.example:80:80",
                "'a.example'",
                "\"a.example\"",
                "a.example|x",
                "a.example=",
                "sni=a.example",
                "${HOST}",
                "<script>.w.example",
            ]
            .map(str::to_owned),
        );
        bad.push(format!("{}.w.example", "x".repeat(300)));
        bad.push(format!("{}w.example", "x.".repeat(2000)));
        for host in &bad {
            let answer = get(port, host, "/", "").await;
            assert_eq!(answer.status, 400, "{host:?}, HAProxy {}", world.version());
            assert!(!answer.body.contains("evil") && !answer.body.contains("<x>"), "{host:?}: {}", answer.body);
        }
        for (request, status) in [
            ("GET / HTTP/1.1\r\n", 400),
            ("GET / HTTP/1.0\r\n", 400),
            ("GET / HTTP/1.0\r\nhost: a.example\r\n", 200),
            ("GET / HTTP/1.1\r\nhost: a.example\r\nhost: evil.com\r\n", 400),
            ("GET / HTTP/1.1\r\nhost: evil.com\r\nhost: a.example\r\n", 400),
            ("GET http://evil.com/ HTTP/1.1\r\nhost: a.example\r\n", 400),
            ("GET http://a.example@evil.com/ HTTP/1.1\r\nhost: a.example\r\n", 400),
            ("GET http://user@a.example/ HTTP/1.1\r\nhost: a.example\r\n", 400),
            ("GET http://a.example/x?u=y@z HTTP/1.1\r\nhost: a.example\r\n", 200),
            ("GET https://a.example/ HTTP/1.1\r\nhost: a.example\r\n", 200),
            ("GET http://a.example HTTP/1.1\r\nhost: a.example\r\n", 200),
            ("GET foo HTTP/1.1\r\nhost: a.example\r\n", 400),
            ("GET @evil.com HTTP/1.1\r\nhost: a.example\r\n", 400),
            ("GET * HTTP/1.1\r\nhost: a.example\r\n", 400),
        ] {
            let answer = raw(port, format!("{request}connection: close\r\n\r\n").as_bytes()).await;
            assert_eq!(answer.status, status, "{request}, HAProxy {}: {}", world.version(), answer.body);
            let line = answer.body.lines().nth(1).unwrap_or_default();
            assert!(status != 200 || line.starts_with("GET /"), "the backend gets a path alone: {line}");
        }
        // HTTP/2: what is called `:authority` there. An empty port HAProxy takes away itself.
        let over_http2 = async |host: &str| {
            let curl = tokio::process::Command::new("curl")
                .args([
                    "-s",
                    "-o",
                    "/dev/null",
                    "--http2-prior-knowledge",
                    "-w",
                    "%{http_code}",
                    "-H",
                    &format!("host: {host}"),
                ])
                .arg(format!("http://127.0.0.1:{port}/two"))
                .output();
            String::from_utf8_lossy(&curl.await.unwrap().stdout).into_owned()
        };
        assert_eq!(over_http2("a.example:80").await, "200", "HAProxy {}", world.version());
        for host in
            ["a.example:abc", "a.example:0", "a.example:\"<x>", "user@a.example", "a.example:@evil.com", "a.example/x"]
        {
            // A stream that HAProxy itself refuses has no status.
            let status = over_http2(host).await;
            assert!(status == "400" || status == "000", "{host}: {status}, HAProxy {}", world.version());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_of_a_backend_or_of_the_edge_leads_to_no_other_host() {
    let a = echo("a").await;
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        world.want("a", vec![routed("a", a, &["a.example https", "b.example/api strip", "b.example/v1/x strip"])]);
        world.settle().await;
        for (path, seen) in [
            ("/api//evil.com", "GET /evil.com HTTP"),
            ("/api///evil.com/x?y", "GET /evil.com/x?y HTTP"),
            ("/api/\\evil.com", "GET /evil.com HTTP"),
            ("/api/\\/\\evil.com", "GET /evil.com HTTP"),
            ("/api//", "GET / HTTP"),
            ("/api", "GET / HTTP"),
            ("/api?//evil.com", "GET /?//evil.com HTTP"),
            ("/v1/x//evil.com", "GET /evil.com HTTP"),
            ("/api/a//b", "GET /a//b HTTP"),
        ] {
            let told = get(port, "b.example", path, "").await.body;
            assert!(told.contains(seen), "{path}: {told}, HAProxy {}", world.version());
        }
        for (target, to) in [
            ("/x", Some("https://a.example/x")),
            ("//evil.com", Some("https://a.example//evil.com")),
            ("http://a.example/x", Some("https://a.example/x")),
            ("http://a.example", Some("https://a.example/")),
            ("http://a.example:80/x", Some("https://a.example/x")),
        ] {
            let answer = raw(
                port,
                format!("GET {target} HTTP/1.1\r\nhost: A.example.:8080\r\nconnection: close\r\n\r\n").as_bytes(),
            )
            .await;
            // Where the target names a host, it is to be the Host header's.
            let same = !target.contains("://");
            let location = answer.header("location");
            assert!(location == to.filter(|_| same) || (!same && answer.status == 400), "{target}: {location:?}");
            let answer =
                raw(port, format!("GET {target} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").as_bytes())
                    .await;
            assert_eq!((answer.status, answer.header("location")), (308, to), "{target}, HAProxy {}", world.version());
        }
        let star = raw(port, b"OPTIONS * HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").await;
        assert_eq!(star.header("location"), None, "an asterisk is no path");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_client_sends_each_line_of_the_access_log_is_whole_json() {
    let a = echo("a").await;
    for program in each() {
        let (mut world, port) = world(&program, |edge| edge.access_log = Some("stdout".parse().unwrap()));
        world.want("a", vec![routed("a", a, &["a.example"])]);
        world.settle().await;
        let mut uris: Vec<Vec<u8>> = [
            "/",
            "/x\"y",
            "/\\",
            "/\\\"",
            "/%22%5c%00",
            "/%[src]",
            "/'\"'",
            "/</script>",
            "/\u{e9}\u{1f600}",
            "/a,b;c|d",
            "/#",
            "/{\"a\":1}",
            "/%",
        ]
        .map(|uri| uri.as_bytes().to_vec())
        .into();
        uris.extend([
            b"/\xff\xfe\x80".to_vec(),
            b"/\xc3".to_vec(),
            b"/\xed\xa0\x80".to_vec(),
            b"/\xf0\x9f".to_vec(),
            b"/\x7f".to_vec(),
        ]);
        for long in [900, 1_000, 1_100, 2_000, 4_000, 8_000, 12_000] {
            uris.push(format!("/{}", "x".repeat(long)).into_bytes());
            uris.push(format!("/{}", "\"".repeat(long / 2)).into_bytes());
        }
        let sent = uris.len() * 2;
        for (uri, host) in uris.iter().flat_map(|uri| [(uri, "a.example"), (uri, "\"\\<\u{e9}>")]) {
            let request = [
                b"GET ".to_vec(),
                uri.clone(),
                format!(" HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").into_bytes(),
            ]
            .concat();
            raw(port, &request).await;
        }
        let log = world.path("haproxy.log");
        let mut lines = Vec::new();
        super::support::eventually("all are logged", async || {
            let bytes = std::fs::read(&log).unwrap_or_default();
            let text = String::from_utf8(bytes).unwrap();
            lines = text.lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect();
            lines.len() >= sent
        })
        .await;
        let mut longest = 0;
        for line in &lines {
            let read: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}, HAProxy {}", world.version()));
            longest = longest.max(read["uri"].as_str().unwrap().len());
        }
        assert!(longest > 8_000, "{longest}");
    }
}
