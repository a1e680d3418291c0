//! Hosts: several machines on this one, each with an address, a daemon of Docker's if wanted, and links that break.
//!
//! | part | what it gives |
//! |---|---|
//! | [`network`] | the switch that all hosts hang on, and this process beside them, under an address of its own |
//! | [`host`] | one host, and programs on it |
//! | [`links`] | links that are cut, in one direction or both, or lose packets |
//! | [`dockerd`] | a daemon on a host |
//! | [`image`] | the service that its containers run, without a base image |
//! | [`fleet`] | all of them: etcd's hosts, backend hosts with register, client hosts with discover and HAProxy |
//!
//! A host is a process that holds a network namespace and a mount namespace. Both end with the last process in them, and
//! with them every interface, rule and mount; each process bears the run's mark. So a run that was killed leaves nothing
//! that [`crate::Lab`]'s sweep does not find.
//!
//! It takes root. `ip netns exec` is of no use here: it hides the control groups, without which dockerd does not start.

pub mod dockerd;
pub mod fleet;
pub mod host;
pub mod image;
pub mod links;
pub mod network;

use std::ffi::OsStr;
use std::process::Command;

pub use dockerd::Dockerd;
pub use fleet::Fleet;
pub use host::Host;
pub use links::Link;
pub use network::Network;

use crate::{Context, Lab, LabError, Result, in_lab};

/// Programs that hosts need, and Debian's packages that bring them.
const NEEDED: [(&str, &str); 4] =
    [("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2"), ("iptables", "iptables")];

/// Why there can be no hosts on this machine, if so.
pub fn missing() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("hosts are network namespaces, which take root".to_owned());
    }
    for (program, package) in NEEDED {
        if run(program, ["--version"]).or_else(|_| run(program, ["-V"])).is_err() {
            return Some(format!("there is no {program} (Debian's package {package})"));
        }
    }
    run("unshare", ["--net", "--mount", "true"]).err().map(|error| format!("no namespaces here: {error:?}"))
}

/// Runs one test with a network of its own, or says aloud that it is skipped and why.
///
/// # Errors
/// The test's.
pub fn in_network(test: impl AsyncFnOnce(&Lab, &mut Network) -> Result<()>) -> Result<()> {
    if let Some(why) = missing() {
        testing::skipped(why);
        return Ok(());
    }
    in_lab(async |lab| {
        let mut network = Network::new(lab).await?;
        test(lab, &mut network).await
    })
}

/// Runs a command to its end, and gives what it said.
fn run<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    let what = format!("running {command:?}");
    let output = command.output().during(what.clone())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(LabError::new(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Runs one line of words.
fn run_line(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    run(words.next().unwrap_or_default(), words)
}
