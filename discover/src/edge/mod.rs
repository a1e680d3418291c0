//! The edge's decisions: which host and path, and which name of TLS, go to which service. Pure, no I/O.
//!
//! | module | what it holds |
//! |---|---|
//! | [`settings`] | what the operator decides: owners of hosts, rules of the config's own, automatic names |
//! | [`claims`] | what one service asks for |
//! | [`mod@decide`] | who gets what, and what the others are told |
//! | [`mod@upstreams`] | which registrations serve a place |
//! | [`sections`] | the names of its sections in haproxy.cfg |
//!
//! A request's host is looked up first: the very name, else the longest wildcard above it. Within that host the longest path
//! counts. So a wildcard takes nothing from a host that has a rule of its own. A host that the config gives to an owner stays
//! that owner's, even while it has no rule. Names of TLS that is passed through ([`Way::Sni`]) follow the same rules and share
//! the hosts' owners.

pub mod claims;
pub mod decide;
pub mod sections;
pub mod settings;
pub mod upstreams;

pub use decide::{Lost, Routing, Rule, decide};
pub use settings::{EdgeCertificates, EdgeSettings};
pub use upstreams::{Upstream, upstreams};

use std::collections::BTreeMap;
use std::fmt;

use model::{HostPattern, PathPrefix};

/// What of a client the edge looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// Its requests.
    Http,
    /// The name (SNI) in its ClientHello, and nothing else: TLS is passed through as it comes.
    Sni,
}

/// Where a rule applies: a host and a path under it, or a name of TLS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// What is looked at.
    pub way: Way,
    /// The host, or a wildcard.
    pub host: HostPattern,
    /// The path, and all below it; of TLS always `/`.
    pub path: PathPrefix,
}

impl Place {
    /// Of requests.
    pub fn http(host: HostPattern, path: PathPrefix) -> Self {
        Self { way: Way::Http, host, path }
    }

    /// Of TLS that is passed through.
    pub fn sni(name: HostPattern) -> Self {
        Self { way: Way::Sni, host: name, path: PathPrefix::root() }
    }
}

/// What a map has of one host, both of its requests and of its name of TLS.
pub fn of_host<'a, T>(map: &'a BTreeMap<Place, T>, host: &HostPattern) -> impl Iterator<Item = (&'a Place, &'a T)> {
    [Way::Http, Way::Sni].into_iter().flat_map(move |way| {
        let first = Place { way, host: host.clone(), path: PathPrefix::root() };
        let host = host.clone();
        map.range(first..).take_while(move |(place, _)| place.way == way && place.host == host)
    })
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way {
            Way::Http => write!(f, "{}{}", self.host, self.path),
            Way::Sni => write!(f, "TLS of {}", self.host),
        }
    }
}
