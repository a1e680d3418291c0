//! Steady load, random life and random faults, for as long as one likes: what register, discover and HAProxy hold on to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use testing::gate::{Gate, Way};

use self::accounts::{Diary, HaproxyLog};
use crate::agents::{Agent, Discover};
use crate::flock::Flock;
use crate::haproxy::Haproxy;
use crate::random::Random;
use crate::scene::{free_ports, loopback, routed};
use crate::traffic::{Load, Plan, Report, stop_all};
use crate::{Context, Etcd, Lab, LabError, Result};

mod accounts;
mod holdings;

pub use accounts::{Account, Accounts};
pub use holdings::{Holding, Holdings, table};

/// Services, each under load.
const SERVICES: usize = 4;
/// Containers that run, about.
const CONTAINERS: usize = 40;
/// Between two containers that start or stop.
const PACE: Duration = Duration::from_millis(400);
/// From the signal to a container's end.
const DRAIN: Duration = Duration::from_secs(2);
/// Between the beginnings of two faults.
const FAULTS: Duration = Duration::from_secs(7);
/// Between two looks at what is held.
const LOOK: Duration = Duration::from_secs(1);
/// What the agents log: every operation and every key, for the accounts.
const AGENTS: &str = "info,discover=debug,register=debug,containers=debug";
/// How long registrations outlive their agent.
const TTL: &str = "5s";

/// What a fault concerns. Each ends before the next one begins; some last longer than the registrations' life.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Etcd(Way),
    FrozenEtcd,
    Docker,
    FrozenRegister,
    FrozenDiscover,
    Rubbish,
}

const ALL: [Fault; 7] = [
    Fault::Etcd(Way::Closed),
    Fault::Etcd(Way::Silent),
    Fault::FrozenEtcd,
    Fault::Docker,
    Fault::FrozenRegister,
    Fault::FrozenDiscover,
    Fault::Rubbish,
];

/// What came of it.
#[derive(Debug)]
pub struct Soaked {
    /// What the three programs held, all the time.
    pub holdings: Holdings,
    /// What happened to the requests.
    pub load: Report,
    /// Why each of those that failed did.
    pub accounts: Accounts,
    /// Containers that came or went, and faults.
    pub events: (usize, usize),
}

struct Soak {
    etcd: Etcd,
    gate: Gate,
    flock: Flock,
    register: Agent,
    discover: Agent,
    ports: Vec<u16>,
    diary: Diary,
    log: HaproxyLog,
    random: Random,
    /// Containers that take clients.
    live: Vec<usize>,
    /// Those that were asked to stop, and when.
    leaving: VecDeque<(Instant, usize)>,
}

/// Lives for `time`; the same seed makes the same things happen.
///
/// # Errors
/// When a part does not start, or ends.
pub async fn soak(lab: &Lab, haproxy: &Haproxy, time: Duration, seed: u64) -> Result<Soaked> {
    let mut soak = Soak::start(lab, haproxy, seed).await?;
    let plan =
        |port: &u16| Plan { at_most: time * 2, keep_alive: 1, closing: 1, rate: 10, ..Plan::mixed(loopback(*port)) };
    let load: Vec<Load> = soak.ports.iter().map(|port| Load::start(&plan(port))).collect();
    let (began, mut holdings, mut events) = (Instant::now(), Holdings::default(), (0, 0));
    let (mut life, mut looks, mut faults) = (began, began, began + FAULTS);
    while began.elapsed() < time {
        tokio::time::sleep_until(life.min(looks).min(faults).into()).await;
        let now = Instant::now();
        if now >= life {
            soak.live_on().await?;
            (life, events.0) = (now + PACE, events.0 + 1);
        }
        if now >= faults {
            let fault = *soak.random.pick(&ALL).during("choosing a fault")?;
            let lasts = Duration::from_millis(500 + u64::try_from(soak.random.below(6_000)).unwrap_or(0));
            let since = SystemTime::now();
            soak.suffer(fault, lasts).await?;
            soak.diary.fault(since, &format!("{fault:?}"));
            (faults, events.1) = (Instant::now() + FAULTS, events.1 + 1);
        }
        if now >= looks {
            holdings.look(lab, &soak.register, &soak.discover).await?;
            looks = now + LOOK;
        }
    }
    let load = stop_all(load).await;
    for agent in [&mut soak.register, &mut soak.discover] {
        if !agent.process().is_running() {
            return Err(LabError::new(format!("an agent has ended:\n{}", agent.log())));
        }
    }
    let logs = [("register", soak.register.log()), ("discover", soak.discover.log())];
    let accounts = Accounts::of(&load.failed_ones, &soak.ports, &soak.log, &soak.diary, &logs);
    Ok(Soaked { holdings, load, accounts, events })
}

impl Soak {
    async fn start(lab: &Lab, haproxy: &Haproxy, seed: u64) -> Result<Self> {
        let etcd = Etcd::start();
        let address: SocketAddr = etcd.endpoint().authority().parse().during("reading etcd's address")?;
        let (gate, address) = Gate::tcp(address).await;
        let log = HaproxyLog::start(lab).await?;
        let flock = Flock::new(lab, 0, &[("register.mode", "http")]).await?;
        let mut register =
            flock.register("soaked", &["--ttl", TTL, "--log", AGENTS]).spawn(lab, &address.to_string())?;
        let discover = Discover::new("soaking", haproxy);
        let discover = discover.args(&["--templates", &log.templates.to_string_lossy(), "--log", AGENTS]);
        let discover = discover.start(lab, &etcd).await?;
        register.ready().await?;
        let (ports, random) = (free_ports(SERVICES)?, Random::new(seed));
        let (live, leaving, diary) = (Vec::new(), VecDeque::new(), Diary::default());
        let mut soak = Self { etcd, gate, flock, register, discover, ports, diary, log, random, live, leaving };
        for number in 0..CONTAINERS {
            soak.launch(number % SERVICES).await?;
        }
        for (service, port) in soak.ports.iter().enumerate() {
            routed(loopback(*port), &format!("c{service}")).await?;
        }
        Ok(soak)
    }

    async fn launch(&mut self, service: usize) -> Result<()> {
        let number = self.flock.grow().await?;
        let (name, port) = (format!("s{service}"), self.ports[service].to_string());
        self.flock.start_as(number, &[("register.service", &name), ("register.service-port", &port)]);
        self.flock.tell(number, "start");
        self.diary.started(number, service);
        self.live.push(number);
        Ok(())
    }

    /// Something happens that is no fault: a container starts, or one stops; those that were asked to stop have ended.
    async fn live_on(&mut self) -> Result<()> {
        while self.leaving.front().is_some_and(|(at, _)| at.elapsed() >= DRAIN) {
            if let Some((_, number)) = self.leaving.pop_front() {
                self.flock.die(number);
                self.flock.silence(number);
                self.diary.died(number);
            }
        }
        if self.live.len() < CONTAINERS / 2 || (self.live.len() < CONTAINERS && self.random.percent(50)) {
            let service = self.random.below(SERVICES);
            return self.launch(service).await;
        }
        let number = self.live.swap_remove(self.random.below(self.live.len()));
        self.flock.kill(number);
        self.diary.asked(number);
        self.leaving.push_back((Instant::now(), number));
        Ok(())
    }

    /// A fault, from its beginning to its end; life stands still meanwhile, clients do not.
    async fn suffer(&mut self, fault: Fault, lasts: Duration) -> Result<()> {
        let frozen = match fault {
            Fault::FrozenRegister => Some(&mut self.register),
            Fault::FrozenDiscover => Some(&mut self.discover),
            _ => None,
        };
        if let Some(agent) = frozen {
            agent.process().signal(Signal::SIGSTOP)?;
            tokio::time::sleep(lasts).await;
            return agent.process().signal(Signal::SIGCONT);
        }
        match fault {
            Fault::Etcd(way) => self.gate.set(way),
            Fault::FrozenEtcd => self.etcd.freeze(),
            Fault::Docker => self.flock.api.cut(),
            Fault::Rubbish | Fault::FrozenRegister | Fault::FrozenDiscover => {
                let mut client = self.etcd.operator().await;
                let key = format!("/backends/s0/rubbish-{}", self.random.below(100));
                client.put(key.as_str(), "{\"host\":\"a b\"", None).await.during("putting rubbish")?;
                tokio::time::sleep(lasts).await;
                client.delete(key, None).await.during("removing rubbish")?;
                return Ok(());
            }
        }
        tokio::time::sleep(lasts).await;
        match fault {
            Fault::FrozenEtcd => self.etcd.thaw(),
            _ => self.gate.set(Way::Open),
        }
        Ok(())
    }
}
