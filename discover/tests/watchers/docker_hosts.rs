//! `method: docker`: containers on any number of hosts, over scripted daemons.

use common::model::Status;
use common::testing::docker_api::{DockerApi, event, running};
use common::testing::watch_contract::{Breakage, Order, Rig, keeps_the_contract};
use common::watch::Outlet;
use discover::watchers::BoxWatcher;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};

use super::*;

fn discovery(hosts: Value, more: Value) -> Value {
    let mut all = json!({"method": "docker", "servers": hosts, "image_name": "example/web", "container_port": 80, "check_interval": 1});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// A way to a daemon's socket over TCP.
async fn over_tcp(api: &DockerApi) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let path = api.host().strip_prefix("unix://").unwrap().to_owned();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let path = path.clone();
            tokio::spawn(async move {
                if let Ok(mut far) = UnixStream::connect(path).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    port
}

struct HostsRig {
    api: DockerApi,
    history: History,
    at: BTreeMap<(String, String), usize>,
    count: usize,
}

impl HostsRig {
    fn stop(&mut self, service: &str, name: &str) {
        let Some(number) = self.at.remove(&(service.to_owned(), name.to_owned())) else { return };
        self.note();
        self.api.remove(number);
        self.api.emit(&[event(number, "die"), event(number, "destroy")]);
    }

    fn note(&mut self) {
        let all = self.at.values().map(|number| format!("127.0.0.1:{}", 10_000 + number)).collect();
        self.history.record(|pools| drop(pools.insert("web".to_owned(), all)));
    }
}

/// The boxed watcher, as the suite wants one.
struct Boxed(BoxWatcher);

impl Watcher<Snapshot> for Boxed {
    type Error = std::io::Error;

    async fn run(self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), std::io::Error> {
        self.0.run(out, cancel).await.map_err(std::io::Error::other)
    }
}

impl Rig for HostsRig {
    type Watcher = Boxed;

    fn watcher(&self) -> Boxed {
        Boxed(method(discovery(json!([{"host": self.api.host()}]), json!({}))).watcher(&mut context()))
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        for (service, name) in backends {
            self.stop(service, name);
            self.count += 1;
            let number = self.count;
            self.at.insert(((*service).to_owned(), (*name).to_owned()), number);
            self.note();
            self.api.put(running(number, "example/web:1"));
            self.api.emit(&[event(number, "create"), event(number, "start")]);
        }
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.stop(service, name);
    }

    async fn break_off(&mut self, how: Breakage) {
        match how {
            Breakage::Fail => self.api.go_away(),
            Breakage::Hang => self.api.hang(true),
        }
    }

    async fn mend(&mut self) {
        self.api.hang(false);
        self.api.go_away();
        self.api.listen();
    }

    fn history(&self) -> &History {
        &self.history
    }

    fn order(&self) -> Order {
        Order::EachBackend
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(2)
    }
}

#[tokio::test]
async fn docker_keeps_the_contract() {
    let api = DockerApi::start();
    keeps_the_contract(&mut HostsRig { api, history: History::default(), at: BTreeMap::new(), count: 0 }).await;
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
    let ports = [over_tcp(&one).await, over_tcp(&two).await];
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

#[tokio::test]
async fn docker_hosts_speak_tls_with_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let hosts = json!([{"host": "127.0.0.1", "port": 1, "cert_path": dir.path()}]);
    let found = method(discovery(hosts, json!({})));
    assert_eq!(found.servers(), ["https://127.0.0.1:1"]);
    // The certificates may come later: until then it says what it misses.
    let mut watching = Running::boxed(found.watcher(&mut context()));
    let seen = watching.until_seen("an error", |seen| seen.error().is_some()).await;
    assert!(seen.error().unwrap().contains("ca.pem"), "{seen:?}");
    watching.end().await;
}
