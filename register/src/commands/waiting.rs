//! What the admin server says until Docker has answered: that the agent lives, does nothing yet, and why.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use agent::admin::{AdminServer, Listen, StatusSource, Unready};
use agent::clock::unix_ms;
use agent::sync::lock;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::cli::RunArgs;
use crate::metrics::Metrics;

/// A start that takes no longer shows nothing of this.
const GRACE: Duration = Duration::from_millis(500);

/// Why the agent does not do its work yet.
#[derive(Debug)]
pub struct Waiting {
    why: Mutex<String>,
    started: SystemTime,
}

impl Waiting {
    /// For Docker, and for the address of this host.
    pub fn new() -> Arc<Self> {
        let why = Mutex::new("Docker has not answered yet".to_owned());
        Arc::new(Self { why, started: SystemTime::now() })
    }

    /// The newest reason, for people.
    pub fn because(&self, why: String) {
        *lock(&self.why) = why;
    }

    /// Serves it until this future is dropped.
    ///
    /// # Errors
    /// [`Failure`] when `--admin` is taken, or access cannot be told.
    pub async fn serve(self: Arc<Self>, args: &RunArgs, metrics: &Metrics) -> Result<Infallible, Failure> {
        sleep(GRACE).await;
        if let Listen::At(address) = args.admin {
            let access = args.access.access().map_err(Failure::usage)?;
            let (_changes, changed) = watch::channel(0);
            let server = AdminServer::new("register", self, Arc::new(metrics.registry()), changed).with_access(access);
            let bound = server.bind(address, "--admin").await.map_err(Failure::runtime)?;
            bound.run(CancellationToken::new()).await.map_err(Failure::runtime)?;
        }
        std::future::pending().await
    }
}

impl StatusSource for Waiting {
    fn status(&self) -> Value {
        let why = lock(&self.why).clone();
        json!({
            "program": "register", "version": self.version(), "started_unix_ms": unix_ms(self.started), "ready": why,
            "docker": {"state": "pending", "containers": 0, "error": why},
        })
    }

    fn version(&self) -> &'static str {
        crate::VERSION
    }

    fn script(&self) -> &'static str {
        include_str!("../page.js")
    }

    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> Result<(), Unready> {
        Err(Unready::new("docker", lock(&self.why).clone()))
    }

    fn reasons(&self) -> &'static [&'static str] {
        &["docker"]
    }
}
