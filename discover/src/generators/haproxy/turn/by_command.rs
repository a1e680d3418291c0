//! A reload by an operator's command, as with Synapse.

use tokio::time::{Instant, sleep};

use super::connection::Connection;
use super::errors::ConnectionError;
use super::process::{MASTER_PATIENCE, POLL};
use crate::generators::output::shell;
use crate::haproxy::api::runtime::Runtime;

impl Connection {
    /// Runs the command; without one nobody reloads. Gives nothing of what HAProxy said.
    pub(super) async fn reload_by_command(&mut self) -> Result<(), ConnectionError> {
        let Some(command) = self.commands.reload.clone() else { return Ok(()) };
        let dead = if self.asks() && !self.worker.silent { self.dead_servers().await } else { Vec::new() };
        shell("reload_command", &command).await?;
        self.runtime.reopen();
        self.others.iter_mut().for_each(Runtime::reopen);
        if self.asks() {
            self.await_socket().await;
        }
        self.mark_dead(&dead).await;
        Ok(())
    }

    /// A command may return before the new worker answers. One that does not in time is found out by the next look.
    async fn await_socket(&mut self) {
        let began = Instant::now();
        while began.elapsed() < MASTER_PATIENCE {
            match self.runtime.info().await {
                Ok(info) if !info.stopping => return,
                _ => self.runtime.reopen(),
            }
            sleep(POLL).await;
        }
    }
}
