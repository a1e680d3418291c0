//! The task behind one service: its checks, one after the other, round after round. It speaks when something changes.

use std::net::SocketAddr;
use std::sync::Arc;

use agent::telemetry::Chain;
use containers::checks::{AnyCheck, Check as _, Outcome};
use containers::readiness::{CheckMetrics, CheckState, Tally, together};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::resolve::Resolver;
use crate::nerve::config::{CheckConf, Service};
use crate::nerve::statsd::Statsd;

/// What a service's checks say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Too few tries so far.
    Undecided,
    /// All pass.
    Up,
    /// One fails, for this reason.
    Down(String),
}

/// What one self of a service has to tell.
#[derive(Debug)]
pub struct News {
    pub service: Arc<str>,
    /// Which self of it.
    pub number: u64,
    /// What its checks say together.
    pub health: Health,
    /// What each of them says.
    pub checks: Vec<CheckState>,
}

/// What all these tasks share.
#[derive(Clone)]
pub(super) struct Rounds {
    pub out: mpsc::Sender<News>,
    pub resolver: Arc<Resolver>,
    pub metrics: CheckMetrics,
    pub statsd: Statsd,
}

/// One check with what is known of it.
struct Tried<'a> {
    conf: &'a CheckConf,
    tally: Tally,
    /// For the addresses of its host at present.
    checks: Vec<(SocketAddr, AnyCheck)>,
    /// Tries that passed, and that failed.
    counters: [Counter; 2],
}

impl Rounds {
    /// Checks for ever.
    pub async fn run(self, service: Arc<Service>, number: u64) {
        self.statsd.increment("nerve.watcher.start", &[("service_name", &service.name)]);
        let mut checks: Vec<Tried<'_>> = service
            .checks
            .iter()
            .map(|conf| Tried {
                conf,
                tally: Tally::of_nerve(conf.rise, conf.fall, false, service.first_result),
                checks: Vec::new(),
                counters: self.metrics.tries(&conf.kind),
            })
            .collect();
        let start = Instant::now();
        let mut told = None;
        let mut first = true;
        loop {
            let health = self.round(&service, &mut checks, start).await;
            let states: Vec<CheckState> = checks.iter().map(Tried::state).collect();
            let now = (health, states);
            if told.as_ref() != Some(&now) {
                let (health, checks) = now.clone();
                let news = News { service: service.name.clone(), number, health, checks };
                if self.out.send(news).await.is_err() {
                    return;
                }
                told = Some(now);
            }
            if checks.is_empty() {
                std::future::pending::<()>().await; // always up
            }
            // What began together is not checked together.
            let first = std::mem::take(&mut first);
            let settled = told.as_ref().is_some_and(|(health, _)| *health != Health::Undecided);
            let pause = if first && settled { service.interval.mul_f64(rand::random()) } else { service.interval };
            sleep_until(together(Instant::now() + pause, service.interval)).await;
        }
    }

    /// All checks until one fails.
    async fn round(&self, service: &Service, checks: &mut [Tried<'_>], start: Instant) -> Health {
        for tried in checks {
            let result = tried.attempt(self).await;
            tried.tally.record(result, start.elapsed());
            let passes = tried.tally.is_passing();
            let word = if passes { "up" } else { "down" };
            let tags =
                [("check_result", word), ("service_name", &*service.name), ("check_name", tried.conf.name.as_str())];
            self.statsd.increment("nerve.watcher.status.service_check", &tags);
            if !passes {
                let why = tried.tally.standing().reason().unwrap_or("it has not passed often enough").to_owned();
                let decided = tried.tally.has_fallen();
                return if decided { Health::Down(format!("{}: {why}", tried.conf.name)) } else { Health::Undecided };
            }
        }
        Health::Up
    }
}

impl Tried<'_> {
    async fn attempt(&mut self, shared: &Rounds) -> Result<(), String> {
        let conf = self.conf;
        if conf.hopeless {
            return Err("a check of type base never passes".to_owned());
        }
        let addresses = shared.resolver.addresses(&conf.host).await?;
        let wanted = || addresses.iter().map(|ip| SocketAddr::new(*ip, conf.port.get()));
        if !wanted().eq(self.checks.iter().map(|(at, _)| *at)) {
            self.checks = wanted().map(|at| (at, AnyCheck::on_host(&conf.kind, at, conf.phases))).collect();
        }
        let began = Instant::now();
        let mut last = Err("no address".to_owned());
        for (_, check) in &self.checks {
            last = match check.attempt(conf.timeout).await {
                Outcome::Pass => Ok(()),
                Outcome::Fail(e) | Outcome::Unreachable(e) => Err(Chain(&e).to_string()),
            };
            if last.is_ok() {
                break;
            }
        }
        shared.metrics.duration.observe(began.elapsed().as_secs_f64());
        let [passed, failed] = &self.counters;
        if last.is_ok() {
            passed.inc()
        } else {
            failed.inc()
        };
        last
    }

    fn state(&self) -> CheckState {
        let standing = self.tally.standing();
        CheckState {
            check: self.conf.kind.as_str(),
            state: standing.as_str(),
            reason: standing.reason().map(str::to_owned),
        }
    }
}
