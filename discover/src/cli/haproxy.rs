//! The generator of haproxy.cfg as the flags, or Synapse's config, describe it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::admin::Listen;
use agent::clock;
use agent::files::beside;
use model::Port;
use tracing::warn;

use super::Failure;
use super::args::RunArgs;
use crate::edge::EdgeSettings;
use crate::generators::haproxy::Haproxy;
use crate::generators::haproxy::file::settings::HaproxySettings;
use crate::generators::haproxy::file::synapse::SynapseComposer;
use crate::generators::haproxy::file::synapse::state::State;
use crate::generators::haproxy::turn::connection::{Connection, ProcessMode};
use crate::generators::haproxy::turn::files::ConfigFiles;
use crate::generators::haproxy::turn::metrics::HaproxyMetrics;
use crate::generators::haproxy::turn::process::Commands;
use crate::haproxy::process::pace::ReloadPace;
use crate::synapse::Config;
use crate::synapse::types::Haproxy as Top;

/// HAProxy as the flags want it.
///
/// # Errors
/// [`Failure::Usage`] naming the flag.
pub(super) fn of_flags(
    args: &RunArgs,
    edge: Option<EdgeSettings>,
    metrics: HaproxyMetrics,
) -> Result<Haproxy, Failure> {
    let (launch, socket, mode) = (args.process.launch(), args.process.socket(), args.process.mode());
    if edge.is_some() && mode == ProcessMode::Files {
        let why = "--edge changes its rules at run time, over HAProxy's socket, which --haproxy files does not have: \
                   share the directory of the sockets with HAProxy, and use --haproxy external";
        return Err(Failure::Usage(why.into()));
    }
    let admin_port = match args.admin {
        Listen::Off => None,
        Listen::At(address) => Port::new(address.port()),
    };
    let reserved = admin_port.into_iter().chain(edge.iter().flat_map(EdgeSettings::ports));
    let settings = args.haproxy.settings(&launch.config, &socket, reserved)?;
    let settings = HaproxySettings { edge: edge.map(Arc::new), ..settings };
    let connection = Connection::new(mode, launch, socket).with_check_timeout(args.process.check_timeout);
    let pace = ReloadPace::new(args.pace.reload_interval, args.pace.reload_jitter);
    let pace = pace.with_most_old(args.pace.max_old_workers);
    Haproxy::new(settings, connection, pace, metrics).map_err(|e| Failure::usage(&e))
}

/// HAProxy as a config wants it, with haproxy.cfg at `path`.
pub(super) fn of_config(
    config: &Config,
    path: PathBuf,
    edge: Option<Arc<EdgeSettings>>,
    args: &RunArgs,
    metrics: HaproxyMetrics,
) -> Option<Haproxy> {
    let top = config.haproxy.as_ref()?;
    let composer = SynapseComposer::new(config, remembered(top))?;
    for warning in composer.warnings() {
        warn!(%warning, "Config.");
    }
    let commands = Commands {
        check: top.check_command.clone().filter(|_| top.do_checks),
        reload: top.reload_command.clone().filter(|_| top.do_reloads),
        sockets: if top.do_socket { top.socket_file_path.clone() } else { Vec::new() },
    };
    let connection = Connection::by_commands(commands, args.process.haproxy_bin.clone(), path.clone());
    let connection = connection.with_check_timeout(args.process.check_timeout);
    let candidate = top.candidate_config_file_path.clone().unwrap_or_else(|| beside(&path, ".tmp"));
    let files = ConfigFiles::new(path).with_candidate(candidate);
    let pace = ReloadPace::new(Duration::from_secs(top.restart_interval), top.restart_jitter);
    Some(Haproxy::of_synapse(composer, edge, files, connection, pace, metrics))
}

/// Synapse's state file, if there is to be one.
fn remembered(top: &Top) -> Option<State> {
    let path = top.state_file_path.clone()?;
    let text = std::fs::read_to_string(&path).unwrap_or_default(); // none yet: nothing is remembered
    Some(State::parse(&text, Some(path), top.state_file_ttl, clock::now().as_secs()))
}
