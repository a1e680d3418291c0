//! What the flags, or with `--config` Synapse's config, say of an agent.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::files::beside;
use agent::telemetry::{Chain, Masked};
use nix::unistd::gethostname;
use tracing::{info, warn};

use super::Failure;
use super::advice;
use super::args::RunArgs;
use super::haproxy;
use super::source::Unstarted;
use crate::addresses::AddressPolicy;
use crate::agent::TakesTurns;
use crate::certificates::CertificateKeeper;
use crate::edge::EdgeSettings;
use crate::edge::settings::Ownership;
use crate::generators::file_output::FileOutput;
use crate::generators::haproxy::Haproxy;
use crate::generators::haproxy::turn::metrics::HaproxyMetrics;
use crate::generators::nginx::Nginx;
use crate::generators::prometheus::Prometheus;
use crate::generators::template::Template;
use crate::haproxy::api::socket::{Deadlines, Endpoint, RuntimeSocket};
use crate::metrics::Metrics;
use crate::reconcile::{Policies, Source};
use crate::synapse::load::load_judged;
use crate::synapse::{Config, LoadedConfig};
use crate::watchers::{configured, judged};

/// The flags, and the config that comes before them.
#[derive(Clone, Copy)]
pub(super) struct Description<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) config: Option<&'a Config>,
}

/// Keeps the edge's certificates, over HAProxy's socket if it is to be used.
pub(super) type Certificates = (CertificateKeeper, Option<RuntimeSocket>);

/// Reads the config and everything that follows from it, or says all that is wrong.
pub(super) fn read(path: &Path) -> Result<LoadedConfig, String> {
    let lookup = |name: &str| std::env::var(name).ok();
    let watchers = |config: &Config| judged(config).map_err(|wrong| wrong.0);
    let loaded = load_judged(path, &lookup, watchers).map_err(|e| format!("the config is wrong\n{e}"))?;
    for note in loaded.warnings.iter().chain(&loaded.notices) {
        warn!(%note, "Config.");
    }
    Ok(loaded)
}

/// The config that the flags name, if they name one.
///
/// # Errors
/// [`Failure::Usage`] with all that is wrong with it.
pub(super) fn named(args: &RunArgs) -> Result<Option<LoadedConfig>, Failure> {
    let Some(path) = &args.config else { return Ok(None) };
    args.source.no_owners("--config, which has a key owners")?;
    read(path).map(Some).map_err(Failure::Usage)
}

impl Description<'_> {
    /// Whether an agent can be made of the flags and the config, without asking the world: what `run` begins with, and what `check` is for.
    ///
    /// # Errors
    /// [`Failure::Usage`] with everything that is wrong.
    pub(super) fn judge(&self) -> Result<(), Failure> {
        let tried = [
            self.sources().map(drop),
            self.haproxy(HaproxyMetrics::default()).map(drop),
            self.others().map(drop),
            self.args.access.access().map(drop).map_err(|e| Failure::usage(&e)),
        ];
        let mut faults: Vec<String> =
            tried.into_iter().filter_map(|t| t.err().map(|e| Chain(&e).to_string())).collect();
        faults.dedup(); // the edge's flags are read more than once
        if faults.is_empty() { Ok(()) } else { Err(Failure::Usage(faults.join("\n"))) }
    }

    /// Says who begins, what it reads and what it will write.
    pub(super) fn introduce(&self) {
        let shown = |path: Option<PathBuf>| path.map(|path| path.display().to_string());
        let list = |all: BTreeSet<String>| (!all.is_empty()).then(|| Vec::from_iter(all).join(", "));
        info!(
            version = crate::VERSION,
            host = gethostname().ok().and_then(|name| name.into_string().ok()),
            config = shown(self.args.config.clone()),
            sources = list(self.source_places()),
            haproxy_cfg = shown(self.config_file()),
            state_file = shown(self.state_file()),
            writes = list(self.other_files()),
            "Starting."
        );
    }

    /// Where the sources read, each place once.
    fn source_places(&self) -> BTreeSet<String> {
        let Some(config) = self.config else { return self.args.source.places() };
        let servers = configured(config).into_iter().flatten().flat_map(|watched| watched.servers());
        servers.map(|server| Masked(&server).to_string()).collect()
    }

    /// What the generators beside HAProxy write.
    fn other_files(&self) -> BTreeSet<String> {
        let Some(config) = self.config else { return BTreeSet::new() };
        let files =
            config.file_output.iter().chain(config.nginx.iter().filter_map(|nginx| nginx.config_file_path.as_ref()));
        let files = files.chain(config.prometheus.iter().map(|targets| &targets.file));
        let files = files.chain(config.templates.iter().map(|(_, template)| &template.destination));
        files.map(|file| file.display().to_string()).collect()
    }

    /// What HAProxy takes and will not do well with, for a person.
    pub(super) fn advice(&self, header: &str) -> Vec<String> {
        let sockets: Vec<PathBuf> = match self.config.map(|config| config.haproxy.as_deref()) {
            None => vec![self.args.process.socket()],
            Some(top) => top.filter(|top| top.do_socket).map(|top| top.socket_file_path.clone()).unwrap_or_default(),
        };
        sockets
            .iter()
            .filter_map(|socket| advice::of_socket(header, socket, self.config.is_none()))
            .chain(advice::of_descriptors(header))
            .collect()
    }

    /// haproxy.cfg, where it is discover's to write.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        match self.config {
            None => Some(self.args.process.launch().config),
            Some(config) => config.haproxy.as_ref().filter(|top| top.do_writes)?.config_file_path.clone(),
        }
    }

    /// The file of what must outlive a restart. Docker needs none: at every start it says what there is.
    pub(super) fn state_file(&self) -> Option<PathBuf> {
        match self.config {
            None => (!self.args.source.is_docker()).then(|| self.args.process.dir.join("state.json")),
            // Synapse's own state file knows servers only.
            Some(config) => Some(beside(config.haproxy.as_ref()?.config_file_path.as_deref()?, ".memory")),
        }
    }

    /// The file of what has changed, if there is a directory for it.
    pub(super) fn history_file(&self) -> Option<PathBuf> {
        match self.config {
            None => Some(self.args.process.dir.join("history.jsonl")),
            Some(config) => Some(beside(config.haproxy.as_ref()?.config_file_path.as_deref()?, ".history")),
        }
    }

    /// Which addresses backends may have.
    pub(super) fn addresses(&self) -> AddressPolicy {
        match self.config {
            None => self.args.addresses.policy(self.args.source.is_docker()),
            Some(config) => self.args.addresses.policy_with(&config.backend_networks),
        }
    }

    /// The edge; flags come before the config's section.
    pub(super) fn edge(&self) -> Result<Option<Arc<EdgeSettings>>, Failure> {
        let mut edge = self.args.edge.settings()?.or_else(|| self.config?.edge.clone());
        // Whoever starts containers on this host owns all of them: who claims a place is meant to serve it.
        if let Some(edge) = edge.as_mut().filter(|edge| edge.ownership.is_none() && self.args.source.is_docker()) {
            Arc::make_mut(edge).ownership = Some(Ownership::Shared);
        }
        Ok(edge)
    }

    /// The sources, and the watchers below them.
    pub(super) fn sources(&self) -> Result<(Vec<Unstarted>, Vec<Source>), Failure> {
        self.args.source.sources(self.config)
    }

    /// What the config makes of discovered pools.
    pub(super) fn policies(&self) -> Option<Policies> {
        self.config.map(Policies::new)
    }

    /// The keeper of the edge's certificates, with our copies of them written.
    pub(super) fn certificates(&self, metrics: &Metrics) -> Result<Option<Certificates>, Failure> {
        let (Some(path), Some(edge)) = (self.config_file(), self.edge()?) else { return Ok(None) };
        let edge = Arc::unwrap_or_clone(edge).with_copies_beside(&path);
        let Some(mut keeper) = CertificateKeeper::of(&edge, metrics).map_err(|e| Failure::usage(&e))? else {
            return Ok(None);
        };
        keeper.refresh().map_err(Failure::runtime)?;
        Ok(Some((keeper, self.socket())))
    }

    /// HAProxy's runtime API, if it is to be used.
    fn socket(&self) -> Option<RuntimeSocket> {
        let at = |path: PathBuf| RuntimeSocket::new(Endpoint::Unix(path), Deadlines::default());
        match self.config {
            None => {
                let master = Endpoint::Unix(self.args.process.launch().master_socket);
                Some(at(self.args.process.socket()).with_master(master))
            }
            Some(config) => {
                let top = config.haproxy.as_ref().filter(|top| top.do_socket)?;
                top.socket_file_path.first().cloned().map(at)
            }
        }
    }

    /// HAProxy, not looked at yet; `None` where its file is not discover's to write.
    pub(super) fn haproxy(&self, metrics: HaproxyMetrics) -> Result<Option<Haproxy>, Failure> {
        let Some(path) = self.config_file() else { return Ok(None) };
        let edge = self.edge()?.map(|edge| Arc::unwrap_or_clone(edge).with_copies_beside(&path));
        let haproxy = match self.config {
            None => Some(haproxy::of_flags(self.args, edge, metrics)?),
            Some(config) => haproxy::of_config(config, path, edge.map(Arc::new), self.args, metrics),
        };
        Ok(haproxy.map(|haproxy| haproxy.with_addresses(self.addresses(), self.args.admin.address())))
    }

    /// The generators beside HAProxy.
    pub(super) fn others(&self) -> Result<Vec<Box<dyn TakesTurns>>, Failure> {
        let Some(config) = self.config else { return Ok(Vec::new()) };
        let mut made: Vec<Box<dyn TakesTurns>> = Vec::new();
        made.extend(Nginx::new(config).map(|g| Box::new(g) as Box<dyn TakesTurns>));
        made.extend(FileOutput::new(config).map(|g| Box::new(g) as Box<dyn TakesTurns>));
        made.extend(Prometheus::new(config).map(|g| Box::new(g) as Box<dyn TakesTurns>));
        let mut faults = Vec::new();
        for (name, settings) in &config.templates {
            match Template::new(name, settings) {
                Ok(template) => made.push(Box::new(template)),
                Err(e) => faults.push(format!("template.{name}: {}", Chain(&e))),
            }
        }
        if faults.is_empty() { Ok(made) } else { Err(Failure::Usage(faults.join("\n"))) }
    }
}
