//! Both agents around real etcd and HAProxy, without Docker: servers of this process stand for containers of a scripted daemon.
//! Load runs through HAProxy all the time, and a witness looks at what HAProxy routes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use testing::docker_api::{DockerApi, event, id, running};
use tokio::time::timeout;

use crate::agents::{Agent, Discover, Register};
use crate::clock::Clock;
use crate::figures::millis;
use crate::haproxy;
use crate::lab::MARK;
use crate::scene::{self, Entry, PATIENCE, loopback};
use crate::server::Server;
use crate::traffic::{Load, Plan, Report};
use crate::witness::{Sight, Witness};
use crate::{Etcd, Lab, LabError, Result, free_port, wait};

/// The service that everything on a stage belongs to.
pub const SERVICE: &str = "web";
/// The shortest that register takes, so that tests see leases run out.
pub const TTL: Duration = Duration::from_secs(2);
/// Containers at the start.
const CONTAINERS: usize = 3;
/// How long a load may go on.
const AT_MOST: Duration = Duration::from_mins(5);

/// How a stage is set up.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where the agents are told that etcd is; empty: at all of its nodes.
    pub endpoints: String,
    /// Arguments in addition for both agents.
    pub both: Vec<String>,
    /// Arguments in addition for register.
    pub register: Vec<String>,
    /// Arguments in addition for discover.
    pub discover: Vec<String>,
    /// What both agents take for the time of day, where that is not the machine's.
    pub clock: Option<Clock>,
}

impl Default for Setting {
    /// Leases of [`TTL`].
    fn default() -> Self {
        let register = vec!["--ttl".to_owned(), humantime::format_duration(TTL).to_string()];
        Self { endpoints: String::new(), both: Vec::new(), register, discover: Vec::new(), clock: None }
    }
}

/// Everything that runs. Containers are numbered from 0.
pub struct Stage {
    /// The registry's nodes.
    pub etcd: Vec<Etcd>,
    /// The agent that publishes.
    pub register: Agent,
    /// The agent that routes.
    pub discover: Agent,
    /// The scripted daemon.
    pub api: DockerApi,
    /// The load.
    pub load: Load,
    publishing: Register,
    endpoints: String,
    mark: String,
    port: u16,
    servers: BTreeMap<usize, Server>,
    witness: Witness,
    since: Since,
}

/// Where the figures of a fault begin.
#[derive(Default)]
struct Since {
    report: Report,
    entries: Vec<Entry>,
    reloads: f64,
}

/// What a fault cost.
#[derive(Debug, Clone)]
pub struct Cost {
    /// What happened.
    pub fault: String,
    /// Requests made meanwhile.
    pub requests: u64,
    /// How many of them failed.
    pub failed: u64,
    /// What was routed wrongly, and for how long.
    pub sight: Sight,
    /// Keys put, rewritten or deleted.
    pub written: usize,
    /// HAProxy's reloads.
    pub reloads: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, requests, failed, sight, written, reloads } = self;
        let [missing, late, stale] = [sight.missing, sight.late, sight.stale].map(millis);
        write!(
            f,
            "{fault}: {failed} of {requests} requests failed; a live backend unrouted for at most {missing}, a new one for \
             {late}, a dead one routed for {stale}; {written} keys written, {reloads} reloads"
        )
    }
}

impl Cost {
    /// # Errors
    /// When a request failed, or none was made.
    pub fn must_fail_nobody(&self) -> Result<&Self> {
        match (self.requests, self.failed) {
            (1.., 0) => Ok(self),
            _ => Err(LabError::new(self.to_string())),
        }
    }

    /// # Errors
    /// When a live backend was out of HAProxy for a moment.
    pub fn must_unroute_nobody(&self) -> Result<&Self> {
        match self.sight.missing {
            Duration::ZERO => Ok(self),
            _ => Err(LabError::new(self.to_string())),
        }
    }

    /// # Errors
    /// When more or fewer keys were written.
    pub fn must_write(&self, keys: usize) -> Result<&Self> {
        match self.written == keys {
            true => Ok(self),
            false => Err(LabError::new(format!("{keys} keys should have been written: {self}"))),
        }
    }

    /// The same as nothing at all: nobody failed, nobody was unrouted, nothing was written or reloaded.
    ///
    /// # Errors
    /// When that is not so.
    pub fn must_be_nothing(&self) -> Result<()> {
        self.must_fail_nobody()?.must_unroute_nobody()?.must_write(0)?;
        match self.reloads {
            0.0 => Ok(()),
            _ => Err(LabError::new(self.to_string())),
        }
    }
}

impl Stage {
    /// Starts all parts around these nodes, with three containers that are routed and under load.
    ///
    /// # Errors
    /// When a part does not start, or nothing is routed.
    pub async fn start(lab: &Lab, etcd: Vec<Etcd>, setting: &Setting) -> Result<Self> {
        let endpoints = match setting.endpoints.as_str() {
            "" => etcd.iter().map(|node| node.endpoint().authority()).collect::<Vec<_>>().join(","),
            given => given.to_owned(),
        };
        let (api, port) = (DockerApi::start(), free_port());
        let [for_register, for_discover] =
            [&setting.register, &setting.discover].map(|own| [own.as_slice(), &setting.both].concat());
        let mut publishing = Register::new("register").args(&["--docker-host", &api.host()]);
        publishing.args.extend(for_register);
        let mut discover = Discover::new("discover", &haproxy::newest()?);
        discover.args.extend(for_discover);
        if let Some(clock) = &setting.clock {
            (publishing.under, discover.under) = (clock.under(), clock.under());
            discover.haproxy.path = clock.spare(&discover.haproxy.path)?;
        }
        let (mark, mut servers) = (lab.mark().to_owned(), BTreeMap::new());
        for number in 0..CONTAINERS {
            servers.insert(number, contain(&api, &mark, port, number).await?);
        }
        // All is registered before discover starts, so that there is one reload: the first.
        let mut register = publishing.spawn(lab, &endpoints)?;
        register.ready().await?;
        let witness = Witness::start(discover.runtime(lab)?);
        let discover = discover.spawn(lab, Some(&endpoints))?;
        let load = Load::start(&Plan { keep_alive: 0, closing: 0, ..Plan::mixed(loopback(port)) });
        let since = Since::default();
        let mut stage =
            Self { etcd, register, discover, api, load, publishing, endpoints, mark, port, servers, witness, since };
        stage.expect();
        stage.discover.ready().await?;
        stage.settled().await?;
        let plan = Plan { keep_alive: 2, closing: 1, at_most: AT_MOST, ..Plan::mixed(loopback(port)) };
        stage.load = Load::start(&plan);
        stage.begin().await?;
        Ok(stage)
    }

    /// A container starts: with a server, and an event.
    ///
    /// # Errors
    /// When there is no port left.
    pub async fn add(&mut self, number: usize) -> Result<()> {
        let server = contain(&self.api, &self.mark, self.port, number).await?;
        self.servers.insert(number, server);
        self.expect();
        self.api.emit(&[event(number, "start")]);
        Ok(())
    }

    /// A container is asked to stop: it drains.
    pub fn drain(&mut self, number: usize) {
        self.witness.excuse(self.servers.get(&number).map(|server| server.address.port()));
        self.api.emit(&[event(number, "kill")]);
    }

    /// A container is asked to stop, drains, and ends once no new request goes to it.
    ///
    /// # Errors
    /// When HAProxy goes on routing to it.
    pub async fn stop(&mut self, number: usize) -> Result<()> {
        self.drain(number);
        let port = self.servers.get(&number).map(|server| server.address.port());
        let drained = async || port.is_none_or(|port| !self.witness.routes(port));
        wait::until_true("a drain", PATIENCE, drained).await?;
        self.crash(number);
        Ok(())
    }

    /// The container that has lived longest.
    pub fn oldest(&self) -> Option<usize> {
        self.servers.keys().next().copied()
    }

    /// A container dies at once.
    pub fn crash(&mut self, number: usize) {
        self.servers.remove(&number);
        self.expect();
        self.api.remove(number);
        self.api.emit(&[event(number, "die")]);
    }

    fn expect(&self) {
        self.witness.expect(self.servers.values().map(|server| server.address.port()).collect());
    }

    /// Waits until exactly the living are registered, and HAProxy routes to exactly them.
    ///
    /// # Errors
    /// When that does not come true.
    pub async fn settled(&self) -> Result<()> {
        self.registered().await?;
        self.routed().await
    }

    /// Waits until HAProxy routes to exactly the living.
    ///
    /// # Errors
    /// When that does not come true.
    pub async fn routed(&self) -> Result<()> {
        let settled = wait::until_true("HAProxy to route to the living and nobody else", PATIENCE, async || {
            self.witness.is_right()
        });
        settled.await.map_err(|error| LabError::new(format!("{error}: {}", self.witness.now())))
    }

    /// Waits until exactly the living are registered.
    ///
    /// # Errors
    /// When that does not come true.
    pub async fn registered(&self) -> Result<()> {
        let mut living: Vec<_> = self.servers.keys().map(|number| self.key(*number)).collect();
        living.sort_unstable();
        let what = format!("exactly {living:?} in the registry");
        wait::until_true(&what, PATIENCE, async || {
            let keys = self.entries().await.unwrap_or_default().into_iter().map(|entry| entry.key);
            // A container's key ends with its id: others may lie deeper.
            keys.filter(|key| key.starts_with("/backends/") && key.matches('/').count() == 3).eq(living.iter().cloned())
        })
        .await
    }

    /// Another register for the same host, in addition.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn second_register(&self, lab: &Lab) -> Result<Agent> {
        let second = Register { node: "second".to_owned(), ..self.publishing.clone() };
        second.args(&["--node-name", &self.publishing.node]).spawn(lab, &self.endpoints)
    }

    /// The key of a container.
    pub fn key(&self, number: usize) -> String {
        format!("/backends/{SERVICE}/{}", &id(number)[..12])
    }

    /// Whether this key is there.
    pub async fn has(&self, key: &str) -> bool {
        self.entries().await.is_ok_and(|entries| entries.iter().any(|entry| entry.key == key))
    }

    /// Sends a signal to both agents.
    ///
    /// # Errors
    /// When one has ended.
    pub fn agents(&mut self, signal: Signal) -> Result<()> {
        self.register.process().signal(signal)?;
        self.discover.process().signal(signal)
    }

    /// The keys of the service and of the agents, as the first node that answers has them.
    ///
    /// # Errors
    /// When none answers.
    pub async fn entries(&self) -> Result<Vec<Entry>> {
        let mut last = LabError::new("there is no etcd");
        for node in self.etcd.iter().filter(|node| node.is_running()) {
            let ours = async {
                let mut entries = scene::entries(node, &format!("/backends/{SERVICE}/")).await?;
                entries.extend(scene::entries(node, "/registrars/").await?);
                Ok(entries)
            };
            match timeout(PATIENCE / 10, ours).await {
                Ok(Ok(entries)) => return Ok(entries),
                Ok(Err(error)) => last = error,
                Err(_) => last = LabError::new("etcd does not answer"),
            }
        }
        Err(last)
    }

    /// Figures count from here.
    ///
    /// # Errors
    /// When a part does not answer.
    pub async fn begin(&mut self) -> Result<()> {
        let reloads = self.discover.metric("discover_reloads_total").await?;
        self.since = Since { report: self.load.so_far(), entries: self.entries().await?, reloads };
        self.witness.begin();
        Ok(())
    }

    /// What happened since [`Self::begin`]; printed, too. The next fault's figures begin here.
    ///
    /// # Errors
    /// When a part does not answer.
    pub async fn cost(&mut self, fault: &str) -> Result<Cost> {
        let (report, before, entries) = (self.load.so_far(), &self.since, self.entries().await?);
        // An agent that was started anew counts anew.
        let reloads = self.discover.metric("discover_reloads_total").await?;
        let written = entries.iter().filter(|entry| !before.entries.contains(entry)).count();
        let gone = |old: &&Entry| entries.iter().all(|entry| entry.key != old.key);
        let cost = Cost {
            fault: fault.to_owned(),
            requests: report.requests - before.report.requests,
            failed: report.failed() - before.report.failed(),
            sight: self.witness.sight(),
            written: written + before.entries.iter().filter(gone).count(),
            reloads: if reloads < before.reloads { reloads } else { reloads - before.reloads },
        };
        println!("{cost}");
        self.begin().await?;
        Ok(cost)
    }

    /// Waits until all of the living have answered again.
    ///
    /// # Errors
    /// When one does not.
    pub async fn all_answer(&self) -> Result<()> {
        let answered = || self.servers.values().map(|server| self.load.answered_by(&server.name)).collect::<Vec<_>>();
        let before = answered();
        wait::until_true("an answer of each container", PATIENCE, async || {
            before.iter().zip(answered()).all(|(before, now)| now > *before)
        })
        .await
    }
}

/// A container that runs, with its server, on a port of the service; nobody is told.
async fn contain(api: &DockerApi, mark: &str, service_port: u16, number: usize) -> Result<Server> {
    let server = Server::start(&format!("c{number}")).await?;
    let (port, mut container) = (server.address.port(), running(number, SERVICE));
    let name = format!("{port}/tcp");
    container["Config"]["ExposedPorts"] = json!({ name.as_str(): {} });
    container["Config"]["Labels"] = json!({
        MARK: mark, "register.service-port": service_port.to_string(), "register.mode": "http",
    });
    container["NetworkSettings"] = json!({
        "Ports": { name.as_str(): [{"HostIp": "0.0.0.0", "HostPort": port.to_string()}] },
        "Networks": {"bridge": {"IPAddress": "127.0.0.1", "GlobalIPv6Address": ""}},
    });
    api.put(container);
    Ok(server)
}
