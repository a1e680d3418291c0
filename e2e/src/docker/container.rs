//! One container, from its making to its end.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use bollard::exec::StartExecResults;
use bollard::models::{ContainerInspectResponse, ExecConfig};
use bollard::query_parameters::{KillContainerOptions, LogsOptions, StopContainerOptions};
use futures_util::StreamExt;

use super::{api, remove};
use crate::{Context, LabError, Result};

/// A container of ours. Dropping it removes it.
#[derive(Debug)]
pub struct Container {
    api: bollard::Docker,
    id: String,
    kept: bool,
}

impl Container {
    /// `kept` where something else ends it.
    pub(super) fn new(api: bollard::Docker, id: String, kept: bool) -> Self {
        Self { api, id, kept }
    }

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
        self.api.start_container(&self.id, None).await.during(format!("starting {}", self.short()))
    }

    /// `docker stop`: its stop signal, and SIGKILL after `grace` (whole seconds).
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        let t = Some(i32::try_from(grace.as_secs()).unwrap_or(i32::MAX));
        let options = StopContainerOptions { t, signal: None };
        self.api.stop_container(&self.id, Some(options)).await.during(format!("stopping {}", self.short()))
    }

    /// `docker kill`: SIGKILL.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn kill(&self) -> Result<()> {
        let options = KillContainerOptions { signal: "KILL".to_owned() };
        self.api.kill_container(&self.id, Some(options)).await.during(format!("killing {}", self.short()))
    }

    /// What the daemon knows of it.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn inspect(&self) -> Result<ContainerInspectResponse> {
        self.api.inspect_container(&self.id, None).await.during(format!("inspecting {}", self.short()))
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
    pub async fn own_address(&self) -> Result<IpAddr> {
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
        let exec = self.api.create_exec(&self.id, config).await.during(what.clone())?;
        if let StartExecResults::Attached { mut output, .. } =
            self.api.start_exec(&exec.id, None).await.during(what.clone())?
        {
            while output.next().await.is_some() {}
        }
        let ended = self.api.inspect_exec(&exec.id).await.during(what.clone())?;
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
        let mut stream = self.api.logs(&self.id, Some(options));
        let mut text = String::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.during(format!("reading the log of {}", self.short()))?;
            text += &String::from_utf8_lossy(&chunk.into_bytes());
        }
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// When it wrote its first line, by the daemon's timestamp; `None` when it has written nothing.
    ///
    /// # Errors
    /// When the daemon does not answer, or not with a timestamp.
    pub async fn first_line_at(&self) -> Result<Option<SystemTime>> {
        let tail = "all".to_owned();
        let options = LogsOptions { stdout: true, timestamps: true, tail, ..Default::default() };
        let what = format!("reading the log of {}", self.short());
        let Some(line) = self.api.logs(&self.id, Some(options)).next().await else { return Ok(None) };
        let line = line.during(what.clone())?.into_bytes();
        let line = String::from_utf8_lossy(&line);
        let at = line.split_whitespace().next().unwrap_or_default();
        humantime::parse_rfc3339(at).during(what).map(Some)
    }

    /// Removes it now, running or not.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn remove(mut self) -> Result<()> {
        self.kept = true;
        remove(&self.api, &self.id).await.during(format!("removing {}", self.short()))
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
