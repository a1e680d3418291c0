//! Services against ports of this test's own; the test is the reporter.

use std::collections::BTreeSet;
use std::sync::Mutex;

use model::{Layout, Prefix, ValueFormat};
use registry::store::etcd::{EtcdConfig, parse_endpoints};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::nerve::reporters::etcd::EtcdFrame;
use crate::nerve::reporters::{Payload, Placement, Want};
use crate::nerve::statsd::Statsd;
use crate::publish::Form;
use crate::publish::report::PublishMetrics;

const PATIENCE: Duration = Duration::from_secs(20);

/// A config's services at work, with the test in the reporter's place.
struct Stage {
    dir: TempDir,
    source: watch::Sender<Arc<Good>>,
    wanted: watch::Receiver<Arc<Wanted>>,
    standing: watch::Sender<Standing>,
    rows: watch::Receiver<Arc<[ServiceRow]>>,
    cancel: CancellationToken,
    task: JoinHandle<Result<(), ReporterError>>,
}

fn read(dir: &TempDir, config: &Value) -> Arc<Good> {
    let path = dir.path().join("nerve.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let loaded = crate::nerve::config::load_with(&path, None, &|_| None).unwrap();
    Arc::new(Good { config: Arc::new(loaded.config), wrong: loaded.wrong })
}

pub(super) fn frame(statsd: Statsd) -> Frame {
    let node = "n1".parse().unwrap();
    let prefix = Prefix::default();
    let form = Form { prefix, layout: Layout::Service, node, values: ValueFormat::Json, service_ports: false };
    let etcd = EtcdFrame {
        config: EtcdConfig::new(parse_endpoints("own", None, false).unwrap()),
        form,
        machine: "m1".into(),
        ttl: Duration::from_secs(10),
        audit: Duration::from_secs(30),
        metrics: PublishMetrics::default(),
        claims: Mutex::new(BTreeSet::new()),
        pulse: None,
    };
    Frame { max_failures: Arc::default(), statsd, etcd: Arc::new(etcd) }
}

impl Stage {
    fn start(config: &Value) -> Self {
        Self::start_with(config, Statsd::off())
    }

    fn start_with(config: &Value, statsd: Statsd) -> Self {
        let dir = TempDir::new().unwrap();
        let source = watch::Sender::new(read(&dir, config));
        let (rows, shown) = watch::channel(Arc::default());
        let wires = Wires { config: source.subscribe(), rows, changes: watch::Sender::new(0), drain_at_exit: None };
        let frame = frame(statsd);
        let own = frame.etcd.own_destination();
        let mut services = Services::new(wires, frame, ServiceMetrics::default(), CheckMetrics::default());
        let (wanted, standing) = services.own_etcd(&own);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(services.run(cancel.clone()));
        Self { dir, source, wanted, standing, rows: shown, cancel, task }
    }

    fn reload(&self, config: &Value) {
        self.source.send_replace(read(&self.dir, config));
    }

    /// What is wanted at present: `service port`, and whether that is decided.
    fn now(&self) -> Vec<String> {
        let one = |(placement, want): (&Placement, &Want)| {
            let (mark, payload) = match want {
                Want::Publish(payload) => ("", payload),
                Want::Leave(payload) => ("? ", payload),
                Want::Absent(payload) => ("no ", payload),
            };
            let payload: Value = serde_json::from_str(payload).unwrap();
            format!("{mark}{}{} {}", placement.service, placement.target.path(), payload["port"])
        };
        self.wanted.borrow().iter().map(one).collect()
    }

    async fn until(&mut self, expected: &[String]) {
        let start = Instant::now();
        while self.now() != expected {
            assert!(start.elapsed() < PATIENCE, "expected {expected:?}, found {:?}", self.now());
            let _ = timeout(Duration::from_millis(50), self.wanted.changed()).await;
        }
    }

    /// Acknowledges everything that is to be published.
    fn acknowledge(&self) {
        let publish = |(placement, want): (&Placement, &Want)| match want {
            Want::Publish(payload) => Some((placement.clone(), Payload::clone(payload))),
            Want::Leave(_) | Want::Absent(_) => None,
        };
        let published = self.wanted.borrow().iter().filter_map(publish).collect();
        self.standing.send_modify(|s| s.published = published);
    }

    async fn row(&mut self, service: &str, fits: impl Fn(&ServiceRow) -> bool) -> ServiceRow {
        let found = |rows: &Arc<[ServiceRow]>| rows.iter().any(|r| *r.service == *service && fits(r));
        let rows = timeout(PATIENCE, self.rows.wait_for(found)).await;
        let rows = rows.unwrap_or_else(|_| panic!("no such row")).unwrap().clone();
        rows.iter().find(|r| *r.service == *service).unwrap().clone()
    }

    async fn end(self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

fn service(port: u16, path: &str, more: Value) -> Value {
    let mut service = json!({
        "host": "127.0.0.1", "port": port, "reporter_type": "etcd", "etcd_path": path, "check_interval": 0.02,
        "checks": [{"type": "tcp"}],
    });
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

fn config(services: Value) -> Value {
    json!({"instance_id": "i-1", "services": services})
}

async fn port() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn checks_run_one_after_the_other_and_stop_at_the_first_failure() {
    let ((first, a), (second, b)) = (port().await, port().await);
    let checks = json!([{"type": "tcp"}, {"type": "tcp", "port": b}]);
    let mut stage = Stage::start(&config(json!({"web": service(a, "/p", json!({"checks": checks}))})));
    stage.until(&[format!("web/p {a}")]).await;
    drop(second);
    stage.until(&[]).await;
    let row = stage.row("web", |r| r.state == ServiceState::Failing).await;
    assert!(row.reason.contains(&format!("127.0.0.1:{b}")), "{row:?}");
    assert_eq!(row.checks.iter().map(|c| c.state).collect::<Vec<_>>(), ["passing", "failing"]);
    drop(first);
    // From now on only the first one is tried.
    stage.row("web", |r| r.reason.contains(&format!("127.0.0.1:{a}"))).await;
    let _first = TcpListener::bind(("127.0.0.1", a)).await.unwrap();
    let _second = TcpListener::bind(("127.0.0.1", b)).await.unwrap();
    stage.until(&[format!("web/p {a}")]).await;
    stage.end().await;
}

#[tokio::test]
async fn a_mocked_service_and_one_without_checks_are_up() {
    let mocked = service(1, "/p", json!({"check_mocked": true, "checks": [{"type": "base"}]}));
    let bare = service(2, "/p", json!({"checks": []}));
    let never = service(3, "/p", json!({"checks": [{"type": "base"}]}));
    let mut stage = Stage::start(&config(json!({"bare": bare, "mocked": mocked, "never": never})));
    stage.until(&["bare/p 2".to_owned(), "mocked/p 1".to_owned()]).await;
    let row = stage.row("never", |r| r.state == ServiceState::Failing).await;
    assert!(row.reason.contains("never passes"), "{row:?}");
    stage.end().await;
}

#[tokio::test]
async fn rise_counts_from_the_start_unless_nerves_way_is_asked_for() {
    let (_listener, port) = port().await;
    let check = json!({"checks": [{"type": "tcp", "rise": 1000}], "check_interval": 0.05});
    let mut hasty = check.clone();
    hasty["nerve_first_result"] = true.into();
    let services = json!({"calm": service(port, "/p", check), "hasty": service(port, "/p", hasty)});
    let mut stage = Stage::start(&config(services));
    stage.until(&[format!("? calm/p {port}"), format!("hasty/p {port}")]).await;
    let row = stage.row("calm", |r| r.state == ServiceState::Waiting).await;
    assert_eq!(row.reason, "its checks have not decided yet");
    stage.end().await;
}

#[tokio::test]
async fn reports_are_limited_unless_in_shadow_mode() {
    // One report is free, and the next comes in a second.
    let (listener, port) = port().await;
    let limited = |shadow: bool| {
        let limit = json!({"shadow_mode": shadow, "average_rate": 1.0, "max_burst": 1});
        service(port, "/p", json!({"rate_limiting": limit, "check_interval": 0.01}))
    };
    let services = json!({"enforced": limited(false), "shadow": limited(true)});
    let mut stage = Stage::start(&config(services));
    let (enforced, shadow) = (format!("enforced/p {port}"), format!("shadow/p {port}"));
    stage.until(&[enforced.clone(), shadow.clone()]).await;
    drop(listener);
    // The free report is gone: the enforced one is held back for up to a second, the other is only told about.
    stage.until(std::slice::from_ref(&enforced)).await;
    stage.row("enforced", |r| r.state == ServiceState::Throttled).await;
    stage.until(&[]).await;
    stage.end().await;
}

#[tokio::test]
async fn a_changed_service_is_published_anew_before_its_old_registration_goes() {
    let ((_old, a), (_kept, b)) = (port().await, port().await);
    let (_, c) = port().await; // nobody listens there any more
    let kept = service(b, "/kept", json!({}));
    let mut stage = Stage::start(&config(json!({"web": service(a, "/one", json!({})), "kept": kept})));
    let steady = format!("kept/kept {b}");
    stage.until(&[steady.clone(), format!("web/one {a}")]).await;
    stage.acknowledge();

    // Another port, which does not work yet: nothing changes for anybody.
    stage.reload(&config(
        json!({"web": service(c, "/one", json!({"checks": [{"type": "tcp", "fall": 1000}]})), "kept": kept}),
    ));
    let row = stage.row("web", |r| r.address.ends_with(&c.to_string())).await;
    assert_eq!(row.state, ServiceState::Waiting);
    assert_eq!(stage.now(), [steady.clone(), format!("web/one {a}")]);
    // It comes up: the value is replaced in one step.
    let _new = TcpListener::bind(("127.0.0.1", c)).await.unwrap();
    stage.until(&[steady.clone(), format!("web/one {c}")]).await;
    stage.acknowledge();

    // Another place and a weight: the checks need not prove anything, and the old key goes when the new one is there.
    let moved = service(c, "/two", json!({"weight": 7, "checks": [{"type": "tcp", "fall": 1000}]}));
    stage.reload(&config(json!({"web": moved, "kept": kept})));
    stage.until(&[steady.clone(), format!("web/one {c}"), format!("web/two {c}")]).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(stage.now().len(), 3, "not before it is acknowledged");
    stage.acknowledge();
    stage.until(&[steady.clone(), format!("web/two {c}")]).await;

    // Wrong now: it goes on as it was, and says so. Then it is gone from the config.
    stage.reload(&config(json!({"web": {"host": "h"}, "kept": kept})));
    let row = stage.row("web", |r| r.refused.is_some()).await;
    assert!(row.refused.unwrap().contains("services.web.port: is required"));
    assert_eq!(stage.now(), [steady.clone(), format!("web/two {c}")]);
    stage.reload(&config(json!({"kept": kept})));
    stage.until(&[steady]).await;
    stage.end().await;
}

#[tokio::test]
async fn statsd_hears_nerves_names_when_it_is_configured() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let statsd = Statsd::to("127.0.0.1", server.local_addr().unwrap().port()).unwrap();
    let (_listener, port) = port().await;
    let mut stage = Stage::start_with(&config(json!({"web": service(port, "/p", json!({}))})), statsd);
    stage.until(&[format!("web/p {port}")]).await;
    // Before the service goes: the first beat may have come before the service.
    let at_work = [
        "nerve.start:1|c",
        "nerve.watcher.launch:1|c|#service_name:web",
        "nerve.watcher.start:1|c|#service_name:web",
        "nerve.watcher.status.service_check:1|c|#check_result:up,service_name:web,check_name:tcp-127.0.0.1",
        "nerve.watcher.status.transition:1|c|#new_status:up,service_name:web",
        "nerve.watcher.status.report.count:1|c|#report_result:success,service_name:web",
        "nerve.watcher.status.ping.count:1|c|#ping_result:success,service_name:web",
    ];
    let mut said = Vec::new();
    heard(&server, &mut said, &at_work).await;
    stage.reload(&config(json!({})));
    stage.until(&[]).await;
    stage.end().await;
    let at_the_end = [
        "nerve.config.update:1|c",
        "nerve.watcher.reap:1|c|#service_name:web",
        "nerve.main_loop.elapsed_time:",
        "nerve.stop:1|c",
    ];
    heard(&server, &mut said, &at_the_end).await;
}

/// Waits until datagrams that begin so have been `said`, in any order.
async fn heard(server: &UdpSocket, said: &mut Vec<String>, wanted: &[&str]) {
    let mut buffer = [0; 500];
    while let Some(missing) = wanted.iter().find(|wanted| !said.iter().any(|text| text.starts_with(**wanted))) {
        let Ok(received) = timeout(PATIENCE, server.recv(&mut buffer)).await else { panic!("never heard {missing}") };
        said.push(String::from_utf8_lossy(&buffer[..received.unwrap()]).into_owned());
    }
}

#[tokio::test]
async fn the_heartbeat_file_is_touched() {
    let dir = TempDir::new().unwrap();
    let beat = dir.path().join("beat");
    let mut config = config(json!({"web": service(1, "/p", json!({"check_mocked": true}))}));
    config["heartbeat_path"] = beat.to_str().unwrap().into();
    let stage = Stage::start(&config);
    let start = Instant::now();
    while !beat.exists() {
        assert!(start.elapsed() < PATIENCE, "no heartbeat");
        sleep(Duration::from_millis(10)).await;
    }
    let old = SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().append(true).open(&beat).unwrap().set_modified(old).unwrap();
    touch(&beat).unwrap();
    assert!(std::fs::metadata(&beat).unwrap().modified().unwrap() > old + Duration::from_secs(1800));
    stage.end().await;
}
