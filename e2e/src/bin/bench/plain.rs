//! A HAProxy with its own defaults, reloaded on every change: what generators of config files come to. Measured beside ours.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent::files::{Replace, replace};
use discover::haproxy::process::check::{CHECK_TIMEOUT, check};
use discover::haproxy::process::launch::await_master;
use discover::haproxy::process::master::{MasterCli, ReloadOutcome};
use e2e::haproxy::Haproxy;
use e2e::process::Process;
use e2e::scene::PATIENCE;
use e2e::{Context, Lab, LabError, Result};

/// The HAProxy; it ends with this.
pub struct Plain {
    program: PathBuf,
    config: PathBuf,
    master: MasterCli,
    _process: Process,
}

impl Plain {
    /// Starts it with these sections.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(lab: &Lab, haproxy: &Haproxy, sections: &str) -> Result<Self> {
        let dir = lab.subdir(&format!("plain-{}", haproxy.version))?;
        let (config, socket) = (dir.join("haproxy.cfg"), dir.join("master.sock"));
        replace(&config, text(sections).as_bytes(), Replace::default()).during("writing a config")?;
        let arguments = ["-W".into(), "-S".into(), format!("{},mode,600", socket.display()), "-f".into()];
        let arguments = arguments.into_iter().chain([config.display().to_string()]);
        let process = Process::spawn(lab, "plain", &haproxy.path, arguments, &[])?;
        let master = MasterCli::new(socket);
        await_master(&master, PATIENCE).await.during("starting a plain HAProxy")?;
        Ok(Self { program: haproxy.path.clone(), config, master, _process: process })
    }

    /// Checks these sections, writes them and reloads; tells how long that took.
    ///
    /// # Errors
    /// When HAProxy refuses.
    pub async fn load(&self, sections: &str) -> Result<Duration> {
        let began = Instant::now();
        let candidate = self.config.with_extension("candidate");
        replace(&candidate, text(sections).as_bytes(), Replace::default()).during("writing a config")?;
        check(&self.program, &candidate, CHECK_TIMEOUT).await.during("checking a config")?;
        std::fs::rename(&candidate, &self.config).during("replacing a config")?;
        self.reload().await?;
        Ok(began.elapsed())
    }

    /// Reloads what it has.
    ///
    /// # Errors
    /// When HAProxy refuses.
    pub async fn reload(&self) -> Result<()> {
        reload(&self.master).await
    }
}

/// Has a master reload, and waits for the outcome.
///
/// # Errors
/// When there is none, or it failed.
pub async fn reload(master: &MasterCli) -> Result<()> {
    match master.reload().await.during("reloading")? {
        ReloadOutcome::Loaded { .. } => Ok(()),
        ReloadOutcome::Failed { log } => Err(LabError::new(format!("a reload failed: {log}"))),
    }
}

fn text(sections: &str) -> String {
    format!(
        "global\n    maxconn 4096\ndefaults\n    mode http\n    timeout connect 2s\n    timeout client 1m\n    \
         timeout server 1m\n{sections}"
    )
}
