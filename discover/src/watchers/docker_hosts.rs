//! `method: docker`: what the containers of an image publish, on any number of Docker hosts.
//!
//! Each host is a watcher of its own, by Docker's events: one that hangs keeps what it said, and the others go on. As in
//! Synapse there is no looking into the ports; a stop is known from its signal on, so its backend drains.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent::watch::{Inlet, Observation, Outlet, Watcher};
use containers::docker::{Containers, Endpoint, Event, EventKind};
use model::Transport;
use model::desired::{Container, ContainerId, Health, State};
use registry::Snapshot;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::daemon::Daemon;
use super::findings::Findings;
use super::group::{Group, any};
use super::poll::Pace;
use super::teller::Teller;
use super::{About, BoxWatcher, Context, Fault, Faults, Method, MethodInput};

/// Between two lists, unless the config says otherwise; events come in between.
const EVERY_SECONDS: u64 = 15;
/// Where Docker listened when Synapse was written.
const PORT: u16 = 4243;
/// What a container gets beyond its stop timeout.
const GRACE: Duration = Duration::from_secs(5);
/// SIGKILL asks for an end, whatever the container's own stop signal is.
const SIGKILL: i32 = 9;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    servers: Vec<DockerServer>,
    image_name: Option<String>,
    container_port: Option<u16>,
    internal: bool,
    network: Option<String>,
    check_interval: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DockerServer {
    name: Option<String>,
    host: String,
    port: Value,
    cert_path: Option<PathBuf>,
}

/// Which containers, on which hosts.
#[derive(Debug, Clone)]
pub struct DockerHosts {
    about: About,
    hosts: Vec<Host>,
    wanted: Arc<WantedPort>,
    pace: Pace,
}

#[derive(Debug, Clone)]
struct Host {
    name: Arc<str>,
    /// At which the published ports are reached.
    address: String,
    endpoint: Endpoint,
}

#[derive(Debug)]
struct WantedPort {
    image: String,
    port: u16,
    /// At the containers' own addresses, on this network if it is given.
    internal: bool,
    network: Option<String>,
    /// The labels that filters ask for.
    labels: BTreeSet<String>,
}

impl DockerServer {
    fn host(&self, n: usize) -> Result<Host, Fault> {
        let fault = |key: &str, why: String| Fault::new(format!("servers[{n}].{key}"), why);
        if self.host.is_empty() {
            return Err(fault("host", "is required".to_owned()));
        }
        let port = match &self.port {
            Value::Null => PORT,
            given => given
                .as_u64()
                .or_else(|| given.as_str()?.parse().ok())
                .and_then(|p| u16::try_from(p).ok().filter(|p| *p > 0))
                .ok_or_else(|| fault("port", format!("{given} is not between 1 and 65535")))?,
        };
        let bracketed = match self.host.parse::<std::net::Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => self.host.clone(),
        };
        let is_url = self.host.contains("://");
        let url = if is_url { self.host.clone() } else { format!("tcp://{bracketed}:{port}") };
        let endpoint = Endpoint::parse(&url, self.cert_path.clone());
        let endpoint =
            endpoint.map_err(|_| fault("host", format!("{:?} is no host, nor a daemon's URL", self.host)))?;
        // A daemon of this host publishes on this host; one that is given by URL, at its URL's host.
        let address = match (&endpoint, is_url) {
            (Endpoint::Unix(_), _) => "127.0.0.1".to_owned(),
            (Endpoint::Http { base, .. }, true) => {
                let url = reqwest::Url::parse(base).ok();
                url.and_then(|u| u.host_str().map(str::to_owned)).unwrap_or_default()
            }
            (Endpoint::Http { .. }, false) => self.host.clone(),
        };
        let name = self.name.clone().unwrap_or_else(|| address.clone()).into();
        Ok(Host { name, address, endpoint })
    }
}

impl Method for DockerHosts {
    fn read(asked: &MethodInput<'_>) -> Result<Self, Faults> {
        let keys: Keys = asked.keys()?;
        let mut faults = Faults::default();
        if keys.servers.is_empty() {
            faults.add("servers", "is required: Docker hosts");
        }
        let hosts = keys.servers.iter().enumerate().filter_map(|(n, s)| faults.take(s.host(n))).collect();
        let image = keys.image_name.filter(|i| !i.is_empty()).ok_or_else(|| Fault::new("image_name", "is required"));
        let port = keys.container_port.ok_or_else(|| Fault::new("container_port", "is required"));
        let (Some(image), Some(port), true) = (faults.take(image), faults.take(port), faults.0.is_empty()) else {
            return Err(faults);
        };
        let labels = asked.discovery.filters().map(|f| f.label.clone()).collect();
        let wanted = WantedPort { image, port, internal: keys.internal, network: keys.network, labels };
        let pace = Pace::every(keys.check_interval, EVERY_SECONDS);
        Ok(Self { about: asked.about.clone(), hosts, wanted: Arc::new(wanted), pace })
    }

    /// Services of one daemon share its containers and one stream of its events.
    fn watcher(&self, context: &mut Context) -> BoxWatcher {
        let mut watcher = |host: &Host| -> (Arc<str>, BoxWatcher) {
            let daemon = Daemon::shared(&host.endpoint, self.pace, context);
            let source = format!("{}/{}", self.about.source, host.name).into();
            let about = About { source, ..self.about.clone() };
            (
                host.name.clone(),
                Box::new(HostWatcher { about, host: host.clone(), wanted: self.wanted.clone(), daemon }),
            )
        };
        let watchers = self.hosts.iter().map(&mut watcher).collect();
        Box::new(Group::new(&self.about.source, watchers, any(), context))
    }

    fn servers(&self) -> Vec<String> {
        self.hosts.iter().map(|host| host.endpoint.to_string()).collect()
    }
}

/// One host.
#[derive(Debug)]
struct HostWatcher {
    about: About,
    host: Host,
    wanted: Arc<WantedPort>,
    daemon: Arc<Daemon>,
}

impl Watcher<Snapshot> for HostWatcher {
    type Error = Infallible;

    async fn run(self, out: Outlet<Snapshot>, cancel: CancellationToken) -> Result<(), Infallible> {
        let (containers, events) = self.daemon.listen();
        let judge = Judge { watcher: &self, events, containers, stopping: HashMap::new() };
        cancel.run_until_cancelled(judge.run(&Teller::new(out))).await;
        Ok(())
    }
}

/// Makes answers of what one host tells.
struct Judge<'a> {
    watcher: &'a HostWatcher,
    events: broadcast::Receiver<Event>,
    containers: Inlet<Containers>,
    /// Containers that were asked to stop, and until when that is believed.
    stopping: HashMap<ContainerId, Instant>,
}

impl Judge<'_> {
    /// Does not end: the daemon's picture lasts as long as its watchers.
    async fn run(mut self, teller: &Teller) {
        loop {
            let due = self.stopping.values().filter(|until| **until > Instant::now()).min().copied();
            tokio::select! {
                changed = self.containers.changed() => if changed.is_err() { return },
                event = self.events.recv() => match event {
                    Ok(event) => self.take(&event),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            while let Ok(event) = self.events.try_recv() {
                self.take(&event);
            }
            let observation = self.containers.borrow_and_update().clone();
            // What has stopped is not known while Docker does not tell.
            let told = |id: &ContainerId| matches!(&observation, Observation::Synced { snapshot } if !snapshot.refused.contains_key(id));
            self.stopping.retain(|id, until| *until > Instant::now() || !told(id));
            match observation {
                Observation::Synced { snapshot } => teller.tell(self.found(&snapshot).answer()),
                Observation::Pending { error: Some(error) } | Observation::Stale { error, .. } => teller.fail_by(error),
                Observation::Pending { error: None } => {}
            }
        }
    }

    fn take(&mut self, event: &Event) {
        let containers = self.containers.borrow();
        let Some(container) = containers.snapshot().and_then(|known| known.running.get(&event.container)) else {
            return;
        };
        match event.kind {
            EventKind::Kill { signal } if signal.is_none_or(|s| s == container.stop_signal || s == SIGKILL) => {
                let until = Instant::now() + container.stop_timeout + GRACE;
                self.stopping.insert(event.container.clone(), until);
            }
            EventKind::Start => drop(self.stopping.remove(&event.container)),
            _ => {}
        }
    }

    fn found(&self, containers: &Containers) -> Findings {
        let HostWatcher { about, host, wanted, .. } = self.watcher;
        let mut findings = Findings::new(about);
        for (id, why) in &containers.refused {
            findings.left_out(id.short(), why);
        }
        let mut all: Vec<&Arc<Container>> = containers.running.values().filter(|c| wanted.fits(c)).collect();
        all.sort_by_key(|c| (&c.started_at, &c.id));
        for container in all {
            match wanted.place(container, &host.address) {
                Err(why) => findings.left_out(&container.name, why),
                Ok((address, port)) => {
                    let mut map = Map::from_iter([
                        ("name".to_owned(), json!(&*host.name)),
                        ("host".to_owned(), json!(address)),
                        ("port".to_owned(), json!(port.to_string())),
                    ]);
                    let labels = container.labels.iter().filter(|(name, _)| wanted.labels.contains(*name));
                    let labels: Map<String, Value> = labels.map(|(name, value)| (name.clone(), json!(value))).collect();
                    if !labels.is_empty() {
                        map.insert("labels".to_owned(), Value::Object(labels));
                    }
                    if self.stopping.contains_key(&container.id) {
                        map.insert("status".to_owned(), json!("draining"));
                    }
                    findings.registration(&container.name, &map);
                }
            }
        }
        findings
    }
}

impl WantedPort {
    /// A container of the image that serves: it runs, and its HEALTHCHECK (if it has one) has passed.
    fn fits(&self, container: &Container) -> bool {
        let serves = container.state == State::Running && container.health.is_none_or(|h| h == Health::Healthy);
        serves && without_tag(&container.image) == without_tag(&self.image)
    }

    fn place(&self, container: &Container, host: &str) -> Result<(String, u16), String> {
        if self.internal {
            let mut networks = container.networks.iter();
            let network = networks.find(|(name, network)| {
                self.network.as_ref().is_none_or(|wanted| wanted == *name)
                    && (network.ipv4.is_some() || network.ipv6.is_some())
            });
            let address =
                network.and_then(|(_, n)| n.ipv4.map(|ip| ip.to_string()).or(n.ipv6.map(|ip| ip.to_string())));
            return address
                .map(|a| (a, self.port))
                .ok_or_else(|| "has no address of its own on that network".to_owned());
        }
        let port = container.ports.iter().find(|p| p.port.get() == self.port && p.transport == Transport::Tcp);
        let published = port.map(|p| p.published.as_slice()).unwrap_or_default();
        let reached = |ip: Option<std::net::IpAddr>| ip.is_none_or(|ip| !ip.is_loopback() || host == ip.to_string());
        match published.iter().find(|b| reached(b.ip)) {
            Some(binding) => Ok((host.to_owned(), binding.port.get())),
            None if published.is_empty() => Err(format!("does not publish its port {}/tcp", self.port)),
            None => Err(format!("publishes its port {}/tcp on a loopback address only", self.port)),
        }
    }
}

/// An image's reference without tag and digest: registry and namespace count.
fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name, // else the colon is a registry's port
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_compared_without_its_tag() {
        for (image, bare) in [
            ("example/web:1.2", "example/web"),
            ("reg:5000/web", "reg:5000/web"),
            ("reg:5000/web:1", "reg:5000/web"),
            ("web@sha256:abc", "web"),
            ("web:1@sha256:abc", "web"),
        ] {
            assert_eq!(without_tag(image), bare);
        }
    }
}
