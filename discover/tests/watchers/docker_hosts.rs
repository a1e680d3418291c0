//! `method: docker`: containers on any number of hosts, over scripted daemons.

use model::Status;
use testing::certs::Certs;
use testing::docker_api::{DockerApi, event, running};
use testing::watch_contract::keeps_the_contract;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::docker_rig::DockerRig;
use super::*;

fn discovery(hosts: Value, more: Value) -> Value {
    let mut all = json!({"method": "docker", "servers": hosts, "image_name": "example/web", "container_port": 80, "check_interval": 1});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// Whoever comes gets through to the daemon.
async fn forward(mut near: impl AsyncRead + AsyncWrite + Unpin, path: &str) {
    if let Ok(mut far) = UnixStream::connect(path).await {
        let _ = copy_bidirectional(&mut near, &mut far).await; // until either hangs up
    }
}

/// A way to a daemon's socket over TCP, with TLS or without.
async fn over_tcp(api: &DockerApi, tls: Option<TlsAcceptor>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let path = api.host().strip_prefix("unix://").unwrap().to_owned();
    tokio::spawn(async move {
        loop {
            let ((near, _), tls, path) = (listener.accept().await.unwrap(), tls.clone(), path.clone());
            tokio::spawn(async move {
                match tls {
                    None => forward(near, &path).await,
                    Some(tls) => {
                        if let Ok(near) = tls.accept(near).await {
                            forward(near, &path).await;
                        }
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn docker_keeps_the_contract() {
    let watcher =
        |api: &DockerApi| Boxed(method(discovery(json!([{"host": api.host()}]), json!({}))).watcher(&mut context()));
    keeps_the_contract(&mut DockerRig::new(watcher, |_| "web")).await;
}

#[tokio::test]
async fn docker_lists_what_an_image_publishes_on_each_host() {
    let (one, two) = (DockerApi::start(), DockerApi::start());
    one.put(running(1, "example/web:1"));
    one.put(running(2, "example/other:1"));
    two.put(running(3, "example/web:2"));
    let mut unpublished = running(4, "example/web:1");
    unpublished["NetworkSettings"]["Ports"] = json!({"80/tcp": null});
    two.put(unpublished);
    let mut sick = running(5, "example/web:1");
    sick["State"]["Health"] = json!({"Status": "unhealthy"});
    two.put(sick);
    let ports = [over_tcp(&one, None).await, over_tcp(&two, None).await];
    let hosts = json!([
        {"name": "first", "host": "127.0.0.1", "port": ports[0]},
        {"name": "second", "host": "localhost", "port": ports[1].to_string()},
    ]);
    let mut shared = context();
    let mut watching = Running::boxed(method(discovery(hosts, json!({}))).watcher(&mut shared));
    let shown: Vec<String> = shared.shown().iter().map(|source| source.name.to_string()).collect();
    assert_eq!(shown, ["web/first", "web/second"]);
    let snapshot = watching.until_web(&["127.0.0.1:10001", "localhost:10003"]).await;
    assert_eq!(snapshot.services["web"].backends()[0].id.as_str(), "first_127.0.0.1:10001", "as Synapse names it");
    assert_eq!(left_out(&snapshot), ["web/second: c4: does not publish its port 80/tcp"]);
    // An event comes before the period.
    one.put(running(6, "example/web:1"));
    one.emit(&[event(6, "start")]);
    watching.until_web(&["127.0.0.1:10001", "127.0.0.1:10006", "localhost:10003"]).await;
    // From the signal on it drains, until it has ended.
    one.emit(&[event(6, "kill")]);
    watching
        .until("draining", |s| {
            s.services["web"].backends().iter().any(|b| b.port.get() == 10006 && b.status == Status::Draining)
        })
        .await;
    one.remove(6);
    one.emit(&[event(6, "die")]);
    watching.until_web(&["127.0.0.1:10001", "localhost:10003"]).await;
    watching.end().await;
}

#[tokio::test]
async fn docker_hosts_that_hang_or_are_away_keep_what_they_said_and_harm_no_other() {
    let (one, mut two) = (DockerApi::start(), DockerApi::start());
    one.put(running(1, "example/web:1"));
    two.put(running(2, "example/web:1"));
    let hosts = json!([{"name": "one", "host": one.host()}, {"name": "two", "host": two.host()}]);
    let mut shared = context();
    let mut watching = Running::boxed(method(discovery(hosts, json!({}))).watcher(&mut shared));
    let shown = shared.shown();
    watching.until_web(&["127.0.0.1:10001", "127.0.0.1:10002"]).await;
    for hangs in [true, false] {
        if hangs {
            two.hang(true)
        } else {
            two.go_away()
        }
        let mut inlet = shown[1].inlet.clone();
        timeout(DEADLINE, inlet.wait_for(|seen| seen.standing() == "stale")).await.unwrap().unwrap();
        let number = if hangs { 3 } else { 4 };
        one.put(running(number, "example/web:1"));
        one.emit(&[event(number, "start")]);
        watching.until("the other goes on", |s| web(s).contains(&format!("127.0.0.1:1000{number}"))).await;
        assert!(web(watching.inlet.borrow().snapshot().unwrap()).contains(&"127.0.0.1:10002".to_owned()));
        assert_eq!(watching.inlet.borrow().standing(), "synced", "its own standing is shown beside");
        two.hang(false);
        two.go_away();
        two.listen();
        timeout(DEADLINE, inlet.wait_for(|seen| seen.standing() == "synced")).await.unwrap().unwrap();
    }
    watching.end().await;
}

#[tokio::test]
async fn docker_services_of_one_daemon_share_its_events_and_its_containers() {
    let api = DockerApi::start();
    for number in 1..=3 {
        api.put(running(number, &format!("example/s{number}:1")));
    }
    let mut shared = context();
    let hosts = json!([{"host": api.host()}]);
    let of = |number: usize| {
        discovery(hosts.clone(), json!({"image_name": format!("example/s{number}"), "check_interval": 600}))
    };
    let mut watchers: Vec<Running> =
        (1..=3).map(|number| Running::boxed(method(of(number)).watcher(&mut shared))).collect();
    drop(shared);
    for (n, watching) in watchers.iter_mut().enumerate() {
        watching.until_web(&[&format!("127.0.0.1:{}", 10_001 + n)]).await;
    }
    assert_eq!((api.streams(), api.requests("/events"), api.requests("/containers/json")), (1, 1, 1));
    // One ends, and the others go on hearing.
    watchers.remove(0).end().await;
    api.put(running(7, "example/s2:1"));
    api.emit(&[event(7, "start")]);
    watchers[0].until_web(&["127.0.0.1:10002", "127.0.0.1:10007"]).await;
    for watching in watchers {
        watching.end().await;
    }
    let closed = async {
        while api.streams() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await; // until the deadline
        }
    };
    timeout(DEADLINE, closed).await.expect("the daemon is asked although nobody listens any more");
}

#[tokio::test]
async fn docker_takes_containers_own_addresses_and_the_labels_of_filters() {
    let api = DockerApi::start();
    for (number, az) in [(1, "x"), (2, "y")] {
        let mut one = running(number, "example/web:1");
        one["Config"]["Labels"] = json!({"az": az, "other": "no"});
        one["NetworkSettings"]["Networks"] = json!({
            "bridge": {"IPAddress": format!("172.17.0.{number}"), "GlobalIPv6Address": ""},
            "inner": {"IPAddress": format!("10.9.0.{number}"), "GlobalIPv6Address": ""},
        });
        api.put(one);
    }
    let hosts = || json!([{"host": api.host()}]);
    let filter = json!({"label": "az", "value": "x", "condition": "equals"});
    let mut inner =
        Running::of(discovery(hosts(), json!({"internal": true, "network": "inner", "label_filters": [filter]})));
    let snapshot = inner.until_web(&["10.9.0.1:80", "10.9.0.2:80"]).await; // the service's own filters come later, in its policy
    let labels: Vec<_> = snapshot.services["web"].backends()[0].labels.keys().cloned().collect();
    assert_eq!(labels, ["az"], "what a filter asks for, and no more");
    inner.end().await;
    for (more, why) in [
        (json!({"servers": []}), "servers: is required"),
        (json!({"servers": [{"name": "n"}]}), "servers[0].host: is required"),
        (json!({"servers": [{"host": "h", "port": 99999}]}), "servers[0].port: 99999 is not between 1 and 65535"),
        (json!({"servers": [{"host": "a b"}]}), "servers[0].host: \"a b\" is no host"),
        (json!({"image_name": null}), "image_name: is required"),
        (json!({"container_port": null}), "container_port: is required"),
    ] {
        let error = refused(discovery(hosts(), more));
        assert!(error.contains(why), "{error}");
    }
}

/// A directory as Docker's own client has it.
fn cert_path(certs: &Certs, authority: &Certs) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let files = [(authority, "ca.pem", "ca.pem"), (certs, "client.pem", "cert.pem"), (certs, "client.key", "key.pem")];
    for (from, file, name) in files {
        std::fs::copy(from.path(file), dir.path().join(name)).unwrap();
    }
    dir
}

#[tokio::test]
async fn docker_hosts_speak_tls_with_certificates() {
    agent::tls::install_provider();
    let made = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [certs, strangers] = made.each_ref().map(|dir| Certs::make(dir.path()));
    let api = DockerApi::start();
    api.put(running(1, "example/web:1"));
    let port = over_tcp(&api, Some(certs.acceptor(b"http/1.1", true))).await;
    let host =
        |path: &std::path::Path| discovery(json!([{"host": "127.0.0.1", "port": port, "cert_path": path}]), json!({}));

    // The certificates may come later: until then it says what it misses.
    let dir = tempfile::tempdir().unwrap();
    let found = method(host(dir.path()));
    assert_eq!(found.servers(), [format!("https://127.0.0.1:{port}")]);
    let mut watching = Running::boxed(found.watcher(&mut context()));
    let seen = watching.until_seen("an error", |seen| seen.error().is_some()).await;
    assert!(seen.error().unwrap().contains("ca.pem"), "{seen:?}");
    let proper = cert_path(&certs, &certs);
    for file in std::fs::read_dir(proper.path()).unwrap().flatten() {
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    watching.until_web(&["127.0.0.1:10001"]).await;
    // Events come over TLS, too.
    api.put(running(2, "example/web:1"));
    api.emit(&[event(2, "start")]);
    watching.until_web(&["127.0.0.1:10001", "127.0.0.1:10002"]).await;
    watching.end().await;

    // An authority that is not the server's, and a certificate that the server does not take: the host is named.
    for (what, dir) in [("server", cert_path(&certs, &strangers)), ("client", cert_path(&strangers, &certs))] {
        let mut watching = Running::of(host(dir.path()));
        let seen = watching.until_seen("refused", |seen| seen.error().is_some()).await;
        let why = seen.error().unwrap();
        assert!(seen.snapshot().is_none() && why.contains(&format!("127.0.0.1:{port}")), "{what}: {why}");
        let told = if what == "server" { "invalid peer certificate" } else { "fatal alert" };
        assert!(why.contains(told), "{what}: {why}");
        watching.end().await;
    }
}
