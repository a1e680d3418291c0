//! What HAProxy sees is what everybody says: a service whose backends are dead is out of service, and back when they are.

use std::process::Command;

use e2e::agents::{Agent, Discover, binary};
use e2e::http::Client;
use e2e::scene::{PATIENCE, each_haproxy, loopback, routed};
use e2e::server::Server;
use e2e::{Context, Etcd, LabError, Result, free_port, wait};
use serde_json::{Value, json};

/// What the status, `/services`, the metrics and `discover ls` say of the backend's state; an error where they do not agree.
async fn state(agent: &Agent, etcd: &Etcd) -> Result<String> {
    let status = agent.status().await?;
    let row = status["services"].as_array().and_then(|rows| rows.first()).during("no row of the service")?;
    let told = |state: &&str| row[*state] == 1;
    let by_status = ["up", "down", "draining", "maint"].into_iter().find(told).during("no state in the status")?;
    let mut client = Client::new(agent.address(), false, PATIENCE);
    let service: Value =
        serde_json::from_str(&client.get("/services/web").await.during("asking")?.body).during("reading")?;
    let metrics = client.get("/metrics").await.during("asking")?.body;
    let admin = format!("http://{}", agent.address());
    let ls = Command::new(binary("discover")?)
        .args(["ls", "--json", "--admin", &admin, "--etcd-host", &etcd.endpoint().authority()])
        .output()
        .during("running discover ls")?;
    let ls: Value = serde_json::from_slice(&ls.stdout).during("reading discover ls")?;
    let series = format!("discover_service_backends{{service=\"web\",state=\"{by_status}\"}} 1");
    let said = [&service["backends"][0]["state"], &ls["services"]["web"][0]["state"]];
    match metrics.contains(&series) && said.iter().all(|said| **said == by_status) {
        true => Ok(by_status.to_owned()),
        false => Err(LabError::new(format!("they do not agree: {status} {service} {ls} {metrics}"))),
    }
}

fn lines(agent: &Agent, message: &str) -> usize {
    agent.log().lines().filter(|line| line.contains(message)).count()
}

#[test]
fn a_service_without_a_backend_that_works_is_said_to_be_out_of_service_by_all_and_once() -> Result<()> {
    const LOST: &str = "The service has no backend any more that can take a request.";
    const BACK: &str = "The service has a backend again that can take a request.";
    each_haproxy(async |lab, haproxy| {
        let (etcd, port) = (Etcd::start(), free_port());
        let web = Server::start("web").await?;
        let at = web.address.port();
        let value = json!({"host": "127.0.0.1", "port": at, "service_port": port, "mode": "http"}).to_string();
        etcd.operator().await.put("/backends/web/one", value, None).await.during("registering")?;
        let discover = Discover::new("discover", haproxy).args(&["--check", "check inter 500ms rise 1 fall 2"]);
        let agent = discover.start(lab, &etcd).await?;
        routed(loopback(port), "web").await?;
        let becomes = async |wanted: &str| {
            let is = async || state(&agent, &etcd).await.is_ok_and(|state| state == wanted);
            wait::until_true(&format!("state {wanted}"), PATIENCE, is).await
        };
        let admin = format!("http://{}", agent.address());
        let waits = |seconds: &str| -> Result<bool> {
            let mut command = Command::new(binary("discover")?);
            let etcd = etcd.endpoint().authority();
            command.args(["wait", "web", "--timeout", seconds, "--admin", &admin, "--etcd-host", &etcd]);
            Ok(command.output().during("running discover wait")?.status.success())
        };
        becomes("up").await?;
        assert!(waits("10s")? && lines(&agent, LOST) == 0);
        drop(web);
        becomes("down").await?;
        assert!(!waits("1s")?, "it has a registration, and nobody who answers");
        wait::until_true("the loss in the log", PATIENCE, async || lines(&agent, LOST) == 1).await?;
        let _again = Server::start_on(loopback(at), "web").await?;
        becomes("up").await?;
        wait::until_true("the end of the loss in the log", PATIENCE, async || lines(&agent, BACK) == 1).await?;
        assert!(waits("10s")? && lines(&agent, LOST) == 1);
        Ok(())
    })
}
