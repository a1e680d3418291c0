//! One host: an address, and the programs that run there.

use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use testing::etcd::Site;

use super::run;
use crate::process::Process;
use crate::{Lab, Result, wait};

/// For a shell to make a directory's mount.
const START: Duration = Duration::from_secs(20);

/// A process that holds a network and a mount namespace. Both end with the last process that is in them.
#[derive(Debug)]
pub(super) struct Holder(Process);

impl Holder {
    /// Namespaces of its own, with an empty /run: what a daemon of Docker's leaves there goes with them.
    pub(super) async fn start(lab: &Lab, name: &str) -> Result<Self> {
        let script = "mount -t tmpfs tmpfs /run && echo holding && exec sleep infinity";
        let args = ["--net", "--mount", "--propagation", "private", "sh", "-c", script];
        let process = Process::spawn(lab, &format!("{name}-host"), Path::new("unshare"), args, &[])?;
        let what = format!("the namespaces of {name}");
        wait::until_true(&what, START, async || process.log().contains("holding")).await?;
        Ok(Self(process))
    }

    pub(super) fn pid(&self) -> i32 {
        self.0.pid()
    }

    /// What a command line begins with that is to run in here. nsenter becomes the program: it keeps its process id.
    fn enter(&self) -> [String; 5] {
        ["nsenter", "--target", &self.pid().to_string(), "--net", "--mount"].map(str::to_owned)
    }

    /// Runs a line of words in here.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        let [program, args @ ..] = self.enter();
        run(&program, args.iter().map(String::as_str).chain(line.split_whitespace()))
    }
}

#[derive(Debug)]
struct Inner {
    name: String,
    address: Ipv4Addr,
    dir: PathBuf,
    mark: [String; 2],
    holder: Holder,
}

/// A host. Its namespaces last as long as one copy of this, or one process in them.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

impl Host {
    pub(super) fn new(lab: &Lab, holder: Holder, name: &str, address: Ipv4Addr) -> Self {
        let mark = lab.environment().map(|(key, value)| format!("{key}={value}"));
        Self(Arc::new(Inner { name: name.to_owned(), address, dir: lab.dir().to_owned(), mark, holder }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its address in the network of the run.
    pub fn address(&self) -> Ipv4Addr {
        self.0.address
    }

    /// Runs a line of words on it, to its end.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, line: &str) -> Result<String> {
        self.0.holder.run(line)
    }

    /// The program and the arguments that run `program` on this host.
    pub fn command<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> (PathBuf, Vec<OsString>) {
        let [first, rest @ ..] = self.0.holder.enter();
        let program = program.as_os_str().to_owned();
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        (first.into(), rest.into_iter().map(OsString::from).chain([program]).chain(args).collect())
    }

    /// Starts a program on it, its log under `name`.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn spawn<A: AsRef<OsStr>>(
        &self,
        lab: &Lab,
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        environment: &[(&str, &str)],
    ) -> Result<Process> {
        let (program, args) = self.command(program, args);
        Process::spawn(lab, name, &program, args, environment)
    }

    /// This host as a place for a node of etcd's.
    pub fn site(&self) -> Site {
        let enter = self.0.holder.enter().into_iter().chain(["env".to_owned()]).chain(self.0.mark.clone());
        Site { address: self.address().into(), enter: enter.collect(), directory: self.0.dir.clone() }
    }

    /// Takes another address instead of its own, as a host does whose lease from DHCP ran out.
    ///
    /// # Errors
    /// When it cannot be set.
    pub fn readdress(&self, address: Ipv4Addr) -> Result<()> {
        // The first one of a subnet takes the others with it when it goes.
        self.run(&format!("ip addr del {}/24 dev eth0", self.address()))?;
        self.run(&format!("ip addr add {address}/24 dev eth0")).map(drop)
    }
}

/// What a command line begins with for register to see a host's own network around it, and to work the address out by itself: PID 1 is in
/// that network, and /sys shows its interfaces.
pub fn on_a_machine() -> Vec<String> {
    let with_sys = "mount -t sysfs sysfs /sys && exec \"$0\" \"$@\"";
    let own = ["env", "--unset=HOST_IP", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    own.into_iter().chain(["sh", "-c", with_sys]).map(str::to_owned).collect()
}
