//! Certificates in a running HAProxy of each version: served by name, rotated, added and removed without a reload.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use discover::certificates::CertificateKeeper;
use discover::certificates::keeper::bind_words;
use discover::edge::EdgeSettings;
use discover::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use discover::metrics::Metrics;
use model::{Backend, PathPrefix, Route, Routes};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use support::traffic::HttpBackend;
use support::world::{World, backend};
use support::{Lab, eventually, free_port, programs};
use testing::certs::self_signed;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The serial number of the certificate that is served for `name`, and the protocol agreed on; `None`: no handshake.
fn served(port: u16, name: &str) -> Option<(String, bool)> {
    let connect = format!("127.0.0.1:{port}");
    let args = ["s_client", "-connect", &connect, "-servername", name, "-alpn", "h2,http/1.1"];
    let session = Command::new("openssl").args(args).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&session.stdout).into_owned();
    let pem = &text[text.find("-----BEGIN CERTIFICATE-----")?..];
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("served.pem"), pem).unwrap();
    Some((serial(&dir.path().join("served.pem")), text.contains("ALPN protocol: h2")))
}

fn serial(certificate: &Path) -> String {
    let shown = Command::new("openssl").args(["x509", "-serial", "-noout", "-in"]).arg(certificate).output().unwrap();
    String::from_utf8(shown.stdout).unwrap()
}

#[tokio::test]
async fn certificates_are_served_by_name_rotated_added_and_removed_without_a_reload() {
    for program in programs() {
        let operator = tempfile::tempdir().unwrap();
        let at = |name: &str| operator.path().join(name);
        let port = free_port();
        let mut lab = Lab::new(&program, "");
        let ours = lab.dir.path().join("certs");
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let mut keeper = CertificateKeeper::new(vec![operator.path().to_owned()], ours.clone(), metrics).unwrap();
        keeper.refresh().unwrap();
        let bind = format!("bind 127.0.0.1:{port} {}", bind_words(&ours));
        lab.write(&format!("frontend edge\n    {bind}\n    http-request return status 200"));
        lab.running = Some(lab.launch.spawn().await.unwrap());
        let worker = async || lab.launch.master().show_proc().await.unwrap().current_worker();
        let first = worker().await;
        let mut socket = RuntimeSocket::new(Endpoint::Unix(lab.dir.path().join("admin.sock")), Deadlines::default());
        assert_eq!(served(port, "a.example"), None, "it starts without any");

        self_signed(operator.path(), "a", &["a.example", "*.a.example"]);
        fs::write(at("bad.pem"), "rubbish").unwrap();
        assert!(keeper.refresh().unwrap());
        keeper.apply(&mut socket).await.unwrap();
        let (one, h2) = served(port, "a.example").unwrap();
        assert_eq!((one.as_str(), h2), (serial(&at("a.pem")).as_str(), true));
        assert_eq!(served(port, "x.a.example").unwrap().0, one);
        assert_eq!(served(port, "b.example"), None);
        assert_eq!(keeper.loaded().borrow().refused[0].source, at("bad.pem"));
        let mut measured = String::new();
        encode(&mut measured, &registry).unwrap();
        assert!(measured.contains("discover_certificates_left_out 1\n"), "{measured}");
        assert!(measured.contains("discover_certificate_expiry_timestamp_seconds{file=\"c-"), "{measured}");

        self_signed(operator.path(), "a", &["a.example"]);
        self_signed(operator.path(), "b", &["b.example"]);
        keeper.refresh().unwrap();
        keeper.apply(&mut socket).await.unwrap();
        let two = serial(&at("a.pem"));
        assert_ne!(one, two);
        assert_eq!(served(port, "a.example").unwrap().0, two);
        assert_eq!(served(port, "b.example").unwrap().0, serial(&at("b.pem")));
        assert!(!keeper.refresh().unwrap(), "nothing changed, nothing is written");

        fs::write(at("a.pem"), "half a fi").unwrap();
        fs::remove_file(at("b.pem")).unwrap();
        keeper.refresh().unwrap();
        keeper.apply(&mut socket).await.unwrap();
        assert_eq!(served(port, "a.example").unwrap().0, two, "the last good one goes on");
        assert_eq!(served(port, "b.example"), None);
        assert_eq!(worker().await, first, "no reload");

        lab.launch.master().reload().await.unwrap();
        assert_ne!(worker().await, first);
        assert_eq!(served(port, "a.example").unwrap().0, two, "the files are what runs");
        keeper.apply(&mut socket).await.unwrap();
        lab.stop().await;
    }
}

/// The answer to a request over TLS for a host.
fn over_tls(port: u16, host: &str) -> String {
    over_tls_of(port, host, host)
}

/// The same over a connection that began with another name.
fn over_tls_of(port: u16, name: &str, host: &str) -> String {
    let ask = "printf 'GET / HTTP/1.1\\r\\nHost: %s\\r\\nConnection: close\\r\\n\\r\\n' \"$3\" | openssl s_client -quiet -connect \"$1\" -servername \"$2\" 2>/dev/null";
    let answer = Command::new("sh").args(["-c", ask, "sh", &format!("127.0.0.1:{port}"), name, host]).output().unwrap();
    String::from_utf8(answer.stdout).unwrap()
}

// The client blocks, and the backend must go on meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_edge_speaks_https_and_redirects_to_it() {
    for program in programs() {
        let operator = tempfile::tempdir().unwrap();
        self_signed(operator.path(), "a", &["a.example"]);
        let (plain, secure) = (free_port(), free_port());
        let mut made = None;
        let mut world = World::with(&program, |settings| {
            let edge = EdgeSettings {
                listen: format!("127.0.0.1:{plain}").parse().unwrap(),
                https_port: secure.try_into().unwrap(),
                certificates: vec![operator.path().to_owned()].into(),
                ..EdgeSettings::default()
            };
            let edge = edge.with_copies_beside(&settings.config_file);
            made = CertificateKeeper::of(&edge, &Metrics::new(&mut Registry::default())).unwrap();
            settings.edge = Some(Arc::new(edge));
        });
        made.unwrap().refresh().unwrap();
        let server = HttpBackend::start("one").await;
        let mut route = Route::new("a.example".parse().unwrap(), PathPrefix::root());
        route.redirect_https = true;
        let (routes, _) = Routes::new([route]);
        world.want("web", vec![Backend { routes, ..backend("one", server.address, free_port()) }]);
        world.settle().await;
        eventually("it serves", async || over_tls(secure, "a.example").ends_with("one")).await;
        let mut stream = TcpStream::connect(("127.0.0.1", plain)).await.unwrap();
        let request = "GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
        assert!(answer.contains(&format!("location: https://a.example:{secure}/x\r\n")), "{answer}");
        world.lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_name_of_another_certificate_is_misdirected_and_one_of_the_same_is_served() {
    for program in programs() {
        for trusts in [false, true] {
            let operator = tempfile::tempdir().unwrap();
            self_signed(operator.path(), "a", &["a.example", "*.a.example"]);
            self_signed(operator.path(), "b", &["b.example"]);
            self_signed(operator.path(), "c", &["c.example", "d.example"]);
            let secure = free_port();
            let mut made = None;
            let mut world = World::with(&program, |settings| {
                let edge = EdgeSettings {
                    listen: format!("127.0.0.1:{}", free_port()).parse().unwrap(),
                    https_port: secure.try_into().unwrap(),
                    certificates: vec![operator.path().to_owned()].into(),
                    trusted: trusts.then(|| "127.0.0.1".parse().unwrap()).into_iter().collect(),
                    ..EdgeSettings::default()
                };
                let edge = edge.with_copies_beside(&settings.config_file);
                made = CertificateKeeper::of(&edge, &Metrics::new(&mut Registry::default())).unwrap();
                settings.edge = Some(Arc::new(edge));
            });
            let mut keeper = made.unwrap();
            keeper.refresh().unwrap();
            let server = HttpBackend::start("one").await;
            let hosts = ["a.example", "x.a.example", "b.example", "c.example", "d.example", "plain.example"];
            let hosts = hosts.map(|host| Route::new(host.parse().unwrap(), PathPrefix::root()));
            let (routes, _) = Routes::new(hosts);
            world.want("web", vec![Backend { routes, ..backend("one", server.address, free_port()) }]);
            world.settle().await;
            eventually("it serves", async || over_tls(secure, "a.example").ends_with("one")).await;
            let status = |name: &str, host: &str| {
                over_tls_of(secure, name, host).split(' ').nth(1).unwrap_or_default().to_owned()
            };
            let other = if trusts { "200" } else { "421" };
            for (name, host, expected) in [
                ("a.example", "a.example:443", "200"),
                ("a.example", "x.a.example", "200"),
                ("y.a.example", "x.a.example", "200"),
                ("y.a.example", "a.example", "200"),
                ("c.example", "d.example", "200"),
                ("a.example", "b.example", other),
                ("a.example", "B.Example.:8443", other),
                ("b.example", "x.a.example", other),
                ("d.example", "a.example", other),
                ("a.example", "plain.example", "200"),
                ("a.example", "nobody.example", "404"),
            ] {
                assert_eq!(
                    status(name, host),
                    expected,
                    "{host} on {name}, trusts: {trusts}, HAProxy {}",
                    world.version()
                );
            }
            // A certificate of its own for one of the two, without a reload.
            self_signed(operator.path(), "c", &["c.example"]);
            self_signed(operator.path(), "d", &["d.example"]);
            keeper.refresh().unwrap();
            let mut socket = RuntimeSocket::new(Endpoint::Unix(world.settings.socket.clone()), Deadlines::default());
            keeper.apply(&mut socket).await.unwrap();
            assert_eq!(
                (status("c.example", "d.example").as_str(), status("d.example", "d.example").as_str()),
                (other, "200")
            );
            keeper.apply(&mut socket).await.unwrap();
            assert_eq!(world.reloads(), ["start"]);
            world.lab.stop().await;
        }
    }
}
