//! What each key of the methods does.

use testing::dns::DnsServer;

use super::*;

#[tokio::test]
async fn zookeeper_reads_nerves_and_serversets_registrations() {
    let (server, zk) = operated().await;
    let mut watching = Running::of(discovery(&server, json!({})));
    watching.until_web(&[]).await;
    // In the order in which they came, whatever their names; the payload in the name spares reading the node.
    let put = |name: String, data: &'static str, kind| {
        let (zk, at) = (zk.clone(), path(PATH).child(&name).unwrap());
        async move { zk.create(&at, data.as_bytes(), kind).await.unwrap() }
    };
    let sequential = NodeKind::EphemeralSequential;
    put("z_".into(), r#"{"host":"10.0.0.1","port":1,"name":"z","weight":5,"labels":{"az":"x"}}"#, sequential).await;
    put(child::encoded(br#"{"host":"10.0.0.2","port":"2","name":"e"}"#).unwrap(), "rubbish", sequential).await;
    put("a_".into(), r#"{"host":"10.0.0.3","port":3,"haproxy_server_options":"backup"}"#, sequential).await;
    let snapshot = watching.until_web(&["10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3"]).await;
    let backends = snapshot.services["web"].backends().to_vec();
    let order: Vec<String> = backends.iter().map(|b| b.address()).collect();
    assert_eq!(order, ["10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3"]);
    assert_eq!([backends[0].sequence, backends[2].sequence], [Some(0), Some(2)]);
    assert_eq!((backends[0].weight.unwrap().get(), &*backends[0].labels["az"]), (5, "x"));
    assert_eq!(backends[2].haproxy_server_options.as_deref(), Some("backup"));

    // One bad child among good ones, of whatever kind, is named and harms nobody; mended, it counts.
    let bad = [("b1", "10.0.0.9:80"), ("b2", "\u{1}\n{"), ("b3", r#"{"host":"a b","port":1}"#), ("b4", r#"[{}]"#)];
    for (name, data) in bad {
        put(name.into(), data, NodeKind::Persistent).await;
    }
    put("b5".into(), "", NodeKind::Persistent).await;
    zk.create(&path(PATH).child("b6").unwrap(), &[0xff; 200_000], NodeKind::Persistent).await.unwrap();
    let snapshot = watching.until("six left out", |s| s.quarantined.len() == 6).await;
    assert_eq!(web(&snapshot).len(), 3);
    let told = left_out(&snapshot).join("\n");
    for name in ["b1", "b2", "b3", "b4", "b5", "b6"] {
        assert!(told.contains(&format!("{PATH}/{name}: ")), "{told}");
    }
    zk.set(&path(PATH).child("b1").unwrap(), registration("10.0.0.9:80").as_bytes()).await.unwrap();
    watching.until("one mended", |s| web(s).len() == 4 && s.quarantined.len() == 5).await;
    // The same backend twice, as when Nerve comes back before its last session has run out: the newer one speaks for it.
    put("z_".into(), r#"{"host":"10.0.0.1","port":1,"name":"z","weight":9}"#, sequential).await;
    let newer = |s: &Snapshot| s.services["web"].backends().iter().any(|b| b.weight.is_some_and(|w| w.get() == 9));
    watching.until("the newer weight", |s| web(s).len() == 4 && newer(s)).await;
    watching.end().await;

    let members = path("/members");
    zk.create_all(&members).await.unwrap();
    let data = json!({
        "serviceEndpoint": {"host": "10.0.1.1", "port": 1}, "shard": 7, "status": "ALIVE",
        "additionalEndpoints": {"http": {"host": "10.0.1.1", "port": 2}},
    });
    let at = members.child("member_").unwrap();
    zk.create(&at, data.to_string().as_bytes(), sequential).await.unwrap();
    for (decode, address) in [
        (json!({"method": "serverset"}), "10.0.1.1:1"),
        (json!({"method": "serverset", "endpoint_name": "http"}), "10.0.1.1:2"),
    ] {
        let mut watching = Running::of(discovery(&server, json!({"decode": decode, "path": "/members"})));
        let snapshot = watching.until_web(&[address]).await;
        assert_eq!(snapshot.services["web"].backends()[0].name.as_deref(), Some("7"));
        watching.end().await;
    }
    let error = refused(discovery(&server, json!({"decode": {}})));
    assert!(error.contains("services.web.discovery.decode.method"), "{error}");
}

#[tokio::test]
async fn zookeeper_below_a_chroot_and_as_a_user() {
    let (server, zk) = operated().await;
    register(&zk, "10.0.0.1:80").await;
    let rooted = format!("{}/nerve", server.address());
    let mut watching = Running::of(discovery(&server, json!({"hosts": [rooted], "path": "/services/web"})));
    watching.until_web(&["10.0.0.1:80"]).await;
    let node = register(&zk, "10.0.0.2:80").await;
    watching.until_web(&["10.0.0.1:80", "10.0.0.2:80"]).await;
    zk.set(&node, registration("10.0.0.3:80").as_bytes()).await.unwrap();
    watching.until_web(&["10.0.0.1:80", "10.0.0.3:80"]).await;
    watching.end().await;

    // Only one user may read: the digest is that of nerve:secret.
    server.cli(&["setAcl", PATH, "digest:nerve:5UqRLHiQkz2RJN+cBuOmjF7jdGs=:cdrwa"]);
    let mut stranger = Running::of(discovery(&server, json!({})));
    let seen = stranger.until_seen("refused", |seen| seen.error().is_some()).await;
    assert!(seen.snapshot().is_none() && seen.error().unwrap().contains("permission denied"), "{seen:?}");
    stranger.end().await;
    let mut user = Running::of(discovery(&server, json!({"zk_auth": "digest:nerve:secret"})));
    user.until_web(&["10.0.0.1:80", "10.0.0.3:80"]).await;
    user.end().await;
    let error = refused(discovery(&server, json!({"zk_auth": "nerve-secret"})));
    assert!(error.contains("services.web.discovery.zk_auth") && !error.contains("nerve-secret"), "{error}");
}

#[tokio::test]
async fn zookeeper_tries_again_as_its_policy_says() {
    let (server, zk) = operated().await;
    register(&zk, "10.0.0.1:80").await;
    server.cli(&["setAcl", PATH, "world:anyone:cdwa"]);
    let policy =
        json!({"retry_policy": {"base_interval": 0.05, "max_interval": 0.1, "max_attempts": 1, "max_delay": 0}});
    let mut watching = Running::of(discovery(&server, policy));
    watching.until_seen("refused", |seen| seen.error().is_some()).await;
    // Nothing tells that rights have changed: only the next attempt does, and there is always one.
    let asked = server.figure("zk_packets_received");
    timeout(DEADLINE, async {
        while server.figure("zk_packets_received") < asked + 20 {
            tokio::time::sleep(Duration::from_millis(20)).await; // until the deadline
        }
    })
    .await
    .expect("it does not ask again");
    server.cli(&["setAcl", PATH, "world:anyone:cdrwa"]);
    watching.until_web(&["10.0.0.1:80"]).await;
    watching.end().await;
    for (key, bad) in [("base_interval", json!(-1)), ("max_interval", json!("x"))] {
        let error = refused(discovery(&server, json!({"retry_policy": {key: bad}})));
        assert!(error.contains(&format!("services.web.discovery.retry_policy.{key}")), "{error}");
    }
}

#[tokio::test]
async fn zookeeper_brings_the_generators_config() {
    let (server, zk) = operated().await;
    register(&zk, "10.0.0.1:80").await;
    let of_web = |s: &Snapshot| s.generator_configs.get("web").map(|map| Value::Object((**map).clone()));
    let first = json!({"haproxy": {"listen": ["mode http"]}});
    zk.set(&path(PATH), first.to_string().as_bytes()).await.unwrap();
    let mut watching = Running::of(discovery(&server, json!({})));
    watching.until("the first config", |s| of_web(s) == Some(first.clone())).await;
    let second = json!({"haproxy": {"listen": ["mode tcp"]}, "nginx": {}});
    zk.set(&path(PATH), second.to_string().as_bytes()).await.unwrap();
    watching.until("the second config", |s| of_web(s) == Some(second.clone())).await;
    // What cannot be read is named; the last good one stays.
    zk.set(&path(PATH), b"{rubbish").await.unwrap();
    let snapshot = watching.until("rubbish named", |s| s.quarantined.len() == 1).await;
    assert!(left_out(&snapshot)[0].contains("the generators' config is not JSON"), "{snapshot:?}");
    assert_eq!((of_web(&snapshot), web(&snapshot).len()), (Some(second), 1));
    zk.set(&path(PATH), b"").await.unwrap();
    watching.until("none", |s| of_web(s).is_none() && s.quarantined.is_empty()).await;
    watching.end().await;

    zk.set(&path(PATH), first.to_string().as_bytes()).await.unwrap();
    let mut disabled = Running::of(discovery(&server, json!({"generator_config_path": "disabled"})));
    assert_eq!(of_web(&disabled.until_web(&["10.0.0.1:80"]).await), None);
    disabled.end().await;
    // A node of its own, which comes later.
    let mut apart = Running::of(discovery(&server, json!({"generator_config_path": "/configs/web"})));
    assert_eq!(of_web(&apart.until_web(&["10.0.0.1:80"]).await), None);
    zk.create_all(&path("/configs")).await.unwrap();
    zk.create(&path("/configs/web"), first.to_string().as_bytes(), NodeKind::Persistent).await.unwrap();
    apart.until("the config of another node", |s| of_web(s) == Some(first.clone())).await;
    apart.end().await;
}

#[tokio::test]
async fn zookeeper_poll_looks_as_often_as_it_is_told() {
    let (server, zk) = operated().await;
    let node = register(&zk, "10.0.0.1:80").await;
    let polled = json!({"method": "zookeeper_poll", "polling_interval_sec": 0.2});
    let mut watching = Running::of(discovery(&server, polled));
    watching.until_web(&["10.0.0.1:80"]).await;
    register(&zk, "10.0.0.2:80").await;
    zk.set(&node, registration("10.0.0.3:80").as_bytes()).await.unwrap();
    watching.until_web(&["10.0.0.2:80", "10.0.0.3:80"]).await;
    assert_eq!(server.figure("zk_watch_count"), 0);
    watching.end().await;
    // Changes in a burst are read together: the second within the jitter waits until it is over.
    let mut calm = Running::of(discovery(&server, json!({"discovery_jitter": 1})));
    calm.until_web(&["10.0.0.2:80", "10.0.0.3:80"]).await;
    let began = tokio::time::Instant::now();
    register(&zk, "10.0.0.4:80").await;
    let said = calm.inlet.changed();
    timeout(DEADLINE, said).await.unwrap().unwrap();
    assert!(began.elapsed() > Duration::from_millis(800), "read after {:?}", began.elapsed());
    calm.end().await;
    // Longer than Synapse takes it: it is not used, and changes are read at once.
    let mut hasty = Running::of(discovery(&server, json!({"discovery_jitter": 121})));
    hasty.until_web(&["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"]).await;
    register(&zk, "10.0.0.5:80").await;
    hasty.until_web(&["10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80", "10.0.0.5:80"]).await;
    hasty.end().await;
}

#[tokio::test]
async fn zookeeper_dns_resolves_the_hosts_that_it_finds() {
    let ((server, zk), dns) = (operated().await, DnsServer::start().await);
    let addresses = |all: &[&str]| all.iter().map(|a| a.parse().unwrap()).collect::<Vec<std::net::IpAddr>>();
    dns.set("web.example", &addresses(&["10.1.0.1", "10.1.0.2"]));
    dns.set("new.example", &addresses(&["10.1.0.9"]));
    let node = register(&zk, "web.example:80").await;
    register(&zk, "10.0.0.1:80").await;
    for method in ["zookeeper_dns", "zookeeper_dns_poll"] {
        let more =
            json!({"method": method, "nameserver": dns.address(), "check_interval": 0.2, "polling_interval_sec": 0.2});
        let mut watching = Running::of(discovery(&server, more));
        watching.until_web(&["10.0.0.1:80", "10.1.0.1:80", "10.1.0.2:80"]).await;
        dns.set("web.example", &addresses(&["10.1.0.3"]));
        watching.until_web(&["10.0.0.1:80", "10.1.0.3:80"]).await;
        zk.set(&node, registration("new.example:81").as_bytes()).await.unwrap();
        let snapshot = watching.until_web(&["10.0.0.1:80", "10.1.0.9:81"]).await;
        assert!(snapshot.services["web"].backends().iter().all(|b| b.name.as_deref() == Some("i-1")));
        watching.end().await;
        zk.set(&node, registration("web.example:80").as_bytes()).await.unwrap();
        dns.set("web.example", &addresses(&["10.1.0.1", "10.1.0.2"]));
    }
}
