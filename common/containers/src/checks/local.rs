//! A command on this host ends with status 0.

use std::process::Stdio;
use std::sync::{Arc, OnceLock};

use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;

use super::CheckError;
use super::error::excerpt;
use agent::environment;

/// How many commands run at once.
const AT_ONCE: usize = 8;
/// How much of what it says is kept.
const OUTPUT: u64 = 1024;

/// Runs a command of the agent's own config, as the agent's user. One that takes too long is killed.
#[derive(Debug, Clone)]
pub struct LocalProbe {
    command: Arc<[String]>,
}

impl LocalProbe {
    /// Runs `command`: a program and its arguments.
    pub fn new(command: &[String]) -> Self {
        Self { command: command.into() }
    }

    /// Tries once. Dropping it kills the command.
    ///
    /// # Errors
    /// Why it did not pass.
    pub async fn attempt(&self) -> Result<(), CheckError> {
        static RUNNING: OnceLock<Semaphore> = OnceLock::new();
        let _place = RUNNING.get_or_init(|| Semaphore::new(AT_ONCE)).acquire().await;
        let [program, args @ ..] = &*self.command else {
            return Err(CheckError::Impossible("there is no command".to_owned()));
        };
        let impossible = |e: std::io::Error| CheckError::Impossible(format!("running {program:?}: {e}"));
        let mut command = environment::inherited(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(impossible)?;
        let mut said = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            let _ = stderr.take(OUTPUT).read_to_end(&mut said).await; // only for the message
        }
        match child.wait().await.map_err(impossible)? {
            status if status.success() => Ok(()),
            status => Err(CheckError::Unexpected(format!("the command ended with {status}: {:?}", excerpt(&said)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_on_this_host_decides_by_its_status() {
        let probe = |line: &str| LocalProbe::new(&["sh", "-c", line].map(str::to_owned));
        probe("exit 0").attempt().await.unwrap();
        let error = probe("echo no >&2; exit 3").attempt().await.unwrap_err().to_string();
        assert!(error.contains("3") && error.contains("no"), "{error}");
        let missing = LocalProbe::new(&["/no/such/program".to_owned()]);
        assert!(matches!(missing.attempt().await, Err(CheckError::Impossible(_))));
    }
}
