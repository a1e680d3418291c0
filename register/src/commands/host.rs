//! Which host this is: its address, its name in the registry, and what tells it from another of the same name.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use agent::backoff::Backoff;
use agent::hostip;
use agent::telemetry::Chain;
use containers::docker::{Docker, DockerError, Info};
use model::NodeName;
use registry::store::etcd::EtcdConfig;
use tokio::time::sleep;
use tracing::warn;

use super::Failure;
use crate::address::{HostAddress, Look};
use crate::cli::RunArgs;

/// HOST_IP as given, else worked out.
pub async fn host_ip(args: &RunArgs, etcd: &EtcdConfig) -> Result<HostAddress, Failure> {
    let allow = args.docker.allow_loopback;
    if let Some(text) = &args.docker.host_ip {
        let given = hostip::validate(text, allow).map_err(Failure::usage)?;
        return Ok(HostAddress::fixed(Some(given)));
    }
    if !hostip::in_host_network() {
        return match args.docker.internal {
            true => Ok(HostAddress::fixed(None)),
            false => Err(Failure::usage(hostip::HostIpError::NotHostNetwork)),
        };
    }
    let towards = resolve(etcd).await;
    match hostip::host_ip(None, towards, allow) {
        Ok(address) => Ok(HostAddress::found(Some(address))),
        Err(_) if args.docker.internal => Ok(HostAddress::found(None)),
        Err(e) => Err(Failure::usage(e)),
    }
}

/// The address of one of etcd's servers; asks until there is an answer.
async fn resolve(etcd: &EtcdConfig) -> SocketAddr {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        if let Some(address) = look_up(etcd, backoff.failures() == 0).await {
            return address;
        }
        sleep(backoff.next_delay()).await;
    }
}

/// The address of the first of etcd's servers that has one; `aloud`: what fails is logged.
async fn look_up(etcd: &EtcdConfig, aloud: bool) -> Option<SocketAddr> {
    for endpoint in &etcd.endpoints {
        match tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await.map(|mut found| found.next()) {
            Ok(Some(address)) => return Some(address),
            Ok(None) => {}
            Err(error) if aloud => {
                warn!(host = %endpoint.host, %error, "Looking up etcd's address (to work out HOST_IP) failed; trying again.");
            }
            Err(_) => {}
        }
    }
    None
}

/// This machine, in its own network: the address is where its way to etcd begins.
pub struct Machine {
    pub etcd: EtcdConfig,
    /// Loopback addresses will do.
    pub allow_loopback: bool,
}

impl Look for Machine {
    async fn work_out(&self) -> Option<IpAddr> {
        let found = hostip::source_address(look_up(&self.etcd, false).await?).ok()?;
        hostip::check(found, self.allow_loopback).ok()
    }

    fn has(&self, address: IpAddr) -> bool {
        hostip::is_own(address)
    }
}

/// What Docker says of itself. Nothing of it is needed if the node's name is `given`: then a proxy of Docker's socket may refuse it.
pub async fn about(docker: &Docker, given: bool) -> Result<Info, DockerError> {
    match docker.info().await {
        Err(DockerError::Refused { .. }) if given => Ok(Info::default()),
        answer => answer,
    }
}

/// The same; asks until there is an answer, and says to `failed` why there is none yet.
pub async fn ask(docker: &Docker, given: bool, failed: impl Fn(String)) -> Info {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    loop {
        match about(docker, given).await {
            Ok(about) => return about,
            Err(e) => {
                failed(format!("Docker does not answer: {}", Chain(&e)));
                if backoff.failures() == 0 && given {
                    warn!(error = %Chain(&e), "Docker does not answer; trying again");
                } else if backoff.failures() == 0 {
                    warn!(error = %Chain(&e), "Docker's /info, which names this host, cannot be read; trying again. NODE_NAME can name the host instead.");
                }
                sleep(backoff.next_delay()).await;
            }
        }
    }
}

/// What tells this host from another one of the same name.
pub fn machine_id(about: &Info) -> Result<String, Failure> {
    if !about.id.is_empty() {
        return Ok(about.id.clone());
    }
    let unseen = "Docker has no engine ID, and the host's /etc/machine-id cannot be seen from a container; \
                  mount it (-v /etc/machine-id:/etc/machine-id:ro)";
    // Without /info the kernel's id of this boot tells hosts apart; after a reboot the former lease has to run out.
    let boot = Path::new("/proc/sys/kernel/random/boot_id");
    let paths = [Path::new("/etc/machine-id"), boot];
    let seen = if *about == Info::default() { &paths[..] } else { &paths[..1] };
    let read = |path: &&Path| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    seen.iter().filter_map(read).find(|text| !text.is_empty()).ok_or_else(|| Failure::usage(unseen))
}

/// The same for an agent that watches no Docker.
pub fn machine_id_without_docker() -> String {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    read("/etc/machine-id").filter(|id| !id.is_empty()).unwrap_or_else(host_name)
}

/// The node's name of an agent that watches no Docker: as given, else the config's instance_id, which tells hosts apart,
/// else the system's name for this host.
pub fn node_without_docker(given: Option<&NodeName>, instance: &str) -> Result<NodeName, Failure> {
    let system = host_name();
    let found = given.cloned().or_else(|| instance.parse().ok()).or_else(|| system.parse().ok());
    found.ok_or_else(|| Failure::usage("neither instance_id nor the host's name can be a node's name, set NODE_NAME"))
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use testing::docker_api::DockerApi;

    use super::*;

    #[tokio::test]
    async fn a_proxy_that_keeps_info_back_stops_nobody_whose_name_is_given() {
        let api = DockerApi::start();
        api.forbid(Some("/info"));
        assert_eq!(ask(&api.client(), true, drop).await, Info::default());
        assert_ne!(machine_id(&Info::default()).unwrap(), "", "a container without /etc/machine-id has its boot's id");
        let refused = about(&api.client(), false).await.unwrap_err().to_string();
        let told = "Docker answered 403 to GET /info: not allowed \
                    (the proxy or plugin that guards Docker's socket must allow GET /info)";
        assert_eq!(refused, told);
        let waiting = tokio::time::timeout(Duration::from_millis(300), ask(&api.client(), false, drop)).await;
        waiting.expect_err("without a name it is asked for until it answers");
        api.forbid(None);
        assert_ne!(ask(&api.client(), false, drop).await.name, "");
    }
}
