//! The watchers that a config asks for, one for each service.

use std::fmt;
use std::sync::Arc;

use model::ServiceName;

use super::methods::AnyMethod;
use super::{BoxWatcher, Context, Fault, Method, MethodInput};
use crate::synapse::Config;
use crate::synapse::load::WrongKey;
use crate::synapse::types::Service;

/// One service's watcher, not started.
#[derive(Debug, Clone)]
pub struct Configured {
    /// The service.
    pub service: ServiceName,
    method: Arc<AnyMethod>,
}

/// What is wrong with the services' `discovery`: everything at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredError(pub Vec<WrongKey>);

impl std::error::Error for ConfiguredError {}

impl fmt::Display for ConfiguredError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |wrong: &WrongKey| format!("services.{}.{}: {}", wrong.service, wrong.key, wrong.why);
        f.write_str(&self.0.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

/// What of the services' `discovery` is doubtful only.
///
/// # Errors
/// [`ConfiguredError`] with the key path of each problem.
pub fn judged(config: &Config) -> Result<Vec<WrongKey>, ConfiguredError> {
    let watched = configured(config)?;
    let of = |(service, watched): (&Arc<Service>, &Configured)| -> Vec<WrongKey> {
        watched.method.doubts().into_iter().map(|doubt| wrong_key(service, doubt)).collect()
    };
    Ok(config.services.iter().zip(&watched).flat_map(of).collect())
}

/// The watchers that a config asks for.
///
/// # Errors
/// [`ConfiguredError`] with the key path of each problem.
pub fn configured(config: &Config) -> Result<Vec<Configured>, ConfiguredError> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for service in &config.services {
        match AnyMethod::read(&MethodInput::of(service)) {
            Ok(method) => good.push(Configured { service: service.name.clone(), method: Arc::new(method) }),
            Err(faults) => bad.extend(faults.0.into_iter().map(|fault| wrong_key(service, fault))),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(ConfiguredError(bad)) }
}

fn wrong_key(service: &Service, Fault { key, why }: Fault) -> WrongKey {
    WrongKey { service: service.name.clone(), key: key_path(service, &key), why }
}

/// Where a key of a service's discovery stands in its config: `discovery` beside `discovery_multi` is the watcher `primary`.
fn key_path(service: &Service, key: &str) -> String {
    match (service.raw.get("discovery_multi"), key.strip_prefix("watchers.primary.")) {
        (Some(_), None) => format!("discovery_multi.{key}"),
        (Some(_), Some(key)) => format!("discovery.{key}"),
        (None, _) => format!("discovery.{key}"),
    }
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
