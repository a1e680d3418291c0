//! `register` and `discover` as processes, and what their admin servers tell.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use discover::haproxy::api::runtime::Runtime;
use discover::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use discover::haproxy::process::master::MasterCli;
use serde_json::Value;

use crate::haproxy::Haproxy;
use crate::hosts::Host;
use crate::http::Client;
use crate::lab::MARK;
use crate::process::Process;
pub use crate::process::binary;
use crate::{Context, Etcd, Lab, LabError, Result, free_port, wait};

/// How long an agent may take to do its work.
const READY: Duration = Duration::from_secs(20);

/// Longer than discover leaves between two reloads, its jitter included.
const RELOAD_INTERVAL: Duration = Duration::from_millis(2500);

/// An agent that runs. It derefs to its process.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    admin: SocketAddr,
}

/// How `register` is started: for this run's containers only, towards one etcd, publishing loopback addresses.
#[derive(Debug, Clone)]
pub struct Register {
    /// Its NODE_NAME, also its log's name.
    pub node: String,
    /// Arguments in addition, after `run`.
    pub args: Vec<String>,
    /// On which host of the lab's; else on this machine's loopback.
    pub host: Option<Host>,
    /// What its command line begins with, such as `env`.
    pub under: Vec<String>,
    /// Another build of the program; else the one beside the tests.
    pub program: Option<PathBuf>,
}

/// How `discover` is started: one HAProxy of its own, serving on 127.0.0.1, files and sockets in the run's directory.
#[derive(Debug, Clone)]
pub struct Discover {
    /// Its log's and its directories' name.
    pub name: String,
    /// Which HAProxy.
    pub haproxy: Haproxy,
    /// Who runs it: the word for `--haproxy`.
    pub mode: &'static str,
    /// Arguments in addition, after `run`.
    pub args: Vec<String>,
    /// On which host of the lab's; else on this machine's loopback.
    pub host: Option<Host>,
    /// The address that HAProxy serves at, where that is not its host's.
    pub listen: Option<Ipv4Addr>,
    /// What its command line begins with, such as `env`.
    pub under: Vec<String>,
    /// Another build of the program; else the one beside the tests.
    pub program: Option<PathBuf>,
}

impl Register {
    /// One of this name.
    pub fn new(node: &str) -> Self {
        Self { node: node.to_owned(), args: Vec::new(), host: None, under: Vec::new(), program: None }
    }

    /// With these arguments in addition.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// The same on a host of the lab's.
    #[must_use]
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// Starts it, and does not wait.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn spawn(&self, lab: &Lab, etcd: &str) -> Result<Agent> {
        let filter = format!("label={MARK}={}", lab.mark());
        let args = ["--filter", filter.as_str(), "--allow-loopback"];
        let args = args.into_iter().chain(self.args.iter().map(String::as_str));
        let address = address(self.host.as_ref()).to_string();
        let environment = [("HOST_IP", address.as_str()), ("ETCD_HOST", etcd), ("NODE_NAME", self.node.as_str())];
        let run = lab.subdir(&format!("{}-run", self.node))?;
        let control = run.join("control.sock");
        let control = control.to_string_lossy();
        let args = args.chain(["--control", &control]);
        let program = self.program.as_deref().and_then(Path::to_str).unwrap_or("register");
        Agent::spawn(lab, self.host.as_ref(), &self.under, program, &self.node, args, &environment)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(&self, lab: &Lab, etcd: &Etcd) -> Result<Agent> {
        let mut agent = self.spawn(lab, &etcd.endpoint().authority())?;
        agent.ready().await?;
        Ok(agent)
    }
}

impl Discover {
    /// One of this name, with this HAProxy.
    pub fn new(name: &str, haproxy: &Haproxy) -> Self {
        Self {
            name: name.to_owned(),
            haproxy: haproxy.clone(),
            mode: "spawn",
            args: Vec::new(),
            host: None,
            listen: None,
            under: Vec::new(),
            program: None,
        }
    }

    /// With these arguments in addition.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// The same with nobody running HAProxy: only its file is written.
    #[must_use]
    pub fn files_only(mut self) -> Self {
        self.mode = "files";
        self
    }

    /// The same on a host of the lab's.
    #[must_use]
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// Where it keeps its files.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn dir(&self, lab: &Lab) -> Result<PathBuf> {
        lab.subdir(&format!("{}-state", self.name))
    }

    /// Its HAProxy's master.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn master(&self, lab: &Lab) -> Result<MasterCli> {
        Ok(MasterCli::new(lab.subdir(&format!("{}-run", self.name))?.join("haproxy-master.sock")))
    }

    /// Its HAProxy's runtime API.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn runtime(&self, lab: &Lab) -> Result<Runtime> {
        let socket = lab.subdir(&format!("{}-run", self.name))?.join("haproxy.sock");
        Ok(Runtime::new(RuntimeSocket::new(Endpoint::Unix(socket), Deadlines::default())))
    }

    /// Starts it, and does not wait. Without etcd it is to watch Docker itself, this run's containers only.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn spawn(&self, lab: &Lab, etcd: Option<&str>) -> Result<Agent> {
        let (dir, run) = (self.dir(lab)?, lab.subdir(&format!("{}-run", self.name))?);
        let control = run.join("control.sock");
        let control = control.to_string_lossy();
        let (dir, run, haproxy) = (dir.to_string_lossy(), run.to_string_lossy(), self.haproxy.path.to_string_lossy());
        let filter = format!("label={MARK}={}", lab.mark());
        let mut args = vec![
            "--haproxy",
            self.mode,
            "--haproxy-bin",
            &haproxy,
            "--dir",
            &dir,
            "--run-dir",
            &run,
            "--control",
            &control,
        ];
        let listen = self.listen.unwrap_or_else(|| address(self.host.as_ref())).to_string();
        args.extend(["--listen", &listen, "--stats-port", "off", "--allow-loopback"]);
        let mut environment = Vec::new();
        match etcd {
            Some(etcd) => environment.push(("ETCD_HOST", etcd)),
            None => {
                args.extend(["--docker", "--filter", &filter]);
                environment.push(("HOST_IP", &listen));
            }
        }
        let args = args.into_iter().chain(self.args.iter().map(String::as_str));
        let program = self.program.as_deref().and_then(Path::to_str).unwrap_or("discover");
        Agent::spawn(lab, self.host.as_ref(), &self.under, program, &self.name, args, &environment)
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(&self, lab: &Lab, etcd: &Etcd) -> Result<Agent> {
        let mut agent = self.spawn(lab, Some(&etcd.endpoint().authority()))?;
        agent.ready().await?;
        Ok(agent)
    }
}

impl Agent {
    /// `discover` as a config of Synapse's describes it; it does not wait.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn of_config(lab: &Lab, name: &str, config: &Path) -> Result<Self> {
        let control = lab.subdir(&format!("{name}-run"))?.join("control.sock");
        Self::configured(lab, "discover", name, config, &["--control", &control.to_string_lossy()])
    }

    /// `register run -c FILE` or `discover run -c FILE`, with these arguments in addition; does not wait.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn configured(lab: &Lab, program: &str, name: &str, config: &Path, args: &[&str]) -> Result<Self> {
        let config = config.to_string_lossy();
        Self::spawn(lab, None, &[], program, name, ["-c", &config].into_iter().chain(args.iter().copied()), &[])
    }

    /// `register` as a config of Nerve's describes it, without Docker; it does not wait.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn of_nerve(lab: &Lab, name: &str, config: &Path, etcd: &str) -> Result<Self> {
        let environment =
            [("DOCKER_HOST", "unix:///nonexistent/docker.sock"), ("ETCD_HOST", etcd), ("NODE_NAME", name)];
        let control = lab.subdir(&format!("{name}-run"))?.join("control.sock");
        let (config, control) = (config.to_string_lossy(), control.to_string_lossy());
        Self::spawn(lab, None, &[], "register", name, ["-c", &config, "--control", &control], &environment)
    }

    fn spawn<'a>(
        lab: &Lab,
        host: Option<&Host>,
        under: &[String],
        program: &str,
        name: &str,
        args: impl IntoIterator<Item = &'a str>,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let admin = SocketAddr::from((address(host), free_port()));
        let address = admin.to_string();
        let other = Path::new(program).is_absolute().then(|| PathBuf::from(program));
        let own = other.map_or_else(|| binary(program), Ok)?.to_string_lossy().into_owned();
        let line = under.iter().cloned().chain([own]).chain(["run", "--admin", &address].map(str::to_owned));
        let mut line = line.chain(args.into_iter().map(str::to_owned));
        let (program, args) = (PathBuf::from(line.next().unwrap_or_default()), line);
        let process = match host {
            Some(host) => host.spawn(lab, name, &program, args, environment)?,
            None => Process::spawn(lab, name, &program, args, environment)?,
        };
        Ok(Self { process, admin })
    }

    /// Waits until it says that it does its work.
    ///
    /// # Errors
    /// When it does not, or ends.
    pub async fn ready(&mut self) -> Result<()> {
        let mut last = String::from("nothing");
        let admin = self.admin;
        let process = &mut self.process;
        let wait = wait::until("an agent that is ready", READY, async || {
            if !process.is_running() {
                return Some(false);
            }
            match get(admin, "/ready").await {
                Ok((200, _)) => Some(true),
                Ok((_, text)) => {
                    text.trim().clone_into(&mut last);
                    None
                }
                Err(_) => None,
            }
        });
        match wait.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(LabError::new(format!("the agent ended:\n{}", self.process.log()))),
            Err(error) => Err(error).during(format!("its last word was {last:?}")),
        }
    }

    /// What `/status` tells.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> Result<Value> {
        let (_, text) = get(self.admin, "/status").await?;
        serde_json::from_str(&text).during("reading /status")
    }

    /// The sum of all samples of a metric, such as `discover_reloads_total`; 0 when it has none yet, as one with labels has
    /// until it first counts.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let (_, text) = get(self.admin, "/metrics").await?;
        let sample = |line: &str| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with([' ', '{']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        };
        Ok(text.lines().filter_map(sample).fold(0.0, |sum, value| sum + value))
    }

    /// Waits until it has reloaded nothing for longer than the interval between two reloads.
    ///
    /// # Errors
    /// When it goes on reloading.
    pub async fn quiet(&self) -> Result<()> {
        let mut before = self.metric("discover_reloads_total").await?;
        for _ in 0..20 {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let now = self.metric("discover_reloads_total").await?;
            if now == before && self.status().await?["haproxy"]["waiting"].is_null() {
                return Ok(());
            }
            before = now;
        }
        Err(LabError::new("discover goes on reloading"))
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Kills it and starts it again as it was, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn crash_and_restart(&mut self) -> Result<()> {
        self.process.restart()?;
        self.ready().await
    }

    /// Where its admin server listens.
    pub fn address(&self) -> SocketAddr {
        self.admin
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_memory(&self) -> Result<u64> {
        self.process.resident_memory()
    }
}

async fn get(to: SocketAddr, path: &str) -> Result<(u16, String)> {
    let reply = Client::new(to, false, Duration::from_secs(5)).get(path).await;
    reply.map(|reply| (reply.status, reply.body)).during(format!("asking http://{to}{path}"))
}

/// Where an agent serves and publishes: its host's address, or this machine's loopback.
fn address(host: Option<&Host>) -> Ipv4Addr {
    host.map_or(Ipv4Addr::LOCALHOST, Host::address)
}
