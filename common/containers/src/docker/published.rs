//! Which ports of this host containers publish, whether they run or not. Reads only.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::client::{Docker, Scope};
use super::error::DockerError;
use super::list::Listed;
use agent::backoff::Backoff;
use agent::telemetry::Chain;
use agent::trouble::{News, Trouble};
use model::desired::ContainerId;

/// From one look to the next, if no event brings one.
const RESYNC: Duration = Duration::from_secs(10);
/// Events that come together are one look.
const TOGETHER: Duration = Duration::from_millis(50);

/// Names of containers by the TCP address that each publishes; `::` stands for every address of both families.
pub type PublishedPorts = BTreeMap<SocketAddr, Arc<str>>;

/// Watches what the containers of one daemon publish.
#[derive(Debug)]
pub struct PublishedSource {
    docker: Docker,
    /// What is known of each container, and the entry of the list that it was known by.
    known: BTreeMap<ContainerId, (Listed, PublishedPorts)>,
}

impl PublishedSource {
    /// A source; nothing is asked yet.
    pub fn new(docker: Docker) -> Self {
        Self { docker, known: BTreeMap::new() }
    }

    /// Looks once. A container that cannot be described publishes what it did.
    ///
    /// # Errors
    /// Any [`DockerError`]; what is known stays.
    pub async fn look(&mut self) -> Result<PublishedPorts, DockerError> {
        let mut known = BTreeMap::new();
        for entry in self.docker.list(Scope::All).await? {
            let Ok(id) = entry.id.parse::<ContainerId>() else { continue };
            let before = self.known.get(&id);
            let ports = match before {
                Some((same, ports)) if *same == entry => ports.clone(),
                _ => match self.docker.describe(id.as_str()).await {
                    Ok(described) => described.map(|reply| of_container(reply.value)).unwrap_or_default(),
                    Err(_) => before.map(|(_, ports)| ports.clone()).unwrap_or_default(),
                },
            };
            known.insert(id, (entry, ports));
        }
        self.known = known;
        Ok(self.known.values().flat_map(|(_, ports)| ports.clone()).collect())
    }

    /// Tells `out` what is published, and calls `changed` each time that it is something else, until `cancel`. Where the daemon
    /// fails, what it said last counts.
    pub async fn run(
        mut self,
        out: watch::Sender<Arc<PublishedPorts>>,
        changed: impl Fn() + Send,
        cancel: CancellationToken,
    ) {
        let (mut backoff, mut trouble) = (Backoff::new(Duration::from_millis(200), RESYNC), Trouble::default());
        loop {
            let Some(error) = cancel.run_until_cancelled(self.follow(&out, &changed, &mut trouble)).await else {
                return;
            };
            let chain = Chain(&error).to_string();
            if let News::Begins = trouble.fail(&chain) {
                warn!(error = %chain, "Docker does not tell which ports containers publish; what it said last counts.");
            }
            if cancel.run_until_cancelled(sleep(backoff.next_delay())).await.is_none() {
                return;
            }
        }
    }

    async fn follow(
        &mut self,
        out: &watch::Sender<Arc<PublishedPorts>>,
        changed: &(impl Fn() + Send),
        trouble: &mut Trouble,
    ) -> DockerError {
        let mut events = match self.docker.events().await {
            Ok(events) => events,
            Err(error) => return error,
        };
        loop {
            let published = match self.look().await {
                Ok(published) => published,
                Err(error) => return error,
            };
            if let Some(lasted) = trouble.end() {
                info!(away_s = lasted.as_secs(), "Docker tells again which ports containers publish.");
            }
            let news = out.send_if_modified(|known| {
                let news = **known != published;
                if news {
                    *known = Arc::new(published);
                }
                news
            });
            if news {
                changed();
            }
            match timeout_at(Instant::now() + RESYNC, events.next()).await {
                Ok(Err(error)) => return error,
                Ok(Ok(_)) => sleep(TOGETHER).await,
                Err(_) => {}
            }
        }
    }
}

/// What a container publishes over TCP: what it asked for, and what it has. Where it left the choice of a port to Docker, only what
/// it has counts.
fn of_container(described: ContainerInspectResponse) -> PublishedPorts {
    let name: Arc<str> = described.name.as_deref().unwrap_or("?").trim_start_matches('/').into();
    let asked = described.host_config.and_then(|host| host.port_bindings);
    let has = described.network_settings.and_then(|settings| settings.ports);
    let mut published = PublishedPorts::new();
    for (inside, bindings) in [asked, has].into_iter().flatten().flatten() {
        if inside.ends_with("/udp") || inside.ends_with("/sctp") {
            continue;
        }
        for binding in bindings.unwrap_or_default() {
            let port = binding.host_port.and_then(|port| port.parse::<u16>().ok()).filter(|port| *port != 0);
            let ip = match binding.host_ip.as_deref().unwrap_or_default() {
                "" => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
                ip => ip.parse().ok(),
            };
            if let (Some(port), Some(ip)) = (port, ip) {
                published.insert(SocketAddr::new(ip, port), name.clone());
            }
        }
    }
    published
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::client_of;
    use super::*;
    use testing::docker_api::{DockerApi, event, id};

    fn publishing(number: usize, status: &str, asked: &Value, has: &Value) -> Value {
        json!({
            "Id": id(number), "Name": format!("/c{number}"), "State": {"Status": status},
            "HostConfig": {"PortBindings": asked}, "NetworkSettings": {"Ports": has},
        })
    }

    fn read(described: Value) -> ContainerInspectResponse {
        serde_json::from_value(described).unwrap()
    }

    fn shown(published: &PublishedPorts) -> Vec<String> {
        published.iter().map(|(address, name)| format!("{address} {name}")).collect()
    }

    #[test]
    fn a_container_publishes_what_it_asked_for_and_what_it_has_over_tcp() {
        let asked = json!({
            "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "8081"}],
            "53/udp": [{"HostIp": "", "HostPort": "53"}],
            "90/tcp": [{"HostIp": "", "HostPort": ""}, {"HostIp": "", "HostPort": "9000-9010"}, {"HostIp": "x", "HostPort": "1"}],
            "91/tcp": null,
        });
        let has = json!({"90/tcp": [{"HostIp": "0.0.0.0", "HostPort": "49153"}], "99/tcp": null});
        let published = of_container(read(publishing(1, "running", &asked, &has)));
        assert_eq!(shown(&published), ["0.0.0.0:49153 c1", "127.0.0.1:8081 c1", "[::]:8080 c1"]);
        assert!(
            of_container(read(json!({}))).is_empty()
                && of_container(read(publishing(1, "created", &json!(null), &json!(null)))).is_empty()
        );
    }

    #[tokio::test]
    async fn stopped_containers_count_until_they_are_removed_and_a_daemon_that_fails_takes_nothing_away() {
        let mut api = DockerApi::start();
        api.put(publishing(1, "exited", &json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}), &json!({})));
        let (out, mut told) = watch::channel(Arc::default());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(PublishedSource::new(client_of(&api)).run(out, || {}, cancel.clone()));
        let until = async |told: &mut watch::Receiver<Arc<PublishedPorts>>, expected: &[&str]| {
            let holds = told.wait_for(|published| shown(published) == expected);
            tokio::time::timeout(Duration::from_secs(10), holds).await.unwrap().unwrap();
        };
        until(&mut told, &["[::]:8080 c1"]).await;
        api.go_away();
        api.listen();
        api.put(publishing(
            2,
            "created",
            &json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8081"}]}),
            &json!({}),
        ));
        until(&mut told, &["127.0.0.1:8081 c2", "[::]:8080 c1"]).await;
        api.remove(1);
        api.emit(&[event(1, "destroy")]);
        until(&mut told, &["127.0.0.1:8081 c2"]).await;
        cancel.cancel();
        task.await.unwrap();
    }
}
