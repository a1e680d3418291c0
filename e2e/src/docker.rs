//! Containers of ours, and the daemon's events.

mod container;
mod events;
mod spec;

use std::collections::HashMap;
use std::path::Path;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptions, ListContainersOptions, RemoveContainerOptions};

pub use container::Container;
pub use events::{Event, Events};
pub use spec::Spec;

use crate::lab::{MARK, MARK_ENV, is_alive};
use crate::{Context, Result};

/// The demo's service, which `make images` builds.
pub const WHOAMI: &str = "docker-register-demo/whoami";

/// For a daemon's answer, in seconds.
const PATIENCE: u64 = 120;

/// A daemon, seen by one run.
#[derive(Debug, Clone)]
pub struct Docker {
    api: bollard::Docker,
    mark: String,
    of_lab: bool,
}

impl Docker {
    /// Connects to the daemon of DOCKER_HOST, else to the usual socket; removes what containers dead runs left behind.
    ///
    /// # Errors
    /// When no daemon answers, or the image of whoami is missing.
    pub async fn connect(mark: &str) -> Result<Self> {
        let docker = Self { api: api().during("finding Docker")?, mark: mark.to_owned(), of_lab: false };
        docker.api.ping().await.during("asking Docker (is the daemon running, and may you use its socket?)")?;
        docker.api.inspect_image(WHOAMI).await.during(format!("looking for the image {WHOAMI} (run `make images`)"))?;
        for (id, owner) in docker.labelled(MARK).await? {
            if !is_alive(&owner) {
                remove(&docker.api, &id).await.during(format!("removing {id}, left by the dead run {owner}"))?;
            }
        }
        Ok(docker)
    }

    /// Connects to a daemon of the run's own, whose containers end with it: they are not removed one by one.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of_lab(socket: &Path, mark: &str) -> Result<Self> {
        let path = socket.to_string_lossy();
        let api = bollard::Docker::connect_with_unix(&path, PATIENCE, bollard::API_DEFAULT_VERSION);
        let api = api.during(format!("finding Docker at {path}"))?;
        api.ping().await.during(format!("asking Docker at {path}"))?;
        Ok(Self { api, mark: mark.to_owned(), of_lab: true })
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
        let mut body = spec.body(&self.mark);
        if self.of_lab {
            // So that the run finds its processes also when the daemon was killed.
            body.env.get_or_insert_default().push(format!("{MARK_ENV}={}", self.mark));
        }
        self.create_body(spec.name.clone(), body).await
    }

    /// Makes a container of any kind. It goes at the guard's drop; a mark of the run is the caller's to add.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn create_body(&self, name: Option<String>, body: ContainerCreateBody) -> Result<Container> {
        let options = name.map(|name| CreateContainerOptions { name: Some(name), ..Default::default() });
        let what = format!("making a container of {}", body.image.clone().unwrap_or_default());
        let made = self.api.create_container(options, body).await.during(what)?;
        Ok(Container::new(self.api.clone(), made.id, self.of_lab))
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
