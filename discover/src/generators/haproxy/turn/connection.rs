//! The running HAProxy, however it is run: asked, changed, loaded.

use std::path::PathBuf;
use std::time::Duration;

use tracing::{info, warn};

use super::errors::ConnectionError;
use super::files::{ConfigFiles, OnDisk};
use super::plan::Applied;
use super::process::{Commands, Process};
use super::prove::checker::Checker;
use super::readback;
use super::state::HaproxyState;
use crate::generators::haproxy::file::layout::Layout;
use crate::generators::haproxy::traffic::asking::Socket;
use crate::haproxy::api::runtime::{Runtime, RuntimeError};
use crate::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use crate::haproxy::api::tables::{Info, ServerState};
use crate::haproxy::api::version::{Capabilities, Version};
use crate::haproxy::process::check::{self, CHECK_TIMEOUT, deadline};
use crate::haproxy::process::descriptors;
use crate::haproxy::process::launch::{self, Launch};
use crate::haproxy::process::master::ReloadOutcome;
use crate::haproxy::process::output::Words;

/// HAProxy answers in microseconds, and lists 40,000 servers within a second: one that takes longer than this hangs. A turn
/// asks a few times, and must end all the same.
pub(super) const PATIENCE: Deadlines = Deadlines { connect: Duration::from_secs(1), reply: Duration::from_secs(2) };
/// Who runs HAProxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProcessMode {
    /// discover starts it, detached, and adopts it the next time.
    Spawn,
    /// Somebody else does (`discover supervise`, systemd); discover speaks to its sockets.
    External,
    /// Somebody else does, elsewhere: discover only writes the file.
    Files,
    /// Somebody else does; shell commands check and reload it, as with Synapse.
    #[value(skip)]
    Commands,
}

/// One HAProxy.
pub struct Connection {
    pub(super) mode: ProcessMode,
    pub(super) process: Process,
    pub(super) runtime: Runtime,
    /// Further sockets, which get every operation that the first one gets.
    pub(super) others: Vec<Runtime>,
    pub(super) worker: Worker,
    pub(super) commands: Commands,
    words: Words,
    /// How long a check of a small file may take.
    check_timeout: Duration,
}

/// What is known of the worker that answers.
pub(super) struct Worker {
    can: Capabilities,
    version: Option<Version>,
    /// It is a process of our own network: trying a port here says something.
    near: bool,
    /// Its process, as it says itself.
    pid: i32,
    /// It did not answer when it was asked last.
    pub(super) silent: bool,
    /// It checks a server, or asks one's agent.
    pub(super) checks: bool,
}

impl Connection {
    /// A connection to the HAProxy that `launch` describes and whose runtime API listens on `socket`. Does no I/O.
    pub fn new(mode: ProcessMode, launch: Launch, socket: PathBuf) -> Self {
        let through = Endpoint::Unix(launch.master_socket.clone());
        let socket = RuntimeSocket::new(Endpoint::Unix(socket), PATIENCE).with_master(through);
        // Until it has said which version it is, nothing is taken for granted but the oldest supported one's abilities.
        let can = Capabilities::of(&Version::OLDEST);
        Self {
            mode,
            process: Process::new(launch, mode == ProcessMode::Spawn),
            runtime: Runtime::new(socket),
            others: Vec::new(),
            worker: Worker { can, version: None, near: false, pid: 0, silent: false, checks: false },
            commands: Commands::default(),
            words: Words::default(),
            check_timeout: CHECK_TIMEOUT,
        }
    }

    /// With another deadline for checks of small files; large ones get more.
    #[must_use]
    pub fn with_check_timeout(self, check_timeout: Duration) -> Self {
        Self { check_timeout, ..self }
    }

    /// A connection to a HAProxy that somebody else runs, in Synapse's way. `program` judges candidates, where it exists
    /// and no command does. Does no I/O.
    pub fn by_commands(commands: Commands, program: PathBuf, config: PathBuf) -> Self {
        let open = |socket: &PathBuf| Runtime::new(RuntimeSocket::new(Endpoint::Unix(socket.clone()), PATIENCE));
        let first = open(&commands.sockets.first().cloned().unwrap_or_default());
        let others = commands.sockets.iter().skip(1).map(open).collect();
        let output = launch::Output::Inherit;
        let launch = Launch { program, config, master_socket: PathBuf::new(), args: Vec::new(), output };
        Self { commands, others, runtime: first, ..Self::new(ProcessMode::Commands, launch, PathBuf::new()) }
    }

    /// Whether changes can go over the runtime API, or every one needs a reload.
    pub fn live(&self) -> bool {
        self.mode != ProcessMode::Commands || !self.commands.sockets.is_empty() || self.commands.reload.is_none()
    }

    /// Whether what runs can be asked.
    pub(super) fn asks(&self) -> bool {
        match self.mode {
            ProcessMode::Spawn | ProcessMode::External => true,
            ProcessMode::Files => false,
            ProcessMode::Commands => !self.commands.sockets.is_empty(),
        }
    }

    /// Where HAProxy can be asked, if it can.
    pub fn socket(&self) -> Option<Socket> {
        let Endpoint::Unix(runtime) = self.runtime.endpoint().clone() else { return None };
        let master = Some(self.process.launch.master_socket.clone()).filter(|_| self.mode != ProcessMode::Commands);
        self.asks().then_some(Socket { runtime, master })
    }

    /// What the running version can do.
    pub fn can(&self) -> &Capabilities {
        &self.worker.can
    }

    /// The running version, once known.
    pub fn version(&self) -> Option<&Version> {
        self.worker.version.as_ref()
    }

    /// Whether HAProxy shares our network, so that trying a port here says something.
    pub fn local(&self) -> bool {
        match self.mode {
            ProcessMode::Spawn | ProcessMode::External => true,
            ProcessMode::Files => false,
            ProcessMode::Commands => self.worker.near,
        }
    }

    /// The worker's process, where it is one of this machine that we can look at.
    pub(super) fn worker_here(&self) -> Option<i32> {
        Some(self.worker.pid).filter(|pid| self.worker.near && *pid > 0)
    }

    /// The most descriptors that HAProxy may have, where it is a process of this machine.
    pub(super) fn descriptor_limit(&self) -> Option<u64> {
        match (self.mode, self.worker_here()) {
            (_, Some(worker)) => descriptors::limit(Some(worker)),
            (ProcessMode::Spawn, None) => descriptors::limit(None),
            _ => None,
        }
    }

    /// Whether the worker that was last spoken to is still there, as far as can be seen without asking it.
    pub fn is_open(&self) -> bool {
        !self.asks() || self.runtime.is_open()
    }

    /// Whether a HAProxy of ours runs, whatever its runtime socket says.
    pub async fn runs(&mut self) -> bool {
        !matches!(self.mode, ProcessMode::Files | ProcessMode::Commands) && self.process.runs().await
    }

    /// What runs now: from the file that it loaded and from its own words. `unwritten` stands for the file where that
    /// could not be written.
    ///
    /// # Errors
    /// [`ConnectionError`] when it does not run or does not answer.
    pub async fn read_back(
        &mut self,
        files: &ConfigFiles,
        unwritten: Option<&Layout>,
    ) -> Result<Applied, ConnectionError> {
        let on_disk = match unwritten {
            Some(layout) => OnDisk { layout: Some(layout.clone()), state: HaproxyState::Known },
            None => files.read()?,
        };
        let mut layout = on_disk.layout.unwrap_or_default();
        if !self.asks() {
            return Ok(Applied { layout, state: on_disk.state, ..Applied::default() });
        }
        self.process.reap();
        let old_session = self.runtime.is_open();
        let answers = match self.ask().await {
            // A session to a worker that is being replaced tells about that one, and one to a worker that has ended
            // answers once with its end.
            Ok((info, _)) if info.stopping => self.ask_anew().await,
            Err(_) if old_session => self.ask_anew().await,
            answers => answers,
        };
        self.worker.silent = answers.is_err();
        let (info, running) = answers?;
        self.worker.checks = running.iter().any(|server| server.check.enabled() || server.agent.enabled());
        if self.worker.version.as_ref() != Some(&info.version) {
            info!(version = %info.version, pid = info.pid, "HAProxy answers.");
            for fault in info.version.known_faults() {
                warn!(version = %info.version, fault, "This version of HAProxy has a known fault.");
            }
            self.worker.can = Capabilities::of(&info.version);
            self.worker.version = Some(info.version);
        }
        self.worker.near = launch::shares_our_network(info.pid);
        self.worker.pid = info.pid;
        if layout.rules.is_some() {
            layout.rules = self.read_rules(&files.rules_name()).await?;
        }
        self.leave_out_unmade(&mut layout).await?;
        Ok(readback::applied(layout, on_disk.state, &files.read_retired(), &running))
    }

    /// Its program is of this version. It can as much, unless the one that runs has said more of itself.
    pub(super) fn suppose(&mut self, program: &Version) {
        if self.worker.version.is_none() {
            self.worker.can = Capabilities::of(program);
        }
    }

    async fn ask(&mut self) -> Result<(Info, Vec<ServerState>), RuntimeError> {
        Ok((self.runtime.info().await?, self.runtime.servers_state(None).await?))
    }

    async fn ask_anew(&mut self) -> Result<(Info, Vec<ServerState>), RuntimeError> {
        self.runtime.reopen();
        self.ask().await
    }

    /// Starts HAProxy with the file that it ran last, where starting it is ours to do and it does not run.
    ///
    /// # Errors
    /// [`ConnectionError`]; there is no file of ours, or HAProxy does not take it any more.
    pub async fn resume(&mut self, files: &ConfigFiles) -> Result<(), ConnectionError> {
        if self.mode != ProcessMode::Files && self.worker.version.is_none() {
            // Its program says as much before it runs; in external mode it may be another one, which then says so itself.
            let version = check::version(&self.process.launch.program).await;
            version.iter().for_each(|version| self.suppose(version));
        }
        let ours = files.read()?.layout.is_some();
        if self.mode != ProcessMode::Spawn || self.process.find().await?.is_some() || !ours {
            return Ok(());
        }
        if let Some(checker) = self.checker(files) {
            checker.admit(files.live(), deadline(self.check_timeout, files.count_servers())).await?;
        }
        self.process.start().await?;
        files.settle();
        Ok(())
    }

    /// Who judges files. `None` in files mode: HAProxy is elsewhere and may be another version, so it is judged there.
    pub fn checker(&self, files: &ConfigFiles) -> Option<Checker> {
        (self.mode != ProcessMode::Files).then(|| Checker {
            program: self.process.launch.program.clone(),
            command: self.commands.check.clone(),
            candidate: files.candidate(),
            timeout: self.check_timeout,
            may_lack_program: self.mode == ProcessMode::Commands,
        })
    }

    /// Has HAProxy load the live file: a reload where it runs, a start where it does not.
    pub async fn load(&mut self) -> Result<(), ConnectionError> {
        if self.mode == ProcessMode::Files {
            return Ok(());
        }
        if self.mode == ProcessMode::Commands {
            return self.reload_by_command().await;
        }
        let running = self.process.find().await?;
        let silent = self.worker.silent;
        let hung = running.as_ref().and_then(|r| r.procs.current_worker()).filter(|_| silent);
        let dead = if running.is_some() && !silent { self.dead_servers().await } else { Vec::new() };
        let log = match running {
            Some(_) => match self.process.master.reload().await? {
                ReloadOutcome::Loaded { log, .. } => Ok(log),
                ReloadOutcome::Failed { log } => Err(ConnectionError::Refused(log)),
            },
            None => {
                self.process.start().await?;
                Ok(String::new())
            }
        };
        self.runtime.reopen();
        let log = log?;
        if let Some(worker) = hung {
            self.end_if_hung(worker).await;
        }
        self.mark_dead(&dead).await;
        if self.process.launch.log().is_none() {
            self.words.hear(&log); // nobody reads along
        }
        Ok(())
    }
}
