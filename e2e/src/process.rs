//! A child process with its log in a file.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Context, Lab, LabError, Result, wait};

/// A child of a run. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `program`; its output goes to `<name>.log` in the run's directory. Variables of the agents that the
    /// person who runs the tests may have set are not passed on.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn spawn<A: AsRef<OsStr>>(
        lab: &Lab,
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let mut environment: Vec<_> = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        environment.extend(lab.environment().map(|(key, value)| (key.to_owned(), value.to_owned())));
        let log = lab.dir().join(format!("{name}.log"));
        let child = start(program, &args, &environment, &log)?;
        Ok(Self { name: name.to_owned(), program: program.to_owned(), args, environment, log, child })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal).during(format!("sending {signal} to {}", self.name))
    }

    /// Ends it at once, without a chance to tidy up.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it runs longer than `within`.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait::until(&what, within, async || self.child.try_wait().ok().flatten()).await
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// When it does not.
    pub async fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.ended(within).await
    }

    /// Starts it again as it was; the log goes on. One that still runs is killed.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.child = start(&self.program, &self.args, &self.environment, &self.log)?;
        Ok(())
    }

    /// From its next start on it is in this control group, from its first byte on.
    pub fn within(&mut self, group: &Path) {
        let enter = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
        let own = [OsString::from("-c"), enter.into(), group.into(), self.program.clone().into()];
        self.args.splice(0..0, own);
        self.program = PathBuf::from("/bin/sh");
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_memory(&self) -> Result<u64> {
        resident_memory(self.pid())
    }

    /// The processor time that it has taken so far, to 10 ms.
    ///
    /// # Errors
    /// When it has ended.
    ///
    /// Source: proc(5), `utime` and `stime` in stat, in clock ticks, of which Linux shows 100 a second everywhere.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        let stat = stat.during(format!("reading the processor time of {}", self.name))?;
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The resident memory of any process, in bytes.
///
/// # Errors
/// When it has ended.
///
/// Source: proc(5), `VmRSS` in status, in kB.
pub fn resident_memory(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).during(format!("reading the status of {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .during(format!("process {pid} has no resident memory"))?;
    Ok(kilobytes * 1024)
}

fn start(program: &Path, args: &[OsString], environment: &[(String, String)], log: &Path) -> Result<Child> {
    let output = File::options().create(true).append(true).open(log).during(format!("opening {}", log.display()))?;
    let copy = output.try_clone().during(format!("opening {}", log.display()))?;
    let mut command = Command::new(program);
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if ["REGISTER_", "DISCOVER_", "NERVE_", "SYNAPSE_", "ETCD_", "HOST_IP", "NODE_NAME"]
            .iter()
            .any(|p| name.starts_with(p))
        {
            command.env_remove(&key);
        }
    }
    command.args(args).envs(environment.iter().map(|(k, v)| (k, v))).stdin(Stdio::null()).stdout(output).stderr(copy);
    command.spawn().during(format!("running {}", program.display()))
}

/// The program next to the one that runs: REGISTER_BIN, DISCOVER_BIN or WHOAMI_BIN, else what the same profile was built to.
///
/// # Errors
/// When it was not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(format!("{}_BIN", name.to_uppercase())) {
        return Ok(path.into());
    }
    let own = std::env::current_exe().during("finding our own program")?;
    let mut dir = own.parent().unwrap_or(Path::new("."));
    if dir.ends_with("deps") {
        dir = dir.parent().unwrap_or(dir); // a test
    }
    let path = dir.join(name);
    if path.exists() {
        return Ok(path);
    }
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => String::new(),
        Some(profile) => format!(" --profile {profile}"),
    };
    Err(LabError::new(format!(
        "{} is missing: run `cargo build{profile} -p register -p discover -p whoami`, or set {}_BIN",
        path.display(),
        name.to_uppercase()
    )))
}
