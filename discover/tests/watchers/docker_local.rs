//! `discover --docker`: the suite that every watcher passes, over a scripted daemon; what only Docker does; and a real
//! daemon once.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use containers::docker::{Docker, Endpoint, Options};
use containers::readiness::ReadyMode;
use discover::watchers::docker::{DockerWatcher, on_this_host};
use model::Status;
use model::desired::Settings;
use registry::Snapshot;
use serde_json::{Value, json};
use testing::docker_api::{DockerApi, event, id, running};
use testing::watch_contract::{keeps_the_contract, pools};

use tokio::time::timeout;

use super::docker_rig::DockerRig;
use super::{DEADLINE, Running};

fn brisk() -> Options {
    Options { resync: Duration::from_millis(300), probe: Duration::from_millis(100), ..Options::default() }
}

/// Container `number`, of `service`, published on 127.0.0.1.
fn container(number: usize, service: &str) -> Value {
    running(number, &format!("example/{service}:1"))
}

#[tokio::test]
async fn keeps_the_contract_over_a_scripted_daemon() {
    let watcher =
        |api: &DockerApi| DockerWatcher::new(api.client(), brisk(), on_this_host(Settings::default()), ReadyMode::None);
    keeps_the_contract(&mut DockerRig::new(watcher, |service| service)).await;
}

fn statuses(snapshot: &Snapshot, service: &str) -> Vec<Status> {
    snapshot.services.get(service).map_or(Vec::new(), |pool| pool.backends().iter().map(|b| b.status).collect())
}

fn watcher(api: &DockerApi, settings: Settings, ready: ReadyMode) -> DockerWatcher {
    DockerWatcher::new(api.client(), Options::default(), on_this_host(settings), ready)
}

#[tokio::test]
async fn a_stop_drains_until_the_container_dies_and_never_is_up_again() {
    let api = DockerApi::start();
    api.put(container(1, "web"));
    api.put(container(2, "web"));
    let mut watching = Running::start(watcher(&api, Settings::default(), ReadyMode::None));
    watching.until("both", |s| statuses(s, "web") == [Status::Up; 2]).await;
    api.emit(&[event(1, "kill")]);
    watching.until("draining", |s| statuses(s, "web") == [Status::Draining, Status::Up]).await;
    let mut listener = watching.inlet.clone();
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        while listener.changed().await.is_ok() {
            said.extend(listener.borrow_and_update().snapshot().map(|s| statuses(s, "web")));
        }
        said
    });
    api.remove(1);
    api.emit(&[event(1, "die"), event(1, "stop"), event(1, "destroy")]);
    watching.until("one gone", |s| statuses(s, "web") == [Status::Up]).await;
    // Both signals, and the end, in one packet.
    api.remove(2);
    api.emit(&[event(2, "kill"), event(2, "kill"), event(2, "die")]);
    watching.until("both gone", |s| s.services.is_empty()).await;
    watching.end().await;
    for statuses in said.await.unwrap() {
        assert!(statuses.len() < 2, "up again while it died: {statuses:?}");
    }
}

#[tokio::test]
async fn a_weight_grows_while_its_container_warms_up_and_one_that_was_there_has_grown() {
    let warm = |number: usize| {
        let mut one = container(number, "web");
        one["Config"]["Labels"] = json!({"register.warmup": "400ms", "register.weight": "100"});
        one
    };
    let api = DockerApi::start();
    api.put(warm(1));
    let mut watching = Running::start(watcher(&api, Settings::default(), ReadyMode::None));
    let weights =
        |s: &Snapshot| -> Vec<u16> { s.services["web"].backends().iter().map(|b| b.weight.unwrap().get()).collect() };
    assert_eq!(weights(&watching.until("a first snapshot", |_| true).await), [100]);
    let mut listener = watching.inlet.clone();
    listener.mark_unchanged();
    api.put(warm(2));
    api.emit(&[event(2, "start")]);
    let mut grown = Vec::new();
    while grown.last() != Some(&100) {
        timeout(DEADLINE, listener.changed()).await.expect("it does not grow").unwrap();
        let now = weights(listener.borrow_and_update().snapshot().unwrap());
        assert_eq!((now.len(), now[0]), (2, 100));
        grown.push(now[1]);
    }
    assert!(grown.len() <= 5 && grown.is_sorted() && grown[0] < 100, "{grown:?}");
    watching.end().await;
}

#[tokio::test]
async fn a_port_is_published_once_it_accepts_and_the_first_send_holds_what_accepts_already() {
    let api = DockerApi::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let late = tokio::net::TcpSocket::new_v4().unwrap();
    late.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let ports = [listener.local_addr().unwrap().port(), late.local_addr().unwrap().port()];
    for (number, port) in ports.iter().enumerate() {
        let mut one = container(number, "web");
        let name = format!("{port}/tcp");
        one["Config"]["ExposedPorts"] = json!({&name: {}});
        one["NetworkSettings"]["Ports"] = json!({&name: [{"HostIp": "0.0.0.0", "HostPort": port.to_string()}]});
        one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] = json!("127.0.0.1");
        api.put(one);
    }
    let mut watching = Running::start(watcher(&api, Settings::default(), ReadyMode::Tcp));
    let first = watching.until("a first snapshot", |_| true).await;
    let expected = |ports: &[u16]| ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    assert_eq!(pools(&first)["web"], expected(&ports[..1]));
    let _late = late.listen(8).unwrap();
    let both = watching.until("both", |s| statuses(s, "web").len() == 2).await;
    assert_eq!(pools(&both)["web"], expected(&ports));
    watching.end().await;
}

#[tokio::test]
async fn containers_own_addresses_health_and_faults() {
    let api = DockerApi::start();
    let mut healthy = container(1, "web");
    healthy["State"]["Health"] = json!({"Status": "healthy"});
    let mut sick = container(2, "web");
    sick["State"]["Health"] = json!({"Status": "unhealthy"});
    let mut wrong = container(3, "web");
    wrong["Config"]["Labels"] = json!({"register.weight": "heavy"});
    for one in [healthy, sick.clone(), wrong] {
        api.put(one);
    }
    let internal = Settings { internal: true, ..Settings::default() };
    let mut watching = Running::start(watcher(&api, internal, ReadyMode::None));
    let snapshot = watching.until("a first snapshot", |_| true).await;
    assert_eq!(pools(&snapshot)["web"], ["172.17.0.2:80".to_owned()].into());
    let (key, bad) = snapshot.quarantined.first_key_value().unwrap();
    assert_eq!((&**key, snapshot.quarantined.len()), ("c3:80/tcp", 1));
    assert!(bad.reason.contains("register.weight") && bad.reason.contains("heavy"), "{}", bad.reason);
    api.remove(1);
    sick["State"]["Health"] = json!({"Status": "healthy"});
    api.put(sick);
    api.emit(&[event(1, "die"), event(2, "health_status: healthy")]);
    let snapshot = watching
        .until("the other one", |s| {
            !s.services.is_empty() && s.services["web"].backends()[0].id.as_str().starts_with(&id(2)[..12])
        })
        .await;
    assert_eq!(statuses(&snapshot, "web"), [Status::Up]);
    watching.end().await;
}

/// Container `number`, which Docker lists and describes in a way that cannot be read.
fn nonsense(number: usize) -> Value {
    let mut strange = container(number, "web");
    strange["HostConfig"] = json!("who knows");
    strange
}

#[tokio::test]
async fn a_container_that_docker_lists_and_cannot_describe_stays_as_it_was() {
    let api = DockerApi::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let name = format!("{port}/tcp");
    let served = |number: usize| {
        let mut one = container(number, "web");
        let published = json!([{"HostIp": "0.0.0.0", "HostPort": (20_000 + number).to_string()}]);
        one["Config"]["ExposedPorts"] = json!({&name: {}});
        one["NetworkSettings"]["Ports"] = json!({&name: published});
        one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] = json!("127.0.0.1");
        one
    };
    api.put(served(1));
    api.put(served(2));
    let mut watching = Running::start(watcher(&api, Settings::default(), ReadyMode::Tcp));
    watching.until("both", |s| statuses(s, "web") == [Status::Up; 2]).await;
    let mut seen = watching.inlet.clone();
    let fewest = tokio::spawn(async move {
        let mut fewest = 2;
        while seen.changed().await.is_ok() {
            let backends = seen.borrow_and_update().snapshot().map_or(0, |s| statuses(s, "web").len());
            fewest = fewest.min(backends);
        }
        fewest
    });
    api.put(nonsense(1));
    api.emit(&[event(1, "update")]);
    let snapshot = watching.until("one that cannot be described", |s| s.quarantined.contains_key(&id(1)[..12])).await;
    assert_eq!(statuses(&snapshot, "web"), [Status::Up; 2]);
    api.put(served(3));
    api.emit(&[event(3, "start")]);
    watching.until("a third one beside it", |s| statuses(s, "web") == [Status::Up; 3]).await;
    api.put(served(1));
    api.emit(&[event(1, "update")]);
    watching.until("one that can be described, and waits at no gate", |s| s.quarantined.is_empty()).await;
    watching.end().await;
    assert_eq!(fewest.await.unwrap(), 2, "left out for a moment");
}

#[tokio::test]
async fn a_container_that_cannot_be_described_goes_when_it_dies() {
    let api = DockerApi::start();
    api.put(container(1, "web"));
    api.put(container(2, "web"));
    let mut watching = Running::start(watcher(&api, Settings::default(), ReadyMode::None));
    watching.until("both", |s| statuses(s, "web").len() == 2).await;
    api.put(nonsense(1));
    api.emit(&[event(1, "update")]);
    watching.until("one that cannot be described", |s| !s.quarantined.is_empty()).await;
    api.remove(1);
    api.emit(&[event(1, "die")]);
    watching.until("one gone", |s| statuses(s, "web") == [Status::Up] && s.quarantined.is_empty()).await;
    watching.end().await;
}

/// Runs a program and gives what it printed.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A container of the real daemon; it is gone when this is dropped.
struct Real(String);

impl Real {
    /// Serves on port 80 after half a second, and takes no notice of SIGTERM.
    fn start(image: &str, label: &str) -> Self {
        const SERVER: &str = "sleep 0.5; exec perl -MIO::Socket::INET -e \
            '$SIG{TERM} = \"IGNORE\"; $s = IO::Socket::INET->new(LocalPort => 80, Listen => 9, ReuseAddr => 1) or die; \
            while (1) { $s->accept }'";
        let mut args = vec!["run", "-d", "--label", label, "--label", "register.service=smoke"];
        args.extend(["--stop-timeout", "2", "-p", "127.0.0.1::80", image, "sh", "-c", SERVER]);
        Self(run("docker", &args))
    }

    fn published(&self) -> String {
        run("docker", &["port", &self.0, "80/tcp"])
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(Command::new("docker").args(["rm", "-fv", &self.0]).output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_daemon_shows_what_starts_and_stops() {
    let image = run("bash", &[concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/base-image.sh")]);
    let label = format!("docker-register-test={}", std::process::id());
    let docker = Docker::new(&Endpoint::from_env(|name| std::env::var(name).ok()).unwrap()).unwrap();
    let filters = vec![format!("label={label}").parse().unwrap()];
    let settings = on_this_host(Settings { filters, ..Settings::default() });
    let mut watching = Running::start(DockerWatcher::new(docker, Options::default(), settings, ReadyMode::Tcp));
    assert!(watching.until("a first snapshot", |_| true).await.services.is_empty());
    let one = Real::start(&image, &label);
    let snapshot = watching.until("one", |s| statuses(s, "smoke") == [Status::Up]).await;
    assert_eq!(pools(&snapshot)["smoke"], [one.published()].into());
    TcpStream::connect(one.published()).expect("published before it accepts");
    let two = Real::start(&image, &label);
    watching.until("both", |s| statuses(s, "smoke") == [Status::Up; 2]).await;
    let mut stop = Command::new("docker").args(["stop", &one.0]).stdout(Stdio::null()).spawn().unwrap();
    watching.until("one draining", |s| statuses(s, "smoke") == [Status::Draining, Status::Up]).await;
    let snapshot = watching.until("one gone", |s| statuses(s, "smoke").len() == 1).await;
    assert_eq!(pools(&snapshot)["smoke"], [two.published()].into());
    assert!(stop.wait().unwrap().success());
    watching.end().await;
}
