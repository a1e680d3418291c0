//! Many containers without Docker: a scripted Docker API, with a real listener on loopback for each container.

use serde_json::json;
use testing::docker_api::{DockerApi, event, id, running};

use crate::agents::{Agent, Register};
use crate::lab::MARK;
use crate::server::Server;
use crate::{Context, Etcd, Lab, Result};

/// A scripted daemon, and containers that may be started on it.
pub struct Flock {
    /// The daemon.
    pub api: DockerApi,
    mark: String,
    labels: Vec<(String, String)>,
    /// The number of the first container: no two in one registry may have the same.
    first: usize,
    /// Those that answer for the containers.
    servers: Vec<Option<Server>>,
}

impl Flock {
    /// A daemon, and listeners for `size` containers, none of which runs yet. All have these labels.
    ///
    /// # Errors
    /// When there are no more ports.
    pub async fn new(lab: &Lab, size: usize, labels: &[(&str, &str)]) -> Result<Self> {
        let mut servers = Vec::with_capacity(size);
        for number in 0..size {
            servers.push(Some(Server::start(&format!("c{number}")).await?));
        }
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Ok(Self { api: DockerApi::start(), mark: lab.mark().to_owned(), labels, first: 0, servers })
    }

    /// The same with numbers from `first` on, for a registry with several flocks.
    #[must_use]
    pub fn from_number(mut self, first: usize) -> Self {
        self.first = first;
        self
    }

    /// The numbers that its containers have.
    pub fn numbers(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.servers.len()
    }

    /// How many containers there may be.
    pub fn size(&self) -> usize {
        self.servers.len()
    }

    /// Container `number` runs; nobody is told.
    pub fn start_silently(&self, number: usize) {
        self.start_as(number, &[]);
    }

    /// The same, with these labels in addition.
    pub fn start_as(&self, number: usize, labels: &[(&str, &str)]) {
        let mut container = running(number, "flock");
        let port = self.server(number).map_or(0, |server| server.address.port());
        let name = format!("{port}/tcp");
        container["Config"]["ExposedPorts"] = json!({ name.as_str(): {} });
        container["NetworkSettings"] = json!({
            "Ports": { name.as_str(): [{"HostIp": "0.0.0.0", "HostPort": port.to_string()}] },
            "Networks": {"bridge": {"IPAddress": "127.0.0.1", "GlobalIPv6Address": ""}},
        });
        container["Config"]["Labels"][MARK] = self.mark.as_str().into();
        let common = self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        for (key, value) in common.chain(labels.iter().copied()) {
            container["Config"]["Labels"][key] = value.into();
        }
        self.api.put(container);
    }

    fn server(&self, number: usize) -> Option<&Server> {
        self.servers.get(number.checked_sub(self.first)?)?.as_ref()
    }

    /// Container `number` answers no more, and nobody is told. Gives where it answered.
    pub fn silence(&mut self, number: usize) -> Option<std::net::SocketAddr> {
        let server = self.servers.get_mut(number.checked_sub(self.first)?)?.take()?;
        Some(server.address)
    }

    /// Container `number` starts.
    pub fn start(&self, number: usize) {
        self.start_silently(number);
        self.tell(number, "start");
    }

    /// A listener for one container more, which does not run yet; gives its number.
    ///
    /// # Errors
    /// When there are no more ports.
    pub async fn grow(&mut self) -> Result<usize> {
        let number = self.numbers().end;
        self.servers.push(Some(Server::start(&format!("c{number}")).await?));
        Ok(number)
    }

    /// The daemon tells that this happened to container `number`.
    pub fn tell(&self, number: usize, action: &str) {
        self.api.emit(&[event(number, action)]);
    }

    /// Container `number` is asked to stop.
    pub fn kill(&self, number: usize) {
        self.tell(number, "kill");
    }

    /// Container `number` has ended.
    pub fn die(&self, number: usize) {
        self.api.remove(number);
        self.tell(number, "die");
    }

    /// The key of container `number`.
    pub fn key(number: usize) -> String {
        format!("/backends/flock/{}", &id(number)[..12])
    }

    /// How `register` is started on this daemon.
    pub fn register(&self, node: &str, args: &[&str]) -> Register {
        Register::new(node).args(&["--docker-host", &self.api.host()]).args(args)
    }

    /// An agent on this daemon, ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn agent(&self, lab: &Lab, etcd: &Etcd, args: &[&str]) -> Result<Agent> {
        self.register("flock", args).start(lab, etcd).await
    }
}

/// How many backends etcd holds.
///
/// # Errors
/// When etcd does not answer.
pub async fn registered(client: &mut etcd_client::Client) -> Result<usize> {
    let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
    let reply = client.get("/backends/", Some(options)).await.during("counting backends")?;
    usize::try_from(reply.count()).during("counting backends")
}
