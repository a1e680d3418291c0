//! The compose project: what runs of it, how to add to it as compose would, and where to look when it does not work.

use std::collections::HashMap;
use std::net::SocketAddr;

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig};
use e2e::docker::{Container, Docker};
use e2e::{Context, Result};

/// The project's name; `make demo-down` removes every container with this label.
const PROJECT: &str = "com.docker.compose.project=docker-register-demo";
/// Compose's name of the service within the project.
const SERVICE: &str = "com.docker.compose.service";
/// On what the demo itself started.
const EXTRA: &str = "docker-register-demo.extra";
/// Which port HAProxy serves whoami on: the label that compose.yaml gives them.
const SERVICE_PORT: &str = "register.80.service-port";

/// The demo's stack, up.
pub struct Stack {
    /// The daemon it runs on.
    pub docker: Docker,
    /// The names that its whoami containers answer with.
    pub whoami: Vec<String>,
    model: ContainerInspectResponse,
}

impl Stack {
    /// Finds it.
    pub async fn find(docker: Docker) -> Result<Self> {
        let whoami: Vec<_> =
            of_project(&docker).await?.into_iter().filter(|c| c.service == "whoami" && c.running).collect();
        let first = whoami.first().during("the demo's stack is not up: run `make demo`, or deploy/demo.sh up")?;
        let what = format!("inspecting {}", first.name);
        let model = docker.api().inspect_container(&first.id, None).await.during(what)?;
        let whoami = whoami.iter().map(|c| c.id[..12].to_owned()).collect();
        Ok(Self { docker, whoami, model })
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
        let config = self.model.config.clone().unwrap_or_default();
        // Without compose's own labels, but for the project's: compose would take it for one of its numbered ones.
        let mut labels = config.labels.unwrap_or_default();
        labels.retain(|key, _| !key.starts_with("com.docker.compose."));
        for label in [PROJECT, &format!("{EXTRA}=yes")] {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            labels.insert(key.to_owned(), value.to_owned());
        }
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
            exposed_ports: config.exposed_ports,
            host_config: Some(host_config),
            ..ContainerCreateBody::default()
        };
        self.docker.create_body(None, body).await
    }

    /// Removes what an earlier demonstration left.
    pub async fn remove_leftovers(&self) -> Result<()> {
        for (id, _) in self.docker.labelled(&format!("{EXTRA}=yes")).await? {
            let options = bollard::query_parameters::RemoveContainerOptions { force: true, v: true, link: false };
            self.docker.api().remove_container(&id, Some(options)).await.during(format!("removing {id}"))?;
        }
        Ok(())
    }
}

/// One container of the project.
struct Part {
    id: String,
    name: String,
    service: String,
    running: bool,
    status: String,
}

async fn of_project(docker: &Docker) -> Result<Vec<Part>> {
    let filters = HashMap::from([("label".to_owned(), vec![PROJECT.to_owned()])]);
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
pub async fn hints() -> Vec<String> {
    let look = async {
        let lab = e2e::Lab::new()?;
        of_project(&lab.docker().await?).await
    };
    match look.await {
        Ok(parts) if parts.is_empty() => vec!["nothing of the demo runs: deploy/demo.sh up".to_owned()],
        Ok(mut parts) => {
            parts.sort_by(|a, b| (a.running, &a.name).cmp(&(b.running, &b.name)));
            let hint = |part: &Part| format!("docker logs {}   # {}, {}", part.name, part.service, part.status);
            let mut hints: Vec<_> = parts.iter().filter(|p| !p.service.is_empty()).map(hint).collect();
            hints.push("curl http://127.0.0.1:9180/status http://127.0.0.1:9181/status".to_owned());
            hints
        }
        Err(error) => vec![format!("{error:?}")],
    }
}
