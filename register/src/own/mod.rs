//! One registration with a lease of its own, for as long as a command runs: `put` and `exec`.
//!
//! | module | what it holds | may do I/O |
//! |---|---|---|
//! | this one | what is registered; taking it back | store |
//! | `hold` | the lease, and what is kept under it | store |
//! | `place` | one key, as it is in the registry | store |
//! | `health` | whether it is registered now | its checks |
//! | `replaced` | waiting for the one that takes its place | store |

pub mod health;
mod hold;
mod place;
pub mod replaced;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use model::{
    Backend, BackendId, Host, Layout, Mode, NodeName, Port, Routes, ServiceName, SniNames, Status, ValueFormat, encode,
};
use registry::store::{Compare, Key, LeaseId, Op, Store, StoreError};

use self::replaced::REPLACES;
use crate::cli::{Compat, OwnArgs};

pub use hold::hold;

/// What is registered, and how.
#[derive(Debug, Clone)]
pub struct Registration {
    pub key: String,
    /// What it says.
    pub backend: Backend,
    /// How it says it.
    pub format: ValueFormat,
    /// How long it outlives its holder.
    pub ttl: Duration,
    /// docker-register's key of the service's port, and what it says.
    pub port: Option<(String, String)>,
}

impl Registration {
    /// The registration of `service` at `host` and `port` that the flags ask for.
    ///
    /// # Errors
    /// An id that cannot stand in a key; routes that cannot all be.
    pub fn new(
        service: &ServiceName,
        host: Host,
        port: Port,
        args: &OwnArgs,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let id = args.id.clone().unwrap_or_else(|| format!("{host}:{port}"));
        let id: BackendId = id.parse()?;
        let node = match &args.node_name {
            Some(node) => node.clone(),
            None => "-".parse::<NodeName>()?, // the service layout has no place for it
        };
        let (prefix, layout) = (&args.etcd.etcd_prefix, args.form.layout.into());
        let key = prefix.backend(layout, &node, service, &id);
        let (routes, left_out) = Routes::new(args.routes.routes());
        if let Some(why) = left_out.into_iter().next() {
            return Err(format!("--vhost: {why}").into());
        }
        if args.mode == Some(Mode::Tcp) && !routes.is_empty() {
            return Err("--vhost is for --mode http".into());
        }
        let (sni, left_out) = SniNames::new(args.routes.sni.iter().cloned());
        if let Some(why) = left_out.into_iter().next() {
            return Err(format!("--sni: {why}").into());
        }
        if args.mode == Some(Mode::Http) && !sni.is_empty() {
            return Err("--sni is for --mode tcp".into());
        }
        let asked = match (routes.is_empty(), sni.is_empty()) {
            (false, _) => Some(Mode::Http),
            (true, false) => Some(Mode::Tcp),
            (true, true) => None,
        };
        let format: ValueFormat = args.form.value.into();
        // As `run` has it, a service without a port of its own is expected on its backend's; a plain value has no room for one.
        let compat = args.form.compat == Some(Compat::DockerRegister);
        let service_port = args.service_port.or(compat.then_some(port));
        let port_key = || prefix.service_port(layout, &node, service);
        let port_of_service = service_port.filter(|_| compat || format == ValueFormat::Plain);
        let backend = Backend {
            weight: args.weight,
            mode: args.mode.or(asked),
            routes,
            sni,
            service_port,
            labels: Arc::new(args.labels.iter().cloned().collect()),
            ..Backend::new(id, host, port)
        };
        let port = port_of_service.map(|port| (port_key(), port.to_string()));
        Ok(Self { key, backend, format, ttl: args.form.ttl, port })
    }

    /// The same registration, which takes the place of another one of its service.
    ///
    /// # Errors
    /// A form of value that has no room for it.
    pub fn replacing(mut self, id: &BackendId) -> Result<Self, &'static str> {
        if self.format == ValueFormat::Plain {
            return Err("--replaces needs --value json: a plain value has no room for it");
        }
        Arc::make_mut(&mut self.backend.labels).insert(REPLACES.to_owned(), id.to_string());
        Ok(self)
    }

    /// Below which keys the registrations of its service lie.
    pub fn siblings(&self, args: &OwnArgs) -> String {
        match (args.form.layout.into(), self.key.rsplit_once('/')) {
            (Layout::Service, Some((service, _))) => format!("{service}/"),
            _ => args.etcd.etcd_prefix.backends(),
        }
    }

    /// The value with this status; `None`: a form without room for it says it by having no key.
    pub fn value(&self, status: Status) -> Option<String> {
        if self.format == ValueFormat::Plain && status != Status::Up {
            return None;
        }
        Some(encode(&Backend { status, ..self.backend.clone() }, self.format))
    }
}

/// Takes the registration back: it drains, it goes, and its lease ends. Nothing is touched that is not under `lease`.
///
/// Readers take keys that vanish with their lease for a holder that died.
///
/// # Errors
/// A store that does not answer.
pub async fn leave<S: Store>(store: &S, own: &Registration, lease: LeaseId) -> Result<(), StoreError> {
    let key = Key::from(own.key.as_str());
    let ours = || vec![Compare::LeaseIs(key.clone(), lease)];
    if let Some(goodbye) = own.value(Status::Draining) {
        store.txn(ours(), vec![Op::put(key.clone(), goodbye.as_bytes(), Some(lease))]).await?;
    }
    store.txn(ours(), vec![Op::delete(key.clone())]).await?;
    store.revoke(lease).await
}
