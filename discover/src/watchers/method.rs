//! The seam between a config and the watchers: what a method is asked, what it is given, what it makes.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use agent::watch::{Inlet, Outlet, Watcher};
use futures_util::future::BoxFuture;
use model::ServiceName;
use registry::store::etcd::EtcdConfig;
use registry::{Owners, Snapshot};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::reconcile::Source;
use crate::synapse::types::{Discovery, Service};

/// Why a watcher of any kind gave up.
pub type AnyError = Box<dyn Error + Send + Sync>;

/// A watcher of any kind, ready to run.
pub type BoxWatcher = Box<dyn AnyWatcher>;

/// A [`Watcher`] of whatever kind, with its own error's type forgotten.
pub trait AnyWatcher: Send {
    /// Runs until `cancel`. `Ok` means cancelled; `Err` means that no retry can help.
    fn run(
        self: Box<Self>,
        out: Outlet<Snapshot>,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<(), AnyError>>;
}

impl<W: Watcher<Snapshot>> AnyWatcher for W {
    fn run(
        self: Box<Self>,
        out: Outlet<Snapshot>,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, Result<(), AnyError>> {
        Box::pin(async move { Ok(Watcher::run(*self, out, cancel).await?) })
    }
}

/// The service for which a watcher answers.
#[derive(Debug, Clone)]
pub struct About {
    /// Its name.
    pub service: ServiceName,
    /// The port of every backend, whatever the source says; for a source that knows hosts only, the one it needs.
    pub port: Option<u16>,
    /// The watcher's name in status, logs and metrics: the service, below a `multi` with the watcher's own name.
    pub source: Arc<str>,
}

/// What a method is asked to read.
#[derive(Debug, Clone)]
pub struct MethodInput<'a> {
    /// For which service.
    pub about: About,
    /// What its config says; the table of keys has been held against it.
    pub discovery: &'a Discovery,
}

impl<'a> MethodInput<'a> {
    /// A service's own discovery.
    pub fn of(service: &'a Service) -> Self {
        let (name, port) = (service.name.clone(), service.backend_port_override);
        let source = name.as_str().into();
        Self { about: About { service: name, port, source }, discovery: &service.discovery }
    }

    /// The method's own keys; those of others are passed over.
    ///
    /// # Errors
    /// [`Fault`] naming the key.
    pub fn keys<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        let value = serde_json::Value::Object(self.discovery.raw.clone());
        serde_path_to_error::deserialize(value).map_err(|e| Fault::new(e.path().to_string(), e.inner()))
    }
}

/// What is wrong with one key of a service's discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, from `discovery` on.
    pub key: String,
    /// What about it.
    pub why: String,
}

impl Fault {
    /// A fault of `key`.
    pub fn new(key: impl Into<String>, why: impl ToString) -> Self {
        Self { key: key.into(), why: why.to_string() }
    }
}

/// Everything that is wrong with one service's discovery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl Faults {
    /// What was read; or nothing, and what is wrong with it is noted.
    pub fn take<T>(&mut self, read: Result<T, impl Into<Self>>) -> Option<T> {
        read.map_err(|faults| self.0.extend(faults.into().0)).ok()
    }

    /// Notes a fault of `key`.
    pub fn add(&mut self, key: impl Into<String>, why: impl ToString) {
        self.0.push(Fault::new(key, why));
    }

    /// The same below another key.
    #[must_use]
    pub fn below(self, path: &str) -> Self {
        Self(self.0.into_iter().map(|fault| Fault::new(format!("{path}.{}", fault.key), fault.why)).collect())
    }
}

/// What watchers of one config share: settings from the command line, and connections to the same servers.
pub struct Context {
    /// etcd as the flags and the environment say.
    pub etcd: EtcdConfig,
    /// Which nodes may register which services.
    pub owners: Owners,
    shared: HashMap<(TypeId, String), Box<dyn Any + Send>>,
    inner: Vec<Source>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("shared", &self.shared.len()).field("inner", &self.inner).finish()
    }
}

impl Context {
    /// Nothing is shared yet.
    pub fn new(etcd: EtcdConfig) -> Self {
        Self { etcd, owners: Owners::default(), shared: HashMap::new(), inner: Vec::new() }
    }

    /// With the operator's table of who may register what.
    #[must_use]
    pub fn with_owners(mut self, owners: Owners) -> Self {
        self.owners = owners;
        self
    }

    /// The one `T` of these servers: the first watcher that asks makes it, the others get clones.
    pub fn shared<T: Clone + Send + 'static>(&mut self, servers: &str, make: impl FnOnce() -> T) -> T {
        let key = (TypeId::of::<T>(), servers.to_owned());
        let known = self.shared.get(&key).and_then(|one| one.downcast_ref::<T>()).cloned();
        known.unwrap_or_else(|| {
            let made = make();
            self.shared.insert(key, Box::new(made.clone()));
            made
        })
    }

    /// Shows a watcher that stands below another one: it has a standing and an age of its own, and feeds nothing itself.
    pub fn show(&mut self, name: Arc<str>, inlet: Inlet<Snapshot>) {
        self.inner.push(Source { name, required: false, answers_for: None, inlet });
    }

    /// Every watcher that was [shown](Self::show).
    pub fn shown(self) -> Vec<Source> {
        self.inner
    }
}

/// One method of discovery: its part of a service's config, checked, and the watcher that this makes.
pub trait Method: fmt::Debug + Send + Sync + Sized + 'static {
    /// Reads its keys.
    ///
    /// # Errors
    /// [`Faults`] with every key that is wrong.
    fn read(asked: &MethodInput<'_>) -> Result<Self, Faults>;

    /// The watcher; it does no I/O before it runs.
    fn watcher(&self, context: &mut Context) -> BoxWatcher;

    /// Whether its answer is about the service: then one that does not name it says that there is no backend.
    fn answers(&self) -> bool {
        true
    }

    /// What it goes on without, though it may not be what was meant.
    fn doubts(&self) -> Vec<Fault> {
        Vec::new()
    }

    /// The servers that it asks, for messages and tests.
    fn servers(&self) -> Vec<String> {
        Vec::new()
    }
}
