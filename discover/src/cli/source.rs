//! Flags that say where backends come from: etcd, or the local Docker.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::client::{Client, DockerWatcher, on_this_host};
use agent::hostip;
use clap::Args;
use containers::docker::{Docker, Endpoint, Options, own_ids};
use containers::readiness::ReadyMode;
use model::desired::{Filter, HealthPolicy, NetworkChoice, ServiceFrom, Settings};
use model::{Prefix, ServiceName};
use registry::store::etcd::{EtcdArgs, EtcdStore};
use registry::{Owned, Owners, RegistryWatcher};

use super::Failure;
use crate::reconcile::Source;
use crate::synapse::Config;
use crate::watchers::{BoxWatcher, Context, configured};

/// Where backends come from.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    #[command(flatten)]
    etcd: EtcdArgs,
    #[command(flatten)]
    docker: DockerArgs,
    /// Which nodes may register a service (`*` stands for any characters): others, and keys without a node, are left out; may be
    /// repeated, in the variable separated by semicolons
    #[arg(
        long = "owners",
        env = "DISCOVER_OWNERS",
        value_name = "SERVICE=NODES",
        value_delimiter = ';',
        help_heading = "Access"
    )]
    owners: Vec<Owned>,
}

/// A source, not started.
pub(super) struct Unstarted {
    pub(super) name: Arc<str>,
    /// The one service that it is about, if it is.
    pub(super) answers_for: Option<ServiceName>,
    pub(super) watcher: BoxWatcher,
}

/// Flags of the single-host mode.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Single host, without etcd")]
struct DockerArgs {
    /// Watch the Docker of this host instead of etcd
    #[arg(long, env = "DISCOVER_DOCKER")]
    docker: bool,
    /// Where ports published on every address are reached [default: 127.0.0.1]
    #[arg(long, env = "HOST_IP", value_name = "ADDRESS")]
    host_ip: Option<String>,
    /// Docker's API [default: /var/run/docker.sock, else /tmp/docker.sock]
    #[arg(long, env = "DOCKER_HOST", value_name = "URL")]
    docker_host: Option<String>,
    /// Take containers at their own addresses, unpublished ports included
    #[arg(long, env = "DISCOVER_INTERNAL")]
    internal: bool,
    /// The network whose address counts as a container's own
    #[arg(long, env = "DISCOVER_NETWORK", value_name = "NETWORK")]
    network: Option<String>,
    /// Only containers that a label or variable names
    #[arg(long, env = "DISCOVER_EXPLICIT")]
    explicit: bool,
    /// Where a service's name comes from: image, compose, compose-project, swarm, label:KEY or template:TEXT
    #[arg(long, env = "DISCOVER_SERVICE_FROM", value_name = "SOURCE", default_value = "image")]
    service_from: ServiceFrom,
    /// Only these containers: label=KEY[=VALUE], name=PATTERN or network=NAME; may be repeated
    #[arg(long, env = "DISCOVER_FILTER", value_name = "FILTER", value_delimiter = ',')]
    filter: Vec<Filter>,
    /// What becomes of a container whose HEALTHCHECK has not passed: hide, down or ignore
    #[arg(long, env = "DISCOVER_HEALTH", value_name = "POLICY", default_value = "hide")]
    health: HealthPolicy,
    /// When a container without any check is routed: tcp (once its port accepts) or none (at once)
    #[arg(long, env = "DISCOVER_READY", value_name = "HOW", default_value = "tcp")]
    ready: ReadyMode,
}

impl SourceArgs {
    /// The source's name in status and metrics.
    pub fn name(&self) -> &'static str {
        if self.is_docker() { "docker" } else { "etcd" }
    }

    /// Where backends are read, for a person.
    pub(super) fn places(&self) -> BTreeSet<String> {
        if self.is_docker() {
            return self.docker.endpoint().iter().map(ToString::to_string).collect();
        }
        let endpoints = self.etcd.config().map(|config| config.endpoints).unwrap_or_default();
        endpoints.iter().map(|endpoint| format!("{endpoint}{}", self.etcd.etcd_prefix)).collect()
    }

    /// Whether backends are this host's containers.
    pub fn is_docker(&self) -> bool {
        self.docker.docker
    }

    /// The source that these flags describe, or with a config those of its services; and the watchers below them.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the flag, or the config's keys.
    pub(super) fn sources(&self, config: Option<&Config>) -> Result<(Vec<Unstarted>, Vec<Source>), Failure> {
        let Some(config) = config else {
            let one = Unstarted { name: self.name().into(), answers_for: None, watcher: self.watcher()? };
            return Ok((vec![one], Vec::new()));
        };
        let watchers = configured(config).map_err(|e| Failure::usage(&e))?;
        let context = Context::new(self.etcd.config().map_err(|e| Failure::usage(&e))?);
        let mut context = context.with_owners(config.owners.clone());
        let unstarted = watchers.iter().map(|w| Unstarted {
            name: w.source_name(),
            answers_for: w.answers_for(),
            watcher: w.watcher(&mut context),
        });
        Ok((unstarted.collect(), context.shown()))
    }

    /// The watcher that these flags describe; it has not connected yet.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the flag.
    fn watcher(&self) -> Result<BoxWatcher, Failure> {
        if self.is_docker() {
            self.no_owners("--docker, whose containers have no keys")?;
            return Ok(Box::new(self.docker.watcher()?));
        }
        let watcher = RegistryWatcher::new(self.store()?, self.etcd.etcd_prefix.clone());
        Ok(Box::new(watcher.with_owners(self.owners())))
    }

    /// The same source for a command that reads it itself.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the flag.
    pub fn client(&self) -> Result<Client, Failure> {
        if self.is_docker() {
            return Ok(Client::docker(self.docker.watcher()?));
        }
        Ok(Client::registry(self.store()?, self.etcd.etcd_prefix.clone()).with_owners(self.owners()))
    }

    /// Refuses a table of owners.
    ///
    /// # Errors
    /// [`Failure::Usage`] where one is given, which would not count with `what`.
    pub(super) fn no_owners(&self, what: &str) -> Result<(), Failure> {
        match self.owners.is_empty() {
            true => Ok(()),
            false => Err(Failure::Usage(format!("--owners (DISCOVER_OWNERS) does not go with {what}"))),
        }
    }

    /// Which nodes may register which services.
    pub fn owners(&self) -> Owners {
        Owners::new(self.owners.iter().cloned())
    }

    /// The Docker daemon of this host, as the flags and the environment say.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the variable.
    pub fn docker_endpoint(&self) -> Result<Endpoint, Failure> {
        self.docker.endpoint()
    }

    /// The registry itself, and where backends lie in it.
    ///
    /// # Errors
    /// [`Failure::Usage`] naming the flag; without a registry there is nothing to ask for `what`.
    pub(super) fn registry(&self, what: &str) -> Result<(EtcdStore, Prefix), Failure> {
        if self.is_docker() {
            return Err(Failure::Usage(format!("{what} reads the registry, and --docker has none")));
        }
        Ok((self.store()?, self.etcd.etcd_prefix.clone()))
    }

    fn store(&self) -> Result<EtcdStore, Failure> {
        Ok(EtcdStore::new(self.etcd.config().map_err(|e| Failure::usage(&e))?))
    }
}

impl DockerArgs {
    fn endpoint(&self) -> Result<Endpoint, Failure> {
        let endpoint = match &self.docker_host {
            Some(host) => Endpoint::parse(host, std::env::var_os("DOCKER_CERT_PATH").map(PathBuf::from)),
            None => Endpoint::from_env(|name| std::env::var(name).ok()),
        };
        endpoint.map_err(|e| Failure::usage(&e))
    }

    fn watcher(&self) -> Result<DockerWatcher, Failure> {
        let docker = Docker::new(&self.endpoint()?).map_err(|e| Failure::usage(&e))?;
        let given = |ip: &String| hostip::validate(ip, true).map_err(|e| Failure::usage(&e));
        let host_ip: Option<IpAddr> = self.host_ip.as_ref().map(given).transpose()?;
        let settings = on_this_host(Settings {
            host_ip,
            internal: self.internal,
            networks: NetworkChoice { name: self.network.clone(), own_ids: own_ids() },
            explicit: self.explicit,
            service_from: self.service_from.clone(),
            health: self.health,
            filters: self.filter.clone(),
            ..Settings::default()
        });
        Ok(DockerWatcher::new(docker, Options::default(), settings, self.ready))
    }
}
