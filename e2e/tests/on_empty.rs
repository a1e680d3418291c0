//! `--on-empty defaults` on a real HAProxy: a server that the operator names stands in for a service without backends.

use e2e::agents::Discover;
use e2e::scene::{PATIENCE, each_haproxy, loopback, routed, workers};
use e2e::server::Server;
use e2e::traffic::{Load, Plan};
use e2e::{Context, Etcd, Result, free_port, wait};
use serde_json::json;

const KEY: &str = "/backends/web/one";

#[test]
fn on_empty_defaults_the_named_server_stands_in_until_a_backend_is_back() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let (etcd, port) = (Etcd::start(), free_port());
        let (web, stand_in) = (Server::start("web").await?, Server::start("stand-in").await?);
        let (to, default) = (loopback(port), format!("web={}", stand_in.address));
        let discover =
            Discover::new("discover", haproxy).args(&["--on-empty", "defaults", "--default-server", &default]);
        let agent = discover.start(lab, &etcd).await?;
        let value = |status: &str| {
            let port_of = web.address.port();
            json!({"host": "127.0.0.1", "port": port_of, "service_port": port, "mode": "http", "status": status})
                .to_string()
        };
        let mut operator = etcd.operator().await;
        operator.put(KEY, value("up"), None).await.during("registering")?;
        routed(to, "web").await?;
        let before = workers(lab).await?;

        let load = Load::start(&Plan::mixed(to));
        wait::until_true("load on the backend", PATIENCE, async || load.answered_by("web") > 10).await?;
        // Somebody means it to go: it drains, and then it is taken away.
        operator.put(KEY, value("draining"), None).await.during("draining")?;
        operator.delete(KEY, None).await.during("taking it away")?;
        wait::until_true("load on the stand-in", PATIENCE, async || load.answered_by("stand-in") > 10).await?;
        let status = agent.status().await?;
        assert!(status.to_string().contains("--on-empty"), "nobody is told: {status}");
        operator.put(KEY, value("up"), None).await.during("registering again")?;
        // What both had when the stand-in answered last.
        let (mut web_had, mut other_had) = (load.answered_by("web"), 0);
        wait::until_true("load on the backend alone", PATIENCE, async || {
            let (web, other) = (load.answered_by("web"), load.answered_by("stand-in"));
            if other != other_had {
                (web_had, other_had) = (web, other);
            }
            web > web_had + 100
        })
        .await?;
        load.stop().await.must_be_clean("the last backend went, and came back")?;
        assert_eq!(workers(lab).await?, before, "HAProxy was reloaded or restarted");
        Ok(())
    })
}
