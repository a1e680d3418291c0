//! What discover remembers: an incident as `discover history` tells it, over a restart; what etcd remembers; and the fleet.

use std::process::Command;
use std::time::Duration;

use e2e::agents::{Agent, Discover, Register, binary};
use e2e::server::Server;
use e2e::{Context, Etcd, Result, free_port, haproxy, in_lab, wait};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a command prints, line by line as JSON.
fn lines(args: &[&str]) -> Result<Vec<Value>> {
    let output = Command::new(binary("discover")?).args(args).output().during("running discover")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| serde_json::from_str(line).during(format!("reading {line}"))).collect()
}

fn history(agent: &Agent, service: &str) -> Result<Vec<Value>> {
    lines(&["history", service, "--since", "1h", "--json", "--admin", &format!("http://{}", agent.address())])
}

/// Waits for a change of the service.
async fn noted(agent: &Agent, service: &str, what: &str, backend: &str) -> Result<Value> {
    let found = async || {
        let all = history(agent, service).ok()?;
        all.into_iter().rev().find(|change| change["what"] == what && change["backend"] == backend)
    };
    wait::until(&format!("{what} of {backend}"), PATIENCE, found).await
}

#[test]
fn an_incident_is_told_with_time_and_reason_over_a_restart_and_by_etcd_itself() -> Result<()> {
    in_lab(async |lab| {
        let (etcd, port) = (Etcd::start(), free_port());
        let mut discover =
            Discover::new("discover", &haproxy::newest()?).args(&["--announce"]).start(lab, &etcd).await?;
        let (stopped, failing) = (Server::start("stopped").await?, Server::start("failing").await?);
        let mut operator = etcd.operator().await;
        for (id, server) in [("stopped", &stopped), ("failing", &failing)] {
            let value = json!({"host": server.address.ip(), "port": server.address.port(), "service_port": port, "mode": "http"});
            operator
                .put(format!("/backends/checkout/{id}"), value.to_string(), None)
                .await
                .during("putting a backend")?;
        }
        noted(&discover, "checkout", "registered", "failing").await?;

        // A check fails on one host, the other's container is gone.
        drop(failing);
        let down = noted(&discover, "checkout", "server_down", "failing").await?;
        assert_eq!((&down["reason"], &down["why"]), (&json!("L4CON"), &json!("Connection refused")), "{down}");
        operator.delete("/backends/checkout/stopped", None).await.during("deleting a backend")?;
        let gone = noted(&discover, "checkout", "gone", "stopped").await?;
        assert_eq!(gone["reason"], "orderly", "a hand deleted it: {gone}");
        assert!(gone["took_ms"].as_f64().is_some_and(|ms| (0.0..60_000.0).contains(&ms)), "{gone}");
        assert!(discover.metric("discover_event_to_routed_seconds_count").await? >= 1.0);

        // It is written within about a second.
        let file = Discover::new("discover", &haproxy::newest()?).dir(lab)?.join("history.jsonl");
        wait::until_true("the change on disk", PATIENCE, async || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\"gone\""))
        })
        .await?;
        discover.crash_and_restart().await?;
        let before = noted(&discover, "checkout", "server_down", "failing").await?;
        assert_eq!(before, down, "it is on disk");

        let endpoint = etcd.endpoint().authority();
        let known = lines(&["history", "--registry", "checkout", "--json", "--etcd-host", &endpoint])?;
        let told: Vec<_> =
            known.iter().map(|c| (c["what"].as_str().unwrap_or(""), c["backend"].as_str().unwrap_or(""))).collect();
        assert_eq!(told, [("registered", "stopped"), ("registered", "failing"), ("gone", "stopped")]);
        let revision = known[1]["revision"].as_i64().during("a revision")?;
        operator.compact(revision, None).await.during("compacting")?;
        let left = lines(&["history", "--registry", "--json", "--etcd-host", &endpoint])?;
        assert_eq!(left.len(), 1, "what is compacted is forgotten: {left:?}");

        let _register = Register::new("register").start(lab, &etcd).await?;
        let fleet = async || {
            let fleet = lines(&["fleet", "--json", "--etcd-host", &endpoint]).ok()?.pop()?;
            (fleet["nodes"][0]["agent"] == "there" && fleet["discoverers"][0]["version"].is_string()).then_some(fleet)
        };
        let fleet = wait::until("the agents are in the fleet", PATIENCE, fleet).await?;
        assert_eq!(fleet["without_agent"], json!(["/backends/checkout/failing"]), "{fleet}");
        discover.process().stop(PATIENCE).await?;
        let left = operator.get("/discoverers/", Some(etcd_client::GetOptions::new().with_prefix())).await;
        assert!(left.during("reading the registry")?.kvs().is_empty(), "it takes its key away at the end");
        Ok(())
    })
}
