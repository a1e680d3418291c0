//! The running HAProxy, however it is run: asked, changed, loaded.

use std::path::PathBuf;
use std::time::Duration;

use common::files::FileError;
use tokio::process::Child;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::files::{ConfigFiles, OnDisk};
use super::ids::Ids;
use super::plan::Applied;
use super::prove::checker::Checker;
use super::readback;
use crate::generators::haproxy::file::layout::Layout;
use crate::generators::output::OutputError;
use crate::haproxy::api::runtime::{Runtime, RuntimeError};
use crate::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use crate::haproxy::api::tables::{Info, ServerState};
use crate::haproxy::api::version::{Capabilities, Version};
use crate::haproxy::process::check::{self, CHECK_TIMEOUT, CheckError, deadline};
use crate::haproxy::process::launch::{self as process, Launch, ProcessError, Running};
use crate::haproxy::process::master::{MasterCli, MasterError, ReloadOutcome};

/// HAProxy answers in microseconds, and lists 40,000 servers within a second: one that takes longer than this hangs. A turn
/// asks a few times, and must end all the same.
pub(super) const PATIENCE: Deadlines = Deadlines { connect: Duration::from_secs(1), reply: Duration::from_secs(2) };
/// How long somebody else may take to start HAProxy once there is a file for it.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How long a master that lives may be silent: 2.6 answers nobody while it executes itself.
pub(super) const MASTER_PATIENCE: Duration = Duration::from_secs(5);
/// The same for a master of which only the socket's file is known: often it is one of the past.
const STRANGER_PATIENCE: Duration = Duration::from_secs(1);
pub(super) const POLL: Duration = Duration::from_millis(20);

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

/// What Synapse's config says about a HAProxy that somebody else runs.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// Judges the candidate; without it HAProxy's program does, where it is there.
    pub check: Option<String>,
    /// Reloads; without it nobody does.
    pub reload: Option<String>,
    /// The runtime sockets; with none, every change is a reload.
    pub sockets: Vec<PathBuf>,
}

/// What went wrong between discover and HAProxy.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// `haproxy -c` has something against the file.
    #[error("checking the new config")]
    Check(#[from] CheckError),
    /// It could not be started.
    #[error("starting HAProxy")]
    Process(#[from] ProcessError),
    /// Its master gave no usable answer.
    #[error("reloading HAProxy")]
    Master(#[from] MasterError),
    /// It refused the file; the old worker goes on with the old one.
    #[error("HAProxy could not load the config: {0}")]
    Refused(String),
    /// The file that it has loaded cannot be read now.
    #[error("asking HAProxy what runs")]
    File(#[from] FileError),
    /// Its runtime socket gave no usable answer.
    #[error("asking HAProxy what runs")]
    Runtime(#[from] RuntimeError),
    /// The operator's command failed.
    #[error(transparent)]
    Command(#[from] OutputError),
}

impl ConnectionError {
    /// What a check says against a file, in HAProxy's words or ours, if that is what went wrong.
    pub fn verdict(&self) -> Option<String> {
        match self {
            Self::Check(error) => error.verdict(),
            Self::Command(OutputError::Command { what: "check_command", why, .. }) => Some(why.clone()),
            _ => None,
        }
    }
}

/// One HAProxy.
pub struct Connection {
    pub(super) mode: ProcessMode,
    launch: Launch,
    pub(super) master: MasterCli,
    pub(super) runtime: Runtime,
    can: Capabilities,
    version: Option<Version>,
    /// It did not answer when it was asked last.
    pub(super) silent: bool,
    child: Option<Child>,
    /// The master's process, once seen. In external mode it may belong to another namespace and is not used.
    pub(super) master_pid: Option<i32>,
    /// There is none for certain: what its socket's file says is of the past.
    gone: bool,
    /// The worker that answers is a process of our own network: trying a port here says something.
    near: bool,
    pub(super) commands: Commands,
    /// Further sockets, which get every operation that the first one gets.
    pub(super) others: Vec<Runtime>,
    pub(super) ids: Ids,
    /// How long a check of a small file may take.
    check_timeout: Duration,
}

impl Connection {
    /// A connection to the HAProxy that `launch` describes and whose runtime API listens on `socket`. Does no I/O.
    pub fn new(mode: ProcessMode, launch: Launch, socket: PathBuf) -> Self {
        let through = Endpoint::Unix(launch.master_socket.clone());
        let socket = RuntimeSocket::new(Endpoint::Unix(socket), PATIENCE).with_master(through);
        let runtime = Runtime::new(socket);
        // Until it has said which version it is, nothing is taken for granted but the oldest supported one's abilities.
        let can = Capabilities::of(&Version::OLDEST);
        let master = launch.master();
        let (commands, others, ids) = (Commands::default(), Vec::new(), Ids::default());
        let (version, child, master_pid) = (None, None, None);
        let (silent, gone, near) = (false, false, false);
        Self {
            mode,
            master,
            launch,
            runtime,
            can,
            version,
            silent,
            child,
            master_pid,
            gone,
            near,
            commands,
            others,
            ids,
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
        let output = process::Output::Inherit;
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

    /// What the running version can do.
    pub fn can(&self) -> &Capabilities {
        &self.can
    }

    /// The running version, once known.
    pub fn version(&self) -> Option<&Version> {
        self.version.as_ref()
    }

    /// Whether HAProxy shares our network, so that trying a port here says something.
    pub fn local(&self) -> bool {
        match self.mode {
            ProcessMode::Spawn | ProcessMode::External => true,
            ProcessMode::Files => false,
            ProcessMode::Commands => self.near,
        }
    }

    /// Whether the worker that was last spoken to is still there, as far as can be seen without asking it.
    pub fn is_open(&self) -> bool {
        !self.asks() || self.runtime.is_open()
    }

    /// Whether a HAProxy of ours runs, whatever its runtime socket says.
    pub async fn runs(&mut self) -> bool {
        if matches!(self.mode, ProcessMode::Files | ProcessMode::Commands) {
            return false;
        }
        // One that hangs answers nobody, and is there.
        let seen = self.master_pid.filter(|_| self.mode == ProcessMode::Spawn);
        seen.is_some_and(|pid| process::is_program(pid, &self.launch.program))
            || !matches!(self.find_master().await, Ok(None))
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
            Some(layout) => OnDisk { layout: Some(layout.clone()), unknown: None },
            None => files.read()?,
        };
        let mut layout = on_disk.layout.unwrap_or_default();
        if !self.asks() {
            return Ok(Applied { layout, unknown: on_disk.unknown, ..Applied::default() });
        }
        self.reap();
        let old_session = self.runtime.is_open();
        let answers = match self.ask().await {
            // A session to a worker that is being replaced tells about that one, and one to a worker that has ended
            // answers once with its end.
            Ok((info, _)) if info.stopping => self.ask_anew().await,
            Err(_) if old_session => self.ask_anew().await,
            answers => answers,
        };
        self.silent = answers.is_err();
        let (info, running) = answers?;
        self.ids.seen(&running);
        if self.version.as_ref() != Some(&info.version) {
            info!(version = %info.version, pid = info.pid, "HAProxy answers.");
            for fault in info.version.known_faults() {
                warn!(version = %info.version, fault, "This version of HAProxy has a known fault.");
            }
            self.can = Capabilities::of(&info.version);
            self.version = Some(info.version);
        }
        self.near = process::shares_our_network(info.pid);
        if layout.rules.is_some() {
            layout.rules = self.read_rules(&files.rules_name()).await?;
        }
        self.leave_out_unmade(&mut layout).await?;
        Ok(readback::applied(layout, on_disk.unknown, &files.read_retired(), &running))
    }

    async fn ask(&mut self) -> Result<(Info, Vec<ServerState>), RuntimeError> {
        Ok((self.runtime.info().await?, self.runtime.servers_state(None).await?))
    }

    async fn ask_anew(&mut self) -> Result<(Info, Vec<ServerState>), RuntimeError> {
        self.runtime.reopen();
        self.ask().await
    }

    /// The master, if there is one. One that lives but is silent is waited for: while 2.6 reloads it answers nobody, and
    /// a second HAProxy beside it would share its ports and never be found again.
    async fn find_master(&mut self) -> Result<Option<Running>, ConnectionError> {
        let began = Instant::now();
        loop {
            if let Some(running) = process::adopt(&self.master).await? {
                (self.master_pid, self.gone) = (Some(running.master), false);
                return Ok(Some(running));
            }
            self.reap();
            let silent = began.elapsed();
            match self.master_pid.filter(|_| self.mode == ProcessMode::Spawn) {
                Some(pid) if process::is_program(pid, &self.launch.program) => {
                    if silent > MASTER_PATIENCE {
                        let (socket, log) =
                            (self.master.path().to_owned(), format!("process {pid} lives but is silent"));
                        return Err(ProcessError::Silent { socket, after: silent, log }.into());
                    }
                }
                Some(_) => {
                    (self.master_pid, self.gone) = (None, true);
                    return Ok(None);
                }
                None if !self.gone && silent < STRANGER_PATIENCE && self.master.path().exists() => {}
                None => {
                    self.gone = self.mode == ProcessMode::Spawn;
                    return Ok(None);
                }
            }
            sleep(POLL).await;
        }
    }

    /// Starts HAProxy with the file that it ran last, where starting it is ours to do and it does not run.
    ///
    /// # Errors
    /// [`ConnectionError`]; there is no file of ours, or HAProxy does not take it any more.
    pub async fn resume(&mut self, files: &ConfigFiles) -> Result<(), ConnectionError> {
        if self.mode != ProcessMode::Files && self.version.is_none() {
            // Its program says as much before it runs; in external mode it may be another one, which then says so itself.
            self.can = check::version(&self.launch.program).await.map_or(self.can, |v| Capabilities::of(&v));
        }
        let ours = files.read()?.layout.is_some();
        if self.mode != ProcessMode::Spawn || self.find_master().await?.is_some() || !ours {
            return Ok(());
        }
        if let Some(checker) = self.checker(files) {
            checker.admit(files.live(), deadline(self.check_timeout, files.count_servers())).await?;
        }
        self.start().await?;
        files.settle();
        Ok(())
    }

    /// Who judges files. `None` in files mode: the HAProxy is elsewhere and may be another version, so whoever runs it judges.
    pub fn checker(&self, files: &ConfigFiles) -> Option<Checker> {
        (self.mode != ProcessMode::Files).then(|| Checker {
            program: self.launch.program.clone(),
            command: self.commands.check.clone(),
            candidate: files.candidate(),
            timeout: self.check_timeout,
            may_lack_program: self.mode == ProcessMode::Commands,
        })
    }

    /// Has HAProxy load the live file: a reload where it runs, a start where it does not. Gives what it said.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn load(&mut self) -> Result<String, ConnectionError> {
        if self.mode == ProcessMode::Files {
            return Ok(String::new());
        }
        if self.mode == ProcessMode::Commands {
            return self.reload_by_command().await;
        }
        let running = self.find_master().await?;
        let hung = running.as_ref().and_then(|r| r.procs.current_worker()).filter(|_| self.silent);
        let dead = if running.is_some() && !self.silent { self.dead_servers().await } else { Vec::new() };
        let outcome = match running {
            Some(_) => self.master.reload().await?,
            None => self.start().await?,
        };
        self.runtime.reopen();
        match outcome {
            ReloadOutcome::Loaded { log, .. } => {
                if let Some(worker) = hung {
                    self.end_if_hung(worker).await;
                }
                self.mark_dead(&dead).await;
                Ok(log)
            }
            ReloadOutcome::Failed { log } => Err(ConnectionError::Refused(log)),
        }
    }

    async fn start(&mut self) -> Result<ReloadOutcome, ConnectionError> {
        if self.mode == ProcessMode::External {
            // Whoever runs it starts it as soon as there is a file.
            let running = process::await_master(&self.master, START_PATIENCE).await?;
            let worker = running.procs.current_worker().unwrap_or_default();
            return Ok(ReloadOutcome::Loaded { worker, log: String::new() });
        }
        let running = self.launch.spawn().await?;
        info!(master = running.master, "HAProxy started.");
        (self.master_pid, self.gone) = (Some(running.master), false);
        self.child = running.child;
        Ok(ReloadOutcome::Loaded { worker: running.procs.current_worker().unwrap_or_default(), log: String::new() })
    }

    fn reap(&mut self) {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            warn!(%status, "HAProxy has ended.");
            self.child = None;
        }
    }
}
