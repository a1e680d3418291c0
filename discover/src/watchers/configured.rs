//! The watchers that a config asks for, one for each service.

use std::sync::Arc;

use model::ServiceName;

use super::methods::AnyMethod;
use super::{BoxWatcher, Context, Method, MethodInput};
use crate::synapse::Config;

/// One service's watcher, not started.
#[derive(Debug, Clone)]
pub struct Configured {
    /// The service.
    pub service: ServiceName,
    method: Arc<AnyMethod>,
}

/// What is wrong with the services' `discovery`: everything at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfiguredError(pub Vec<String>);

/// The watchers that a config asks for.
///
/// # Errors
/// [`ConfiguredError`] with the key path of each problem.
pub fn configured(config: &Config) -> Result<Vec<Configured>, ConfiguredError> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for service in &config.services {
        match AnyMethod::read(&MethodInput::of(service)) {
            Ok(method) => good.push(Configured { service: service.name.clone(), method: Arc::new(method) }),
            Err(fault) => bad.push(format!("services.{}.discovery.{}: {}", service.name, fault.key, fault.why)),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(ConfiguredError(bad)) }
}

impl Configured {
    /// The servers as URLs, for messages and tests.
    pub fn servers(&self) -> Vec<String> {
        self.method.servers()
    }

    /// The watcher. Services of the same servers share one connection, kept in `context`.
    pub fn watcher(&self, context: &mut Context) -> BoxWatcher {
        self.method.watcher(context)
    }

    /// The name of its source in status and metrics.
    pub fn source_name(&self) -> Arc<str> {
        self.service.as_str().into()
    }

    /// The service that is empty when the watcher's answer does not name it.
    pub fn answers_for(&self) -> Option<ServiceName> {
        self.method.answers().then(|| self.service.clone())
    }
}
