//! Whether what is registered works.

use std::path::Path;
use std::sync::Arc;

use model::desired::{CheckKind, HttpCheck};
use model::{Host, Port};
use tokio_util::task::AbortOnDropHandle;

use crate::cli::{CheckArgs, TryWhat};
use crate::nerve::config::{CheckConf, Limit, Service};
use crate::nerve::services::alone::{self, Health};

/// The checks of one registration.
pub struct Checks {
    news: tokio::sync::mpsc::Receiver<alone::News>,
    /// Dropping it ends them.
    _task: AbortOnDropHandle<()>,
}

impl Checks {
    /// Tries `what` at `host` and `port` from now on.
    pub fn start(what: &TryWhat, (host, port): (Host, Port), args: &CheckArgs) -> Self {
        let address = host.with_port(port);
        let kind = match what {
            TryWhat::Nothing => None,
            TryWhat::Tcp => Some(CheckKind::Tcp),
            TryWhat::Command(line) => {
                // What etcdbridge's users wrote was for bash.
                let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "sh" };
                Some(CheckKind::Exec { command: [shell, "-c", line].map(str::to_owned).to_vec() })
            }
            TryWhat::Http(path) => Some(CheckKind::Http(Box::new(HttpCheck {
                path: path.clone(),
                host: Some(address.clone()),
                ..HttpCheck::default()
            }))),
        };
        let check = |kind: CheckKind| CheckConf {
            name: format!("{}-{address}", kind.as_str()),
            kind,
            host: host.clone(),
            port,
            timeout: args.check_timeout,
            phases: None,
            rise: args.rise,
            fall: args.fall,
            hopeless: false,
        };
        let service = Service {
            name: "own".into(),
            payload: "".into(),
            interval: args.check_interval,
            checks: kind.into_iter().map(check).collect(),
            first_result: false,
            limit: Limit::default(),
            targets: Vec::new(),
            address: address.clone(),
        };
        let (news, task) = alone::start(Arc::new(service));
        Self { news, _task: task }
    }

    /// The next change. Cancel-safe.
    pub async fn changed(&mut self) -> Health {
        match self.news.recv().await {
            Some(news) => news.health,
            None => std::future::pending().await,
        }
    }
}
