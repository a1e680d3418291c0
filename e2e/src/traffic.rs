//! Load over loopback, bounded in count and time, that sees every fault; and a probe for the first answer of a newcomer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::http::{Client, Failure};
use crate::{LabError, Result};

/// What one request may take before it counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Failures that a report shows one by one.
const SHOWN: usize = 5;
/// Failures that a report holds one by one.
const HELD: usize = 10_000;

/// A load to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where to.
    pub to: SocketAddr,
    /// The host that is asked for; the address, where there is none.
    pub host: Option<String>,
    /// Clients that keep their connections open.
    pub keep_alive: u32,
    /// Clients that open a connection for each request.
    pub closing: u32,
    /// Requests per second of each client.
    pub rate: u32,
    /// What is asked. POST asks `/<path>/<number>`, each number once, so that executions can be counted.
    pub method: Method,
    /// Without a leading slash.
    pub path: String,
    /// The load ends by itself after this time.
    pub at_most: Duration,
}

impl Plan {
    /// GET requests by both kinds of clients, 300 a second in all, for a minute at most.
    pub fn mixed(to: SocketAddr) -> Self {
        let at_most = Duration::from_mins(1);
        Self { to, keep_alive: 4, closing: 2, rate: 50, method: Method::Get, path: String::new(), at_most, host: None }
    }

    /// POST requests by both kinds of clients, 100 a second in all.
    pub fn posts(to: SocketAddr, path: &str) -> Self {
        Self { keep_alive: 1, closing: 1, method: Method::Post, path: path.to_owned(), ..Self::mixed(to) }
    }
}

/// Which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Safe to repeat.
    Get,
    /// Must not be executed twice.
    Post,
}

/// What happened to a load so far.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests sent.
    pub requests: u64,
    /// Failures by kind.
    pub failures: BTreeMap<Failure, u64>,
    /// Who answered.
    pub answers: BTreeMap<String, Answers>,
    /// How long each answered request took.
    pub latencies: Vec<Duration>,
    /// When the first request that failed was sent, and when the last one had failed.
    pub failing: Option<(SystemTime, SystemTime)>,
    /// Those that failed, one by one; of very many the first ones.
    pub failed_ones: Vec<Failed>,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub struct Failed {
    /// When it was sent.
    pub sent: SystemTime,
    /// How long it took to fail.
    pub took: Duration,
    /// How it failed.
    pub failure: Failure,
    /// The client's end of its connection, where there was one.
    pub client: Option<SocketAddr>,
    /// Where it went.
    pub to: SocketAddr,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = (self.sent + self.took).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        write!(f, "{} after {:?} at {:.3}", self.failure, self.took, at.as_secs_f64())
    }
}

/// The answers of one backend.
#[derive(Debug, Clone, Copy)]
pub struct Answers {
    /// How many.
    pub count: u64,
    /// When the first one came.
    pub first: SystemTime,
    /// When the last one came.
    pub last: SystemTime,
}

impl Report {
    /// All failures.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// How many answers came from `name`.
    pub fn answered_by(&self, name: &str) -> u64 {
        self.answers.get(name).map_or(0, |answers| answers.count)
    }

    /// # Errors
    /// When a request failed, or when there was none at all.
    pub fn must_be_clean(&self, when: &str) -> Result<()> {
        match (self.requests, self.failed()) {
            (0, _) => Err(LabError::new(format!("no request was sent while {when}"))),
            (_, 0) => Ok(()),
            _ => Err(LabError::new(format!("requests failed while {when}: {self}"))),
        }
    }

    /// Between the sending of the first request that failed and the last failure; zero where none failed.
    pub fn failing_for(&self) -> Duration {
        self.failing.and_then(|(first, last)| last.duration_since(first).ok()).unwrap_or_default()
    }

    /// The longest that an answered request took.
    pub fn slowest(&self) -> Duration {
        self.latencies.iter().max().copied().unwrap_or_default()
    }

    /// Adds what happened to another load.
    pub fn add(&mut self, other: Self) {
        self.failed_between(other.failing);
        self.requests += other.requests;
        self.latencies.extend(other.latencies);
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        for (name, new) in other.answers {
            let entry = self.answers.entry(name).or_insert(Answers { count: 0, ..new });
            let (first, last) = (entry.first.min(new.first), entry.last.max(new.last));
            *entry = Answers { count: entry.count + new.count, first, last };
        }
        let room = HELD.saturating_sub(self.failed_ones.len());
        self.failed_ones.extend(other.failed_ones.into_iter().take(room));
    }

    /// How many failed, and how.
    pub fn summary(&self) -> String {
        let kinds: Vec<String> = self.failures.iter().map(|(failure, count)| format!("{count} × {failure}")).collect();
        let how = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        format!("{} of {} requests failed{how}", self.failed(), self.requests)
    }

    fn failed_between(&mut self, span: Option<(SystemTime, SystemTime)>) {
        self.failing = match (self.failing, span) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (one, other) => one.or(other),
        };
    }

    fn record(&mut self, sent: Instant, by: (Option<SocketAddr>, SocketAddr), outcome: Result<String, Failure>) {
        self.requests += 1;
        let now = SystemTime::now();
        match outcome {
            Ok(name) => {
                self.latencies.push(sent.elapsed());
                let entry = self.answers.entry(name).or_insert(Answers { count: 0, first: now, last: now });
                entry.count += 1;
                entry.last = now;
            }
            Err(failure) => {
                *self.failures.entry(failure).or_default() += 1;
                self.failed_between(Some((now - sent.elapsed(), now)));
                if self.failed_ones.len() < HELD {
                    let (took, (client, to)) = (sent.elapsed(), by);
                    self.failed_ones.push(Failed { sent: now - took, took, failure, client, to });
                }
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests, {} failed", self.requests, self.failed())?;
        for (failure, count) in &self.failures {
            write!(f, ", {count} × {failure}")?;
        }
        for (name, answers) in &self.answers {
            write!(f, "; {name} answered {}", answers.count)?;
        }
        self.failed_ones.iter().take(SHOWN).try_for_each(|failed| write!(f, "\n  {failed}"))
    }
}

/// A load under way. Dropping it ends it.
#[derive(Debug)]
pub struct Load {
    report: Arc<Mutex<Report>>,
    end: CancellationToken,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts all clients of `plan`.
    pub fn start(plan: &Plan) -> Self {
        let (report, end, numbers) = (Arc::default(), CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for n in 0..plan.keep_alive + plan.closing {
            let client = Client::new(plan.to, n < plan.keep_alive, PATIENCE);
            let client = plan.host.iter().fold(client, |client, host| client.host(host));
            clients.spawn(drive(client, plan.clone(), Arc::clone(&report), Arc::clone(&numbers), end.clone()));
        }
        Self { report, end, clients }
    }

    /// What happened so far.
    pub fn so_far(&self) -> Report {
        locked(&self.report).clone()
    }

    /// How many answers came from `name` so far.
    pub fn answered_by(&self, name: &str) -> u64 {
        locked(&self.report).answered_by(name)
    }

    /// Lets requests under way end, and tells what happened.
    pub async fn stop(mut self) -> Report {
        self.end.cancel();
        while self.clients.join_next().await.is_some() {}
        self.so_far()
    }
}

/// Ends several loads, and tells what happened to all of them together.
pub async fn stop_all(loads: Vec<Load>) -> Report {
    let mut all = Report::default();
    loads.iter().for_each(|load| load.end.cancel());
    for load in loads {
        all.add(load.stop().await);
    }
    all
}

fn locked(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn drive(
    mut client: Client,
    plan: Plan,
    report: Arc<Mutex<Report>>,
    numbers: Arc<AtomicU64>,
    end: CancellationToken,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / plan.rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let until = Instant::now() + plan.at_most;
    while Instant::now() < until && end.run_until_cancelled(ticks.tick()).await.is_some() {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        let reply = match plan.method {
            Method::Get => client.get(&format!("/{}", plan.path)).await,
            Method::Post => client.request("POST", &format!("/{}/{number}", plan.path), "").await,
        };
        let outcome = reply.and_then(|reply| match reply.status {
            200..400 => Ok(reply.name().to_owned()),
            status => Err(Failure::Status(status)),
        });
        locked(&report).record(sent, (client.local(), plan.to), outcome);
    }
}

/// What [`first_answer`] saw.
#[derive(Debug, Clone, Copy)]
pub struct First {
    /// When the newcomer's first answer was here.
    pub at: SystemTime,
    /// How long before that another one answered: the newcomer was not there yet, at most so much earlier.
    pub resolution: Duration,
    /// Requests that failed in the meantime; while nobody serves, that is no fault.
    pub failed: u64,
}

/// Asks again and again, one request after the other, until `name` answers.
///
/// # Errors
/// When it does not within `within`.
pub async fn first_answer(to: SocketAddr, keep_alive: bool, name: &str, within: Duration) -> Result<First> {
    first_answer_of(Client::new(to, keep_alive, PATIENCE), name, within).await
}

/// The same by a client of one's own, which may ask for a host.
///
/// # Errors
/// As [`first_answer`].
pub async fn first_answer_of(mut client: Client, name: &str, within: Duration) -> Result<First> {
    let (deadline, mut previous, mut failed) = (Instant::now() + within, Instant::now(), 0);
    while Instant::now() < deadline {
        match client.get("/").await {
            Ok(reply) if reply.status == 200 && reply.name() == name => {
                return Ok(First { at: SystemTime::now(), resolution: previous.elapsed(), failed });
            }
            Ok(reply) if reply.status == 200 => {}
            _ => {
                failed += 1;
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
        previous = Instant::now();
    }
    Err(LabError::new(format!("{name} answered no request within {within:?}: {client:?}; {failed} requests failed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_and_names_what_failed() {
        let (mut report, by) = (Report::default(), (None, ([127, 0, 0, 1], 1).into()));
        assert!(report.must_be_clean("idle").is_err(), "no request proves nothing");
        report.record(Instant::now(), by, Ok("a".to_owned()));
        assert!(report.must_be_clean("idle").is_ok());
        report.record(Instant::now(), by, Err(Failure::Status(503)));
        assert_eq!((report.requests, report.failed(), report.answered_by("a")), (2, 1, 1));
        let text = report.must_be_clean("testing").unwrap_err().to_string();
        assert!(text.contains("while testing: 2 requests, 1 failed, 1 × status 503; a answered 1"), "{text}");
        let mut both = report.clone();
        both.add(report);
        assert_eq!(both.summary(), "2 of 4 requests failed (2 × status 503)");
        assert_eq!(both.answered_by("a"), 2);
    }

    #[tokio::test]
    async fn a_load_keeps_to_its_plan_and_ends_by_itself() {
        let to = ([127, 0, 0, 1], testing::free_port()).into();
        let plan = Plan { keep_alive: 1, closing: 1, rate: 50, at_most: Duration::from_millis(400), ..Plan::mixed(to) };
        let mut load = Load::start(&plan);
        while load.clients.join_next().await.is_some() {}
        let report = load.stop().await;
        assert!((10..=42).contains(&report.requests), "{report}");
        assert_eq!(report.failures.get(&Failure::Refused), Some(&report.requests));
    }
}
