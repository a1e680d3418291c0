//! The command line of `discover supervise`, and what it comes to.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use super::error::SuperviseError;
use crate::haproxy::process::launch::{Launch, Output};

/// In the agent's environment: where the master CLI of the HAProxy that it is to adopt listens.
pub const MASTER_ENV: &str = "DISCOVER_HAPROXY_MASTER";
/// In the agent's environment: the config that this HAProxy reads.
pub const CONFIG_ENV: &str = "DISCOVER_HAPROXY_CONFIG";

/// Own HAProxy's master process: as PID 1 beside `discover run`, or alone for a config file that others write.
#[derive(Debug, Clone, clap::Args)]
pub struct SuperviseArgs {
    /// Watch this config instead of running `discover run`: check it and reload when it changes; a bad one is refused, and HAProxy goes on
    #[arg(long, value_name = "CFG")]
    pub file: Option<PathBuf>,
    /// The config that HAProxy reads, unless the command has -f; not with --file
    #[arg(long, value_name = "CFG", default_value = "/var/lib/discover/haproxy.cfg")]
    pub haproxy_config: PathBuf,
    /// Where HAProxy's master CLI listens, unless the command has -S
    #[arg(long, value_name = "SOCKET", default_value = "/run/discover/haproxy-master.sock")]
    pub master_socket: PathBuf,
    /// An argument for `discover run`; may be given several times
    #[arg(long = "run-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub run_args: Vec<OsString>,
    /// How long HAProxy's sessions may take to end when we are stopped
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub grace: Duration,
    /// With --file: least time between two reloads of HAProxy; what changes meanwhile is loaded together
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub reload_interval: Duration,
    /// With --file: how long a check of the config may take, and 1s more for each 1,000 servers
    #[arg(long, env = "DISCOVER_CHECK_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub check_timeout: Duration,
    /// HAProxy and its arguments; -W and -S are added where they are missing
    #[arg(last = true, value_name = "HAPROXY")]
    pub haproxy: Vec<OsString>,
}

/// What to supervise.
#[derive(Debug, Clone)]
pub struct Options {
    /// How HAProxy is started. With [`file`](Self::file), its config is our own copy of what was found to be good.
    pub launch: Launch,
    /// The config that others write.
    pub file: Option<PathBuf>,
    /// The agent's program and arguments; none with [`file`](Self::file).
    pub agent: Option<Vec<OsString>>,
    /// What HAProxy's sessions may take to end.
    pub grace: Duration,
    /// Least time between two reloads, with [`file`](Self::file).
    pub reload_interval: Duration,
    /// How long a check of a small config may take, with [`file`](Self::file).
    pub check_timeout: Duration,
}

impl Options {
    /// Reads the HAProxy command: `-f`, `-S` and `-W` are understood, what would take HAProxy out of our hands is refused.
    pub fn resolve(args: SuperviseArgs) -> Result<Self, SuperviseError> {
        let usage = |why: String| SuperviseError::Usage(why);
        let mut words = args.haproxy.into_iter();
        let program = PathBuf::from(words.next().unwrap_or_else(|| "haproxy".into()));
        let (mut configs, mut socket, mut rest) = (Vec::new(), None, Vec::new());
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| usage(format!("{} needs a value", word.to_string_lossy())));
            match word.to_str() {
                Some("-W" | "-db") => {}
                Some("-f") => configs.push(value()?),
                Some("-S") => socket = Some(socket_path(&value()?)),
                Some(taken @ ("-D" | "-Ws" | "-c" | "-sf" | "-st" | "-x" | "-v" | "-vv" | "-p")) => {
                    return Err(usage(format!(
                        "HAProxy's {taken} cannot be used here: supervise owns HAProxy's processes"
                    )));
                }
                _ => rest.push(word),
            }
        }
        let master_socket = socket.unwrap_or(args.master_socket);
        let config = match &args.file {
            // Beside the socket: a directory that is ours, private and not mounted.
            Some(_) => PathBuf::from(with_suffix(master_socket.as_os_str(), ".cfg")),
            None => configs.pop().map_or(args.haproxy_config, PathBuf::from),
        };
        let said = PathBuf::from(with_suffix(master_socket.as_os_str(), ".log"));
        let others = configs.into_iter().flat_map(|c| [OsString::from("-f"), c]);
        let launch = Launch {
            program,
            config,
            master_socket,
            args: rest.into_iter().chain(others).collect(),
            output: Output::Errors(said),
        };
        let agent = match &args.file {
            Some(_) if args.run_args.is_empty() => None,
            Some(_) => return Err(usage("--run-arg makes no sense with --file: no agent is run".into())),
            None => {
                let own = std::env::current_exe().map_err(|e| usage(format!("cannot find our own program: {e}")))?;
                Some([own.into_os_string(), "run".into()].into_iter().chain(args.run_args).collect())
            }
        };
        let (grace, reload_interval, check_timeout) = (args.grace, args.reload_interval, args.check_timeout);
        Ok(Self { launch, file: args.file, agent, grace, reload_interval, check_timeout })
    }

    /// Tells the agent which HAProxy to adopt.
    pub fn agent_environment(&self) -> [(&'static str, &OsStr); 2] {
        [(MASTER_ENV, self.launch.master_socket.as_os_str()), (CONFIG_ENV, self.launch.config.as_os_str())]
    }
}

/// `SOCKET[,mode,600…]`; further settings are ours.
fn socket_path(value: &OsStr) -> PathBuf {
    let text = value.to_string_lossy();
    let path = text.split(',').next().unwrap_or_default();
    PathBuf::from(path.strip_prefix("unix@").unwrap_or(path))
}

fn with_suffix(path: &OsStr, suffix: &str) -> OsString {
    let mut longer = path.to_owned();
    longer.push(suffix);
    longer
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: SuperviseArgs,
    }

    fn resolve(line: &str) -> Result<Options, SuperviseError> {
        let words = std::iter::once("supervise").chain(line.split_whitespace());
        Options::resolve(Cli::try_parse_from(words).unwrap().args)
    }

    #[test]
    fn without_arguments_the_images_paths_are_used() {
        let o = resolve("").unwrap();
        assert_eq!(o.launch.program, PathBuf::from("haproxy"));
        assert_eq!(o.launch.config, PathBuf::from("/var/lib/discover/haproxy.cfg"));
        assert_eq!(o.launch.master_socket, PathBuf::from("/run/discover/haproxy-master.sock"));
        assert_eq!(o.agent.unwrap()[1], "run");
    }

    #[test]
    fn the_haproxy_command_is_understood() {
        let o =
            resolve("--run-arg --docker -- /sbin/haproxy -W -f base.cfg -S /s.sock,mode,600 -n 99 -f a.cfg").unwrap();
        assert_eq!((o.launch.program, o.launch.config), ("/sbin/haproxy".into(), PathBuf::from("a.cfg")));
        assert_eq!(o.launch.master_socket, PathBuf::from("/s.sock"));
        assert_eq!(o.launch.args, ["-n", "99", "-f", "base.cfg"]);
        assert_eq!(o.agent.unwrap()[2], "--docker");
    }

    #[test]
    fn with_a_file_no_agent_runs_and_haproxy_reads_a_copy() {
        let o = resolve("--file /mnt/haproxy.cfg -- haproxy -S /run/s.sock").unwrap();
        assert!(o.agent.is_none());
        assert_eq!((o.file, o.launch.config), (Some("/mnt/haproxy.cfg".into()), PathBuf::from("/run/s.sock.cfg")));
        assert!(resolve("--file a --run-arg b").is_err());
    }

    #[test]
    fn what_would_take_haproxy_out_of_our_hands_is_refused() {
        for line in ["-- haproxy -D", "-- haproxy -f a -sf 1", "-- haproxy -f", "-- haproxy -c"] {
            assert!(matches!(resolve(line), Err(SuperviseError::Usage(_))), "{line}");
        }
    }
}
