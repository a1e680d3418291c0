//! `method: dns`, and host names of other watchers as addresses.

use std::net::IpAddr;

use discover::watchers::dns::{Dns, DnsSource, Resolver, Resolving};
use discover::watchers::file::{File, FileSource};
use discover::watchers::poll::{Pace, Polled};
use discover::watchers::{About, Method, MethodInput};
use testing::dns::{DnsServer, Manner};
use testing::watch_contract::{Breakage, Rig, keeps_the_contract};
use tokio::time::Instant;

use super::*;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

fn discovery(server: &DnsServer, more: Value) -> Value {
    let mut all = json!({"method": "dns", "nameserver": server.address(), "check_interval": 0.2});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// All backends are addresses of one name.
struct DnsRig {
    server: DnsServer,
    named: Named,
}

impl DnsRig {
    fn tell(&self) {
        let address = |text: &String| text.rsplit_once(':').unwrap().0.parse().unwrap();
        self.server.set("web.example", &self.named.at.values().map(address).collect::<Vec<IpAddr>>());
    }
}

impl Rig for DnsRig {
    type Watcher = Polled<DnsSource>;

    fn watcher(&self) -> Self::Watcher {
        let services = services(json!({
            "discovery": discovery(&self.server, json!({"servers": [{"host": "web.example", "port": 80}]})),
        }));
        Dns::read(&MethodInput::of(&services.unwrap()[0])).unwrap().polled()
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        self.named.put(backends, |n| format!("10.0.{}.{}:80", n / 250, n % 250 + 1));
        self.tell();
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.named.remove(service, name);
        self.tell();
    }

    async fn break_off(&mut self, how: Breakage) {
        self.server.behave(if how == Breakage::Fail { Manner::Fails } else { Manner::Silent });
    }

    async fn mend(&mut self) {
        self.server.behave(Manner::Proper);
    }

    fn history(&self) -> &History {
        &self.named.history
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(2)
    }
}

#[tokio::test]
async fn dns_keeps_the_contract() {
    keeps_the_contract(&mut DnsRig { server: DnsServer::start().await, named: Named::default() }).await;
}

#[tokio::test]
async fn dns_makes_a_backend_of_each_address() {
    let server = DnsServer::start().await;
    server.set("a.example", &ips(&["10.0.0.9", "10.0.0.10", "2001:db8::1"]));
    server.set("b.example", &ips(&["10.0.1.1"]));
    let mut watching = Running::of(discovery(
        &server,
        json!({"servers": [
            {"name": "a", "host": "a.example", "port": 80, "labels": {"az": "x"}},
            {"host": "b.example", "port": "81"},
            {"name": "fixed", "host": "192.0.2.1", "port": 82},
            {"name": "none", "host": "no.example", "port": 83},
        ]}),
    ));
    let snapshot = watching.until("an answer", |s| web(s).len() == 5).await;
    let pool = snapshot.services["web"].backends();
    let shown: Vec<String> = pool.iter().map(|b| b.id.to_string()).collect();
    // As Synapse: by the addresses' texts.
    assert_eq!(shown, ["a_10.0.0.10:80", "a_10.0.0.9:80", "a_2001:db8::1:80", "10.0.1.1:81", "fixed_192.0.2.1:82"]);
    assert_eq!((pool[0].labels["az"].as_str(), pool[0].name.as_deref()), ("x", Some("a")));
    assert_eq!(left_out(&snapshot), [""; 0], "that there is no such name is an answer");
    assert!(!server.questions().iter().any(|q| q.contains("192.0.2.1")), "an address is not asked for");
    watching.end().await;
}

#[tokio::test]
async fn dns_srv_records_bring_ports_weights_and_backups() {
    let server = DnsServer::start().await;
    server.set("a.example", &ips(&["10.0.0.1"]));
    server.set("b.example", &ips(&["10.0.0.2", "10.0.0.3"]));
    let services = [(10, 30, 8080, "a.example."), (10, 10, 8081, "b.example."), (20, 0, 8082, "a.example.")];
    server.set_services("_http._tcp.web.example", &services);
    server.set_services("_off._tcp.web.example", &[(0, 0, 0, ".")]);
    server.set_services("plain.example", &[(0, 0, 90, "a.example.")]);
    let mut watching = Running::of(discovery(
        &server,
        json!({"servers": [
            {"host": "_http._tcp.web.example"}, {"host": "_off._tcp.web.example"}, {"host": "plain.example", "record": "srv"},
        ]}),
    ));
    let all = ["10.0.0.1:8080", "10.0.0.1:8082", "10.0.0.1:90", "10.0.0.2:8081", "10.0.0.3:8081"];
    let snapshot = watching.until_web(&all).await;
    let of = |address: &str| {
        let backend = snapshot.services["web"].backends().iter().find(|b| b.address() == address).unwrap();
        (backend.weight.map(|w| w.get()), backend.haproxy_server_options.as_deref().map(str::to_owned))
    };
    assert_eq!(of("10.0.0.1:8080"), (Some(30), None));
    assert_eq!(of("10.0.0.3:8081"), (Some(10), None));
    assert_eq!(of("10.0.0.1:8082"), (Some(1), Some("backup".to_owned())), "of a higher number: stands by");
    assert_eq!(of("10.0.0.1:90"), (None, None));
    watching.end().await;
}

#[tokio::test]
async fn dns_asks_the_name_servers_that_it_is_given() {
    let (first, second) = (DnsServer::start().await, DnsServer::start().await);
    for server in [&first, &second] {
        server.set("a.example", &ips(&["10.0.0.1"]));
    }
    first.behave(Manner::Silent);
    let servers = json!([first.address(), second.address()]);
    let discovery = json!({"method": "dns", "nameserver": servers, "check_interval": 0.2, "servers": [{"host": "a.example", "port": 80}]});
    let mut watching = Running::of(discovery);
    watching.until_web(&["10.0.0.1:80"]).await; // one that is silent costs time, not the answer
    let asked = second.questions();
    assert!(
        asked.iter().all(|q| q.ends_with(" a.example")),
        "nothing else is asked for, no outside name above all: {asked:?}"
    );
    watching.end().await;
}

#[tokio::test]
async fn dns_looks_again_when_the_shortest_ttl_is_over() {
    let server = DnsServer::start().await;
    server.set("a.example", &ips(&["10.0.0.1"]));
    server.set_ttl(1);
    let mut watching =
        Running::of(discovery(&server, json!({"check_interval": 600, "servers": [{"host": "a.example", "port": 80}]})));
    watching.until_web(&["10.0.0.1:80"]).await;
    server.set("a.example", &ips(&["10.0.0.2"]));
    let began = Instant::now();
    watching.until_web(&["10.0.0.2:80"]).await;
    assert!(began.elapsed() < Duration::from_secs(10), "the period is ten minutes");
    watching.end().await;
}

#[tokio::test]
async fn a_cut_off_answer_is_had_over_tcp_or_not_taken() {
    let server = DnsServer::start().await;
    let all: Vec<IpAddr> = (1..=60).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    server.set("a.example", &all);
    server.behave(Manner::CutOff);
    let mut watching = Running::of(discovery(&server, json!({"servers": [{"host": "a.example", "port": 80}]})));
    let first = watching.until("a first answer", |_| true).await;
    assert_eq!(web(&first).len(), 60);
    server.behave(Manner::CutOffOnly);
    let stale = watching.until_seen("stale", |seen| seen.standing() == "stale").await;
    assert_eq!(web(stale.snapshot().unwrap()).len(), 60);
    server.behave(Manner::Rubbish);
    watching.until_seen("still stale", |seen| seen.standing() == "stale").await;
    server.behave(Manner::Proper);
    server.set("a.example", &all[..3]);
    watching.until("mended", |s| web(s).len() == 3).await;
    watching.end().await;
}

#[tokio::test]
async fn a_name_that_fails_keeps_its_addresses_and_harms_no_other() {
    let server = DnsServer::start().await;
    server.set("a.example", &ips(&["10.0.0.1"]));
    server.set("b.example", &ips(&["10.0.1.1"]));
    server.fail_for(&["never.example"]);
    let hosts = ["a.example", "b.example", "never.example"].map(|host| json!({"host": host, "port": 80}));
    let mut watching = Running::of(discovery(&server, json!({"servers": hosts})));
    let snapshot = watching.until_web(&["10.0.0.1:80", "10.0.1.1:80"]).await;
    assert!(left_out(&snapshot).iter().any(|l| l.starts_with("web: A never.example: ")), "{:?}", left_out(&snapshot));
    server.fail_for(&["never.example", "a.example"]);
    server.set("b.example", &ips(&["10.0.1.2"]));
    let snapshot = watching.until_web(&["10.0.0.1:80", "10.0.1.2:80"]).await;
    assert!(!snapshot.services.is_empty());
    watching.until("named", |s| left_out(s).iter().any(|l| l.contains("A a.example"))).await;
    server.fail_for(&[]);
    server.set("a.example", &[]);
    watching.until_web(&["10.0.1.2:80"]).await;
    watching.end().await;
}

/// Host names in a file, resolved: what zookeeper_dns does with ZooKeeper's.
struct ResolvingRig {
    dir: tempfile::TempDir,
    server: DnsServer,
    named: Named,
}

impl ResolvingRig {
    fn write(&self) {
        let hosts: Vec<String> =
            self.named.at.values().map(|address| format!("h{}.example:80", address.replace([':', '.'], "-"))).collect();
        let path = self.dir.path().join("web.json");
        std::fs::write(path.with_extension("new"), json!(hosts).to_string()).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }
}

impl Rig for ResolvingRig {
    type Watcher = Resolving<Polled<FileSource>>;

    fn watcher(&self) -> Self::Watcher {
        let about = About { service: "web".parse().unwrap(), port: None, source: "web".into() };
        let file = File::new(about, self.dir.path().join("web.json"), Pace::every(Some(60.0), 60)).polled();
        let resolver = Resolver::new(&[self.server.address().parse().unwrap()], Duration::from_secs(1));
        Resolving::new(file, resolver, Duration::from_millis(200), "web".into())
    }

    async fn put(&mut self, backends: &[(&str, &str)]) {
        self.named.put(backends, |n| format!("10.0.{}.{}:80", n / 250, n % 250 + 1));
        for address in self.named.at.values() {
            let ip = address.rsplit_once(':').unwrap().0.parse().unwrap();
            self.server.set(&format!("h{}.example", address.replace([':', '.'], "-")), &[ip]);
        }
        self.write();
    }

    async fn remove(&mut self, service: &str, name: &str) {
        self.named.remove(service, name);
        self.write();
    }

    async fn break_off(&mut self, how: Breakage) {
        // The names are what breaks here; the file itself is another rig's.
        self.server.behave(if how == Breakage::Fail { Manner::Fails } else { Manner::Silent });
    }

    async fn mend(&mut self) {
        self.server.behave(Manner::Proper);
    }

    fn history(&self) -> &History {
        &self.named.history
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(2)
    }
}

#[tokio::test]
async fn resolved_names_keep_the_contract() {
    let rig =
        ResolvingRig { dir: tempfile::tempdir().unwrap(), server: DnsServer::start().await, named: Named::default() };
    rig.write();
    let mut rig = rig;
    keeps_the_contract(&mut rig).await;
}

#[tokio::test]
async fn resolved_backends_keep_what_they_are_and_how_they_went() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.json");
    let server = DnsServer::start().await;
    server.set("a.example", &ips(&["10.0.0.1", "10.0.0.2"]));
    std::fs::write(
        &path,
        r#"[{"name": "n", "host": "a.example", "port": 80, "weight": 7, "labels": {"az": "x"}}, "192.0.2.1:81"]"#,
    )
    .unwrap();
    let about = About { service: "web".parse().unwrap(), port: None, source: "web".into() };
    let file = File::new(about, path.clone(), Pace::every(Some(60.0), 60)).polled();
    let resolver = Resolver::new(&[server.address().parse().unwrap()], Duration::from_secs(1));
    let mut watching = Running::start(Resolving::new(file, resolver, Duration::from_millis(100), "web".into()));
    let snapshot = watching.until_web(&["10.0.0.1:80", "10.0.0.2:80", "192.0.2.1:81"]).await;
    let backend = &snapshot.services["web"].backends()[1];
    assert_eq!((backend.weight.unwrap().get(), backend.name.as_deref(), &*backend.labels["az"]), (7, Some("n"), "x"));
    assert!(backend.raw.as_deref().unwrap().contains("\"host\":\"10.0.0.2\""));
    // The watcher below fails: what is known stays, and names are still followed.
    std::fs::remove_file(&path).unwrap();
    watching.until_seen("stale", |seen| seen.standing() == "stale").await;
    server.set("a.example", &ips(&["10.0.0.3"]));
    let seen = watching
        .until_seen("followed", |seen| seen.snapshot().is_some_and(|s| web(s).contains(&"10.0.0.3:80".to_owned())))
        .await;
    assert_eq!(seen.standing(), "stale");
    watching.end().await;
}
