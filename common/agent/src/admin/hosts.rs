//! The names under which the admin server answers.
//!
//! A page of any site can have its own name lead to 127.0.0.1 and then read, from its viewer's browser, what listens there ("DNS
//! rebinding"). The browser still sends that name as the host. So over loopback the server answers under names of this host alone.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::{Version, header};

/// Where a connection was accepted: its own address, not its client's. Each request carries it as an extension.
#[derive(Debug, Clone, Copy)]
pub(super) struct AcceptedAt(pub SocketAddr);

/// The names beside `localhost` and addresses.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts {
    given: Vec<String>,
}

impl Hosts {
    /// The operator's further names.
    pub fn new(given: &[String]) -> Self {
        let bare = |name: &String| name.trim().trim_end_matches('.').to_ascii_lowercase();
        Self { given: given.iter().map(bare).filter(|name| !name.is_empty()).collect() }
    }

    /// Whether this server answers under the name that the request gives. Beyond loopback every name will do, unless the operator has
    /// given some: only they know under which names others reach this host.
    pub fn admit(&self, request: &Request) -> bool {
        let at = request.extensions().get::<AcceptedAt>().map(|at| at.0.ip().to_canonical());
        let over_loopback = at.is_none_or(|ip| ip.is_loopback());
        if !over_loopback && self.given.is_empty() {
            return true;
        }
        let mut all = request.headers().get_all(header::HOST).iter();
        let (host, second) = (all.next().map(|value| value.to_str()), all.next());
        // A target with a host of its own is a proxy's business.
        if second.is_some() || request.uri().authority().is_some() {
            return false;
        }
        match host {
            // No browser speaks HTTP/1.0.
            None => request.version() == Version::HTTP_10,
            Some(Ok(host)) => self.is_ours(host, at),
            Some(Err(_)) => false,
        }
    }

    fn is_ours(&self, host: &str, at: Option<IpAddr>) -> bool {
        let Some(name) = without_port(host) else { return false };
        if let Ok(ip) = name.parse::<IpAddr>() {
            // No name leads here with an address as its host.
            return ip.to_canonical().is_loopback() || Some(ip.to_canonical()) == at;
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let own = || nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        name == "localhost" || self.given.contains(&name) || own().is_some_and(|own| own.eq_ignore_ascii_case(&name))
    }
}

/// The host of `HOST[:PORT]`, an IPv6 address without its brackets; `None`: it is neither.
fn without_port(text: &str) -> Option<&str> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = rest.strip_prefix(':').map(str::parse::<u16>);
    let good = rest.is_empty() || port.is_some_and(|port| port.is_ok());
    (good && !host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_cut_from_its_port_or_is_none() {
        for (text, host) in [
            ("localhost", Some("localhost")),
            ("localhost:9180", Some("localhost")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("[::1]:1", Some("::1")),
            ("[::1]", Some("::1")),
            ("", None),
            (":1", None),
            ("a:", None),
            ("a:b", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]x", None),
            ("a:1:2", None),
        ] {
            assert_eq!(without_port(text), host, "{text}");
        }
    }

    #[test]
    fn over_loopback_only_names_of_this_host_are_answered() {
        let ask = |at: &str, host: Option<&str>, given: &[&str]| {
            let mut request = Request::builder().uri("/status");
            if let Some(host) = host {
                request = request.header(header::HOST, host);
            }
            let mut request = request.body(axum::body::Body::empty()).unwrap();
            request.extensions_mut().insert(AcceptedAt(at.parse().unwrap()));
            Hosts::new(&given.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).admit(&request)
        };
        for good in ["localhost", "LOCALHOST.:9180", "127.0.0.1:9180", "127.9.9.9", "[::1]:9180", "[::ffff:127.0.0.1]"]
        {
            assert!(ask("127.0.0.1:9180", Some(good), &[]), "{good}");
        }
        let bad = [
            "evil.example",
            "evil.example:9180",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "",
            "a b",
        ];
        for bad in bad.into_iter().chain(["localhost:x", "localhost@evil", "[::1", "0.0.0.0"]) {
            for at in ["127.0.0.1:9180", "[::1]:9180", "[::ffff:127.0.0.1]:9180"] {
                assert!(!ask(at, Some(bad), &[]), "{bad} at {at}");
            }
        }
        assert!(!ask("127.0.0.1:9180", None, &[]), "HTTP/1.1 has a host");
        assert!(ask("127.0.0.1:9180", Some("admin.example:443"), &["Admin.example"]));
        assert!(ask("10.0.0.1:9180", Some("any.example"), &[]), "beyond loopback nobody knows the names");
        assert!(!ask("10.0.0.1:9180", Some("any.example"), &["admin.example"]));
        assert!(ask("10.0.0.1:9180", Some("10.0.0.1:9180"), &["admin.example"]), "its own address");
    }
}
