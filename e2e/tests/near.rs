//! Near backends come first while enough of them can take requests; the others are asked at once when they cannot, and nothing is lost.

use e2e::agents::{Agent, Discover};
use e2e::scene::{PATIENCE, each_haproxy, loopback, routed};
use e2e::server::Server;
use e2e::traffic::{Load, Plan};
use e2e::{Context, Etcd, LabError, Result, free_port, wait};
use serde_json::json;

/// Requests that a share is taken of.
const MANY: u64 = 300;

struct World {
    etcd: Etcd,
    port: u16,
    agent: Agent,
}

impl World {
    async fn register(&self, server: &Server, zone: &str, status: &str) -> Result<()> {
        let labels = json!({"zone": zone});
        let value = json!({"host": "127.0.0.1", "port": server.address.port(), "service_port": self.port, "mode": "http", "labels": labels, "status": status});
        let key = format!("/backends/web/{}", server.name);
        self.etcd.operator().await.put(key, value.to_string(), None).await.during("registering").map(drop)
    }

    /// What the status says of the service: what is near, or how it spills.
    async fn said(&self) -> (String, String) {
        let status = self.agent.status().await.unwrap_or_default();
        let text = |key: &str| status["services"][0][key].as_str().unwrap_or_default().to_owned();
        (text("near"), text("note"))
    }

    async fn is_near(&self) -> Result<()> {
        wait::until_true("near first", PATIENCE, async || self.said().await.0 == "zone=a").await
    }

    async fn spills(&self, how: &str) -> Result<()> {
        wait::until_true(&format!("{how} of zone a"), PATIENCE, async || self.said().await.1.starts_with(how)).await
    }
}

/// The share of the next requests that these answer, in percent.
async fn share(load: &Load, of: &[&str]) -> Result<u64> {
    let answered = |names: &[&str]| names.iter().map(|name| load.answered_by(name)).sum::<u64>();
    let (all, theirs) = (load.so_far().requests, answered(of));
    wait::until_true("requests", PATIENCE, async || load.so_far().requests > all + MANY).await?;
    Ok((answered(of) - theirs) * 100 / (load.so_far().requests - all))
}

#[test]
fn near_backends_come_first_and_others_take_over_without_a_lost_request_or_a_reload() -> Result<()> {
    each_haproxy(async |lab, haproxy| {
        let (etcd, port) = (Etcd::start(), free_port());
        let check =
            ["--check", "check inter 300ms rise 1 fall 2", "--prefer", "node=none,zone=a", "--prefer-min", "50"];
        let agent = Discover::new("discover", haproxy).args(&check).start(lab, &etcd).await?;
        let world = World { etcd, port, agent };
        let (a1, a2) = (Server::start("a1").await?, Server::start("a2").await?);
        let (b1, b2) = (Server::start("b1").await?, Server::start("b2").await?);
        for (server, zone) in [(&a1, "a"), (&a2, "a"), (&b1, "b"), (&b2, "b")] {
            world.register(server, zone, "up").await?;
        }
        routed(loopback(port), "a1").await?;
        world.is_near().await?;
        world.agent.quiet().await?;
        let reloads = world.agent.metric("discover_reloads_total").await?;
        let load = Load::start(&Plan::mixed(loopback(port)));
        let near = share(&load, &["a1", "a2"]).await?;
        println!("FIGURE HAProxy {}: {near} % of the requests stay near", haproxy.version);
        assert!(near >= 97, "{near} % near");

        // Half of the near ones is enough; with none of them the others take all.
        world.register(&a1, "a", "draining").await?;
        wait::until_true("a1 drains", PATIENCE, async || share(&load, &["a1"]).await.is_ok_and(|share| share == 0))
            .await?;
        assert!(share(&load, &["a2"]).await? >= 97);
        world.register(&a2, "a", "draining").await?;
        world.spills("0 of 2").await?;
        wait::until_true("the others answer", PATIENCE, async || {
            share(&load, &["b1", "b2"]).await.is_ok_and(|share| share == 100)
        })
        .await?;
        world.register(&a1, "a", "up").await?;
        world.register(&a2, "a", "up").await?;
        world.is_near().await?;
        wait::until_true("near first", PATIENCE, async || {
            share(&load, &["a1", "a2"]).await.is_ok_and(|share| share >= 97)
        })
        .await?;

        load.stop().await.must_be_clean("near backends went and came")?;

        // What HAProxy's checks find counts as well. Until they do, all of the weight is at near ones that are dead.
        let load = Load::start(&Plan::mixed(loopback(port)));
        drop((a1, a2));
        world.spills("0 of 2").await?;
        wait::until_true("the others answer", PATIENCE, async || {
            share(&load, &["b1", "b2"]).await.is_ok_and(|share| share == 100)
        })
        .await?;
        load.stop().await;
        if world.agent.metric("discover_reloads_total").await? != reloads {
            return Err(LabError::new("HAProxy was reloaded"));
        }
        Ok(())
    })
}
