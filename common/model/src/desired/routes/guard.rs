//! Restrictions of other proxies that the edge cannot keep (a password, client certificates, a list of addresses), and the places that they
//! close: a route of the same container that reached such a place would open it.

use crate::{HostPattern, PathPrefix, Port, Route};

/// What a restriction is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// It cannot be told, so it is everything.
    All,
    /// Requests of a host (`None`: of any) below a path.
    At(Option<HostPattern>, PathPrefix),
}

/// A restriction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// For which port; `None` where that cannot be told.
    pub port: Option<Port>,
    /// The label that restricts.
    pub by: String,
    /// What it closes.
    pub closed: Closed,
}

impl Guard {
    /// Why a route to `port` would open what is closed, if it would.
    pub fn closes(&self, port: Port, route: &Route) -> Option<String> {
        let reaches = match &self.closed {
            Closed::All => true,
            Closed::At(host, path) => {
                host.as_ref().is_none_or(|host| covers(&route.host, host)) && route.path.covers(path.as_str())
            }
        };
        (self.is_about(port) && reaches).then(|| self.told())
    }

    /// The same of TLS that is passed through.
    pub fn closes_name(&self, port: Port, name: &HostPattern) -> Option<String> {
        let reaches = match &self.closed {
            Closed::All => true,
            Closed::At(host, _) => host.as_ref().is_none_or(|host| covers(name, host)),
        };
        (self.is_about(port) && reaches).then(|| self.told())
    }

    fn is_about(&self, port: Port) -> bool {
        self.port.is_none_or(|own| own == port)
    }

    fn told(&self) -> String {
        format!(
            "would be open, though {} restricts who may reach it; the label register.<port>.vhost opens it all the same",
            self.by
        )
    }
}

/// Whether every host of `inner` is one of `outer`.
fn covers(outer: &HostPattern, inner: &HostPattern) -> bool {
    outer == inner || outer.covers(inner.wildcard().unwrap_or(inner.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_reaches_a_closed_place_is_closed_and_a_narrower_one_is_not() {
        let host = |text: &str| text.parse::<HostPattern>().unwrap();
        let at = |text: &str, path: &str| Closed::At(Some(host(text)), path.parse().unwrap());
        let eighty = Port::new(80).unwrap();
        for (closed, wanted, path, is_closed) in [
            (at("a.x", "/"), "a.x", "/", true),
            (at("a.x", "/"), "a.x", "/public", false),
            (at("a.x", "/admin"), "a.x", "/", true),
            (at("a.x", "/admin"), "a.x", "/admins", false),
            (at("a.x", "/admin"), "b.x", "/", false),
            (at("a.x", "/admin"), "*.x", "/", true),
            (at("*.a.x", "/"), "*.x", "/", true),
            (at("*.a.x", "/"), "b.a.x", "/", false),
            (at("*.x", "/"), "*.x", "/", true),
            (Closed::At(None, "/admin".parse().unwrap()), "b.x", "/", true),
            (Closed::All, "b.x", "/y", true),
        ] {
            let route = Route::new(host(wanted), path.parse().unwrap());
            let guard = |port| Guard { port, by: "label l".into(), closed: closed.clone() };
            assert_eq!(guard(None).closes(eighty, &route).is_some(), is_closed, "{closed:?} {route}");
            assert_eq!(guard(Some(eighty)).closes(eighty, &route).is_some(), is_closed, "{closed:?} {route}");
            assert_eq!(guard(Port::new(81)).closes(eighty, &route), None);
        }
    }
}
