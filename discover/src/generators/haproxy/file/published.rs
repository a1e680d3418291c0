//! The ports that containers of this host publish: HAProxy keeps off them.
//!
//! A container that is stopped listens nowhere, so that a test-bind finds its port free; once HAProxy has it, the container cannot
//! start again. One that runs without Docker's userland proxy may have its port through the firewall alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use containers::docker::PublishedPorts;
use model::Port;
use tokio::sync::watch;

use super::assign::Shut;
use crate::haproxy::words::bind::ListenOn;

/// What containers publish, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Published(Option<watch::Receiver<Arc<PublishedPorts>>>);

impl Published {
    /// What a watcher of Docker tells.
    pub fn told_by(watcher: watch::Receiver<Arc<PublishedPorts>>) -> Self {
        Self(Some(watcher))
    }

    /// What was told last.
    pub fn told(&self) -> Option<Arc<PublishedPorts>> {
        self.0.as_ref().map(|told| told.borrow().clone())
    }

    /// Whether anybody tells.
    pub fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// The ports on which HAProxy would be in the way of a container. Those that a service `has` are not among them: HAProxy was
    /// there first, and the container that came later could not have started.
    pub fn ports(&self, listen: &ListenOn, has: &BTreeSet<Port>) -> BTreeMap<Port, Shut> {
        let Some(told) = &self.0 else { return BTreeMap::new() };
        let told = told.borrow();
        let in_the_way = told.iter().filter(|(address, _)| {
            let port = Port::new(address.port());
            port.is_some_and(|port| {
                !has.contains(&port) && listen.addresses(port).iter().any(|ours| overlap(ours, address))
            })
        });
        let shut = |(address, container): (&SocketAddr, &Arc<str>)| {
            Some((Port::new(address.port())?, Shut::Container(container.clone())))
        };
        in_the_way.filter_map(shut).collect()
    }
}

/// Whether two listeners at these addresses are in each other's way. `::` is taken to include IPv4, as HAProxy and Docker bind it.
fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_overlap_where_one_could_not_bind_beside_the_other() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (one, other, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "10.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::1]:80", "0.0.0.0:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
        ] {
            assert_eq!(overlap(&at(one), &at(other)), expected, "{one} {other}");
            assert_eq!(overlap(&at(other), &at(one)), expected, "{other} {one}");
        }
    }
}
