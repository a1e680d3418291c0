//! Who has which port: what the file said at the start, then what was chosen. Pure, with injected time.
//!
//! A service has its port until none of its backends asks for it any more. One that has gone altogether has it for a while longer:
//! its last container may only be restarting, and nobody is to take the port meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{InOrder, Pool, Port, ServiceMap, ServiceName, Transport};
use tokio::time::Instant;

use super::names::service_of;
use crate::haproxy::process::ports::tcp_binds;

/// The longest that the port of a service which has gone waits for it.
pub(super) const WAITS_FOR: Duration = Duration::from_secs(10);

/// The services that have ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tenants {
    of: BTreeMap<ServiceName, Port>,
    /// Ports of services that have gone, and until when they wait.
    vacant: BTreeMap<Port, (ServiceName, Instant)>,
}

impl Tenants {
    /// Takes over who had which port from the text of a file of ours, edited or not. What is known already counts more.
    pub fn recall(&mut self, file: &str) {
        for section in file.split("\n# service ").skip(1) {
            let Some((name, text)) = section.split_once('\n') else { continue };
            let text = text.split("\n# end of services\n").next().unwrap_or_default();
            let (Some(service), Some(bind)) = (service_of(name), tcp_binds(text).into_iter().next()) else {
                continue;
            };
            if let Some(port) = Port::new(bind.port()).filter(|port| self.tenant(*port).is_none()) {
                self.of.entry(service).or_insert(port);
            }
        }
    }

    /// The port that a service has.
    pub fn port_of(&self, service: &ServiceName) -> Option<Port> {
        self.of.get(service).copied()
    }

    /// Who has a port.
    pub fn tenant(&self, port: Port) -> Option<&ServiceName> {
        self.of.iter().find(|(_, has)| **has == port).map(|(service, _)| service)
    }

    /// All ports that somebody has.
    pub fn ports(&self) -> BTreeSet<Port> {
        self.of.values().copied().collect()
    }

    /// Who has gone and is waited for at this port.
    pub fn awaited(&self, port: Port) -> Option<&ServiceName> {
        self.vacant.get(&port).map(|(service, _)| service)
    }

    /// Lets go of the ports that their services ask for no more. One that has gone is waited for.
    pub fn review(&mut self, services: &ServiceMap, wait: Duration, now: Instant) {
        let Self { of, vacant } = self;
        let mut services = InOrder::of(services);
        of.retain(|service, port| match services.find(service).and_then(|pool| asks_for(pool, *port)) {
            Some(asks) => {
                vacant.remove(port);
                asks
            }
            None if wait.is_zero() => false,
            None => {
                let (_, until) = vacant.entry(*port).or_insert_with(|| (service.clone(), now + wait));
                *until > now
            }
        });
        vacant.retain(|_, (_, until)| *until > now);
    }

    /// Notes who listens where from now on.
    pub fn take(&mut self, listed: &BTreeMap<ServiceName, Port>) {
        for (service, port) in listed {
            if self.of.get(service) != Some(port) {
                self.of.retain(|_, has| has != port);
                self.of.insert(service.clone(), *port);
            }
        }
    }

    /// When a port waits no longer for a service that has gone, if another wants it.
    pub fn next_end(&self, wanted: impl Fn(Port) -> bool) -> Option<Instant> {
        self.vacant.iter().filter(|(port, _)| wanted(**port)).map(|(_, (_, until))| *until).min()
    }
}

/// Whether a pool asks for this port, which its service has; `None`: it has no backend that could. A backend that names no port
/// asks for the one there is.
fn asks_for(pool: &Pool, port: Port) -> Option<bool> {
    let mut tcp = pool.backends().iter().filter(|b| b.transport == Transport::Tcp).peekable();
    tcp.peek()?;
    Some(tcp.any(|b| b.service_port.is_none_or(|wanted| wanted == port)))
}
