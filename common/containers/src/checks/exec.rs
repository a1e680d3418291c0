//! A command in the container ends with status 0.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;

use super::error::excerpt;
use super::{Check, CheckError, Outcome};
use crate::docker::{Docker, DockerError};
use model::desired::ContainerId;

/// A command that does not end in this time is forgotten; until then no second one is started beside it.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// How many commands run at once on this host: each is three requests to Docker and a process.
const AT_ONCE: usize = 8;

type Run = JoinHandle<Result<(i64, Vec<u8>), DockerError>>;

/// Runs a command through Docker. Docker cannot stop a command, so one that takes too long runs on, and the check fails
/// until it has ended: commands never pile up in a container.
#[derive(Debug, Clone)]
pub struct ExecProbe {
    docker: Docker,
    container: ContainerId,
    command: Arc<[String]>,
    late: Arc<Mutex<Option<Run>>>,
}

impl ExecProbe {
    /// Runs `command` in `container`.
    pub fn new(docker: Docker, container: ContainerId, command: &[String]) -> Self {
        Self { docker, container, command: command.into(), late: Arc::default() }
    }

    fn start(&self) -> Run {
        let (docker, container, command) = (self.docker.clone(), self.container.clone(), self.command.clone());
        tokio::spawn(async move { docker.exec(&container, &command, FORGOTTEN).await })
    }
}

impl Check for ExecProbe {
    async fn attempt(&self, timeout: Duration) -> Outcome {
        static RUNNING: OnceLock<Semaphore> = OnceLock::new();
        // Waiting for a place is no failure of the command; it is never closed.
        let _place = RUNNING.get_or_init(|| Semaphore::new(AT_ONCE)).acquire().await;
        let mut late = self.late.lock().await;
        // Kept here while it runs: a dropped try leaves it for the next.
        let run = late.get_or_insert_with(|| self.start());
        let ended = tokio::time::timeout(timeout, run).await;
        let Ok(ended) = ended else { return Outcome::Fail(CheckError::Deadline { after: timeout }) };
        *late = None;
        match ended {
            Ok(Ok((0, _))) => Outcome::Pass,
            Ok(Ok((status, output))) => {
                let said = excerpt(&output);
                Outcome::Fail(CheckError::Unexpected(format!("the command ended with status {status}: {said:?}")))
            }
            Ok(Err(error)) => Outcome::Fail(CheckError::Exec(error)),
            Err(error) => Outcome::Fail(CheckError::Impossible(format!("the command's task failed: {error}"))),
        }
    }
}
