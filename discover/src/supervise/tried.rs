//! What a start of HAProxy was tried with: the next try waits no longer than that stays.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use agent::config::files::stamps;
use tokio::time::{Instant, sleep};

use crate::haproxy::process::launch::Launch;
use crate::haproxy::process::program::ProgramFile;

/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// The program and the config, as they were.
pub(super) struct Tried {
    program: PathBuf,
    seen: ProgramFile,
    config: [PathBuf; 1],
    stamps: Vec<Option<(SystemTime, u64)>>,
}

impl Tried {
    /// As they are now.
    pub(super) fn with(launch: &Launch) -> Self {
        let (config, mut seen) = ([launch.config.clone()], ProgramFile::default());
        seen.is_replaced(&launch.program);
        Self { program: launch.program.clone(), seen, stamps: stamps(&config), config }
    }

    /// Waits `delay`, or until one of them is another: true then.
    pub(super) async fn wait(mut self, delay: Duration) -> bool {
        let until = Instant::now() + delay;
        while Instant::now() < until {
            sleep(POLL.min(delay)).await;
            if self.seen.is_replaced(&self.program) || stamps(&self.config) != self.stamps {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::haproxy::process::launch::Output;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_the_program_comes_or_the_config_changes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let launch = Launch {
            program: at("haproxy"),
            config: at("haproxy.cfg"),
            master_socket: at("m.sock"),
            args: Vec::new(),
            output: Output::Inherit,
        };
        let hour = Duration::from_secs(3600);
        assert!(!Tried::with(&launch).wait(hour).await);
        for name in ["haproxy", "haproxy.cfg", "haproxy.cfg"] {
            let (tried, began) = (Tried::with(&launch), Instant::now());
            std::fs::write(at(name), format!("{:?}", std::time::Instant::now())).unwrap();
            assert!(tried.wait(hour).await, "{name}");
            assert_eq!(began.elapsed(), POLL);
        }
    }
}
