//! register with a live Podman in Docker's place: its API answers to the same requests, in its own words.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig, ResourcesUlimits};
use e2e::agents::{Agent, Register, binary};
use e2e::docker::{Docker, WHOAMI};
use e2e::lab::MARK;
use e2e::process::Process;
use e2e::scene::{PATIENCE, entries};
use e2e::{Context, Etcd, Lab, LabError, Result, free_port, in_lab, wait};

/// A Podman with directories and a socket of the run's own. It mounts nothing of its own (vfs), so the directory can go.
struct Podman {
    args: Vec<String>,
    socket: PathBuf,
}

impl Podman {
    fn new(lab: &Lab) -> Result<Self> {
        let dir = lab.subdir("podman")?;
        let at = |name: &str| dir.join(name).display().to_string();
        let places = [("--root", at("root")), ("--runroot", at("run")), ("--tmpdir", at("tmp"))];
        let mut args: Vec<String> = places.into_iter().flat_map(|(flag, at)| [flag.to_owned(), at]).collect();
        let words = "--storage-driver vfs --cgroup-manager cgroupfs --events-backend file --runtime runc";
        args.extend(words.split(' ').map(str::to_owned));
        Ok(Self { args, socket: dir.join("podman.sock") })
    }

    /// Brings an image of Docker's; gives its name here.
    fn load(&self, image: &str) -> Result<String> {
        let mut saved =
            Command::new("docker").args(["save", image]).stdout(Stdio::piped()).spawn().during("docker save")?;
        let tar = saved.stdout.take().during("docker save")?;
        let loaded = Command::new("podman").args(&self.args).arg("load").stdin(tar).output().during("podman load")?;
        saved.wait().during("docker save")?;
        let text = String::from_utf8_lossy(&loaded.stdout).into_owned();
        let name = text.lines().last().and_then(|line| line.rsplit(' ').next());
        name.filter(|_| loaded.status.success()).map(str::to_owned).during(format!("podman load: {loaded:?}"))
    }

    async fn serve(&self, lab: &Lab) -> Result<(Process, Docker)> {
        let socket = format!("unix://{}", self.socket.display());
        let line = self.args.iter().map(String::as_str).chain(["system", "service", "--time=0", &socket]);
        let process = Process::spawn(lab, "podman-api", Path::new("/usr/bin/podman"), line, &[])?;
        let answers = async || Docker::of_lab(&self.socket, lab.mark()).await.ok();
        Ok((process, wait::until("Podman's API", PATIENCE, answers).await?))
    }
}

impl Drop for Podman {
    /// Containers keep mounts below the run's directory, which could not go.
    fn drop(&mut self) {
        let removed = Command::new("podman").args(&self.args).args(["rm", "--all", "--force", "--time", "0"]).output();
        if !removed.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("podman rm: {removed:?}");
        }
    }
}

/// A whoami on the host's network: it needs no network of Podman's. There Podman tells no exposed ports, so a label has to.
fn whoami(lab: &Lab, image: &str, port: u16) -> ContainerCreateBody {
    let limit = |name: &str| ResourcesUlimits { name: Some(name.to_owned()), soft: Some(1024), hard: Some(1024) };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["--port".to_owned(), port.to_string()]),
        env: Some(lab.environment().map(|(key, value)| format!("{key}={value}")).into()),
        labels: Some(
            [(MARK, lab.mark()), ("register.service", "web"), ("register.port", &port.to_string())]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        ),
        host_config: Some(HostConfig {
            network_mode: Some("host".to_owned()),
            // Podman's own defaults are above what some machines allow.
            ulimits: Some(["nofile", "nproc"].map(limit).into()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// What the registry has of it: the statuses of its registrations.
async fn statuses(etcd: &Etcd) -> Vec<String> {
    let found = entries(etcd, "/backends/web/").await.unwrap_or_default();
    found.iter().map(|entry| entry.value["status"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn until(etcd: &Etcd, wanted: &[&str]) -> Result<()> {
    wait::until_true(&format!("registrations {wanted:?}"), PATIENCE, async || statuses(etcd).await == wanted).await
}

#[test]
fn a_live_podman_is_as_good_as_docker() -> Result<()> {
    in_lab(async |lab| {
        let podman = Podman::new(lab)?;
        let image = podman.load(WHOAMI)?;
        let (_process, api) = podman.serve(lab).await?;
        let etcd = Etcd::start();
        let socket = format!("unix://{}", podman.socket.display());
        let agent: Agent = Register::new("podman").args(&["--docker-host", &socket]).start(lab, &etcd).await?;

        // It comes, is told to stop, and goes. Podman tells no stop before it is done, so that nothing drains by itself.
        let port = free_port();
        let container = api.create_body(Some(format!("web-{}", lab.mark())), whoami(lab, &image, port)).await?;
        container.start().await?;
        until(&etcd, &["up"]).await?;
        container.stop(Duration::from_secs(5)).await?;
        until(&etcd, &[]).await?;

        // `register stop` drains it first.
        container.start().await?;
        until(&etcd, &["up"]).await?;
        let control = lab.subdir("podman-run")?.join("control.sock").display().to_string();
        let admin = agent.address().to_string();
        let at = ["--docker-host", &socket, "--control", &control, "--admin", &admin];
        let stop = ["stop", container.short(), "--grace", "1s"].into_iter().chain(at);
        let mut stopping = Process::spawn(lab, "stop", &binary("register")?, stop, &[])?;
        until(&etcd, &["draining"]).await?;
        if !stopping.ended(PATIENCE).await?.success() {
            return Err(LabError::new(stopping.log()));
        }
        until(&etcd, &[]).await?;

        // Killed and removed, it is gone as well.
        container.start().await?;
        until(&etcd, &["up"]).await?;
        container.kill().await?;
        until(&etcd, &[]).await?;
        container.remove().await?;
        assert_eq!(agent.metric("register_docker_odd_words_total").await?, 0.0, "every word of Podman's is known");
        Ok(())
    })
}
