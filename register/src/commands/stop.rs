//! `register stop`: a container that is asked for nothing any more when it is stopped, whatever its program does with a signal.

use std::collections::BTreeSet;
use std::time::Duration;

use agent::admin::client::{self, AgentArgs};
use agent::admin::control;
use agent::telemetry::Chain;
use containers::docker::{Docker, Endpoint};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::{Failure, print};
use crate::agent::control::{Whom, encode};
use crate::cli::{ADMIN, StopArgs};

/// Between two looks.
const PACE: Duration = Duration::from_millis(50);

/// A registration of a container that is to stop.
type Registration = (String, String);

/// Drains the containers, waits until everybody knows and requests under way have ended, and stops them. Whatever fails before
/// a container was stopped ends the drain again.
///
/// # Errors
/// No agent runs, a container is not known to it, the drain does not arrive, or Docker refuses.
pub async fn stop(args: &StopArgs) -> Result<(), Failure> {
    let docker = docker(args)?;
    let names = drain(args, &args.containers, true).await?;
    let done = async {
        arrived(args, &names).await?;
        sleep(args.settle + args.grace).await;
        for name in &names {
            docker.stop(name).await.map_err(Failure::runtime)?;
            print(&format!("{name}\n"))?;
        }
        Ok(())
    };
    let interrupted = || Failure::runtime("interrupted: nothing more is stopped, and who was not takes clients again");
    let ended = tokio::select! {
        ended = done => ended,
        _ = tokio::signal::ctrl_c() => Err(interrupted()),
    };
    if ended.is_err() {
        release(args, &names, &docker).await;
    }
    ended
}

fn docker(args: &StopArgs) -> Result<Docker, Failure> {
    let get = |name: &str| match name {
        "DOCKER_HOST" => args.docker_host.clone(),
        _ => std::env::var(name).ok(),
    };
    let endpoint = Endpoint::from_env(get).map_err(Failure::usage)?;
    Docker::new(&endpoint).map_err(Failure::usage)
}

/// Asks the agent; gives the names of the containers.
async fn drain(args: &StopArgs, containers: &[String], drain: bool) -> Result<Vec<String>, Failure> {
    let asked = encode(drain, &Whom::Some(containers.to_vec()));
    let answer = control::call(&args.control, &asked).await.map_err(Failure::runtime)?;
    let names = answer["containers"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(names.map(str::to_owned).collect())
}

/// Ends the drain of those that still run.
async fn release(args: &StopArgs, names: &[String], docker: &Docker) {
    for name in names {
        if matches!(docker.inspect_named(name).await, Ok(None)) {
            continue;
        }
        // One that has stopped is no registered container any more, which is no fault.
        if let Err(error) = drain(args, std::slice::from_ref(name), false).await {
            warn!(container = %name, error = %error, "The drain goes on, unless the container has stopped; `register undrain` ends it.");
        }
    }
}

/// Waits until the registry has the drain, and each discover that was named.
async fn arrived(args: &StopArgs, names: &[String]) -> Result<(), Failure> {
    let deadline = Instant::now() + args.timeout;
    let default = client::on_this_host("REGISTER_ADMIN", ADMIN.parse().map_err(Failure::usage)?);
    let mut registrations = BTreeSet::new();
    let what = "the agent has not published the drain";
    until(deadline, what, async || {
        let status = client::fetch(&args.agent, default, "register").await.map_err(|e| Chain(&e).to_string())?;
        registrations = published(&status, names)?;
        Ok(())
    })
    .await?;
    for url in &args.discover {
        let asked = AgentArgs { admin: Some(url.clone()), ..args.agent.clone() };
        until(deadline, &format!("{url} still sends clients"), async || {
            let answer = client::ask(&asked, "/services", default, "discover").await;
            routed(&answer.map_err(|e| Chain(&e).to_string())?.body, &registrations)
        })
        .await?;
    }
    Ok(())
}

/// Asks again and again until nothing is missing.
async fn until(
    deadline: Instant,
    what: &str,
    mut missing: impl AsyncFnMut() -> Result<(), String>,
) -> Result<(), Failure> {
    let mut last = String::from("no answer");
    loop {
        match timeout_at(deadline, missing()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => last = why,
            Err(_) => {}
        }
        if Instant::now() + PACE >= deadline {
            return Err(Failure::runtime(format!("{what} ({last}); nothing was stopped, and the drain has ended")));
        }
        sleep(PACE).await;
    }
}

/// The registrations of these containers, once the registry has them as draining or not at all.
///
/// # Errors
/// What is missing.
fn published(status: &Value, names: &[String]) -> Result<BTreeSet<Registration>, String> {
    if let Some(why) = status["registry"]["error"].as_str() {
        return Err(format!("the registry does not answer: {why}"));
    }
    let rows = status["registrations"].as_array().ok_or("its status has no registrations")?;
    let ours = rows.iter().filter(|row| names.iter().any(|name| row["container"] == name.as_str()));
    let mut registrations = BTreeSet::new();
    for row in ours {
        if row["state"] == "up" {
            return Err(format!("{} is up", row["container"]));
        }
        let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        registrations.insert((word("service"), word("id")));
    }
    Ok(registrations)
}

/// # Errors
/// Which of these registrations a discover has as one that takes requests.
fn routed(services: &Value, registrations: &BTreeSet<Registration>) -> Result<(), String> {
    let known = services["services"].as_object().ok_or("it has no services yet")?;
    for (service, id) in registrations {
        let backends = known.get(service).and_then(Value::as_array).into_iter().flatten();
        if backends.clone().any(|backend| backend["id"] == id.as_str() && backend["state"] == "up") {
            return Err(format!("{service}/{id} is up"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_drain_has_arrived_when_nobody_has_the_container_as_up() {
        let names = ["web-1".to_owned()];
        let row =
            |container: &str, state: &str| json!({"container": container, "state": state, "service": "web", "id": "a"});
        let status = |rows: Value| json!({"registrations": rows, "registry": {}});
        assert!(published(&status(json!([row("web-1", "up")])), &names).is_err());
        assert!(
            published(&json!({"registrations": [], "registry": {"error": "away"}}), &names)
                .unwrap_err()
                .contains("away")
        );
        let drained = published(&status(json!([row("web-1", "draining"), row("web-2", "up")])), &names).unwrap();
        assert_eq!(drained, BTreeSet::from([("web".to_owned(), "a".to_owned())]));
        let services = |id: &str, state: &str| json!({"services": {"web": [{"id": id, "state": state}]}});
        assert!(routed(&services("a", "up"), &drained).is_err());
        for there in [services("a", "draining"), services("a", "down"), services("b", "up"), json!({"services": {}})] {
            assert_eq!(routed(&there, &drained), Ok(()), "{there}");
        }
        assert!(routed(&json!({"error": "no source has answered yet"}), &drained).is_err());
    }
}
