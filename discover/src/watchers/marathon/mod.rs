//! `method: marathon`: the started tasks of one application, listed anew when Marathon's event stream names it.
//!
//! `client` asks, of several URLs the first that answers; `events` keeps the one stream that watchers of the same URLs
//! share. The period backs the stream up.

mod client;
mod events;

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::findings::Findings;
use super::poll::{Look, Pace, Poll, Polled};
use super::{About, BoxWatcher, Context, Faults, Method, MethodInput};
use client::{MarathonClient, MarathonError};
use events::Events;

/// Between two looks without an event, unless the config says otherwise.
const EVERY_SECONDS: u64 = 10;
/// Where an application's tasks are.
const PATH: &str = "/v2/apps/%{app}/tasks";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    marathon_api_url: Vec<String>,
    marathon_api_path: Option<String>,
    marathon_authorization: Option<String>,
    application_name: Option<String>,
    port_index: usize,
    check_interval: Option<f64>,
    discovery_jitter: Option<f64>,
}

/// Which application.
#[derive(Debug, Clone)]
pub struct Marathon {
    about: About,
    client: MarathonClient,
    app: App,
    pace: Pace,
}

#[derive(Debug, Clone)]
struct App {
    /// Without the slash in front.
    name: Arc<str>,
    path: String,
    port_index: usize,
}

impl Method for Marathon {
    fn read(asked: &MethodInput<'_>) -> Result<Self, Faults> {
        let keys: Keys = asked.keys()?;
        let name = keys.application_name.unwrap_or_default();
        let name = name.trim_matches('/');
        let (mut faults, valid) = (Faults::default(), |b: u8| b.is_ascii_alphanumeric() || b"_.-/".contains(&b));
        if name.is_empty() {
            faults.add("application_name", "is required");
        }
        if !name.bytes().all(valid) {
            faults.add("application_name", format!("{name:?} is no application's id: A-Z a-z 0-9 _ . - /"));
        }
        let path = keys.marathon_api_path.as_deref().unwrap_or(PATH).replace("%{app}", name);
        let pace = Pace::every(keys.check_interval, EVERY_SECONDS).starting_within(keys.discovery_jitter);
        let (urls, authorization) = (&keys.marathon_api_url, keys.marathon_authorization.as_deref());
        let client = faults.take(MarathonClient::new(urls, authorization, pace.patience));
        let Some(client) = client.filter(|_| faults.0.is_empty()) else { return Err(faults) };
        // Each URL has its own patience.
        let pace = pace.with_patience(pace.patience * 4);
        let app = App { name: name.into(), path, port_index: keys.port_index };
        Ok(Self { about: asked.about.clone(), client, app, pace })
    }

    /// Services of the same URLs share connections and one stream of events.
    fn watcher(&self, context: &mut Context) -> BoxWatcher {
        let shared = context.shared(&self.client.name(), || {
            let events = Arc::new(Events::new(self.client.clone()));
            (self.client.clone(), events)
        });
        let (client, events) = shared;
        let listener = events.listen(&self.app.name);
        let source = MarathonSource { about: self.about.clone(), app: self.app.clone(), client, listener };
        Box::new(Polled::new(source, self.about.source.clone(), self.pace))
    }

    fn servers(&self) -> Vec<String> {
        self.client.urls()
    }
}

/// One application's tasks, as a source that can be looked at.
#[derive(Debug)]
struct MarathonSource {
    about: About,
    app: App,
    client: MarathonClient,
    listener: events::Listener,
}

impl Poll for MarathonSource {
    type Error = MarathonError;

    async fn look(&mut self) -> Result<Look, MarathonError> {
        let tasks = self.client.tasks(&self.app.path).await?;
        Ok(found(&self.about, &tasks, self.app.port_index).answer().into())
    }

    async fn nudged(&mut self) {
        self.listener.heard().await;
    }
}

/// The started tasks, by their hosts' names.
fn found(about: &About, tasks: &[Value], port_index: usize) -> Findings {
    let mut findings = Findings::new(about);
    let mut started: Vec<&Value> = tasks.iter().filter(|task| task["startedAt"].as_str().is_some()).collect();
    let text = |task: &Value, key: &str| task[key].as_str().unwrap_or_default().to_owned();
    started.sort_by_key(|task| (text(task, "host"), task["ports"][port_index].as_u64(), text(task, "id")));
    for task in started {
        let id = text(task, "id");
        let what = if id.is_empty() { "a task without id" } else { &id };
        let port = &task["ports"][port_index];
        if port.is_null() && about.port.is_none() {
            findings.left_out(what, format!("has no port of index {port_index}"));
            continue;
        }
        let mut map = Map::from_iter([
            ("name".to_owned(), task["host"].clone()),
            ("host".to_owned(), task["host"].clone()),
            ("port".to_owned(), port.clone()),
        ]);
        let failing = task["healthCheckResults"].as_array().is_some_and(|all| all.iter().any(|r| r["alive"] == false));
        match task["state"].as_str() {
            Some("TASK_KILLING") => drop(map.insert("status".to_owned(), json!("draining"))),
            _ if failing => drop(map.insert("status".to_owned(), json!("down"))),
            _ => {}
        }
        findings.registration(what, &map);
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_become_backends_and_those_without_a_port_are_named() {
        let about = About { service: "web".parse().unwrap(), port: None, source: "web".into() };
        let tasks = json!([
            {"id": "t3", "host": "b", "ports": [1, 31], "startedAt": "2026"},
            {"id": "t1", "host": "a", "ports": [1, 32], "startedAt": "2026", "state": "TASK_KILLING"},
            {"id": "t2", "host": "a", "ports": [1, 30], "startedAt": "2026", "healthCheckResults": [null, {"alive": false}]},
            {"id": "staged", "host": "c", "ports": [1, 33], "startedAt": null},
            {"id": "portless", "host": "d", "ports": [], "startedAt": "2026"},
            {"id": "short", "host": "d", "ports": [5], "startedAt": "2026"},
            {"host": 7, "ports": [1, 2], "startedAt": "2026"},
            7, null,
        ]);
        let tasks = tasks.as_array().unwrap();
        let answer = found(&about, tasks, 1).answer();
        let shown: Vec<String> =
            answer.services["web"].backends().iter().map(|b| format!("{} {}", b.id, b.status)).collect();
        assert_eq!(shown, ["a_a:30 down", "a_a:32 draining", "b_b:31 up"]);
        let left: Vec<String> = answer.left_out.iter().map(|(key, why)| format!("{key}: {why}")).collect();
        assert_eq!(left.len(), 3, "{left:?}");
        assert_eq!(left[1], "web: portless: has no port of index 1");
        let overridden = About { port: Some(80), ..about };
        assert!(found(&overridden, tasks, 1).answer().services["web"].backends().iter().any(|b| b.address() == "d:80"));
    }
}
