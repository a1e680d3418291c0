//! Bad input: each piece gets a word of its own, the rest goes on, nothing already routed is lost.

use std::time::Duration;

use e2e::docker::Spec;
use e2e::http::Client;
use e2e::scene::{PATIENCE, Scene, each_haproxy, free_ports, loopback, routed, workers};
use e2e::traffic::{Load, Plan};
use e2e::{Result, free_port, haproxy, in_lab, wait};

/// Keys and values that no agent of ours writes, and that must not get near haproxy.cfg.
fn rubbish(port: u16) -> Vec<(String, Vec<u8>)> {
    let value = |host: &str, port: &str| format!(r#"{{"host":{host:?},"port":{port}}}"#).into_bytes();
    let with = |extra: &str| format!(r#"{{"host":"127.0.0.1","port":{port},{extra}}}"#).into_bytes();
    let mut all = vec![
        ("/backends/web/text".to_owned(), b"not an address".to_vec()),
        ("/backends/web/empty".to_owned(), Vec::new()),
        ("/backends/web/json".to_owned(), b"{\"host\": \"127.0.0.1\", \"port\":".to_vec()),
        ("/backends/web/bytes".to_owned(), vec![0xff, 0xfe, 0, 1]),
        ("/backends/web/long".to_owned(), vec![b'x'; 100_000]),
        ("/backends/web/zero".to_owned(), value("127.0.0.1", "0")),
        ("/backends/web/high".to_owned(), value("127.0.0.1", "70000")),
        ("/backends/web/line".to_owned(), value("127.0.0.1\n  server evil 127.0.0.1", "1")),
        ("/backends/web/word".to_owned(), value("127.0.0.1 disabled", "1")),
        ("/backends/web/variable".to_owned(), value("${HOME}", "1")),
        ("/backends/web/options".to_owned(), with("\"haproxy_server_options\":\"check\\n  server evil 127.0.0.1:1\"")),
        ("/backends/web/mode".to_owned(), with(r#""mode":"smtp""#)),
        ("/backends/web/id;shutdown".to_owned(), value("127.0.0.1", "1")),
        ("/backends/we b/space".to_owned(), value("127.0.0.1", "1")),
        ("/backends/\"quote/x".to_owned(), value("127.0.0.1", "1")),
        ("/backends/new\nline/x".to_owned(), value("127.0.0.1", "1")),
        ("/backends//x".to_owned(), value("127.0.0.1", "1")),
        ("/backends/".to_owned(), b"x".to_vec()),
    ];
    all.push((format!("/backends/{}/x", "n".repeat(300)), value("127.0.0.1", "1")));
    all
}

#[test]
fn rubbish_in_the_registry_harms_nobody() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let scene = Scene::start(lab, haproxy).await?;
        let port = free_port();
        let (to, spec) = (loopback(port), Spec::served("web", port));
        let good = scene.serve(&spec, to).await?;
        let (load, before) = (Load::start(&Plan::mixed(to)), workers(lab).await?);
        for (key, value) in rubbish(good.published("80/tcp").await?.port()) {
            scene.put(&key, value).await?;
        }
        // The good one that comes after all the bad ones shows that these have been looked at.
        let later = scene.serve(&spec, to).await?;
        assert!(scene.discover.metric("discover_quarantined").await? >= 10.0, "{:?}", scene.discover.status().await?);
        wait::until_true("load on both", PATIENCE, async || load.answered_by(later.short()) > 50).await?;
        let report = load.stop().await;
        report.must_be_clean("rubbish was put into the registry")?;
        assert!(report.answers.keys().all(|name| [good.short(), later.short()].contains(&name.as_str())), "{report}");
        assert_eq!(workers(lab).await?, before, "rubbish made HAProxy reload");
        // The log names the first few of a crowd, each once; the status names all.
        let (log, status) = (scene.discover.log(), scene.discover.status().await?.to_string());
        let named = |key: &str| log.lines().filter(|line| line.contains(key)).count();
        assert_eq!(named("web/text"), 1, "{log}");
        for key in ["web/text", "web/line", "web/variable"] {
            assert!(named(key) <= 1 && status.contains(key), "{key}:\n{log}\n{status}");
        }
        Ok(())
    })
}

#[test]
fn two_services_on_one_port_do_not_hurt_the_one_that_serves() -> Result<()> {
    in_lab(async |lab| {
        let scene = Scene::start(lab, &haproxy::newest()?).await?;
        let ports = free_ports(2)?;
        let (port, other) = (ports[0], ports[1]);
        let first = scene.serve(&Spec::served("alpha", port), loopback(port)).await?;
        let load = Load::start(&Plan::mixed(loopback(port)));
        let intruder = scene.docker.run(&Spec::served("beta", port)).await?;
        scene.registered(&intruder, true).await?;
        // A third service that is routed shows that discover has looked at the second.
        let third = scene.serve(&Spec::served("gamma", other), loopback(other)).await?;
        let report = load.stop().await;
        report.must_be_clean("another service asked for the same port")?;
        assert_eq!(report.answered_by(intruder.short()), 0, "{report}");
        let status = scene.discover.status().await?.to_string();
        assert!(status.contains("beta") && status.contains(&port.to_string()), "the clash is shown: {status}");
        // The port goes to the other one when its holder is gone.
        drop((first, third));
        routed(loopback(port), intruder.short()).await
    })
}

#[test]
fn containers_with_no_port_two_ports_or_no_health_yet() -> Result<()> {
    in_lab(async |lab| {
        let scene = Scene::start(lab, &haproxy::newest()?).await?;
        let mut portless = Spec::whoami("portless");
        portless.publish.clear();
        let portless = scene.docker.run(&portless).await?;

        let mut two = Spec::whoami("two");
        two.publish.push(("127.0.0.1".to_owned(), "81/tcp".to_owned())); // nobody listens there
        let two = scene.docker.run(&two).await?;

        let port = free_port();
        let mut sick = Spec::served("sick", port);
        sick.healthcheck = Some("test -e /tmp/healthy".to_owned());
        let sick = scene.docker.run(&sick).await?;

        scene.registered(&two, true).await?;
        let keys: Vec<_> = scene.entries("/backends/").await?.into_iter().map(|entry| entry.key).collect();
        assert_eq!(
            keys,
            [format!("/backends/two-80/{}", two.short())],
            "only the port that accepts, under its own name"
        );
        let status = scene.register.status().await?.to_string();
        assert!(status.contains(portless.short()), "register says why: {status}");

        wait::holds("the sick one hidden", Duration::from_secs(2), async || {
            scene.entries("/backends/sick/").await.is_ok_and(|entries| entries.is_empty())
        })
        .await?;
        sick.exec(&["touch", "/tmp/healthy"]).await?;
        routed(loopback(port), sick.short()).await?;
        sick.exec(&["rm", "/tmp/healthy"]).await?;
        scene.registered(&sick, false).await?;
        let mut client = Client::new(loopback(port), false, PATIENCE);
        wait::until_true("no answer of the sick one", PATIENCE, async || {
            client.get("/").await.is_ok_and(|reply| reply.status == 503)
        })
        .await
    })
}
