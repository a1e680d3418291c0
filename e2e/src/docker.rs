//! Containers of ours, and the daemon's events.

mod events;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bollard::exec::StartExecResults;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ExecConfig, HealthConfig, HostConfig, PortBinding,
};
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, ListContainersOptions, LogsOptions, RemoveContainerOptions,
    StopContainerOptions,
};
use futures_util::StreamExt;

pub use events::{Event, Events};

use crate::lab::{MARK, is_alive};
use crate::{Context, LabError, Result};

/// The demo's service, which `make images` builds.
pub const WHOAMI: &str = "docker-register-demo/whoami";

/// A daemon, seen by one run.
#[derive(Debug, Clone)]
pub struct Docker {
    api: bollard::Docker,
    mark: String,
}

/// A container to be made. The default is a whoami that publishes port 80 on 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its image.
    pub image: String,
    /// Its name; else the daemon makes one up.
    pub name: Option<String>,
    /// Its labels; the run's mark is added.
    pub labels: HashMap<String, String>,
    /// Its environment.
    pub env: Vec<String>,
    /// The address on the host and the container's port, such as ("127.0.0.1", "80/tcp"); the daemon chooses the host's port.
    pub publish: Vec<(String, String)>,
    /// Ports that are exposed only.
    pub expose: Vec<String>,
    /// A shell command as HEALTHCHECK, run every second.
    pub healthcheck: Option<String>,
}

impl Spec {
    /// A whoami of this service.
    pub fn whoami(service: &str) -> Self {
        Self {
            image: WHOAMI.to_owned(),
            name: None,
            labels: HashMap::from([("register.service".to_owned(), service.to_owned())]),
            env: Vec::new(),
            publish: vec![("127.0.0.1".to_owned(), "80/tcp".to_owned())],
            expose: Vec::new(),
            healthcheck: None,
        }
    }

    /// A whoami of this service, to be served on that port as HTTP.
    pub fn served(service: &str, port: u16) -> Self {
        Self::whoami(service).label("register.80.service-port", port).label("register.80.mode", "http")
    }

    /// Adds or replaces a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: impl ToString) -> Self {
        self.labels.insert(key.to_owned(), value.to_string());
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl ToString) -> Self {
        self.env.push(format!("{key}={}", value.to_string()));
        self
    }

    fn body(&self, mark: &str) -> ContainerCreateBody {
        let mut labels = self.labels.clone();
        labels.insert(MARK.to_owned(), mark.to_owned());
        let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
        for (address, port) in &self.publish {
            let binding = PortBinding { host_ip: Some(address.clone()), host_port: None };
            bindings.entry(port.clone()).or_default().get_or_insert_default().push(binding);
        }
        let exposed = bindings.keys().chain(&self.expose).cloned().collect();
        let second = Some(1_000_000_000);
        let healthcheck = self.healthcheck.clone().map(|command| HealthConfig {
            test: Some(vec!["CMD-SHELL".to_owned(), command]),
            interval: second,
            timeout: second,
            retries: Some(1),
            ..HealthConfig::default()
        });
        ContainerCreateBody {
            image: Some(self.image.clone()),
            labels: Some(labels),
            env: Some(self.env.clone()),
            exposed_ports: Some(exposed),
            healthcheck,
            host_config: Some(HostConfig { port_bindings: Some(bindings), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        }
    }
}

impl Docker {
    /// Connects to the daemon of DOCKER_HOST, else to the usual socket; removes what containers dead runs left behind.
    ///
    /// # Errors
    /// When no daemon answers, or the image of whoami is missing.
    pub async fn connect(mark: &str) -> Result<Self> {
        let docker = Self { api: api().during("finding Docker")?, mark: mark.to_owned() };
        docker.api.ping().await.during("asking Docker (is the daemon running, and may you use its socket?)")?;
        docker.api.inspect_image(WHOAMI).await.during(format!("looking for the image {WHOAMI} (run `make images`)"))?;
        for (id, owner) in docker.labelled(MARK).await? {
            if !is_alive(&owner) {
                remove(&docker.api, &id).await.during(format!("removing {id}, left by the dead run {owner}"))?;
            }
        }
        Ok(docker)
    }

    /// The daemon's API itself.
    pub fn api(&self) -> &bollard::Docker {
        &self.api
    }

    /// Follows the events from now on; returns when the daemon has accepted that.
    ///
    /// # Errors
    /// When it does not.
    pub async fn events(&self) -> Result<Events> {
        Events::follow(&self.api).await
    }

    /// The ids of all containers with this label, running or not, and the label's value.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn labelled(&self, label: &str) -> Result<Vec<(String, String)>> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let found = self.api.list_containers(Some(options)).await.during("listing containers")?;
        let key = label.split('=').next().unwrap_or_default();
        let pair = |mut c: bollard::models::ContainerSummary| Some((c.id.take()?, c.labels?.remove(key)?));
        Ok(found.into_iter().filter_map(pair).collect())
    }

    /// Makes a container.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create(&self, spec: &Spec) -> Result<Container> {
        self.create_body(spec.name.clone(), spec.body(&self.mark)).await
    }

    /// Makes a container of any kind. It goes at the guard's drop; a mark of the run is the caller's to add.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_body(&self, name: Option<String>, body: ContainerCreateBody) -> Result<Container> {
        let options = name.map(|name| CreateContainerOptions { name: Some(name), ..Default::default() });
        let what = format!("making a container of {}", body.image.clone().unwrap_or_default());
        let made = self.api.create_container(options, body).await.during(what)?;
        Ok(Container { docker: self.clone(), id: made.id, kept: false })
    }

    /// Makes a container and starts it.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn run(&self, spec: &Spec) -> Result<Container> {
        let container = self.create(spec).await?;
        container.start().await?;
        Ok(container)
    }
}

/// A container of ours. Dropping it removes it.
#[derive(Debug)]
pub struct Container {
    docker: Docker,
    id: String,
    kept: bool,
}

impl Container {
    /// Its whole id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The first 12 digits: its host name, hence what a whoami answers, and its key in the registry.
    pub fn short(&self) -> &str {
        &self.id[..12]
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn start(&self) -> Result<()> {
        self.docker.api.start_container(&self.id, None).await.during(format!("starting {}", self.short()))
    }

    /// `docker stop`: its stop signal, and SIGKILL after `grace` (whole seconds).
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        let t = Some(i32::try_from(grace.as_secs()).unwrap_or(i32::MAX));
        let options = StopContainerOptions { t, signal: None };
        self.docker.api.stop_container(&self.id, Some(options)).await.during(format!("stopping {}", self.short()))
    }

    /// `docker kill`: SIGKILL.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn kill(&self) -> Result<()> {
        let options = KillContainerOptions { signal: "KILL".to_owned() };
        self.docker.api.kill_container(&self.id, Some(options)).await.during(format!("killing {}", self.short()))
    }

    /// What the daemon knows of it.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn inspect(&self) -> Result<ContainerInspectResponse> {
        self.docker.api.inspect_container(&self.id, None).await.during(format!("inspecting {}", self.short()))
    }

    /// Where a port such as `80/tcp` is published on the host.
    ///
    /// # Errors
    /// When it is not.
    pub async fn published(&self, port: &str) -> Result<SocketAddr> {
        let ports = self.inspect().await?.network_settings.and_then(|net| net.ports).unwrap_or_default();
        let binding = ports.get(port).and_then(Option::as_ref).and_then(|bindings| bindings.first());
        let address = binding.and_then(|b| format!("{}:{}", b.host_ip.as_ref()?, b.host_port.as_ref()?).parse().ok());
        address.during(format!("{port} of {} is not published", self.short()))
    }

    /// Its address on the daemon's default network.
    ///
    /// # Errors
    /// When it has none.
    pub async fn own_address(&self) -> Result<std::net::IpAddr> {
        let networks = self.inspect().await?.network_settings.and_then(|net| net.networks).unwrap_or_default();
        let address = networks.values().find_map(|network| network.ip_address.as_ref()?.parse().ok());
        address.during(format!("{} has no address", self.short()))
    }

    /// Runs a program in it, and waits for its end.
    ///
    /// # Errors
    /// When it cannot be run, or fails.
    pub async fn exec(&self, command: &[&str]) -> Result<()> {
        let what = format!("running {command:?} in {}", self.short());
        let command = Some(command.iter().map(|word| (*word).to_owned()).collect());
        let config = ExecConfig { cmd: command, attach_stdout: Some(true), ..ExecConfig::default() };
        let exec = self.docker.api.create_exec(&self.id, config).await.during(what.clone())?;
        if let StartExecResults::Attached { mut output, .. } =
            self.docker.api.start_exec(&exec.id, None).await.during(what.clone())?
        {
            while output.next().await.is_some() {}
        }
        let ended = self.docker.api.inspect_exec(&exec.id).await.during(what.clone())?;
        match ended.exit_code {
            Some(0) => Ok(()),
            code => Err(LabError::new(format!("{what} ended with {code:?}"))),
        }
    }

    /// What it wrote, line by line.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn log(&self) -> Result<Vec<String>> {
        let options = LogsOptions { stdout: true, stderr: true, tail: "all".to_owned(), ..Default::default() };
        let mut stream = self.docker.api.logs(&self.id, Some(options));
        let mut text = String::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.during(format!("reading the log of {}", self.short()))?;
            text += &String::from_utf8_lossy(&chunk.into_bytes());
        }
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Removes it now, running or not.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn remove(mut self) -> Result<()> {
        self.kept = true;
        remove(&self.docker.api, &self.id).await.during(format!("removing {}", self.short()))
    }

    /// Leaves it when the guard goes.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let id = std::mem::take(&mut self.id);
        // A drop cannot wait, and the runtime may be ending: a thread with a runtime and a connection of its own.
        let removal = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().during("starting tokio")?;
            runtime.block_on(async {
                remove(&api().during("finding Docker")?, &id).await.during(format!("removing {id}"))
            })
        });
        match removal.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("{error:?}"),
            Err(_) => eprintln!("removing a container panicked"),
        }
    }
}

fn api() -> Result<bollard::Docker, bollard::errors::Error> {
    bollard::Docker::connect_with_defaults()
}

async fn remove(api: &bollard::Docker, id: &str) -> Result<(), bollard::errors::Error> {
    let options = RemoveContainerOptions { force: true, v: true, link: false };
    match api.remove_container(id, Some(options)).await {
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()), // gone, or going
        other => other,
    }
}
