//! The compose project: what runs of it, how to add to it as compose would, and where to look when it does not work.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig};
use e2e::docker::{Container, Docker};
use e2e::http::Client;
use e2e::{Context, Result, wait};
use serde_json::Value;

use crate::ROUTED;

/// Compose's name of the project; `make demo-down` and `make demo-edge-down` remove every container with it.
const PROJECT: &str = "com.docker.compose.project";
/// Compose's name of the service within the project.
const SERVICE: &str = "com.docker.compose.service";
/// On what the demo itself started, with the project's name.
const EXTRA: &str = "docker-register-demo.extra";
/// Which port HAProxy serves whoami on: the label that compose.yaml gives them.
const SERVICE_PORT: &str = "register.80.service-port";

/// Where the agents' statuses are, and HAProxy's: a variable of deploy/demo.sh, and the port without it.
pub const REGISTER: (&str, u16) = ("DEMO_REGISTER_PORT", 9180);
/// See [`REGISTER`].
pub const DISCOVER: (&str, u16) = ("DEMO_DISCOVER_PORT", 9181);
/// See [`REGISTER`].
pub const STATS: (&str, u16) = ("DEMO_STATS_PORT", 1936);

/// One of these ports, on loopback.
pub fn status_address((variable, default): (&str, u16)) -> SocketAddr {
    let given = std::env::var(variable).ok().and_then(|port| port.parse().ok());
    ([127, 0, 0, 1], given.unwrap_or(default)).into()
}

/// For `docker stop`; all of the demo's programs end at once when they are idle.
const GRACE: i32 = 10;

/// A demo's compose project.
#[derive(Debug, Clone, Copy)]
pub struct Project {
    /// Its name, unless [`Self::name`] finds another.
    usual: &'static str,
    /// The service whose containers are shown first.
    first: &'static str,
    make: &'static str,
}

impl Project {
    /// Its name: deploy/demo.sh may have been told another (DEMO_PROJECT).
    fn name(&self) -> String {
        std::env::var("DEMO_PROJECT").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| self.usual.to_owned())
    }
}

/// `make demo`.
pub const DEMO: Project = Project { usual: "docker-register-demo", first: "whoami", make: "make demo" };
/// `make demo-edge`.
pub const EDGE: Project = Project { usual: "docker-register-demo-edge", first: "client", make: "make demo-edge" };

/// The demo's stack, up.
pub struct Stack {
    /// The daemon it runs on.
    pub docker: Docker,
    /// The names that the containers of its first service answer with.
    pub first: Vec<String>,
    project: Project,
    model: ContainerInspectResponse,
}

impl Stack {
    /// Finds it.
    pub async fn find(docker: Docker, project: Project) -> Result<Self> {
        let parts = of_project(&docker, project).await?;
        let running: Vec<_> = parts.into_iter().filter(|c| c.service == project.first && c.running).collect();
        let first = running.first().during(format!("the demo's stack is not up: run `{}`", project.make))?;
        let model = inspect(&docker, first).await?;
        let first = running.iter().map(|c| c.host_name().to_owned()).collect();
        Ok(Self { docker, first, project, model })
    }

    /// The containers of one of its services, by name.
    pub async fn parts(&self, service: &str) -> Result<Vec<Part>> {
        let mut parts = of_project(&self.docker, self.project).await?;
        parts.retain(|part| part.service == service);
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(parts)
    }

    /// Where the HTTP edge is: discover's own variable says it.
    pub async fn edge_address(&self) -> Result<SocketAddr> {
        let discover = self.parts("discover").await?.into_iter().next().during("the stack has no discover")?;
        let env = inspect(&self.docker, &discover).await?.config.and_then(|config| config.env).unwrap_or_default();
        let address = env.iter().find_map(|line| line.strip_prefix("DISCOVER_EDGE=")?.parse().ok());
        address.during("discover's container has no DISCOVER_EDGE=ADDRESS:PORT")
    }

    /// `docker stop`.
    pub async fn stop(&self, part: &Part) -> Result<()> {
        let options = bollard::query_parameters::StopContainerOptions { t: Some(GRACE), signal: None };
        self.docker.api().stop_container(&part.id, Some(options)).await.during(format!("stopping {}", part.name))
    }

    /// `docker start`.
    pub async fn start_again(&self, part: &Part) -> Result<()> {
        self.docker.api().start_container(&part.id, None).await.during(format!("starting {}", part.name))
    }

    /// Waits until discover routes to so many live backends of a service.
    pub async fn routed(&self, service: &str, wanted: usize) -> Result<()> {
        let mut discover = Client::new(status_address(DISCOVER), true, Duration::from_secs(2));
        let path = format!("/services/{service}");
        wait::until_true(&format!("{wanted} live backends of {service}"), ROUTED, async || {
            let Ok(reply) = discover.get(&path).await else { return false };
            let Ok(known) = serde_json::from_str::<Value>(&reply.body) else { return false };
            let backends = known["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
            backends.iter().filter(|backend| backend["status"] == "up").count() == wanted
        })
        .await
    }

    /// Where HAProxy serves them.
    pub fn service_address(&self) -> Result<SocketAddr> {
        let labels = self.model.config.as_ref().and_then(|config| config.labels.as_ref());
        let port = labels.and_then(|labels| labels.get(SERVICE_PORT)).and_then(|port| port.parse().ok());
        let port: u16 = port.during(format!("whoami has no port in its label {SERVICE_PORT}"))?;
        Ok(([127, 0, 0, 1], port).into())
    }

    /// Makes one more, like those that compose made: image, labels, network, published ports.
    pub async fn create_more(&self) -> Result<Container> {
        let labels = self.model.config.clone().and_then(|config| config.labels).unwrap_or_default();
        // Without compose's own: compose would take it for one of its numbered ones.
        let labels = labels.into_iter().filter(|(key, _)| !key.starts_with("com.docker.compose."));
        Box::pin(self.create(labels, Vec::new())).await
    }

    /// Starts one that answers with `name`, with these labels after `register.` in place of the others'.
    pub async fn start(&self, name: &str, labels: &[(&str, &str)]) -> Result<Container> {
        let labels = labels.iter().map(|(key, value)| (format!("register.{key}"), (*value).to_owned()));
        let container = Box::pin(self.create(labels, vec![format!("WHOAMI_NAME={name}")])).await?;
        container.start().await?;
        Ok(container)
    }

    async fn create(&self, labels: impl Iterator<Item = (String, String)>, env: Vec<String>) -> Result<Container> {
        let config = self.model.config.clone().unwrap_or_default();
        let ours = [PROJECT, EXTRA].map(|key| (key.to_owned(), self.project.name()));
        let labels: HashMap<_, _> = labels.chain(ours).collect();
        let host = self.model.host_config.clone().unwrap_or_default();
        let host_config = HostConfig {
            port_bindings: host.port_bindings,
            network_mode: host.network_mode,
            cap_drop: host.cap_drop,
            security_opt: host.security_opt,
            readonly_rootfs: host.readonly_rootfs,
            ..HostConfig::default()
        };
        let body = ContainerCreateBody {
            image: config.image,
            labels: Some(labels),
            env: Some(env),
            exposed_ports: config.exposed_ports,
            host_config: Some(host_config),
            ..ContainerCreateBody::default()
        };
        self.docker.create_body(None, body).await
    }

    /// Removes what an earlier demonstration left.
    pub async fn remove_leftovers(&self) -> Result<()> {
        for (id, _) in self.docker.labelled(&format!("{EXTRA}={}", self.project.name())).await? {
            let options = bollard::query_parameters::RemoveContainerOptions { force: true, v: true, link: false };
            self.docker.api().remove_container(&id, Some(options)).await.during(format!("removing {id}"))?;
        }
        Ok(())
    }
}

/// One container of the project.
pub struct Part {
    id: String,
    /// Its name.
    pub name: String,
    service: String,
    running: bool,
    status: String,
}

impl Part {
    /// Its own host name, which a whoami answers with.
    pub fn host_name(&self) -> &str {
        &self.id[..12]
    }
}

async fn inspect(docker: &Docker, part: &Part) -> Result<ContainerInspectResponse> {
    docker.api().inspect_container(&part.id, None).await.during(format!("inspecting {}", part.name))
}

async fn of_project(docker: &Docker, project: Project) -> Result<Vec<Part>> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{PROJECT}={}", project.name())])]);
    let options =
        bollard::query_parameters::ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
    let found = docker.api().list_containers(Some(options)).await.during("listing the demo's containers")?;
    let part = |c: bollard::models::ContainerSummary| Part {
        id: c.id.unwrap_or_default(),
        name: c.names.unwrap_or_default().first().map(|n| n.trim_start_matches('/').to_owned()).unwrap_or_default(),
        service: c.labels.and_then(|mut labels| labels.remove(SERVICE)).unwrap_or_default(),
        running: c.state.is_some_and(|state| state.to_string() == "running"),
        status: c.status.unwrap_or_default(),
    };
    Ok(found.into_iter().map(part).collect())
}

/// What a person can look at when the demo does not work.
pub async fn hints(project: Project) -> Vec<String> {
    let look = async {
        let lab = e2e::Lab::new()?;
        of_project(&lab.docker().await?, project).await
    };
    match look.await {
        Ok(parts) if parts.is_empty() => vec![format!("nothing of the demo runs: {}", project.make)],
        Ok(mut parts) => {
            parts.sort_by(|a, b| (a.running, &a.name).cmp(&(b.running, &b.name)));
            let hint = |part: &Part| format!("docker logs {}   # {}, {}", part.name, part.service, part.status);
            let mut hints: Vec<_> = parts.iter().filter(|p| !p.service.is_empty()).map(hint).collect();
            let [register, discover] = [REGISTER, DISCOVER].map(status_address);
            hints.push(format!("curl http://{register}/status http://{discover}/status"));
            hints
        }
        Err(error) => vec![format!("{error:?}")],
    }
}
