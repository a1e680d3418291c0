//! Requests that mean harm.

use super::echo::echo;
use super::{each, get, raw, routed, who, world};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_hosts_and_paths_reach_nobody_whose_they_are_not() {
    let (a, b) = (echo("a").await, echo("b").await);
    for program in each() {
        let (mut world, port) = world(&program, |_| {});
        world.want("a", vec![routed("a", a, &["a.example", "*.w.example"])]);
        world.want("b", vec![routed("b", b, &["a.example/admin strip"])]);
        world.settle().await;
        for (host, path, expected) in [
            ("a.example/admin", "/", "400"),
            ("\"><script>", "/", "400"),
            ("a.example b.example", "/", "400"),
            ("a.example,b.example", "/", "400"),
            ("%61.example", "/", "400"),
            ("*.w.example", "/", "400"),
            ("", "/", "400"),
            ("a.example..", "/", "400"),
            ("..w.example", "/", "400"),
            ("nobody", "/", "404"),
            ("edge:1|-|a", "/", "400"),
            ("a.example", "//admin", "a"),
            ("a.example", "/admin/../x", "b"),
            ("a.example", "/%61dmin", "a"),
            ("a.example", "/admin%2f", "a"),
            ("a.example", "/admin/%0d%0ax: y", "400"),
            ("[::1]:80", "/", "404"),
        ] {
            assert_eq!(who(port, host, path).await, expected, "{host:?} {path:?}, HAProxy {}", world.version());
        }
        let page = get(port, "nobody.example", "/<script>", "").await;
        assert!(page.status != 200 && !page.body.contains("script"), "{}", page.body);
        let two = raw(port, b"GET / HTTP/1.1\r\nhost: a.example\r\nhost: evil\r\nconnection: close\r\n\r\n").await;
        assert_ne!(two.status, 200, "{}", two.body);
        let absolute =
            raw(port, b"GET http://nobody.example/ HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").await;
        assert_ne!(absolute.status, 200, "{}", absolute.body);
        let star = raw(port, b"OPTIONS * HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").await;
        assert!(star.body.starts_with('a'), "{}", star.body);
        let connect = raw(port, b"CONNECT a.example:22 HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").await;
        assert!(!connect.body.starts_with('b'), "{}", connect.body);
        assert_eq!(who(port, "a.example", "/").await, "a", "all is well");
    }
}
