//! What the reporter leaves in real servers.

use std::collections::BTreeMap;

use agent::config::Report;
use serde_json::json;
use testing::gate::{Gate, Way};
use testing::zookeeper::ZooKeeperServer;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::nerve::reporters::{AnyTarget, Payload, Placement, Want};

const PATIENCE: Duration = Duration::from_secs(30);

fn read(fields: &Value) -> (Option<Target>, Report) {
    let mut report = Report::default();
    let fields = fields.as_object().unwrap();
    let mut reading = Reading { fields, path: "services.web", report: &mut report };
    (Target::read(&mut reading), report)
}

#[test]
fn zookeeper_targets_are_read() {
    let (target, report) = read(&json!({"zk_hosts": ["b", "a:1/x"], "zk_path": "/nerve/web"}));
    let target = target.unwrap();
    assert_eq!((target.destination().as_str(), target.path()), ("zookeeper a:1,b:2181/x", "/nerve/web"));
    assert_eq!((target.kind, target.encoded, target.ttl), (NodeKind::EphemeralSequential, false, None));
    assert!(report.errors.is_empty() && report.notices.is_empty());
    let all = json!({
        "zk_hosts": ["a"], "zk_path": "web/", "zk_auth": "digest:nerve:secret", "node_type": "persistent",
        "use_path_encoding": true, "ttl_seconds": 30,
    });
    let target = read(&all).0.unwrap();
    assert_eq!((target.destination().as_str(), target.path()), ("zookeeper a:2181 as nerve", "/web"));
    assert_eq!((target.kind, target.encoded, target.ttl), (NodeKind::Persistent, true, Some(Duration::from_secs(30))));
    let (target, report) = read(&json!({"zk_hosts": ["a"], "zk_path": "/web", "ttl_seconds": 30}));
    assert_eq!((target.unwrap().ttl, report.notices.len()), (None, 1));
    for (bad, keys) in [
        (json!({}), &["zk_hosts", "zk_path"][..]),
        (json!({"zk_hosts": ["a b"], "zk_path": "/a//b"}), &["zk_hosts", "zk_path"]),
        (json!({"zk_hosts": ["a/x", "b/y"], "zk_path": "/a"}), &["zk_hosts"]),
        (json!({"zk_hosts": ["a"], "zk_path": "/a", "zk_auth": "secret"}), &["zk_auth"]),
    ] {
        let (target, report) = read(&bad);
        let paths: Vec<&str> = report.errors.iter().map(|e| e.path.as_str()).collect();
        let want: Vec<String> = keys.iter().map(|key| format!("services.web.{key}")).collect();
        assert!(target.is_none() && paths == want, "{bad}: {report:?}");
        assert!(!format!("{report:?}").contains("secret"));
    }
}

/// A reporter at work.
struct Stage {
    wanted: watch::Sender<Arc<Wanted>>,
    standing: watch::Receiver<Standing>,
    ends: Ends,
    task: JoinHandle<()>,
}

impl Stage {
    fn start(hosts: &str, auth: Option<&str>) -> Self {
        let auth = auth.map(|text| text.parse().unwrap());
        let ensemble = zookeeper::Target::parse([hosts]).unwrap().with_auth(auth);
        let ensemble = ensemble.with_session_timeout(Duration::from_secs(2));
        let reporter = ZkReporter { zk: ZooKeeper::new(ensemble), statsd: Statsd::off() };
        let (wanted, given) = watch::channel(Arc::default());
        let (out, standing) = watch::channel(Standing::default());
        let ends = Ends::default();
        let run = reporter.run(given, out, ends.clone());
        Self { wanted, standing, ends, task: tokio::spawn(async move { run.await.unwrap() }) }
    }

    fn want(&self, all: &[(&Placement, Want)]) {
        self.wanted
            .send_replace(Arc::new(all.iter().map(|(placement, want)| ((*placement).clone(), want.clone())).collect()));
    }

    async fn until(&mut self, what: &str, fits: impl Fn(&Standing) -> bool) -> Standing {
        let found = timeout(PATIENCE, self.standing.wait_for(|s| fits(s))).await;
        let found = found.map(|found| found.unwrap().clone());
        found.unwrap_or_else(|_| panic!("not {what}: {:?}", self.standing.borrow()))
    }

    /// Waits until these are published and no other.
    async fn until_published(&mut self, all: &[(&Placement, &Payload)]) {
        let all: BTreeMap<Placement, Payload> = all.iter().map(|(s, p)| ((*s).clone(), (*p).clone())).collect();
        self.until(&format!("{all:?}"), |s| s.published == all && s.away.is_none()).await;
    }

    async fn end(self, withdraw: bool) {
        if withdraw {
            self.ends.withdraw.cancel();
        }
        self.ends.stop.cancel();
        timeout(Duration::from_secs(10), self.task).await.expect("it does not end").unwrap();
    }
}

fn placement(service: &str, more: Value) -> Placement {
    let mut fields = json!({"zk_hosts": ["here"], "zk_path": format!("/nerve/{service}")});
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (target, report) = read(&fields);
    assert_eq!(report.errors, []);
    Placement { service: service.into(), instance: "i-1".into(), target: AnyTarget::ZooKeeper(target.unwrap()) }
}

fn payload(port: u16, more: &str) -> Payload {
    format!(r#"{{"host":"10.0.0.1","port":{port},"name":"i-1"{more}}}"#).into()
}

fn publish(payload: &Payload) -> Want {
    Want::Publish(payload.clone())
}

fn path(text: &str) -> ZkPath {
    text.parse().unwrap()
}

/// The nodes of a service with what they say, in order of their names.
async fn nodes(zk: &ZooKeeper, service: &str) -> Vec<(String, String)> {
    let at = path(&format!("/nerve/{service}"));
    let Some((mut names, _)) = zk.children(&at, false).await.unwrap() else { return Vec::new() };
    names.sort();
    let mut all = Vec::new();
    for name in names {
        let Some((data, _)) = zk.data(&at.child(&name).unwrap(), false).await.unwrap() else { continue };
        all.push((name, String::from_utf8(data).unwrap()));
    }
    all
}

async fn until_nodes(zk: &ZooKeeper, service: &str, fits: impl Fn(&[(String, String)]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = nodes(zk, service).await;
        if fits(&now) {
            return;
        }
        assert!(Instant::now() < deadline, "{service}: {now:?}");
        sleep(Duration::from_millis(20)).await; // until the deadline
    }
}

fn newest_transaction(server: &ZooKeeperServer) -> String {
    let told = server.four_letters("srvr").unwrap();
    told.lines().find_map(|line| line.strip_prefix("Zxid: ")).unwrap().to_owned()
}

#[tokio::test]
async fn zookeeper_holds_what_nerve_would_write_byte_for_byte() {
    let server = ZooKeeperServer::start();
    let (zk, hosts) = (server.client(), server.address().to_string());
    let plain = placement("plain", json!({}));
    let named = placement("named", json!({"node_type": "ephemeral"}));
    let kept = placement("kept", json!({"node_type": "persistent"}));
    let counted = placement("counted", json!({"node_type": "persistent_sequential"}));
    let encoded = placement("encoded", json!({"use_path_encoding": true}));
    let (first, second) = (payload(80, ""), payload(80, r#","weight":3,"labels":{"az":"x"}"#));
    let all = [&plain, &named, &kept, &counted, &encoded];
    let mut stage = Stage::start(&hosts, None);
    stage.want(&all.map(|placement| (placement, publish(&first))));
    stage.until_published(&all.map(|placement| (placement, &first))).await;
    let said = first.to_string();
    let names = [("plain", "i-1_0000000000"), ("named", "i-1_"), ("kept", "i-1_"), ("counted", "i-1_0000000000")];
    for (service, name) in names {
        assert_eq!(nodes(&zk, service).await, [(name.to_owned(), said.clone())], "{service}");
    }
    let (name, data) = nodes(&zk, "encoded").await.remove(0);
    assert_eq!(zookeeper::child::payload(&name).unwrap(), said.as_bytes());
    assert!(name.starts_with("base64_56_") && name.ends_with("_0000000000") && data == said, "{name}");
    // ZooKeeper's own client reads the same.
    let told = server.cli(&["get", "/nerve/plain/i-1_0000000000"]);
    assert!(told.lines().any(|line| line == said), "{told}");

    // Nothing changes: nothing is written, not even for a second.
    let before = newest_transaction(&server);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(newest_transaction(&server), before);

    // Another payload: the node stays the same one; where the name says it too, the new one comes before the old one goes.
    stage.want(&all.map(|placement| (placement, publish(&second))));
    stage.until_published(&all.map(|placement| (placement, &second))).await;
    for (service, name) in names {
        assert_eq!(nodes(&zk, service).await, [(name.to_owned(), second.to_string())], "{service}");
    }
    until_nodes(&zk, "encoded", |all| all.len() == 1 && all[0].1 == *second && all[0].0.ends_with("_0000000001")).await;

    // One is not wanted any more, one is not decided yet.
    stage.want(&[(&plain, publish(&second)), (&kept, publish(&second)), (&counted, Want::Leave(second.clone()))]);
    until_nodes(&zk, "named", <[_]>::is_empty).await;
    until_nodes(&zk, "encoded", <[_]>::is_empty).await;
    assert_eq!(nodes(&zk, "counted").await.len(), 1);
    // Without a farewell everything stays; the next agent finds its own persistent nodes.
    stage.end(false).await;
    for service in ["plain", "kept", "counted"] {
        assert_eq!(nodes(&zk, service).await.len(), 1, "{service}");
    }
    let third = payload(80, r#","weight":9"#);
    let mut heir = Stage::start(&hosts, None);
    heir.want(&[(&kept, publish(&third)), (&counted, publish(&third))]);
    heir.until_published(&[(&kept, &third), (&counted, &third)]).await;
    for (service, name) in [("kept", "i-1_"), ("counted", "i-1_0000000000")] {
        assert_eq!(nodes(&zk, service).await, [(name.to_owned(), third.to_string())]);
    }
    until_nodes(&zk, "plain", <[_]>::is_empty).await; // its session has run out
    heir.end(true).await;
    for service in ["kept", "counted"] {
        assert_eq!(nodes(&zk, service).await, [], "{service}");
    }
    // What a former self left, and is found dead, goes.
    zk.create(&path("/nerve/kept/i-1_"), first.as_bytes(), NodeKind::Persistent).await.unwrap();
    zk.create(&path("/nerve/kept/i-2_"), first.as_bytes(), NodeKind::Persistent).await.unwrap();
    let mut stage = Stage::start(&hosts, None);
    stage.want(&[(&kept, Want::Leave(first.clone()))]);
    sleep(Duration::from_millis(300)).await; // nothing may happen
    assert_eq!(nodes(&zk, "kept").await.len(), 2);
    stage.want(&[(&kept, Want::Absent(first.clone()))]);
    stage.until("confirmed", |s| s.absent.contains(&kept)).await;
    let left: Vec<String> = nodes(&zk, "kept").await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["i-2_"]);
    stage.end(true).await;

    // Numbered ones may be several. One that ZooKeeper does not let go is not confirmed, and tried again.
    let number = async || {
        zk.create(&path("/nerve/counted/i-1_"), first.as_bytes(), NodeKind::PersistentSequential).await.unwrap()
    };
    let (_, second) = (number().await, number().await);
    zk.create(&path(&format!("{second}/child")), b"", NodeKind::Persistent).await.unwrap();
    let mut stage = Stage::start(&hosts, None);
    stage.want(&[(&counted, Want::Absent(first.clone()))]);
    let refused = stage.until("refused", |s| s.refused.contains_key(&counted)).await;
    assert!(refused.absent.is_empty() && refused.refused[&counted].contains(second.as_str()), "{refused:?}");
    zk.delete(&path(&format!("{second}/child"))).await.unwrap();
    stage.until("confirmed", |s| s.absent.contains(&counted) && s.refused.is_empty()).await;
    assert_eq!(nodes(&zk, "counted").await, []);
    stage.end(true).await;
}

#[tokio::test]
async fn zookeeper_registrations_outlive_sessions_and_servers() {
    let mut server = ZooKeeperServer::start();
    let (gate, address) = Gate::tcp(server.address()).await;
    let zk = server.client();
    let placements: Vec<Placement> = (0..20).map(|n| placement(&format!("s{n}"), json!({}))).collect();
    let kept = placement("kept", json!({"node_type": "persistent"}));
    let said = payload(80, "");
    let mut stage = Stage::start(&address.to_string(), None);
    let all: Vec<&Placement> = placements.iter().chain([&kept]).collect();
    let whole: Vec<(&Placement, &Payload)> = all.iter().map(|placement| (*placement, &said)).collect();
    stage.want(&all.iter().map(|placement| (*placement, publish(&said))).collect::<Vec<_>>());
    stage.until_published(&whole).await;
    assert_eq!(server.figure("zk_num_alive_connections"), 2, "one for all, and this question's");

    // Its session ends: everything is there again, under another one.
    let session = stage.standing.borrow().session.clone().unwrap();
    server.expire(i64::from_str_radix(session.trim_start_matches("0x"), 16).unwrap());
    stage.until("a new session", |s| s.session.as_ref() != Some(&session) && s.away.is_none()).await;
    stage.until_published(&whole).await;
    for n in 0..20 {
        assert_eq!(nodes(&zk, &format!("s{n}")).await, [("i-1_0000000001".to_owned(), said.to_string())]);
    }
    // Somebody takes a node away, or writes into it.
    zk.delete(&path("/nerve/s3/i-1_0000000001")).await.unwrap();
    zk.set(&path("/nerve/kept/i-1_"), b"rubbish").await.unwrap();
    until_nodes(&zk, "s3", |all| all == [("i-1_0000000002".to_owned(), said.to_string())]).await;
    until_nodes(&zk, "kept", |all| all == [("i-1_".to_owned(), said.to_string())]).await;

    // Cut off while it writes, again and again: at the end each is there once, and nothing else.
    for round in 0..8u16 {
        let next = payload(100 + round, "");
        stage.want(&all.iter().map(|placement| (*placement, publish(&next))).collect::<Vec<_>>());
        stage.want(&placements.iter().take(10).map(|placement| (placement, publish(&next))).collect::<Vec<_>>());
        gate.set(if round % 2 == 0 { Way::Closed } else { Way::Silent });
        sleep(Duration::from_millis(u64::from(round) * 10)).await;
        stage.want(&all.iter().map(|placement| (*placement, publish(&next))).collect::<Vec<_>>());
        gate.set(Way::Open);
    }
    let last = payload(107, "");
    stage.until_published(&all.iter().map(|placement| (*placement, &last)).collect::<Vec<_>>()).await;
    for n in 0..20 {
        until_nodes(&zk, &format!("s{n}"), |all| all.len() == 1 && all[0].1 == *last).await;
    }
    // The server goes and comes back; what was wanted meanwhile is there.
    server.kill();
    let away = stage.until("away", |s| s.away.is_some()).await.away.unwrap().0;
    assert!(away.contains(&address.to_string()), "{away}");
    stage.want(&whole.iter().map(|(placement, said)| (*placement, publish(said))).collect::<Vec<_>>());
    server.restart();
    stage.until_published(&whole).await;
    server.wipe();
    let operator = server.client();
    until_nodes(&operator, "s7", |all| all.len() == 1).await;
    until_nodes(&operator, "kept", |all| all.len() == 1).await;
    stage.end(true).await;
    assert_eq!(nodes(&operator, "s7").await, []);
}

#[tokio::test]
async fn zookeeper_nodes_belong_to_their_user() {
    let server = ZooKeeperServer::start();
    let (zk, hosts) = (server.client(), server.address().to_string());
    zk.create_all(&path("/nerve/closed")).await.unwrap();
    server.cli(&["setAcl", "/nerve/closed", "world:anyone:ra"]);
    zk.create(&path("/ephemeral"), b"", NodeKind::Ephemeral).await.unwrap();
    let (open, closed) = (placement("open", json!({})), placement("closed", json!({})));
    let below = placement("below", json!({"zk_path": "/ephemeral/web"}));
    let said = payload(80, "");
    let mut stage = Stage::start(&hosts, Some("digest:nerve:secret"));
    stage.want(&[&open, &closed, &below].map(|placement| (placement, publish(&said))));
    let standing = stage.until("one good, two refused", |s| s.published.len() == 1 && s.refused.len() == 2).await;
    assert!(standing.refused[&closed].contains("permission denied"), "{standing:?}");
    assert!(standing.refused[&below].contains("/ephemeral"), "{standing:?}");
    let acl = server.cli(&["getAcl", "/nerve/open/i-1_0000000000"]);
    // The server keeps the digest to itself.
    assert!(acl.contains("'digest,'nerve:x") && acl.contains("'world,'anyone"), "{acl}");
    assert_eq!(zk.set(&path("/nerve/open/i-1_0000000000"), b"x").await.unwrap_err().fault, zookeeper::ZkFault::Denied);
    // Once it may, it does, by itself.
    server.cli(&["setAcl", "/nerve/closed", "world:anyone:cdrwa"]);
    stage.until("the closed one, too", |s| s.published.len() == 2 && s.refused.len() == 1).await;
    stage.end(true).await;
}

#[tokio::test]
async fn zookeeper_rewrites_persistent_nodes_as_often_as_asked() {
    let server = ZooKeeperServer::start();
    let (zk, said) = (server.client(), payload(80, ""));
    let kept = placement("kept", json!({"node_type": "persistent", "ttl_seconds": 0.2}));
    let plain = placement("plain", json!({"ttl_seconds": 0.2}));
    let mut stage = Stage::start(&server.address().to_string(), None);
    stage.want(&[(&kept, publish(&said)), (&plain, publish(&said))]);
    stage.until_published(&[(&kept, &said), (&plain, &said)]).await;
    let modified = |node: &'static str| {
        let zk = zk.clone();
        async move { zk.exists(&path(node), false).await.unwrap().unwrap() }
    };
    for _ in 0..3 {
        let before = modified("/nerve/kept/i-1_").await.modified;
        timeout(PATIENCE, async {
            while modified("/nerve/kept/i-1_").await.modified == before {
                sleep(Duration::from_millis(20)).await; // until the deadline
            }
        })
        .await
        .expect("it is not written again");
    }
    let untouched = modified("/nerve/plain/i-1_0000000000").await;
    assert_eq!(untouched.modified, untouched.created);
    stage.end(true).await;
}

#[tokio::test]
async fn zookeeper_reporters_outlive_one_of_three_servers() {
    let mut servers = ZooKeeperServer::ensemble(3);
    let hosts: Vec<String> = servers.iter().map(|s| s.address().to_string()).collect();
    let (web, said) = (placement("web", json!({})), payload(80, ""));
    let mut stage = Stage::start(&hosts.join(","), None);
    stage.want(&[(&web, publish(&said))]);
    stage.until_published(&[(&web, &said)]).await;
    for (n, server) in servers.iter_mut().enumerate() {
        server.kill();
        let next = payload(200 + u16::try_from(n).unwrap(), "");
        stage.want(&[(&web, publish(&next))]);
        stage.until_published(&[(&web, &next)]).await;
        server.restart();
    }
    let zk = servers[0].client();
    until_nodes(&zk, "web", |all| all.len() == 1 && all[0].1.contains("202")).await;
    stage.end(true).await;
}
