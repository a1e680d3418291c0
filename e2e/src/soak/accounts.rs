//! Why each request failed: what HAProxy's log says of it, which fault was on, what had become of the servers, and what the agents did in
//! the second before. A request without a cause is a fault of ours until it has one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use testing::docker_api::id;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

use crate::traffic::Failed;
use crate::{Context, Lab, Result};

const HEADER: &str = include_str!("../../../discover/src/generators/haproxy/file/templates/header.tera");
const SECTION: &str = include_str!("../../../discover/src/generators/haproxy/file/templates/section.tera");
/// What HAProxy says of each request.
const LOG_FORMAT: &str = r#"log-format '{"client":"%ci:%cp","ended":%Ts%ms,"section":"%b","server":"%s","status":%ST,"state":"%tsc","retries":"%rc","wait_ms":%Tw,"connect_ms":%Tc,"answer_ms":%Tr,"total_ms":%Ta}'"#;
/// What an agent did so long before counts.
const BEFORE: Duration = Duration::from_secs(1);
/// Checks find a dead server within so long: twice 2 s, and a check's timeout.
const CHECKS: Duration = Duration::from_secs(6);

/// HAProxy's lines about requests that did not end well.
pub struct HaproxyLog {
    lines: Arc<Mutex<Vec<Value>>>,
    /// Where discover finds templates that log.
    pub templates: PathBuf,
    _reading: AbortOnDropHandle<()>,
}

impl HaproxyLog {
    /// Listens, and writes discover's own templates with a log added.
    ///
    /// # Errors
    /// When the templates cannot be written.
    pub async fn start(lab: &Lab) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.during("listening for HAProxy's log")?;
        let to = socket.local_addr().during("listening for HAProxy's log")?;
        let templates = lab.subdir("templates")?;
        let header = HEADER.replacen("global\n", &format!("global\n\tlog {to} len 4096 format raw local0\n"), 1);
        let section = SECTION.replacen(
            "\tmode {{ mode }}\n",
            &format!("\tmode {{{{ mode }}}}\n\tlog global\n\t{LOG_FORMAT}\n"),
            1,
        );
        for (name, text) in [("header.tera", header), ("section.tera", section)] {
            fs::write(templates.join(name), text).during(format!("writing {name}"))?;
        }
        let lines = Arc::<Mutex<Vec<Value>>>::default();
        let kept = Arc::clone(&lines);
        let reading = tokio::spawn(async move {
            let mut datagram = vec![0; 8192];
            while let Ok(length) = socket.recv(&mut datagram).await {
                let Ok(line) = serde_json::from_slice::<Value>(&datagram[..length]) else { continue };
                let is_well = line["status"].as_i64().is_some_and(|status| (200..400).contains(&status));
                if !is_well || !line["state"].as_str().unwrap_or_default().starts_with("--") {
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
        });
        Ok(Self { lines, templates, _reading: AbortOnDropHandle::new(reading) })
    }

    fn of(&self, failed: &Failed) -> Option<Value> {
        let client = failed.client?.to_string();
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let during = |line: &&Value| {
            let ended = Duration::from_millis(line["ended"].as_u64().unwrap_or_default());
            let (from, to) = (since_epoch(failed.sent), since_epoch(failed.sent + failed.took));
            // HAProxy's date is that of the request's acceptance, in whole milliseconds.
            ended + Duration::from_millis(5) >= from && ended <= to + Duration::from_millis(500)
        };
        lines.iter().filter(|line| line["client"] == client.as_str()).find(during).cloned()
    }
}

/// A time, for people.
fn at(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// What was done to the containers and to the agents, and when.
#[derive(Debug, Default)]
pub struct Diary {
    containers: BTreeMap<usize, Container>,
    faults: Vec<(SystemTime, SystemTime, String)>,
}

/// What became of a container.
#[derive(Debug)]
struct Container {
    service: usize,
    started: SystemTime,
    asked: Option<SystemTime>,
    died: Option<SystemTime>,
}

impl Diary {
    /// Container `number` of this service was started.
    pub fn started(&mut self, number: usize, service: usize) {
        let container = Container { service, started: SystemTime::now(), asked: None, died: None };
        self.containers.insert(number, container);
    }

    /// It was asked to stop.
    pub fn asked(&mut self, number: usize) {
        self.containers.entry(number).and_modify(|container| container.asked = Some(SystemTime::now()));
    }

    /// It has ended.
    pub fn died(&mut self, number: usize) {
        self.containers.entry(number).and_modify(|container| container.died = Some(SystemTime::now()));
    }

    /// A fault that was on from then until now.
    pub fn fault(&mut self, since: SystemTime, what: &str) {
        self.faults.push((since, SystemTime::now(), what.to_owned()));
    }

    /// The fault that was on during this time, or whose traces may still be there.
    fn fault_at(&self, from: SystemTime, to: SystemTime) -> Option<String> {
        let on = |(since, until, _): &&(SystemTime, SystemTime, String)| *since <= to && *until + CHECKS >= from;
        let (since, until, what) = self.faults.iter().rev().find(on)?;
        let at = |time: &SystemTime| match time.duration_since(from) {
            Ok(after) => format!("{:.1} s after", after.as_secs_f64()),
            Err(before) => format!("{:.1} s before", before.duration().as_secs_f64()),
        };
        Some(format!("{what}, from {} to {} the request", at(since), at(until)))
    }

    /// How many containers of a service live at this time, and how many were asked to stop, or died at most [`CHECKS`] ago.
    fn servers(&self, service: usize, at: SystemTime) -> (usize, usize, usize) {
        let of = self.containers.values().filter(|c| c.service == service && c.started <= at);
        let (mut live, mut leaving, mut dead) = (0, 0, 0);
        for container in of {
            match (container.asked, container.died) {
                (_, Some(died)) if died <= at => dead += usize::from(died + CHECKS > at),
                (Some(asked), _) if asked <= at => leaving += 1,
                _ => live += 1,
            }
        }
        (live, leaving, dead)
    }
}

/// One request that failed, with all that is known of it.
#[derive(Debug)]
pub struct Account {
    /// What it is counted under; `None`: without a cause.
    pub cause: Option<String>,
    /// All of it, for people.
    pub story: String,
}

/// What became of all that failed.
#[derive(Debug, Default)]
pub struct Accounts(pub Vec<Account>);

impl Accounts {
    /// Of each failed request. `ports` are the services'; `logs` are the agents' names and logs.
    pub fn of(failed: &[Failed], ports: &[u16], haproxy: &HaproxyLog, diary: &Diary, logs: &[(&str, String)]) -> Self {
        let steps: Vec<(&str, Duration, String)> = logs.iter().flat_map(|(agent, log)| steps(agent, log)).collect();
        Self(failed.iter().map(|failed| account(failed, ports, haproxy.of(failed), diary, &steps)).collect())
    }

    /// How many have no cause.
    pub fn without_cause(&self) -> usize {
        self.0.iter().filter(|account| account.cause.is_none()).count()
    }
}

impl fmt::Display for Accounts {
    /// A table of causes and how often, then every request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for account in &self.0 {
            *counts.entry(account.cause.as_deref().unwrap_or("NO CAUSE")).or_default() += 1;
        }
        writeln!(f, "| cause | requests |\n|---|---|")?;
        counts.iter().try_for_each(|(cause, count)| writeln!(f, "| {cause} | {count} |"))?;
        self.0.iter().try_for_each(|account| writeln!(f, "{}", account.story))
    }
}

fn account(
    failed: &Failed,
    ports: &[u16],
    line: Option<Value>,
    diary: &Diary,
    steps: &[(&str, Duration, String)],
) -> Account {
    let (from, to) = (failed.sent, failed.sent + failed.took);
    let service = ports.iter().position(|port| *port == failed.to.port()).unwrap_or_default();
    let (live, leaving, dead) = diary.servers(service, to);
    let fault = diary.fault_at(from, to);
    let number = line.as_ref().and_then(|line| line["server"].as_str()).and_then(numbered);
    let server = number.and_then(|number| diary.containers.get(&number));
    let ended = server.and_then(|server| server.died).filter(|died| *died <= to + Duration::from_millis(50));
    let state = line.as_ref().and_then(|line| line["state"].as_str()).unwrap_or_default().to_owned();
    let cause = match (&line, &fault) {
        _ if live == 0 => Some("no container of the service lived".to_owned()),
        (Some(_), fault) if ended.is_some() => Some(format!(
            "its container had ended ({state}){}",
            fault.as_ref().map_or("", |_| ", and an agent that would have said so was hindered")
        )),
        _ => None,
    };
    let acts: Vec<String> = steps
        .iter()
        .filter(|(_, when, _)| *when + BEFORE >= since_epoch(from) && *when <= since_epoch(to))
        .map(|(agent, when, what)| format!("    {} {agent}: {what}", at(SystemTime::UNIX_EPOCH + *when)))
        .collect();
    let story = format!(
        "{} {} after {:?}, client {}, service s{service} with {live} live, {leaving} leaving, {dead} just dead\n  HAProxy: {}\n  server: {}\n  fault: {}\n{}",
        at(from),
        failed.failure,
        failed.took,
        failed.client.map_or_else(|| "unknown".to_owned(), |client| client.to_string()),
        line.map_or_else(|| "no line".to_owned(), |line| line.to_string()),
        server.map_or_else(|| "none".to_owned(), |server| format!("{server:?}")),
        fault.unwrap_or_else(|| "none".to_owned()),
        acts.join("\n"),
    );
    Account { cause, story }
}

/// The container whose server is called so.
fn numbered(server: &str) -> Option<usize> {
    let number = usize::from_str_radix(server.get(..12)?, 16).ok()?;
    id(number).starts_with(server).then_some(number)
}

/// An agent's lines with their times, the repeated ones of a moment once.
fn steps<'a>(agent: &'a str, log: &str) -> Vec<(&'a str, Duration, String)> {
    let mut seen = BTreeSet::new();
    let line = |line: &str| {
        let line: serde_json::Map<String, Value> = serde_json::from_str(line).ok()?;
        let when: SystemTime = humantime::parse_rfc3339_weak(line.get("timestamp")?.as_str()?).ok()?;
        let words = line.iter().filter(|(key, _)| !["timestamp", "level", "target"].contains(&key.as_str()));
        let words: Vec<String> = words.map(|(key, value)| format!("{key}={value}")).collect();
        let step = (agent, since_epoch(when), words.join(" "));
        seen.insert((step.1, step.2.clone())).then_some(step)
    };
    log.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_whose_container_ended_has_that_cause_and_another_one_has_none() {
        let now = SystemTime::now();
        let mut diary = Diary::default();
        (1..4).for_each(|number| diary.started(number, 0));
        diary.died(1);
        let failed = Failed {
            sent: now,
            took: Duration::from_secs(1),
            failure: crate::http::Failure::Status(503),
            client: None,
            to: ([127, 0, 0, 1], 8000).into(),
        };
        let line = |number: usize| serde_json::json!({ "server": id(number)[..12], "state": "SC--", "client": "127.0.0.1:1", "ended": 1 });
        let of = |line| account(&failed, &[8000], line, &diary, &[]).cause;
        assert!(of(Some(line(1))).is_some_and(|cause| cause.contains("ended (SC--)")));
        assert_eq!([of(Some(line(2))), of(None)], [None, None]);
        (2..4).for_each(|number| diary.died(number));
        let of = |line| account(&failed, &[8000], line, &diary, &[]).cause;
        assert_eq!(of(None).as_deref(), Some("no container of the service lived"));
    }

    #[test]
    fn agents_lines_have_times() {
        let log = "{\"timestamp\":\"2026-11-29T08:00:00.123456Z\",\"level\":\"INFO\",\"message\":\"Done.\",\"op\":\"x\"}\nrubbish\n";
        let steps = steps("discover", log);
        assert_eq!(steps.len(), 1);
        assert!(steps[0].2.contains("op=\"x\"") && steps[0].2.contains("Done."), "{steps:?}");
    }
}
