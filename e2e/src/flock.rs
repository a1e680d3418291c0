//! Many containers without Docker: a scripted Docker API, with a real listener on loopback for each container.

use std::net::SocketAddr;

use common::testing::docker_api::{DockerApi, event, id, running};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::agents::{Agent, Register};
use crate::lab::MARK;
use crate::{Context, Etcd, Lab, Result};

/// A scripted daemon, and containers that may be started on it.
pub struct Flock {
    /// The daemon.
    pub api: DockerApi,
    mark: String,
    ports: Vec<u16>,
    labels: Vec<(String, String)>,
    /// Answers for the containers until it is dropped.
    _servers: JoinSet<()>,
}

impl Flock {
    /// A daemon, and listeners for `size` containers, none of which runs yet. All have these labels.
    ///
    /// # Errors
    /// When there are no more ports.
    pub async fn new(lab: &Lab, size: usize, labels: &[(&str, &str)]) -> Result<Self> {
        let (mut ports, mut servers) = (Vec::new(), JoinSet::new());
        for _ in 0..size {
            let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.during("listening")?;
            ports.push(listener.local_addr().during("listening")?.port());
            servers.spawn(serve(listener));
        }
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Ok(Self { api: DockerApi::start(), mark: lab.mark().to_owned(), ports, labels, _servers: servers })
    }

    /// How many containers there may be.
    pub fn size(&self) -> usize {
        self.ports.len()
    }

    /// Container `number` runs; nobody is told.
    pub fn start_silently(&self, number: usize) {
        let mut container = running(number, "flock");
        let port = self.ports.get(number).copied().unwrap_or_default();
        let name = format!("{port}/tcp");
        container["Config"]["ExposedPorts"] = json!({ name.as_str(): {} });
        container["NetworkSettings"] = json!({
            "Ports": { name.as_str(): [{"HostIp": "0.0.0.0", "HostPort": port.to_string()}] },
            "Networks": {"bridge": {"IPAddress": "127.0.0.1", "GlobalIPv6Address": ""}},
        });
        container["Config"]["Labels"][MARK] = self.mark.as_str().into();
        for (key, value) in &self.labels {
            container["Config"]["Labels"][key] = value.as_str().into();
        }
        self.api.put(container);
    }

    /// Container `number` starts.
    pub fn start(&self, number: usize) {
        self.start_silently(number);
        self.api.emit(&[event(number, "start")]);
    }

    /// Container `number` is asked to stop.
    pub fn kill(&self, number: usize) {
        self.api.emit(&[event(number, "kill")]);
    }

    /// Container `number` has ended.
    pub fn die(&self, number: usize) {
        self.api.remove(number);
        self.api.emit(&[event(number, "die")]);
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

/// Answers every request with 200.
async fn serve(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            // Whoever only connects is gone before anything is read.
            if stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
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
