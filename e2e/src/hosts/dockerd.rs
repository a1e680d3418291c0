//! A daemon of Docker's on a host.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Host, image, run};
use crate::docker::{Docker, WHOAMI};
use crate::process::Process;
use crate::{Context, Lab, Result, wait};

/// A start takes a second on a machine that does nothing else.
const START: Duration = Duration::from_mins(1);

/// A daemon. Its containers end with the run.
#[derive(Debug)]
pub struct Dockerd {
    process: Process,
    socket: PathBuf,
    mark: String,
}

impl Dockerd {
    /// A daemon on `host` that has the image of whoami, with these arguments in addition.
    ///
    /// # Errors
    /// When there is no dockerd, or it does not start.
    pub async fn start(lab: &Lab, host: &Host, args: &[&str]) -> Result<Self> {
        let dir = lab.subdir(host.name())?;
        // Without a file of its own it would read the one of the machine's daemon.
        let (config, socket) = (dir.join("daemon.json"), dir.join("docker.sock"));
        fs::write(&config, "{}").during("writing a daemon's config")?;
        let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let own = [
            format!("--data-root={}", at("data")),
            format!("--exec-root={}", at("exec")),
            format!("--pidfile={}", at("pid")),
            format!("--config-file={}", at("daemon.json")),
            format!("--host=unix://{}", at("docker.sock")),
            format!("--cgroup-parent={}", lab.cgroup()),
            // The one driver that every kernel and every file system can.
            "--storage-driver=vfs".to_owned(),
        ];
        let args = own.iter().map(String::as_str).chain(args.iter().copied());
        let name = format!("{}-dockerd", host.name());
        let process = host.spawn(lab, &name, Path::new("dockerd"), args, &[])?;
        let mut dockerd = Self { process, socket, mark: lab.mark().to_owned() };
        dockerd.answering().await?;
        let tar = image::whoami(lab)?;
        let tar = tar.to_string_lossy();
        let changes = ["--change", r#"ENTRYPOINT ["/whoami"]"#, "--change", "EXPOSE 80"];
        let host = dockerd.host();
        let args = ["-H", &host, "import"].into_iter().chain(changes).chain([&*tar, WHOAMI]);
        run("docker", args)?;
        Ok(dockerd)
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it does not, or has ended.
    pub async fn answering(&mut self) -> Result<()> {
        let host = self.host();
        let what = format!("an answer of {host}");
        let wait = wait::until(&what, START, async || {
            let answers = run("docker", ["-H", &host, "version"]).is_ok();
            (answers || !self.process.is_running()).then_some(answers)
        });
        let answers = wait.await?;
        answers.then_some(()).during(format!("the daemon ended:\n{}", self.process.log()))
    }

    /// Where it listens, as DOCKER_HOST has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Its API, for containers of this run.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn docker(&self) -> Result<Docker> {
        Docker::of_lab(&self.socket, &self.mark).await
    }

    /// The daemon's process, to be stopped, continued, killed and restarted. What it started lives on when it is killed.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
